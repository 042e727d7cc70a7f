/**
 * One walsync per database: a lock that the kernel drops when its process dies, however it dies.
 * It is flock(2) on a file of our own, never on a file of the database.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { WalsyncError } from "../errors.ts";
import { tryLockFile } from "../libc.ts";

export interface HeldLock {
  release(): void;
}

/** Takes the lock file at `path`. Throws E_LOCKED and names the holder if another process has it. */
export function acquireLock(path: string, databasePath: string): HeldLock {
  const fd = openSync(path, "a+", 0o600);
  if (!tryLockFile(fd)) {
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
