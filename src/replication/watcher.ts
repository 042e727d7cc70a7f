/**
 * Many databases in one process: who has to look when. Directory events wake a database within about a millisecond; one
 * timer serves everything that is due later; a slow poll, spread over time, covers file systems without events.
 */
import { basename, dirname } from "node:path";
import { monotonicMs } from "../clock.ts";
import { Schedule } from "../schedule.ts";
import { intervalInCrowdMs } from "./backlog.ts";
import type { FolderEvents } from "./folder-events.ts";
import type { Replicator } from "./replicator.ts";

export class Watcher {
  readonly #events: FolderEvents;
  /** How many hold a connection at once, if no more are written to. */
  readonly #maxPinned: number;
  readonly #replicators = new Map<Replicator, Deaf>();
  /** Those that may hold one, the least recently stirred first. */
  readonly #pinned = new Set<Replicator>();
  /** How many files of each wait for the destination, where that is not 0, and of all. */
  readonly #waiting = new Map<Replicator, number>();
  #waitingFiles = 0;
  readonly #schedule = new Schedule<Replicator>();
  readonly #finished = Promise.withResolvers<void>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #turn: ReturnType<typeof setImmediate> | undefined;
  #poll: ReturnType<typeof setInterval> | undefined;
  #slices = 0;
  /** Who is polled next; made anew when everybody had a turn. */
  #round: Replicator[] = [];
  #isStopped = false;

  constructor(events: FolderEvents, maxPinned: number) {
    this.#events = events;
    this.#maxPinned = maxPinned;
  }

  /** Begins to look after a database that is open already, or will open when it can. */
  add(replicator: Replicator): void {
    if (this.#isStopped) return;
    const name = basename(replicator.path);
    // Only noted here: Bun hands over events for as long as there are more, and lets no upload go on meanwhile.
    const deaf = this.#events.listen(dirname(replicator.path), [name, `${name}-wal`], (_name, renamed) => {
      replicator.notice(renamed);
      this.#pinned.delete(replicator);
      this.#wake(replicator);
    });
    this.#replicators.set(replicator, deaf);
    replicator.onWake = () => this.#wake(replicator);
    replicator.begin();
    this.#wake(replicator);
    this.#setPoll();
  }

  /** Leaves a database alone. */
  remove(replicator: Replicator): void {
    this.#replicators.get(replicator)?.();
    this.#replicators.delete(replicator);
    this.#pinned.delete(replicator);
    this.#noteWaiting(replicator, 0);
    this.#schedule.set(replicator, Number.POSITIVE_INFINITY);
    replicator.onWake = () => {};
    this.#setPoll();
  }

  /** Resolves when there is nothing left to do: `signal` aborted, or every database is fenced. */
  async finished(signal: AbortSignal): Promise<void> {
    if (signal.aborted) this.#finished.resolve();
    signal.addEventListener("abort", () => this.#finished.resolve(), { once: true });
    await this.#finished.promise;
  }

  /** Wakes nobody any more. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    clearImmediate(this.#turn);
    clearInterval(this.#poll);
    for (const deaf of this.#replicators.values()) deaf();
  }

  #wake(replicator: Replicator): void {
    if (!this.#replicators.has(replicator)) return;
    if (replicator.fencedBy !== null && this.#replicators.keys().every((one) => one.fencedBy !== null)) {
      this.#finished.resolve();
    }
    // One that is due already keeps its place, or whoever is written to all the time would always be the last.
    this.#schedule.advance(replicator, monotonicMs());
    this.#setTimer();
  }

  #tick(replicator: Replicator, nowMs: number): void {
    replicator.leastIntervalMs = intervalInCrowdMs(this.#waitingFiles);
    this.#schedule.set(replicator, replicator.tick(nowMs));
    this.#noteWaiting(replicator, replicator.waitingFiles);
    this.#keepFewPinned(replicator);
  }

  #noteWaiting(replicator: Replicator, files: number): void {
    this.#waitingFiles += files - (this.#waiting.get(replicator) ?? 0);
    if (files === 0) this.#waiting.delete(replicator);
    else this.#waiting.set(replicator, files);
  }

  /** Lets those sleep that nothing happened to for longest, if there are too many. */
  #keepFewPinned(ticked: Replicator): void {
    if (ticked.isPinned) this.#pinned.add(ticked);
    for (let i = 0; i < SLEEP_TRIES && this.#pinned.size > this.#maxPinned; i++) {
      const [oldest] = this.#pinned;
      this.#pinned.delete(oldest!);
      // One that is not quiet gets another turn when all others had theirs.
      if (oldest!.isPinned && !oldest!.trySleep(SLEEP_AFTER_MS)) this.#pinned.add(oldest!);
    }
  }

  /** Each tick polls one slice, so that a thousand databases do not stir at once, and few databases mean few ticks. */
  #setPoll(): void {
    const slices = this.#isStopped ? 0 : Math.min(POLL_SLICES, this.#replicators.size);
    if (slices === this.#slices) return;
    this.#slices = slices;
    clearInterval(this.#poll);
    if (slices > 0) this.#poll = setInterval(() => this.#pollSlice(), POLL_MS / slices);
  }

  #pollSlice(): void {
    if (this.#round.length === 0) {
      this.#round = [...this.#replicators.keys()];
      this.#events.revive();
    }
    const count = Math.ceil(this.#replicators.size / this.#slices);
    for (const replicator of this.#round.splice(0, count)) {
      if (!this.#replicators.has(replicator)) continue;
      replicator.poll();
      this.#tick(replicator, monotonicMs());
    }
    this.#setTimer();
  }

  #setTimer(): void {
    if (this.#isStopped || this.#turn !== undefined) return;
    const dueMs = this.#schedule.nextDueMs;
    if (dueMs === this.#timerDueMs) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = dueMs;
    if (!Number.isFinite(dueMs)) return;
    const inMs = dueMs - monotonicMs();
    // The shortest timeout is a millisecond.
    if (inMs <= 0) this.#turn = setImmediate(() => this.#runDue());
    else this.#timer = setTimeout(() => this.#runDue(), Math.min(TIMER_MAX_MS, inMs));
  }

  #runDue(): void {
    this.#turn = undefined;
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    const nowMs = monotonicMs();
    // Uploads and events get their turn between parts of a long list.
    for (let i = 0; i < RUN_AT_ONCE; i++) {
      const replicator = this.#schedule.takeDue(nowMs);
      if (replicator === undefined) break;
      this.#tick(replicator, nowMs);
    }
    this.#setTimer();
  }
}

// --- internal ---

/** Ends the events of one database. */
type Deaf = () => void;

const POLL_MS = 10_000;
const POLL_SLICES = 40;
const RUN_AT_ONCE = 16;
const SLEEP_TRIES = 4;
/** One that is written to again and again stays open, however many do: opening them in turn takes the time that captures need. */
const SLEEP_AFTER_MS = 15_000;
/** setTimeout takes no more than 2^31 - 1 ms. */
const TIMER_MAX_MS = 60 * 60_000;
