/**
 * A wrapper that keeps the `Destination` contract and counts what is asked of it, what came of that, how long it took, and how
 * many bytes went each way. Innermost, so that each attempt counts, and waiting in line does not.
 */
import { monotonicMs } from "../clock.ts";
import { DestinationError } from "../errors.ts";
import { Counter, Histogram } from "../metrics.ts";
import { readOnce } from "./chunks.ts";
import type { Destination, ListOptions, ObjectBody, ReadOptions } from "./destination.ts";

export const requests = new Counter(
  "walsync_destination_requests_total",
  "Requests to the destination, by what they asked for and what came of it. An upload in parts and a list of many pages count once; each new try counts.",
  ["operation", "result"],
);
export const sentBytes = new Counter(
  "walsync_destination_sent_bytes_total",
  "Bytes of objects that the destination accepted, also as parts of uploads that failed later.",
  [],
);
export const receivedBytes = new Counter(
  "walsync_destination_received_bytes_total",
  "Bytes of objects that came from the destination.",
  [],
);

/** The same destination, measured. Every one adds to the same numbers. */
export function measured(destination: Destination): Destination {
  return new MeasuredDestination(destination);
}

// --- internal ---

const requestDurations = new Histogram(
  "walsync_destination_request_seconds",
  "Time that requests to the destination took; of a read, with its body.",
  ["operation"],
);

type Operation = "prepare" | "list" | "head" | "read" | "write" | "remove";
type Result =
  | "ok"
  /** There is no such object. */
  | "missing"
  /** The condition of a write did not hold: the object exists, or has changed. */
  | "condition"
  /** No answer, or one that says to try again. */
  | "unreachable"
  /** An answer that nothing but a person changes. */
  | "refused"
  /** Given up by us. */
  | "aborted"
  /** A fault of this host: the file to be sent cannot be read. */
  | "failed";

class MeasuredDestination implements Destination {
  readonly #inner: Destination;

  constructor(inner: Destination) {
    this.#inner = inner;
  }

  get url() {
    return this.#inner.url;
  }

  get capabilities() {
    return this.#inner.capabilities;
  }

  prepare(options: Parameters<Destination["prepare"]>[0] = {}) {
    return measure("prepare", options.signal, () => this.#inner.prepare(options));
  }

  list(prefix: string, options: ListOptions = {}) {
    return measuredItems(options.signal, this.#inner.list(prefix, options));
  }

  listFolders(prefix: string, options: { signal?: AbortSignal | undefined } = {}) {
    return measuredItems(options.signal, this.#inner.listFolders(prefix, options));
  }

  head(key: string, options: Parameters<Destination["head"]>[1] = {}) {
    return measure("head", options.signal, () => this.#inner.head(key, options), resultOfAnswer);
  }

  async read(key: string, options: ReadOptions = {}): Promise<ObjectBody | null> {
    const watch = new Stopwatch("read", options.signal);
    try {
      const body = await this.#inner.read(key, options);
      if (body !== null) return { ...body, chunks: measuredChunks(body.chunks, watch) };
      watch.end("missing");
      return null;
    } catch (error) {
      watch.fail(error);
      throw error;
    }
  }

  write(...[key, source, options = {}]: Parameters<Destination["write"]>) {
    let sent = 0;
    const onProgress = (total: number): void => {
      sentBytes.add({}, total - sent);
      sent = total;
      options.onProgress?.(total);
    };
    const write = () => this.#inner.write(key, source, { ...options, onProgress });
    return measure("write", options.signal, write, ({ kind }) => (kind === "written" ? "ok" : "condition"));
  }

  remove(keys: readonly string[], options: Parameters<Destination["remove"]>[1] = {}) {
    return measure("remove", options.signal, () => this.#inner.remove(keys, options));
  }

  close(): void {
    this.#inner.close();
  }
}

/** One request, which ends once. */
class Stopwatch {
  readonly #operation: Operation;
  readonly #signal: AbortSignal | undefined;
  #activeMs = 0;
  #sinceMs: number | null = monotonicMs();
  #hasEnded = false;

  constructor(operation: Operation, signal: AbortSignal | undefined) {
    this.#operation = operation;
    this.#signal = signal;
  }

  /** Whoever asked is doing something else: that time is not the destination's. */
  pause(): void {
    if (this.#sinceMs !== null) this.#activeMs += monotonicMs() - this.#sinceMs;
    this.#sinceMs = null;
  }

  resume(): void {
    this.#sinceMs ??= monotonicMs();
  }

  end(result: Result): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.pause();
    requests.add({ operation: this.#operation, result });
    requestDurations.observe({ operation: this.#operation }, this.#activeMs);
  }

  fail(error: unknown): void {
    if (this.#signal?.aborted) this.end("aborted");
    else if (!(error instanceof DestinationError)) this.end("failed");
    else this.end(error.retryable ? "unreachable" : "refused");
  }
}

async function measure<T>(
  operation: Operation,
  signal: AbortSignal | undefined,
  action: () => Promise<T>,
  resultOf: (answer: T) => Result = () => "ok",
): Promise<T> {
  const watch = new Stopwatch(operation, signal);
  try {
    const answer = await action();
    watch.end(resultOf(answer));
    return answer;
  } catch (error) {
    watch.fail(error);
    throw error;
  }
}

function resultOfAnswer(answer: unknown): Result {
  return answer === null ? "missing" : "ok";
}

/** A list that its reader leaves early went well as far as it went. */
async function* measuredItems<T>(signal: AbortSignal | undefined, items: AsyncIterable<T>): AsyncGenerator<T> {
  const watch = new Stopwatch("list", signal);
  try {
    for await (const item of items) {
      watch.pause();
      yield item;
      watch.resume();
    }
  } catch (error) {
    watch.fail(error);
    throw error;
  } finally {
    watch.end("ok");
  }
}

function measuredChunks(chunks: AsyncIterable<Uint8Array>, watch: Stopwatch): AsyncIterable<Uint8Array> {
  watch.pause();
  let iterator: AsyncIterator<Uint8Array> | null = null;
  const iterate = () => (iterator ??= chunks[Symbol.asyncIterator]());
  return readOnce(
    async () => {
      watch.resume();
      try {
        const { done, value } = await iterate().next();
        if (done) {
          watch.end("ok");
          return null;
        }
        receivedBytes.add({}, value.length);
        watch.pause();
        return value;
      } catch (error) {
        watch.fail(error);
        throw error;
      }
    },
    async () => {
      watch.end("ok");
      await iterate().return?.();
    },
  );
}
