/** Bounds on what runs at once: a gate, a loop over numbers, a wrapper that keeps the `Destination` contract. */
import { assert } from "../assert.ts";
import type { Destination, ListOptions, ReadOptions } from "./destination.ts";

/** A bound on how many actions run at once; the others wait in line. Share one to bound a whole process. */
export class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    assert(Number.isInteger(limit) && limit >= 1, "a gate lets at least one through");
    this.#free = limit;
  }

  /** Rejects with the signal's reason if that comes before the turn does. */
  async run<T>(action: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#enter(signal);
    try {
      return await action();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next(); // The place is handed on, so nobody who came later can slip in.
    }
  }

  async #enter(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const enter = (): void => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(signal?.reason);
      };
      this.#waiting.push(enter);
      signal?.addEventListener("abort", leave, { once: true });
    });
  }
}

/**
 * Runs `action` for 0..count-1, at most `limit` at once. The first error aborts the signal that the others were given,
 * and is thrown when all of them have ended.
 */
export async function inParallel(
  limit: number,
  count: number,
  signal: AbortSignal | undefined,
  action: (index: number, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const either = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  const errors: unknown[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    try {
      while (next < count && errors.length === 0) await action(next++, either);
    } catch (error) {
      errors.push(error);
      stop.abort(error);
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, count) }, work));
  if (errors.length > 0) throw errors[0];
}

/**
 * The same destination with at most `limit` requests in flight; pass one `Gate` to share the bound among several.
 * A body counts until its first byte is there, not until it is read: a merge that reads many bodies side by side
 * would otherwise wait for itself. Whoever reads several at once bounds that on its own.
 */
export function limitConcurrency(destination: Destination, limit: number | Gate): Destination {
  return new LimitedDestination(destination, typeof limit === "number" ? new Gate(limit) : limit);
}

// --- internal ---

class LimitedDestination implements Destination {
  readonly #inner: Destination;
  readonly #gate: Gate;

  constructor(inner: Destination, gate: Gate) {
    this.#inner = inner;
    this.#gate = gate;
  }

  get url() {
    return this.#inner.url;
  }

  get capabilities() {
    return this.#inner.capabilities;
  }

  prepare(options: Parameters<Destination["prepare"]>[0] = {}) {
    return this.#gate.run(() => this.#inner.prepare(options), options.signal);
  }

  list(prefix: string, options: ListOptions = {}) {
    return this.#limited(this.#inner.list(prefix, options), options.signal);
  }

  listFolders(prefix: string, options: { signal?: AbortSignal | undefined } = {}) {
    return this.#limited(this.#inner.listFolders(prefix, options), options.signal);
  }

  head(key: string, options: Parameters<Destination["head"]>[1] = {}) {
    return this.#gate.run(() => this.#inner.head(key, options), options.signal);
  }

  read(key: string, options: ReadOptions = {}) {
    return this.#gate.run(() => this.#inner.read(key, options), options.signal);
  }

  write(...[key, source, options = {}]: Parameters<Destination["write"]>) {
    return this.#gate.run(() => this.#inner.write(key, source, options), options.signal);
  }

  remove(keys: readonly string[], options: Parameters<Destination["remove"]>[1] = {}) {
    return this.#gate.run(() => this.#inner.remove(keys, options), options.signal);
  }

  close(): void {
    this.#inner.close();
  }

  /** Passes the gate for each step: a list whose reader is slow must not keep a place while nothing is in flight. */
  async *#limited<T>(items: AsyncIterable<T>, signal: AbortSignal | undefined): AsyncGenerator<T> {
    const iterator = items[Symbol.asyncIterator]();
    try {
      for (;;) {
        const step = await this.#gate.run(() => iterator.next(), signal);
        if (step.done) return;
        yield step.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
}
