/**
 * One walsync per database: a lock that the kernel drops when its process dies, however it dies.
 * It is flock(2) on a file of our own, never on a file of the database.
 */
import { dlopen, FFIType } from "bun:ffi";
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { WalsyncError } from "../errors.ts";

export interface HeldLock {
  release(): void;
}

/** Takes the lock file at `path`. Throws E_LOCKED and names the holder if another process has it. */
export function acquireLock(path: string, databasePath: string): HeldLock {
  const fd = openSync(path, "a+", 0o600);
  if (flock(fd, LOCK_EXCLUSIVE | LOCK_NONBLOCKING) !== 0) {
    const holder = readFileSync(path, "utf8").trim();
    closeSync(fd);
    throw new WalsyncError(
      "E_LOCKED",
      `${databasePath}: expected to be its only watcher, found ${holder === "" ? "another walsync" : holder}`,
      { hint: "Stop that process first. One process can watch any number of databases." },
    );
  }
  ftruncateSync(fd);
  writeSync(fd, `walsync, process ${process.pid}\n`);
  return { release: () => closeSync(fd) };
}

// --- internal ---

const LOCK_EXCLUSIVE = 2;
const LOCK_NONBLOCKING = 4;
/** glibc, musl, macOS: whichever loads first. */
const C_LIBRARIES = [
  "libc.so.6",
  `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`,
  "libSystem.B.dylib",
];

let loaded: ((fd: number, operation: number) => number) | undefined;

function flock(fd: number, operation: number): number {
  loaded ??= loadFlock();
  return loaded(fd, operation);
}

function loadFlock(): (fd: number, operation: number) => number {
  const causes: unknown[] = [];
  for (const library of C_LIBRARIES) {
    try {
      return dlopen(library, { flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 } }).symbols.flock;
    } catch (error) {
      causes.push(error);
    }
  }
  throw new WalsyncError("E_DISK", `expected flock(2) in one of ${C_LIBRARIES.join(", ")}, found none`, {
    cause: new AggregateError(causes),
  });
}
