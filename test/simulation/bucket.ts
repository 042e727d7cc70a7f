/**
 * A destination in memory that behaves as badly as real ones do: it fails before or after the work is done, loses answers,
 * refuses, throttles and answers late. What it has acknowledged it keeps.
 */
import { readFileSync } from "node:fs";
import type {
  Capabilities,
  Destination,
  ListOptions,
  ObjectBody,
  ObjectHead,
  ObjectInfo,
  ReadOptions,
  WriteOptions,
  WriteResult,
  WriteSource,
} from "../../src/destination/destination.ts";
import { requireKey } from "../../src/destination/keys.ts";
import { sleep } from "../../src/destination/retry.ts";
import { DestinationError } from "../../src/errors.ts";
import type { Random } from "./random.ts";

export type Weather = "fine" | "flaky" | "down" | "refusing" | "slow";

interface Stored {
  bytes: Buffer;
  etag: string;
  metadata: Record<string, string>;
  modifiedMs: number;
}

type Attempt = <T>(work: () => T, signal?: AbortSignal) => Promise<T>;

/** What every process that talks to it sees: the objects outlive them all. */
export class Bucket {
  readonly objects = new Map<string, Stored>();
  weather: Weather = "fine";
  /** Requests that were answered or failed: a sign of life for the simulation's pump. */
  requests = 0;
  /** Called with the key of each object that was written. */
  onWritten: (key: string) => void = () => {};
  readonly capabilities: Capabilities;
  readonly #random: Random;
  #etags = 0;

  constructor(random: Random, capabilities: Capabilities) {
    this.#random = random;
    this.capabilities = capabilities;
  }

  /** A process's own connection; after `cut` nothing it asks for happens any more. */
  connect(): { destination: Destination; cut: () => void } {
    let isCut = false;
    const attempt: Attempt = async (work, signal) => {
      const gone = new DestinationError("the process is gone", { retryable: true });
      if (isCut) throw gone;
      if (this.weather === "slow") await sleep(this.#random.below(this.#random.oneIn(4) ? 8000 : 400), signal);
      signal?.throwIfAborted();
      this.requests++;
      if (this.weather === "down") throw new DestinationError("simulated: no answer", { retryable: true });
      if (this.weather === "refusing") throw new DestinationError("simulated: 403", { retryable: false, status: 403 });
      const fate = this.weather === "flaky" ? this.#random.below(4) : 3;
      if (fate === 0) throw new DestinationError("simulated: 503 SlowDown", { retryable: true, status: 503 });
      if (isCut) throw gone;
      const result = work();
      if (fate === 1) throw new DestinationError("simulated: the answer was lost", { retryable: true });
      return result;
    };
    const destination: Destination = {
      url: "memory://bucket",
      capabilities: this.capabilities,
      prepare: () => attempt(() => {}),
      list: (prefix, options) => this.#list(attempt, prefix, options),
      // Asked for only to name others in an error.
      listFolders: async function* () {},
      head: (key, options) => attempt(() => this.#head(key), options?.signal),
      read: (key, options) => attempt(() => this.#read(key, options), options?.signal),
      write: (key, source, options) => attempt(() => this.#write(key, source, options), options?.signal),
      remove: (keys) => attempt(() => keys.forEach((key) => void this.objects.delete(key))),
      close: () => {},
    };
    return {
      destination,
      cut: () => {
        isCut = true;
      },
    };
  }

  /** Somebody deletes the last `count` objects, by name; the manifest is one of them. */
  loseNewest(count: number): number {
    const lost = [...this.objects.keys()].sort().slice(-count);
    for (const key of lost) this.objects.delete(key);
    return lost.length;
  }

  async *#list(
    attempt: Attempt,
    prefix: string,
    { startAfter = "", signal }: ListOptions = {},
  ): AsyncGenerator<ObjectInfo> {
    const keys = await attempt(() => [...this.objects.keys()].filter((key) => key.startsWith(prefix)).sort(), signal);
    // Nothing may depend on the order, although S3 keeps it.
    if (this.weather !== "fine") keys.reverse();
    for (const key of keys) if (key > startAfter) yield this.#head(key)!;
  }

  #head(key: string): ObjectHead | null {
    const stored = this.objects.get(key);
    if (stored === undefined) return null;
    const { bytes, etag, modifiedMs } = stored;
    const metadata = this.capabilities.metadata ? stored.metadata : {};
    return {
      key,
      sizeBytes: bytes.length,
      modifiedAt: new Date(modifiedMs),
      storedAt: new Date(modifiedMs),
      etag,
      metadata,
    };
  }

  #read(key: string, { range }: ReadOptions = {}): ObjectBody | null {
    const stored = this.objects.get(key);
    if (stored === undefined) return null;
    const { length } = stored.bytes;
    const first = range === undefined ? 0 : range.first < 0 ? Math.max(0, length + range.first) : range.first;
    const part = stored.bytes.subarray(first, (range?.last ?? length) + 1);
    return {
      ...this.#head(key)!,
      chunks: (async function* () {
        yield part;
      })(),
    };
  }

  #write(key: string, source: WriteSource, { condition, metadata = {} }: WriteOptions = {}): WriteResult {
    requireKey("memory://bucket", key);
    const present = this.objects.get(key);
    if (condition === "absent" && present !== undefined) return { kind: "refused" };
    if (typeof condition === "object" && present?.etag !== condition.etag) return { kind: "refused" };
    if (source.kind === "stream") throw new Error("expected a source that is not encrypted, found a stream");
    const bytes = source.kind === "bytes" ? Buffer.from(source.bytes) : readFileSync(source.path);
    const etag = String(++this.#etags);
    this.objects.set(key, { bytes, etag, metadata, modifiedMs: Date.now() });
    this.onWritten(key);
    return { kind: "written", etag };
  }
}
