/**
 * Uploads the files of one outbox. Files that claim a txid go strictly in order, one at a time; later snapshots go
 * beside them, since nothing follows on from a snapshot. A file leaves the outbox only after the destination
 * acknowledged it and that was recorded.
 *
 * Faults of the destination never lose anything: the file stays, and is tried again for as long as it takes.
 */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { MiB } from "../bytes.ts";
import { hashObject, readFileEnds } from "../chain/chain.ts";
import type { ChainChecksums } from "../chain/layout-rules.ts";
import { listedFacts } from "../chain/stored.ts";
import type { Destination, WriteResult } from "../destination/destination.ts";
import { jitteredMs, sleep } from "../destination/retry.ts";
import { asDiskError } from "../durable.ts";
import { DestinationError, LtxError, WalsyncError } from "../errors.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import type { TxidRange } from "../ltx/txid.ts";
import { nextTurn } from "../turn.ts";
import { fencedError } from "./contact.ts";
import { claimsTxid, type Outbox, OutboxDamage, type OutboxFile, readOutboxEnds } from "./outbox.ts";
import type { StateTags } from "./state-tags.ts";

/** A file that the destination has, as far as others need to know. */
export interface ShippedFile {
  file: TxidRange & { sizeBytes: number };
  key: string;
  /** When the state after it was captured. */
  timestampMs: number;
}

export interface Shipped extends ShippedFile {
  file: OutboxFile;
  /** As the manifest tells them. */
  sha256: string;
  pageSize: number;
  checksums: ChainChecksums;
}

export type UploadProgress = (sentBytes: number, totalBytes: number) => void;

export interface ShipperEvents {
  onProgress?: UploadProgress | undefined;
  /** The destination has it: the file leaves the outbox when this returns, and the disk once that is recorded. */
  onShipped(shipped: Shipped): void;
  /** An upload failed; `failures` in a row so far. It is tried again, unless this throws. */
  onFailure(error: WalsyncError, failures: number): void;
  /** Uploading has stopped for good: E_FENCED, `OutboxDamage`, or this is a bug. */
  onStop(error: unknown): void;
}

/** How long to leave a destination alone that failed so often in a row. That it is back is noticed within half a minute. */
export function pauseMs(failures: number): number {
  return jitteredMs(failures, 1000, 30_000);
}

export class Shipper {
  readonly #destination: Destination;
  readonly #name: string;
  readonly #outbox: Outbox;
  /** Of files that are encrypted at the destination; null if none are. */
  readonly #tags: StateTags | null;
  readonly #events: ShipperEvents;
  readonly #stop = new AbortController();
  readonly #lanes = { claims: new Lane(), snapshots: new Lane() };

  constructor(destination: Destination, name: string, outbox: Outbox, tags: StateTags | null, events: ShipperEvents) {
    this.#destination = destination;
    this.#name = name;
    this.#outbox = outbox;
    this.#tags = tags;
    this.#events = events;
  }

  /** Uploads what is in the outbox, unless it is being uploaded already. Call it after each file that was staged. */
  start(): void {
    if (this.#stop.signal.aborted) return;
    this.#lanes.claims.run(() => this.#drain((file) => claimsTxid(file)));
    this.#lanes.snapshots.run(() => this.#drain((file) => !claimsTxid(file)));
  }

  /** Resolves when nothing is under way: everything is shipped, or it stopped. */
  async settled(): Promise<void> {
    await Promise.all([this.#lanes.claims.done, this.#lanes.snapshots.done]);
  }

  /** Gives up what is under way; the outbox keeps it. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.settled();
  }

  async #drain(ofLane: (file: OutboxFile) => boolean): Promise<void> {
    let failures = 0;
    for (;;) {
      const file = this.#outbox.files.find(ofLane);
      if (file === undefined || this.#stop.signal.aborted) return;
      try {
        const shipped = await this.#ship(file);
        this.#events.onShipped(shipped);
        this.#outbox.release(file);
        failures = 0;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        if (!this.#goesOn(error, ++failures)) return;
        await sleep(pauseMs(failures), this.#stop.signal).catch(() => {});
      }
    }
  }

  #goesOn(error: unknown, failures: number): boolean {
    try {
      const isFinal = !(error instanceof WalsyncError) || error.code === "E_FENCED" || error instanceof OutboxDamage;
      if (isFinal) throw error;
      this.#events.onFailure(error, failures);
      return true;
    } catch (reason) {
      this.#stop.abort();
      this.#events.onStop(reason);
      return false;
    }
  }

  async #ship(file: OutboxFile): Promise<Shipped> {
    const { signal } = this.#stop;
    const { rules } = this.#outbox;
    requireWhole(file);
    // What this process staged it knows. What an earlier one left may have been damaged since.
    file.sha256 ??= await verifyFile(file);
    const facts = { sha256: file.sha256, commits: file.commits, ...readOutboxEnds(file) };
    const { metadata, modifiedAt } = rules.attributesOf(facts);
    const tag = this.#tags?.of(file.maxTxid, facts.checksums.post);
    const attributes = {
      metadata: { ...metadata, ...(tag !== undefined && { state: tag }) },
      ...(modifiedAt && { modifiedAt }),
    };
    const source = { kind: "file", path: file.path, sizeBytes: file.sizeBytes } as const;
    const onProgress = (sentBytes: number) => this.#events.onProgress?.(sentBytes, file.sizeBytes);
    const keys = rules.shippedKeys(this.#name, file);
    const shipped = { file, key: keys[0], ...facts };
    let claim: WriteResult | null = null;
    // The key that claims the txid is the first.
    for (const key of keys) {
      const options = { condition: "absent", ...attributes, signal, onProgress } as const;
      const result = await this.#destination.write(key, source, options);
      if (result.kind === "refused") await this.#requireOwn({ ...shipped, key }, attributes.metadata, signal);
      claim ??= result;
    }
    const range = { key: keys[0], minTxid: file.minTxid, maxTxid: file.maxTxid };
    return { ...shipped, ...(await listedFacts(this.#destination, range, facts, claim, signal)) };
  }

  /** The key exists already: fine if it holds what we wanted to write (the answer was lost), fenced if not. */
  async #requireOwn(
    { file, key, sha256, checksums }: Shipped,
    { timestamp, state }: Record<string, string>,
    signal: AbortSignal,
  ): Promise<void> {
    const found = await this.#destination.head(key, { signal });
    if (found === null) {
      throw new DestinationError(`${this.#destination.url}: expected ${key}, which is said to exist, found nothing`, {
        retryable: true,
      });
    }
    if (state !== undefined) {
      // Encrypted anew it is other bytes: ours is what has our tag, and with a claimed txid is the same file.
      const isSame = found.sizeBytes === file.sizeBytes && found.metadata.timestamp === timestamp;
      if (found.metadata.state === state && (isSame || !claimsTxid(file))) return;
      throw fencedError(this.#name, this.#destination.url, key);
    }
    const remote = { key, minTxid: file.minTxid, maxTxid: file.maxTxid };
    if (found.sizeBytes === file.sizeBytes) {
      const foundSha256 = found.metadata.sha256 ?? (await hashObject(this.#destination, remote, signal));
      if (foundSha256 === sha256) return;
    }
    if (!claimsTxid(file)) {
      // Two snapshots of one state may differ in their timestamps only.
      const ends = await readFileEnds(this.#destination, remote, signal);
      if (this.#outbox.rules.checksumsOf(ends)?.post === checksums.post) return;
    }
    throw fencedError(this.#name, this.#destination.url, key);
  }
}

// --- internal ---

/** One activity at a time; a request while it runs makes it look again at the end. */
class Lane {
  done: Promise<void> = Promise.resolve();
  #running = false;
  #again = false;

  run(activity: () => Promise<void>): void {
    this.#again = true;
    if (this.#running) return;
    this.#running = true;
    this.done = (async () => {
      while (this.#again) {
        this.#again = false;
        await activity();
      }
      this.#running = false;
    })();
  }
}

/** Throws OutboxDamage if the file is gone or has another size. */
function requireWhole({ path, sizeBytes }: OutboxFile): void {
  const found = onDisk(path, () => statSync(path, { throwIfNoEntry: false })?.size);
  if (found === sizeBytes) return;
  throw new OutboxDamage(`${path}: expected ${sizeBytes} bytes, found ${found === undefined ? "no file" : found}`);
}

/** Reads a staged file to its end and returns its sha256. Throws OutboxDamage, E_DISK. */
async function verifyFile({ path, sizeBytes, minTxid, maxTxid }: OutboxFile): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  const decoder = new LtxDecoder({ name: path, expectedSizeBytes: sizeBytes });
  const part = new Uint8Array(MiB);
  const fd = onDisk(path, () => openSync(path, "r"));
  try {
    for (;;) {
      const got = onDisk(path, () => readSync(fd, part));
      if (got === 0) break;
      hasher.update(part.subarray(0, got));
      decoder.push(part.subarray(0, got));
      await nextTurn();
    }
    const { header } = decoder.finish();
    if (header.minTxid !== minTxid || header.maxTxid !== maxTxid) {
      throw new LtxError(`${path}: expected txids ${minTxid}-${maxTxid}, found ${header.minTxid}-${header.maxTxid}`);
    }
    return hasher.digest("hex");
  } catch (error) {
    if (error instanceof LtxError) throw new OutboxDamage(error.message, { cause: error });
    throw error;
  } finally {
    closeSync(fd);
  }
}

function onDisk<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw asDiskError(path, error);
  }
}
