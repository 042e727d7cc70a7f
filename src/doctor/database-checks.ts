/** What is checked of one database. Its files are looked at and never written, and nothing of them is locked. */
import { accessSync, closeSync, constants, existsSync, lstatSync, openSync, statfsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { MiB } from "../bytes.ts";
import { errnoOf } from "../errors.ts";
import { lockHolder } from "../libc.ts";
import { PENDING_BYTE } from "../page.ts";
import { formatBytes } from "../quantities.ts";
import { lockHolderIn } from "../replication/lock.ts";
import { readFileHeader } from "../sqlite/file-header.ts";
import { type Check, failed, ok, skipped, type Verdict, warning } from "./check.ts";
import { existingAncestor } from "./folders.ts";

export interface DatabaseToCheck {
  path: string;
  /** Where walsync keeps its own files about it. It need not exist. */
  stateFolder: string;
  /** `watch` may switch it to WAL mode. */
  enableWal: boolean;
}

export const DATABASE_CHECKS: readonly Check<DatabaseToCheck>[] = [
  { check: "file", run: checkFile },
  { check: "journal mode", needs: ["file"], run: checkJournalMode },
  { check: "permissions", needs: ["file"], run: checkPermissions },
  { check: "state folder", run: checkStateFolder },
  { check: "disk space", needs: ["file"], run: checkDiskSpace },
  { check: "WAL size", needs: ["file"], run: checkWalSize },
  { check: "locking mode", needs: ["file"], run: checkLockingMode },
  { check: "watcher", run: checkWatcher },
];

// --- internal ---

function checkFile({ path }: DatabaseToCheck): Verdict {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) {
    return failed("there is no such file", "Check the path. What a destination holds comes with: walsync restore.");
  }
  if (!stats.isFile()) return failed("it is not a file", "Name the database file itself.");
  if (stats.size === 0) return failed("it is empty", "Start walsync once the application has created its tables.");
  const header = readFileHeader(path);
  if (header === null) {
    return failed("it is not a SQLite database", "Check the path. Encrypted databases are not supported.");
  }
  return ok(`${formatBytes(stats.size)}, pages of ${header.pageSize} bytes`);
}

function checkJournalMode({ path, enableWal }: DatabaseToCheck): Verdict {
  if (readFileHeader(path)?.isWal === true) return ok("WAL");
  if (enableWal) return warning("not WAL", "Nothing to do: watch switches it to WAL when it starts.");
  return failed("not WAL", 'Run "PRAGMA journal_mode=WAL" in the application, or pass --enable-wal.');
}

function checkPermissions({ path }: DatabaseToCheck): Verdict {
  const { R_OK, W_OK, X_OK } = constants;
  const files = [path, `${path}-wal`, `${path}-shm`].filter((file) => existsSync(file));
  const refused = files.filter((file) => !isAllowed(file, R_OK | W_OK));
  // SQLite makes the -wal and -shm files there.
  if (!isAllowed(dirname(path), R_OK | W_OK | X_OK)) refused.push(dirname(path));
  if (refused.length === 0) return ok("the database and its folder can be read and written");
  const hint = "walsync needs read and write access to the database, its -wal and -shm files and their folder.";
  return failed(`no permission: ${refused.join(", ")}`, hint);
}

function checkStateFolder({ stateFolder }: DatabaseToCheck): Verdict {
  const stats = lstatSync(stateFolder, { throwIfNoEntry: false });
  if (stats?.isSymbolicLink() === true) {
    return failed(
      `${stateFolder} is a symbolic link`,
      "Remove it. To keep walsync's own files elsewhere: --state-dir.",
    );
  }
  if (stats?.isDirectory() === false) return failed(`${stateFolder} is not a folder`, "Remove it, or use --state-dir.");
  const place = existingAncestor(stateFolder);
  if (!isAllowed(place, constants.R_OK | constants.W_OK | constants.X_OK)) {
    return failed(`${place} cannot be written`, "Give walsync permission to write there, or use --state-dir.");
  }
  return ok(place === stateFolder ? stateFolder : `${stateFolder}, to be made`);
}

/** A snapshot is staged in the outbox before it is uploaded: one compressed copy of the database. */
function checkDiskSpace({ path, stateFolder }: DatabaseToCheck): Verdict {
  const place = existingAncestor(stateFolder);
  const { bavail, bsize } = statfsSync(place);
  const freeBytes = bavail * bsize;
  const neededBytes = sizeOf(path) + sizeOf(`${path}-wal`);
  const message = `${formatBytes(freeBytes)} free in ${place}, for a database of ${formatBytes(neededBytes)}`;
  const hint = "A snapshot is staged there, compressed. Free some space, or use --state-dir on another disk.";
  if (freeBytes >= neededBytes) return ok(message);
  return freeBytes * COMPRESSION_AT_BEST < neededBytes ? failed(message, hint) : warning(message, hint);
}

function checkWalSize({ path }: DatabaseToCheck): Verdict {
  const walBytes = sizeOf(`${path}-wal`);
  const message = walBytes === 0 ? "none" : formatBytes(walBytes);
  if (walBytes <= Math.max(LARGE_WAL_BYTES, sizeOf(path))) return ok(message);
  return warning(
    `${message}, more than the database itself`,
    'Look for a read transaction that stays open, then run "PRAGMA wal_checkpoint(TRUNCATE)" while walsync is stopped.',
  );
}

/** A connection in locking_mode=EXCLUSIVE keeps every other one out, for good. */
function checkLockingMode({ path }: DatabaseToCheck): Verdict {
  if (process.platform !== "linux") return skipped("cannot be asked on this system");
  const fd = openSync(path, "r");
  try {
    const holder = lockHolder(fd, PENDING_BYTE + SHARED_LOCK_OFFSET, "exclusive");
    if (holder === 0) return ok("nobody locks it for itself");
    const hint = "Use PRAGMA locking_mode=NORMAL in the application: with EXCLUSIVE nobody else can read the database.";
    return failed(`process ${holder} locks it for itself`, hint);
  } finally {
    closeSync(fd);
  }
}

function checkWatcher({ stateFolder }: DatabaseToCheck): Verdict {
  const holder = lockHolderIn(stateFolder);
  return ok(holder === null ? "nobody watches it" : `watched by ${holder}; a second watch is refused`);
}

/** Databases that compress better than this are rare. */
const COMPRESSION_AT_BEST = 4;
/** SQLite's own checkpoints keep a WAL at about 4 MiB. */
const LARGE_WAL_BYTES = 64 * MiB;
/** First byte behind the pending byte that readers share. Spec: https://www.sqlite.org/lockingv3.html */
const SHARED_LOCK_OFFSET = 2;

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function isAllowed(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return false;
  }
}
