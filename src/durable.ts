/**
 * Durable file operations: nothing counts as written until the file and the folder that names it are on the disk.
 * Every step that a crash may come before is announced to an observer: simulations crash there.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  fsync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { errnoOf, messageOf, WalsyncError } from "./errors.ts";

export type DurableStep = "write" | "sync" | "rename" | "remove";

/** Calls `observer` before every durable step of this process; null ends that. For simulations. */
export function observeDurableSteps(observer: ((step: DurableStep, path: string) => void) | null): void {
  announce = observer ?? (() => {});
}

/**
 * Makes a folder that only its owner can enter. Throws E_DISK for a symbolic link, which could lead to where somebody else
 * wants files written or emptied, and what the file system throws.
 */
export function makePrivateFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: PRIVATE_FOLDER });
  const { mode } = lstatSync(path);
  if ((mode & constants.S_IFMT) === constants.S_IFLNK) {
    throw new WalsyncError("E_DISK", `${path}: expected a folder of walsync's own, found a symbolic link`, {
      hint: "Remove the link. To keep walsync's own files elsewhere, use --state-dir.",
    });
  }
  if ((mode & OPEN_TO_WRITERS) !== 0) chmodSync(path, PRIVATE_FOLDER);
}

/** Opens a file of our own for its owner alone, emptied, to read and write. A symbolic link is not followed: ELOOP. */
export function openTempFile(path: string): number {
  const { O_RDWR, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  return openSync(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, PRIVATE_FILE);
}

/** Makes the contents of an open file durable. `path` is what it is called. Throws E_DISK. */
export function syncFile(fd: number, path: string): void {
  onDisk(path, () => {
    announce("sync", path);
    fsyncSync(fd);
  });
}

/** As `syncFile`, off this thread: for so much that everything else would wait for it. Rejects with E_DISK. */
export async function syncFileAside(fd: number, path: string): Promise<void> {
  onDisk(path, () => announce("sync", path));
  await new Promise<void>((resolve, reject) => {
    fsync(fd, (error) => (error === null ? resolve() : reject(asDiskError(path, error))));
  });
}

/** Removes a file, if it is there. Throws E_DISK. */
export function removeFile(path: string): void {
  onDisk(path, () => {
    announce("remove", path);
    rmSync(path, { force: true });
  });
}

/**
 * Replaces `path` with `bytes`: temp file, fsync, rename, fsync folder. Throws E_DISK; the old file is kept then. One
 * process writes it at a time: a temp file that a crash left is used again.
 */
export function writeFileDurably(path: string, bytes: Uint8Array): void {
  const temp = `${path}.tmp`;
  try {
    const fd = openTempFile(temp);
    try {
      writeFully(fd, bytes);
      syncFile(fd, temp);
    } finally {
      closeSync(fd);
    }
    renameDurably(temp, path);
  } catch (error) {
    rmSync(temp, { force: true });
    throw asDiskError(path, error);
  }
}

/** Renames within one folder and makes the new name durable. Throws E_DISK. */
export function renameDurably(from: string, to: string): void {
  onDisk(to, () => {
    announce("rename", to);
    renameSync(from, to);
    syncFolder(dirname(to));
  });
}

/** Makes the names in a folder durable. Throws E_DISK. */
export function syncFolder(path: string): void {
  onDisk(path, () => {
    const fd = openSync(path, "r");
    try {
      announce("sync", path);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  });
}

/** True if `path` names the open file: nobody removed or replaced it since. */
export function isNameOf(path: string, fd: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  const opened = fstatSync(fd);
  return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
}

/** Announces a write that is not durable yet, but that a crash leaves half done. Throws E_DISK if the observer does. */
export function announceWrite(path: string): void {
  onDisk(path, () => announce("write", path));
}

/** Writes all of `bytes`, going on after short writes: at `position`, or where the descriptor is. */
export function writeFully(fd: number, bytes: Uint8Array, position: number | null = null): void {
  for (let sent = 0; sent < bytes.byteLength; ) {
    const at = position === null ? null : position + sent;
    sent += writeSync(fd, bytes, sent, bytes.byteLength - sent, at);
  }
}

/** True for the errno of a process, or a system, that may open no more files. */
export function isOutOfDescriptors(errno: string | undefined): boolean {
  return errno === "EMFILE" || errno === "ENFILE";
}

/** Measured on Linux: three raw ones, three of SQLite's, the lock and the page table. */
export const DESCRIPTORS_PER_DATABASE = 8;
/** The lock; and the WAL index, as long as descriptors are not scarce. */
export const DESCRIPTORS_PER_SLEEPER = 1;

export const DESCRIPTORS_HINT =
  "Raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd): walsync needs eight for each database, and for those that sleep (see --max-pinned) one or two.";

/** A fault of the local disk as E_DISK with a hint; a `WalsyncError` passes through. */
export function asDiskError(path: string, error: unknown): WalsyncError {
  if (error instanceof WalsyncError) return error;
  const errno = errnoOf(error);
  return new WalsyncError("E_DISK", `${path}: cannot be written: ${messageOf(error)}`, {
    hint: errno === undefined ? undefined : DISK_HINTS[errno],
    cause: error,
  });
}

// --- internal ---

function onDisk(path: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    throw errnoOf(error) === undefined ? error : asDiskError(path, error);
  }
}

const PRIVATE_FOLDER = 0o700;
const PRIVATE_FILE = 0o600;
const OPEN_TO_WRITERS = 0o022;

let announce: (step: DurableStep, path: string) => void = () => {};

const DISK_HINTS: Record<string, string> = {
  EMFILE: DESCRIPTORS_HINT,
  ENFILE: DESCRIPTORS_HINT,
  ENOSPC: "The disk is full. Free some space; the database and everything staged so far are unharmed.",
  EDQUOT: "The disk quota is used up. The database and everything staged so far are unharmed.",
  ENOTDIR: "A part of the path is a file, not a folder.",
  ELOOP: "A symbolic link is in the way, which walsync does not follow for its own files. Remove it.",
  EROFS: "The file system is read-only. Use --state-dir to keep walsync's own files elsewhere.",
  EACCES: "Give walsync permission to write there, or use --state-dir to keep its own files elsewhere.",
  EPERM: "Give walsync permission to write there, or use --state-dir to keep its own files elsewhere.",
};
