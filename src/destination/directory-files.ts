/**
 * How a directory destination makes files: whole or not at all, durable, and safe among processes that write the same
 * folder. Throws errors of the file system as they are.
 *
 * A file is written under a temporary name in its own folder, synced, and then given its name: with `link`, which never
 * replaces, or with `rename`, which does, under a lock if there is something to compare first.
 */
import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, link, lstat, mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DestinationError, errnoOf } from "../errors.ts";
import type { WriteOptions } from "./destination.ts";
import { LOCK_FILE_PREFIX, TEMP_FILE_PREFIX } from "./keys.ts";

/**
 * Makes a file at `path` of what `fill` writes, and the folders on the way. Null: the condition did not hold, and nothing
 * changed. The file survives a power loss once this returns.
 */
export async function writeAtomically(
  path: string,
  { condition, modifiedAt, signal }: Pick<WriteOptions, "condition" | "modifiedAt" | "signal">,
  fill: (file: FileHandle) => Promise<void>,
): Promise<Stats | null> {
  // Looking first spares the copy; `publish` decides.
  if (condition === "absent" && (await lstatOrNull(path)) !== null) return await refuse(path);
  const { file, path: temporaryPath } = await createTemporary(dirname(path));
  try {
    let stats: Stats;
    try {
      await fill(file);
      if (modifiedAt === undefined) await stampVersion(file);
      else await file.utimes(modifiedAt, modifiedAt);
      await file.sync();
      stats = await file.stat();
    } finally {
      await file.close();
    }
    signal?.throwIfAborted();
    if (!(await publish(temporaryPath, path, condition))) return await refuse(path);
    await syncFolder(dirname(path));
    return stats;
  } finally {
    // After `rename` it is gone; after `link` or a failure it is not.
    await unlinkIfThere(temporaryPath);
  }
}

/** Every write makes a new file with a time of its own (see `stampVersion`), so this differs whenever the content may. */
export function etagOf(stats: Stats): string {
  return `${stats.size.toString(16)}-${Math.round(stats.mtimeMs * 1000).toString(16)}-${stats.ino.toString(16)}`;
}

export async function lstatOrNull(path: string): Promise<Stats | null> {
  try {
    return await lstat(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return null;
    throw error;
  }
}

/** Makes and removes a temporary file: proves that `folder`, which is made if need be, can be written to. */
export async function probeFolder(folder: string): Promise<void> {
  const { file, path } = await createTemporary(folder);
  await file.close();
  await unlink(path);
}

/** Removes what processes that died in the middle of a write left in `folder`, once it is old. */
export async function removeStaleTemporaries(folder: string): Promise<void> {
  for (const name of await readdirOrNone(folder)) {
    if (!name.startsWith(TEMP_FILE_PREFIX)) continue;
    const path = join(folder, name);
    const stats = await lstatOrNull(path);
    if (stats?.isFile() && Date.now() - stats.mtimeMs > TEMP_STALE_MS) await unlinkIfThere(path);
  }
}

export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== "ENOENT" && errno !== "ENOTDIR") throw error;
  }
}

// --- internal ---

const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
/** Another process may remove a folder, empty as it is, between our making it and our using it. */
const CREATE_ATTEMPTS = 5;
/** A file that is still being written is younger: every chunk renews its time. */
const TEMP_STALE_MS = 3_600_000;
/** A lock is held for two system calls. One this old was left by a process that died in between. */
const LOCK_STALE_MS = 10_000;
const LOCK_POLL_MS = 5;
const LOCK_WAIT_MAX_MS = 20_000;
const NO_HARD_LINKS = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"]);

/**
 * Whoever finds its own bytes in the file that is there counts them as shipped. Its writer may have died before it
 * synced the folder, so that is done here.
 */
async function refuse(path: string): Promise<null> {
  await syncFolder(dirname(path));
  return null;
}

async function readdirOrNone(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return [];
    throw error;
  }
}

async function createTemporary(folder: string): Promise<{ file: FileHandle; path: string }> {
  const path = join(folder, temporaryName());
  for (let attempt = 1; ; attempt++) {
    try {
      if (attempt > 1) await ensureFolder(folder);
      return { file: await open(path, "wx", FILE_MODE), path };
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" || attempt === CREATE_ATTEMPTS) throw error;
    }
  }
}

function temporaryName(): string {
  return `${TEMP_FILE_PREFIX}${randomBytes(8).toString("hex")}`;
}

/** As `mkdir -p`, and what it made survives a power loss. */
async function ensureFolder(folder: string): Promise<void> {
  let outcome = await makeFolder(folder);
  if (outcome === "no-parent") {
    await ensureFolder(dirname(folder));
    // If the parent is gone again, whoever opens a file in here finds out.
    outcome = await makeFolder(folder);
  }
  if (outcome === "made") await syncFolder(dirname(folder));
}

async function makeFolder(folder: string): Promise<"made" | "there" | "no-parent"> {
  try {
    await mkdir(folder, { mode: FOLDER_MODE });
    return "made";
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "EEXIST" && (await stat(folder)).isDirectory()) return "there";
    if (errno === "ENOENT" && dirname(folder) !== folder) return "no-parent";
    throw error;
  }
}

/**
 * Gives the file a modification time that no other write of its name has: kernels stamp files with a clock that stands
 * still for milliseconds, and file numbers are used again, so size, time and number alone could repeat.
 */
async function stampVersion(file: FileHandle): Promise<void> {
  const now = (performance.timeOrigin + performance.now()) / 1000;
  await file.utimes(now, now);
}

/** Gives the temporary file its name. False: the condition did not hold. */
async function publish(temporaryPath: string, path: string, condition: WriteOptions["condition"]): Promise<boolean> {
  if (condition === "absent") {
    try {
      await link(temporaryPath, path);
      return true;
    } catch (error) {
      const errno = errnoOf(error) ?? "";
      if (errno === "EEXIST") return false;
      if (!NO_HARD_LINKS.has(errno)) throw error;
      // This file system has no hard links. Under the lock, every walsync that writes here waits for the others.
    }
  }
  return await withLock(path, async () => {
    if (condition !== undefined) {
      const stats = await lstatOrNull(path);
      const holds = condition === "absent" ? stats === null : stats !== null && etagOf(stats) === condition.etag;
      if (!holds) return false;
    }
    await rename(temporaryPath, path);
    return true;
  });
}

/**
 * Runs `action` while holding the lock of `path`: a file that only one process can create. A lock whose owner died is
 * taken over once it is old: renaming it away succeeds for one process only.
 */
async function withLock<T>(path: string, action: () => Promise<T>): Promise<T> {
  const lockPath = join(dirname(path), `${LOCK_FILE_PREFIX}${basename(path)}`);
  const deadline = performance.now() + LOCK_WAIT_MAX_MS;
  for (;;) {
    try {
      await (await open(lockPath, "wx", FILE_MODE)).close();
      break;
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
    }
    const stats = await lstatOrNull(lockPath);
    if (stats !== null && Date.now() - stats.mtimeMs > LOCK_STALE_MS) await takeAwayStaleLock(lockPath, stats.ino);
    else if (performance.now() > deadline) {
      throw new DestinationError(`${path}: expected its lock to become free, found ${lockPath} still there`, {
        retryable: true,
        hint: "Another process writes here all the time, or the clocks of two machines differ.",
      });
    } else await Bun.sleep(LOCK_POLL_MS * (1 + Math.random()));
  }
  try {
    return await action();
  } finally {
    await unlinkIfThere(lockPath);
  }
}

async function takeAwayStaleLock(lockPath: string, staleIno: number): Promise<void> {
  const awayPath = join(dirname(lockPath), temporaryName());
  try {
    await rename(lockPath, awayPath);
    // Somebody else may have taken the stale one away and locked anew in between. Give that lock back.
    if ((await lstat(awayPath)).ino !== staleIno) await link(awayPath, lockPath);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== "ENOENT" && errno !== "EEXIST") throw error;
  }
  await unlinkIfThere(awayPath);
}
