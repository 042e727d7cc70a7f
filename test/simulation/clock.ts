/**
 * Virtual time for one process: `performance.now`, `Date.now`, `setTimeout`, `clearTimeout` and `Bun.sleepSync`. Time moves only when the
 * simulation says so. Immediates and promises stay real: they run in a fixed order.
 */

interface Timer {
  id: number;
  dueMs: number;
  run: () => void;
}

export class VirtualClock {
  /** Monotonic. */
  nowMs = 0;
  /** What the host's clock says at monotonic time 0. */
  wallOffsetMs: number;
  #timers: Timer[] = [];
  #nextId = 1;
  readonly #real = {
    dateNow: Date.now,
    performanceNow: performance.now,
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    sleepSync: Bun.sleepSync,
  };

  constructor(startMs: number) {
    this.wallOffsetMs = startMs;
  }

  install(): void {
    Date.now = () => Math.floor(this.nowMs + this.wallOffsetMs);
    performance.now = () => this.nowMs;
    const schedule = (run: () => void, delayMs = 0) => {
      const id = this.#nextId++;
      this.#timers.push({ id, dueMs: this.nowMs + delayMs, run });
      return id;
    };
    globalThis.setTimeout = schedule as unknown as typeof setTimeout;
    globalThis.clearTimeout = ((id: number) => {
      this.#timers = this.#timers.filter((timer) => timer.id !== id);
    }) as unknown as typeof clearTimeout;
    Bun.sleepSync = (ms) => {
      this.nowMs += Number(ms);
    };
  }

  uninstall(): void {
    Date.now = this.#real.dateNow;
    performance.now = this.#real.performanceNow;
    globalThis.setTimeout = this.#real.setTimeout;
    globalThis.clearTimeout = this.#real.clearTimeout;
    Bun.sleepSync = this.#real.sleepSync;
  }

  /** When the next timer is due; infinite if there is none. */
  get nextDueMs(): number {
    return this.#timers.reduce((earliest, { dueMs }) => Math.min(earliest, dueMs), Number.POSITIVE_INFINITY);
  }

  /** Moves time on to `toMs`, and runs what is due by then. */
  moveTo(toMs: number): void {
    this.nowMs = toMs;
    for (;;) {
      const due = this.#timers.filter(({ dueMs }) => dueMs <= toMs).sort((a, b) => a.dueMs - b.dueMs || a.id - b.id)[0];
      if (due === undefined) return;
      this.#timers = this.#timers.filter(({ id }) => id !== due.id);
      due.run();
    }
  }
}
