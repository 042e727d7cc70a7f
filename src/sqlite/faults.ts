/** Why SQLite could not open or use a database, in words that say what to do. */
import { closeSync, openSync } from "node:fs";
import { DESCRIPTORS_HINT, DESCRIPTORS_PER_DATABASE, isOutOfDescriptors } from "../durable.ts";
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";

/** True if another connection holds the lock that was asked for. */
export function isBusy(error: unknown): boolean {
  return errnoOf(error)?.startsWith("SQLITE_BUSY") === true;
}

/** What was thrown, as E_DATABASE with a hint; a `WalsyncError` passes through. */
export function asDatabaseError(path: string, error: unknown): WalsyncError {
  if (error instanceof WalsyncError) return error;
  const errno = errnoOf(error);
  const detail = { cause: error };
  if (errno === "ENOENT") {
    return new WalsyncError("E_DATABASE", `${path}: expected a database file, found nothing`, {
      ...detail,
      hint: "Check the path. What a destination holds can be fetched with: walsync restore",
    });
  }
  // SQLite does not say why it could not open a file.
  if (isOutOfDescriptors(errno) || (errno?.startsWith("SQLITE_CANTOPEN") === true && !hasDescriptorsLeft())) {
    return new WalsyncError("E_DATABASE", `${path}: expected to open it, found no file descriptor left`, {
      ...detail,
      hint: DESCRIPTORS_HINT,
    });
  }
  if (errno !== undefined && /^(EACCES|EPERM|EROFS|SQLITE_(CANTOPEN|READONLY)(_\w+)?)$/.test(errno)) {
    return new WalsyncError("E_DATABASE", `${path}: expected to read and lock it, found no permission (${errno})`, {
      ...detail,
      hint: "walsync needs read and write access to the database, its -wal and -shm files and their folder.",
    });
  }
  return new WalsyncError("E_DATABASE", `${path}: cannot be opened: ${messageOf(error)}`, {
    ...detail,
    hint: isBusy(error)
      ? "Another process keeps it locked for itself. Check whether it uses PRAGMA locking_mode=EXCLUSIVE."
      : "Run PRAGMA integrity_check on it with sqlite3. Encrypted databases are not supported.",
  });
}

// --- internal ---

/** What was opened before the failure is closed again by now. */
function hasDescriptorsLeft(): boolean {
  const opened: number[] = [];
  try {
    for (let i = 0; i < DESCRIPTORS_PER_DATABASE; i++) opened.push(openSync("/dev/null", "r"));
    return true;
  } catch (error) {
    return !isOutOfDescriptors(errnoOf(error));
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}
