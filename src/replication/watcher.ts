/**
 * Many databases in one process: who has to look when. Directory events wake a database within about a millisecond; one
 * timer serves everything that is due later; a slow poll, spread over time, covers file systems without events.
 */
import { type FSWatcher, watch } from "node:fs";
import { basename, dirname } from "node:path";
import { monotonicMs } from "../clock.ts";
import { DestinationError } from "../errors.ts";
import { logEvent } from "../log.ts";
import { Schedule } from "../schedule.ts";
import type { Replicator } from "./replicator.ts";

export class Watcher {
  readonly #replicators: readonly Replicator[];
  readonly #schedule = new Schedule<Replicator>();
  readonly #folders = new Map<string, WatchedFolder>();
  readonly #finished = Promise.withResolvers<void>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #poll: ReturnType<typeof setInterval> | undefined;
  #nextPolled = 0;
  #isStopped = false;

  constructor(replicators: readonly Replicator[]) {
    this.#replicators = replicators;
  }

  /** Begins. The databases are open already, or will open when they can. */
  start(): void {
    for (const replicator of this.#replicators) {
      replicator.onWake = () => this.#wake(replicator);
      this.#folderOf(replicator).add(replicator);
      replicator.begin();
      this.#wake(replicator);
    }
    // Each tick polls one slice, so that a thousand databases do not stir at once.
    const slices = Math.min(POLL_SLICES, Math.max(1, this.#replicators.length));
    this.#poll = setInterval(() => this.#pollSlice(slices), POLL_MS / slices);
  }

  /** Resolves when there is nothing left to do: `signal` aborted, or every database is fenced. */
  async finished(signal: AbortSignal): Promise<void> {
    if (signal.aborted) this.#finished.resolve();
    signal.addEventListener("abort", () => this.#finished.resolve(), { once: true });
    await this.#finished.promise;
  }

  /**
   * Ends watching; every database captures and ships what is left, as far as `timeoutMs` allows. Throws E_FENCED if
   * another writer had taken over a name, the fault of a database that could not be read, and E_UNREACHABLE if captured transactions stay in an outbox.
   */
  async stop(timeoutMs: number): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    clearInterval(this.#poll);
    for (const folder of this.#folders.values()) folder.close();
    const fencedBy = this.#replicators.map((replicator) => replicator.fencedBy).find((error) => error !== null);
    const deadline = AbortSignal.timeout(timeoutMs);
    const left = await Promise.all(this.#replicators.map((replicator) => replicator.stop(deadline)));
    const files = left.reduce((sum, count) => sum + count, 0);
    if (fencedBy !== undefined) throw fencedBy;
    const failure = this.#replicators.map((replicator) => replicator.failure).find((error) => error !== null);
    if (failure !== undefined) throw failure;
    if (files === 0) return;
    throw new DestinationError(`expected to ship everything at the end, found ${files} files left`, {
      retryable: true,
      hint: "Nothing is lost: the outbox keeps them, and the next start ships them. See --shutdown-timeout.",
    });
  }

  #folderOf(replicator: Replicator): WatchedFolder {
    const path = dirname(replicator.path);
    let folder = this.#folders.get(path);
    if (folder === undefined) {
      folder = new WatchedFolder(path, (owner, renamed) => {
        owner.notice(renamed);
        this.#run(owner);
      });
      this.#folders.set(path, folder);
    }
    return folder;
  }

  #wake(replicator: Replicator): void {
    if (replicator.fencedBy !== null && this.#replicators.every((one) => one.fencedBy !== null)) {
      this.#finished.resolve();
    }
    this.#schedule.set(replicator, monotonicMs());
    this.#setTimer();
  }

  #run(replicator: Replicator): void {
    this.#schedule.set(replicator, replicator.tick(monotonicMs()));
    this.#setTimer();
  }

  #pollSlice(slices: number): void {
    const count = Math.ceil(this.#replicators.length / slices);
    for (let i = 0; i < count; i++) {
      const replicator = this.#replicators[this.#nextPolled++ % this.#replicators.length];
      if (replicator !== undefined) this.#schedule.set(replicator, replicator.poll(monotonicMs()));
    }
    for (const folder of this.#folders.values()) folder.revive();
    this.#setTimer();
  }

  #setTimer(): void {
    if (this.#isStopped) return;
    const dueMs = this.#schedule.nextDueMs;
    if (dueMs === this.#timerDueMs) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = dueMs;
    if (!Number.isFinite(dueMs)) return;
    this.#timer = setTimeout(() => this.#runDue(), Math.min(TIMER_MAX_MS, Math.max(0, dueMs - monotonicMs())));
  }

  #runDue(): void {
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    const nowMs = monotonicMs();
    // Uploads and events get their turn between parts of a long list.
    for (let i = 0; i < RUN_AT_ONCE; i++) {
      const replicator = this.#schedule.takeDue(nowMs);
      if (replicator === undefined) break;
      this.#schedule.set(replicator, replicator.tick(nowMs));
    }
    this.#setTimer();
  }
}

// --- internal ---

const POLL_MS = 10_000;
const POLL_SLICES = 40;
const RUN_AT_ONCE = 16;
/** setTimeout takes no more than 2^31 - 1 ms. */
const TIMER_MAX_MS = 60 * 60_000;

/** One fs.watch for all databases of a directory. The -wal and -shm files come and go, so files are not watched. */
class WatchedFolder {
  readonly #path: string;
  readonly #owners = new Map<string, Replicator>();
  readonly #notify: (owner: Replicator, renamed: boolean) => void;
  #watcher: FSWatcher | null = null;
  #reported = false;

  constructor(path: string, notify: (owner: Replicator, renamed: boolean) => void) {
    this.#path = path;
    this.#notify = notify;
    this.revive();
  }

  add(replicator: Replicator): void {
    const name = basename(replicator.path);
    this.#owners.set(name, replicator);
    this.#owners.set(`${name}-wal`, replicator);
  }

  /** Watches, or watches again if that had failed. Until then the poll does what it can. */
  revive(): void {
    if (this.#watcher !== null) return;
    try {
      this.#watcher = watch(this.#path, { persistent: true }, (event, name) => this.#onEvent(event, name));
      this.#watcher.on("error", (error) => this.#onError(error));
      this.#reported = false;
    } catch (error) {
      this.#onError(error);
    }
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = null;
  }

  #onEvent(event: string, name: string | null): void {
    if (name === null) {
      for (const owner of new Set(this.#owners.values())) this.#notify(owner, true);
      return;
    }
    const owner = this.#owners.get(name);
    if (owner !== undefined) this.#notify(owner, event === "rename");
  }

  #onError(error: unknown): void {
    this.close();
    if (this.#reported) return;
    this.#reported = true;
    const hint = "Changes are noticed by polling, within seconds. On Linux, see fs.inotify.max_user_watches.";
    logEvent("warn", "directory cannot be watched", { path: this.#path, error, hint });
  }
}
