/** Children of this process that somebody waits for: the first process of a container must not take them for orphans. */
import { reapChild } from "./libc.ts";

const awaited = new Set<number>();

/** Leaves the exit status of `child` to whoever awaits it. To be called in the turn in which it was started. */
export function awaitChild({ pid, exited }: Pick<Bun.Subprocess, "pid" | "exited">): void {
  awaited.add(pid);
  void exited.finally(() => awaited.delete(pid));
}

/** Takes the exit statuses of all others that have ended, so that none stays behind as a zombie. */
export function reapOrphans(): void {
  while (reapChild(awaited)) {}
}
