/** Durable file operations: nothing counts as written until the file and the folder that names it are on the disk. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf, messageOf, WalsyncError } from "./errors.ts";

/** Replaces `path` with `bytes`: temp file, fsync, rename, fsync folder. Throws E_DISK; the old file is kept then. */
export function writeFileDurably(path: string, bytes: Uint8Array): void {
  const temp = `${path}.tmp-${process.pid}`;
  try {
    const fd = openSync(temp, "w", 0o600);
    try {
      writeFully(fd, bytes);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameDurably(temp, path);
  } catch (error) {
    rmSync(temp, { force: true });
    throw asDiskError(path, error);
  }
}

/** Renames within one folder and makes the new name durable. */
export function renameDurably(from: string, to: string): void {
  renameSync(from, to);
  syncFolder(dirname(to));
}

export function syncFolder(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Writes all of `bytes` at the descriptor's position, going on after short writes. */
export function writeFully(fd: number, bytes: Uint8Array): void {
  for (let sent = 0; sent < bytes.byteLength; ) sent += writeSync(fd, bytes, sent, bytes.byteLength - sent);
}

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

const DISK_HINTS: Record<string, string> = {
  ENOSPC: "The disk is full. Free some space; the database and everything staged so far are unharmed.",
  EDQUOT: "The disk quota is used up. The database and everything staged so far are unharmed.",
  EROFS: "The file system is read-only. Use --state-dir to keep walsync's own files elsewhere.",
  EACCES: "Give walsync permission to write there, or use --state-dir to keep its own files elsewhere.",
  EPERM: "Give walsync permission to write there, or use --state-dir to keep its own files elsewhere.",
};
