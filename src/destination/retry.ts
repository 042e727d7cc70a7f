/**
 * A wrapper that keeps the `Destination` contract and tries again what may heal.
 *
 * Together with a bound it is `withRetry(limitConcurrency(destination, gate))`: then a request that sleeps before its
 * next attempt does not keep others out.
 */
import { assert } from "../assert.ts";
import { MiB } from "../bytes.ts";
import { DestinationError, VanishedError } from "../errors.ts";
import { readOnce, resolveRange } from "./chunks.ts";
import type { Destination, ListOptions, ObjectBody, ObjectInfo, ReadOptions } from "./destination.ts";
import { compareKeys } from "./keys.ts";

export interface RetryOptions {
  /** How often a request is tried in all. 1: never again. */
  attempts?: number;
  /** The first wait is random between 0 and this; every further one up to twice as much as the one before. */
  baseDelayMs?: number;
  /** No wait is longer. */
  maxDelayMs?: number;
  /** Ends waiting, and with it everything that goes on. */
  signal?: AbortSignal | undefined;
  /** Called before each wait, so that a long outage is not silent. */
  onRetry?: (retry: RetryNotice) => void;
  /** Waits; rejects with the signal's reason. Replaced in tests. */
  sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** As `Math.random`. Replaced in tests. */
  random?: () => number;
}

export interface RetryNotice {
  /** "write app/00000001-00000001.ltx": for a log line. */
  operation: string;
  /** The attempt that failed, from 1. */
  attempt: number;
  delayMs: number;
  error: DestinationError;
}

/** A body that broke off may start counting its attempts anew after this much progress, so the count stays bounded. */
const PROGRESS_BYTES = MiB;

/**
 * Runs `action` until it succeeds, fails with something that will not heal, or has been tried `attempts` times; then
 * throws the last error. `signal` is the caller's own, beside the one in `options`.
 */
export async function retrying<T>(
  operation: string,
  action: () => Promise<T>,
  options: RetryOptions = {},
  signal?: AbortSignal,
): Promise<T> {
  const backoff = new Backoff(operation, options, signal);
  for (;;) {
    try {
      return await action();
    } catch (error) {
      await backoff.wait(error);
    }
  }
}

/**
 * The same destination, with every request tried again while its error may heal.
 *
 * A list goes on behind the last key it gave. A body that breaks off goes on with a ranged read from the next byte,
 * and is an error if the object was replaced meanwhile. A write with a condition whose answer was lost comes back as
 * "refused", although the bytes there may be ours: compare them.
 */
export function withRetry(destination: Destination, options: RetryOptions = {}): Destination {
  return new RetryingDestination(destination, options);
}

// --- internal ---

const RETRY_DEFAULTS = { attempts: 6, baseDelayMs: 200, maxDelayMs: 20_000 } as const;

function isSameMetadata(a: ObjectBody, b: ObjectBody): boolean {
  const names = Object.keys(a.metadata);
  return (
    names.length === Object.keys(b.metadata).length && names.every((name) => a.metadata[name] === b.metadata[name])
  );
}

/** Counts the failures of one operation and sleeps after each. */
class Backoff {
  readonly #operation: string;
  readonly #options: RetryOptions;
  readonly #attempts: number;
  readonly #signal: AbortSignal | undefined;
  #failures = 0;

  constructor(operation: string, options: RetryOptions, signal: AbortSignal | undefined) {
    this.#operation = operation;
    this.#options = options;
    this.#attempts = options.attempts ?? RETRY_DEFAULTS.attempts;
    assert(this.#attempts >= 1, "a request is tried at least once");
    const signals = [options.signal, signal].filter((one) => one !== undefined);
    this.#signal = signals.length < 2 ? signals[0] : AbortSignal.any(signals);
  }

  reset(): void {
    this.#failures = 0;
  }

  /** Returns when it is time for the next attempt; throws `error` if there is none. */
  async wait(error: unknown): Promise<void> {
    this.#failures++;
    if (!(error instanceof DestinationError) || !error.retryable || this.#failures >= this.#attempts) throw error;
    const { baseDelayMs = RETRY_DEFAULTS.baseDelayMs, maxDelayMs = RETRY_DEFAULTS.maxDelayMs } = this.#options;
    const delayMs = jitteredMs(this.#failures, baseDelayMs, maxDelayMs, this.#options.random);
    this.#options.onRetry?.({ operation: this.#operation, attempt: this.#failures, delayMs, error });
    await (this.#options.sleep ?? sleep)(delayMs, this.#signal);
  }
}

/**
 * How long to wait after so many `failures` in a row: a random time between 0 and `baseMs`, after each further one up to twice
 * as much, and never more than `maxMs`. All of it is random: many that failed together must not come back together.
 */
export function jitteredMs(
  failures: number,
  baseMs: number,
  maxMs: number,
  random: () => number = Math.random,
): number {
  return random() * Math.min(maxMs, baseMs * 2 ** (failures - 1));
}

/** Waits `ms`, or rejects with the signal's reason. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

class RetryingDestination implements Destination {
  readonly #inner: Destination;
  readonly #options: RetryOptions;

  constructor(inner: Destination, options: RetryOptions) {
    this.#inner = inner;
    this.#options = options;
  }

  get url() {
    return this.#inner.url;
  }

  get capabilities() {
    return this.#inner.capabilities;
  }

  prepare(options: Parameters<Destination["prepare"]>[0] = {}) {
    return this.#retry("prepare", () => this.#inner.prepare(options), options.signal);
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    const backoff = new Backoff(`list ${prefix}`, this.#options, options.signal);
    let startAfter = options.startAfter;
    for (;;) {
      try {
        for await (const info of this.#inner.list(
          prefix,
          startAfter === undefined ? options : { ...options, startAfter },
        )) {
          startAfter = info.key;
          backoff.reset();
          yield info;
        }
        return;
      } catch (error) {
        await backoff.wait(error);
      }
    }
  }

  async *listFolders(prefix: string, options: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<string> {
    const backoff = new Backoff(`list folders ${prefix}`, this.#options, options.signal);
    let last: string | undefined;
    for (;;) {
      try {
        for await (const folder of this.#inner.listFolders(prefix, options)) {
          if (last !== undefined && compareKeys(`${folder}/`, `${last}/`) <= 0) continue;
          last = folder;
          backoff.reset();
          yield folder;
        }
        return;
      } catch (error) {
        await backoff.wait(error);
      }
    }
  }

  head(key: string, options: Parameters<Destination["head"]>[1] = {}) {
    return this.#retry(`head ${key}`, () => this.#inner.head(key, options), options.signal);
  }

  async read(key: string, options: ReadOptions = {}): Promise<ObjectBody | null> {
    const operation = `read ${key}`;
    const body = await this.#retry(operation, () => this.#inner.read(key, options), options.signal);
    return body === null ? null : { ...body, chunks: this.#resuming(operation, key, options, body) };
  }

  write(...[key, source, options = {}]: Parameters<Destination["write"]>) {
    return this.#retry(`write ${key}`, () => this.#inner.write(key, source, options), options.signal);
  }

  remove(keys: readonly string[], options: Parameters<Destination["remove"]>[1] = {}) {
    const operation = keys.length === 1 ? `remove ${keys[0]}` : `remove ${keys.length} keys`;
    return this.#retry(operation, () => this.#inner.remove(keys, options), options.signal);
  }

  close(): void {
    this.#inner.close();
  }

  #retry<T>(operation: string, action: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return retrying(operation, action, this.#options, signal);
  }

  /** The chunks of `first`, and of further reads that go on where one broke off. */
  #resuming(operation: string, key: string, options: ReadOptions, first: ObjectBody): AsyncIterable<Uint8Array> {
    const backoff = new Backoff(operation, this.#options, options.signal);
    const range = resolveRange(options.range, first.sizeBytes);
    let position = range.first;
    let resetAt = position + PROGRESS_BYTES;
    let current: AsyncIterator<Uint8Array> | null = first.chunks[Symbol.asyncIterator]();

    const resume = async (): Promise<AsyncIterator<Uint8Array>> => {
      const body = await this.#inner.read(key, { ...options, range: { first: position, last: range.end - 1 } });
      const isStill = body !== null && body.sizeBytes === first.sizeBytes && isSameMetadata(body, first);
      // Before the first byte another version is as good, if all that was told of the first is true of it: Litestream sets the
      // time of a file after it gave it its name.
      if (isStill && (body.etag === first.etag || position === range.first)) return body.chunks[Symbol.asyncIterator]();
      await body?.chunks[Symbol.asyncIterator]().return?.();
      const expected = `${this.url}/${key}: expected the rest from byte ${position}`;
      const detail = { retryable: false, hint: "Another process changed the object while it was read; start again." };
      if (body === null) throw new VanishedError(`${expected}, found that it is gone`, detail);
      throw new DestinationError(`${expected}, found that it was replaced`, detail);
    };

    return readOnce(
      async () => {
        for (;;) {
          try {
            current ??= await resume();
            const { done, value } = await current.next();
            if (done) return null;
            position += value.length;
            if (position >= resetAt) {
              resetAt = position + PROGRESS_BYTES;
              backoff.reset();
            }
            return value;
          } catch (error) {
            current = null; // It has closed itself.
            await backoff.wait(error);
            if (position >= range.end) return null; // All bytes were there; only the end was not.
          }
        }
      },
      async () => {
        await current?.return?.();
      },
    );
  }
}
