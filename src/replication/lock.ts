/**
 * One walsync per database: a lock that the kernel drops when its process dies, however it dies.
 * It is flock(2) on a file of our own, never on a file of the database.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import { asDiskError, isNameOf, makePrivateFolder } from "../durable.ts";
import { errnoOf, WalsyncError } from "../errors.ts";
import { tryLockFile } from "../libc.ts";

export interface HeldLock {
  /** False once somebody removed the file, with its folder perhaps: the lock keeps nobody out then. */
  isInPlace(): boolean;
  release(): void;
}

/**
 * Takes the lock in `folder`, making the folder. Throws E_LOCKED and names the holder if another process has it, E_DISK.
 * A folder that holds nothing else when the lock is released goes with it.
 */
export function acquireLock(folder: string, databasePath: string): HeldLock {
  const path = join(folder, LOCK_FILE);
  const fd = openLocked(folder, path, databasePath);
  const holder = Buffer.from(`walsync, process ${process.pid}\n`);
  // Usually the last one's is as long, and emptying a file costs more than all else here.
  if (fstatSync(fd).size > holder.byteLength) ftruncateSync(fd);
  writeSync(fd, holder, 0, holder.byteLength, 0);
  const isInPlace = () => isNameOf(path, fd);
  return {
    isInPlace,
    release: () => {
      // Another file of this name is another process's lock.
      if (isInPlace()) removeIfAlone(folder, path);
      closeSync(fd);
    },
  };
}

/**
 * Who holds the lock in `folder`, in the words of the lock file; null if nobody does. Makes nothing. Takes the lock for a
 * moment if it is free.
 */
export function lockHolderIn(folder: string): string | null {
  let fd: number;
  try {
    fd = openSync(join(folder, LOCK_FILE), constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return null;
    throw asDiskError(folder, error);
  }
  try {
    return tryLockFile(fd) ? null : readFileSync(fd, "utf8").trim() || "another walsync";
  } finally {
    closeSync(fd);
  }
}

/** What it is called in its folder. */
export const LOCK_FILE = "lock";

// --- internal ---

/** Not through a link: the file is written over once it is ours. */
const LOCK_FILE_FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
/** Each one means that another process removed the file in between. */
const ATTEMPTS = 10;

function openLocked(folder: string, path: string, databasePath: string): number {
  let gone: unknown;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    let fd: number;
    try {
      makePrivateFolder(folder);
      fd = openSync(path, LOCK_FILE_FLAGS, 0o600);
    } catch (error) {
      // Making a folder that is removed at the same moment fails in either way.
      if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "EEXIST") throw asDiskError(folder, error);
      gone = error;
      continue;
    }
    if (!tryLockFile(fd)) throw heldByAnother(fd, databasePath);
    if (isNameOf(path, fd)) return fd;
    closeSync(fd);
  }
  throw asDiskError(folder, gone);
}

function heldByAnother(fd: number, databasePath: string): WalsyncError {
  const found = readFileSync(fd, "utf8").trim() || "another walsync";
  closeSync(fd);
  return new WalsyncError("E_LOCKED", `${databasePath}: expected to be its only watcher, found ${found}`, {
    hint: "Stop that process first. One process can watch any number of databases.",
  });
}

/** Nothing was ever replicated from here: leave no trace. While the lock is held nobody else can own the file. */
function removeIfAlone(folder: string, path: string): void {
  try {
    if (readdirSync(folder).some((name) => name !== basename(path))) return;
    rmSync(path, { force: true });
    rmdirSync(folder);
  } catch {
    // A folder that stays is no fault: the next start uses it.
  }
}
