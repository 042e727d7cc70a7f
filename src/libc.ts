/**
 * The few functions of the C library that Bun has no name for: flock(2), the question of fcntl(2) who holds a lock and
 * the request for one, madvise(2), alarm(2), waitid(2), and the question of tcgetpgrp(3) who is in the foreground of a terminal.
 */

import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, constants, openSync } from "node:fs";
import { WalsyncError } from "./errors.ts";

/** Takes an exclusive flock(2) on the file, or returns false at once if another process has it. */
export function tryLockFile(fd: number): boolean {
  return library().flock(fd, LOCK_EXCLUSIVE | LOCK_NONBLOCKING) === 0;
}

/**
 * Id of another process that holds a POSIX lock on the byte at `offset`; 0 if nobody does. Asks without taking. Always 0
 * where the answer cannot be had (not Linux). "exclusive": locks that others share do not count.
 */
export function lockHolder(fd: number, offset: number, kind: "any" | "exclusive" = "any"): number {
  if (process.platform !== "linux") return 0;
  // What would be in the way of a lock of this type.
  fillFlock(kind === "any" ? F_WRLCK : F_RDLCK, offset);
  if (library().fcntl(fd, F_GETLK, ptr(question.buffer)) !== 0) return 0;
  if (question.getInt16(0, true) === F_UNLCK) return 0;
  // A holder in another pid namespace has no number here.
  return question.getInt32(24, true) || UNKNOWN_PROCESS;
}

/**
 * Takes a POSIX lock on the byte at `offset` that others may share, or returns false at once if it cannot be had, which is
 * always so where it is not Linux. It ends when any descriptor of the file is closed.
 */
export function tryShareLock(fd: number, offset: number): boolean {
  if (process.platform !== "linux") return false;
  fillFlock(F_RDLCK, offset);
  return library().fcntl(fd, F_SETLK, ptr(question.buffer)) === 0;
}

/**
 * Lets go of pages of a file that is mapped here, with madvise(2). They must be unchanged: whoever touches them again gets them
 * from the file.
 */
export function releasePages(address: bigint, length: number): void {
  library().madvise(address, length, MADV_DONTNEED);
}

/** Has the kernel end this process with SIGALRM in so many seconds, whatever it is doing then. 0: it does not, after all. */
export function endProcessIn(seconds: number): void {
  library().alarm(seconds);
}

/** True if this process is in the foreground of its terminal: what is typed there as a signal reaches it, and its children. */
export function isInForeground(): boolean {
  let fd: number;
  try {
    fd = openSync("/dev/tty", constants.O_RDONLY | constants.O_NOCTTY);
  } catch {
    return false; // It has no terminal.
  }
  try {
    return library().tcgetpgrp(fd) === library().getpgrp();
  } finally {
    closeSync(fd);
  }
}

/**
 * Takes the exit status of a child that has ended, whoever started it, so that it is gone. Not that of one of `kept`, which
 * others wait for. False if there is none, which is always so where it is not Linux.
 */
export function reapChild(kept: ReadonlySet<number>): boolean {
  if (process.platform !== "linux") return false;
  // Looks first, without taking: 0 is left where no child has ended.
  childInfo.setInt32(SI_PID_OFFSET, 0, true);
  if (library().waitid(P_ALL, 0, ptr(childInfo.buffer), WEXITED | WNOHANG | WNOWAIT) !== 0) return false;
  const pid = childInfo.getInt32(SI_PID_OFFSET, true);
  return pid !== 0 && !kept.has(pid) && library().waitid(P_PID, pid, ptr(childInfo.buffer), WEXITED | WNOHANG) === 0;
}

// --- internal ---

const LOCK_EXCLUSIVE = 2;
const MADV_DONTNEED = 4;
const LOCK_NONBLOCKING = 4;
const F_GETLK = 5;
const F_SETLK = 6;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_SET = 0;
const UNKNOWN_PROCESS = -1;
const P_ALL = 0;
const P_PID = 1;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
/** In siginfo_t on 64-bit Linux, behind si_signo, si_errno, si_code and padding. */
const SI_PID_OFFSET = 16;
/** glibc, musl, macOS: whichever loads first. */
const LIBRARIES = [
  "libc.so.6",
  `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`,
  "libSystem.B.dylib",
];
const SYMBOLS = {
  flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  fcntl: { args: [FFIType.i32, FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  madvise: { args: [FFIType.u64, FFIType.u64, FFIType.i32], returns: FFIType.i32 },
  alarm: { args: [FFIType.u32], returns: FFIType.u32 },
  tcgetpgrp: { args: [FFIType.i32], returns: FFIType.i32 },
  getpgrp: { args: [], returns: FFIType.i32 },
  waitid: { args: [FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.i32], returns: FFIType.i32 },
} as const;

const question = new DataView(new ArrayBuffer(32));
/** siginfo_t. */
const childInfo = new DataView(new ArrayBuffer(128));

/** struct flock on 64-bit Linux: l_type i16, l_whence i16, 4 bytes padding, l_start i64, l_len i64, l_pid i32. */
function fillFlock(type: number, offset: number): void {
  question.setInt16(0, type, true);
  question.setInt16(2, SEEK_SET, true);
  question.setBigInt64(8, BigInt(offset), true);
  question.setBigInt64(16, 1n, true);
}

let loaded: ReturnType<typeof load> | undefined;

function library() {
  loaded ??= load();
  return loaded;
}

function load() {
  const causes: unknown[] = [];
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, SYMBOLS).symbols;
    } catch (error) {
      causes.push(error);
    }
  }
  throw new WalsyncError("E_DISK", `expected the C library as one of ${LIBRARIES.join(", ")}, found none`, {
    cause: new AggregateError(causes),
  });
}
