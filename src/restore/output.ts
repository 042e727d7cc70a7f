/**
 * Where a restore writes: a file beside the output, locked while it is written, that gets the output's name when it is
 * proven. A restore that was killed leaves that file behind; the next one to the same output removes it.
 */
import { closeSync, constants, linkSync, lstatSync, mkdirSync, openSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { asDiskError, isNameOf, renameDurably, syncFolder } from "../durable.ts";
import { errnoOf, WalsyncError } from "../errors.ts";
import { tryLockFile } from "../libc.ts";

export class RestoreOutput {
  /** What the file is called until `publish`. */
  readonly tempPath: string;
  readonly fd: number;
  readonly #path: string;
  readonly #force: boolean;

  /**
   * Claims `output`, making its folder. With `force` an existing file is replaced, at the last moment. Throws E_OUTPUT_EXISTS if something is
   * in the way, E_LOCKED if another restore writes to it, E_DISK.
   */
  constructor(output: string, force: boolean) {
    this.#path = resolve(output);
    this.#force = force;
    this.tempPath = `${this.#path}.tmp-restore`;
    requireFreeOutput(this.#path, force);
    try {
      mkdirSync(dirname(this.#path), { recursive: true });
      this.fd = claimFile(this.tempPath, this.#path);
    } catch (error) {
      throw asDiskError(this.#path, error);
    }
  }

  /** Gives the file, whose contents are durable already, the output's name. */
  publish(): void {
    requireFreeOutput(this.#path, this.#force);
    try {
      if (this.#force) renameDurably(this.tempPath, this.#path);
      else publishIfAbsent(this.tempPath, this.#path);
    } catch (error) {
      throw asDiskError(this.#path, error);
    }
  }

  /** Ends the claim. What was not published is removed. */
  close(): void {
    if (isNameOf(this.tempPath, this.fd)) rmSync(this.tempPath, { force: true });
    closeSync(this.fd);
  }
}

/**
 * Refuses to overwrite without `force`, and refuses to put a database beside the WAL of another one, which SQLite would
 * replay. Throws E_OUTPUT_EXISTS.
 */
export function requireFreeOutput(output: string, force: boolean): void {
  const path = resolve(output);
  const isOutputTaken = isTaken(path);
  for (const suffix of ["-wal", "-shm", "-journal"]) {
    const leftover = path + suffix;
    if (!isTaken(leftover)) continue;
    throw new WalsyncError("E_OUTPUT_EXISTS", `${path}: expected no leftover files beside it, found ${leftover}`, {
      hint: "SQLite would apply that file to the restored database. Stop its application and move the file away.",
    });
  }
  if (!force && isOutputTaken) throw outputExists(path);
}

/**
 * Gives the file `temp`, whose contents are durable already, the name `path`. Throws E_OUTPUT_EXISTS if that is taken: an
 * application may have made a database of that name meanwhile, and unlike a rename a link never replaces one.
 */
export function publishIfAbsent(temp: string, path: string): void {
  try {
    linkSync(temp, path);
  } catch (error) {
    if (errnoOf(error) === "EEXIST") throw outputExists(path);
    if (!NO_LINKS.has(errnoOf(error) ?? "")) throw error;
    renameDurably(temp, path);
    return;
  }
  rmSync(temp);
  syncFolder(dirname(path));
}

// --- internal ---

const CLAIM_ATTEMPTS = 10;
const NEW_FILE = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
const OLD_FILE = constants.O_RDWR | constants.O_NOFOLLOW;
/** File systems without hard links. */
const NO_LINKS = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"]);

/** Also by a link that leads nowhere: SQLite would follow it. */
function isTaken(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    throw asDiskError(path, error);
  }
}

/** A new file under `temp`, locked. One that a dead process left is removed, never written to: it may be published already. */
function claimFile(temp: string, path: string): number {
  for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
    const made = openIf("EEXIST", temp, NEW_FILE);
    const fd = made ?? openIf("ENOENT", temp, OLD_FILE);
    if (fd === null) continue;
    if (!tryLockFile(fd)) {
      closeSync(fd);
      break;
    }
    // Only who holds the lock of the file that has the name now may use it, or remove it.
    const isOurs = isNameOf(temp, fd);
    if (made !== null && isOurs) return fd;
    if (isOurs) rmSync(temp, { force: true });
    closeSync(fd);
  }
  throw new WalsyncError("E_LOCKED", `${path}: expected to be its only restore, found another one under way`, {
    hint: `It writes to ${temp}. Wait for it, or choose another --output.`,
  });
}

/** Null if it fails with `errno`. */
function openIf(errno: string, path: string, flags: number): number | null {
  try {
    return openSync(path, flags, 0o600);
  } catch (error) {
    if (errnoOf(error) === errno) return null;
    throw error;
  }
}

function outputExists(path: string): WalsyncError {
  return new WalsyncError("E_OUTPUT_EXISTS", `${path}: expected no such file, found one`, {
    hint: "Choose another --output, or replace it with --force.",
  });
}
