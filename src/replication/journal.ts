/** What happens to one database, told: each event is a line of the log, and counted; whoever wants to know hears of it. */
import { monotonicMs } from "../clock.ts";
import { type LogFields, type LogLevel, logEvent } from "../log.ts";
import type { Txid } from "../ltx/txid.ts";
import type { Checkpoint, Tended } from "./capture.ts";
import {
  bytesShipped,
  checkpoints,
  commitsCaptured,
  filesShipped,
  resyncs,
  snapshots,
  syncLatencies,
  syncs,
  validations,
} from "./metrics.ts";
import type { OutboxFile } from "./outbox.ts";
import type { ResyncReason } from "./plan.ts";
import type { LiveScanOutcome } from "./scans.ts";
import type { Shipped } from "./shipper.ts";

/** What somebody may want to know of one database while it is replicated. Sizes in bytes. */
export type DatabaseEvent =
  /** First contact is made: from now on what is captured is shipped. */
  | { kind: "replicating"; txid: Txid }
  /** On the local disk for good. `commits`: transactions of SQLite in it. */
  | { kind: "captured"; txid: Txid; commits: number; sizeBytes: number }
  /** The destination acknowledged a file. */
  | { kind: "shipped"; file: "snapshot" | "increment"; txid: Txid; key: string; sizeBytes: number; latencyMs: number }
  /** After a doubt, all pages are compared with what was captured. */
  | { kind: "comparing"; reason: ResyncReason };
export type DatabaseListener = (event: DatabaseEvent) => void;

export class Journal {
  readonly #database: string;
  readonly #listener: DatabaseListener | undefined;
  #readerToldMs = Number.NEGATIVE_INFINITY;

  constructor(name: string, listener: DatabaseListener | undefined) {
    this.#database = name;
    this.#listener = listener;
  }

  tell(level: LogLevel, event: string, fields: LogFields = {}): void {
    logEvent(level, event, { database: this.#database, ...fields });
  }

  replicating(path: string, txid: Txid): void {
    this.tell("info", "replicating", { path, txid });
    this.#listener?.({ kind: "replicating", txid });
  }

  /** What one look at the database did. */
  tended({ captured, checkpoints: taken }: Tended): void {
    for (const { file, commits } of captured) {
      commitsCaptured.add({ database: this.#database }, commits);
      const captured = { txid: file.maxTxid, commits, sizeBytes: file.sizeBytes };
      this.tell("debug", "captured", captured);
      this.#listener?.({ kind: "captured", ...captured });
    }
    for (const checkpoint of taken) this.checkpointed(checkpoint);
  }

  shipped({ file, key }: Shipped): void {
    const { maxTxid, sizeBytes } = file;
    const isSnapshot = file.minTxid === 1n;
    const latencyMs = Math.max(0, Date.now() - file.stagedAtMs);
    if (!isSnapshot) {
      syncs.observe({ database: this.#database }, latencyMs);
      syncLatencies.observe({}, latencyMs);
    }
    filesShipped.add({ database: this.#database, kind: isSnapshot ? "snapshot" : "increment" });
    bytesShipped.add({ database: this.#database }, sizeBytes);
    this.tell(isSnapshot ? "info" : "debug", isSnapshot ? "snapshot shipped" : "shipped", {
      txid: maxTxid,
      key,
      sizeBytes,
    });
    const kind = isSnapshot ? "snapshot" : "increment";
    this.#listener?.({ kind: "shipped", file: kind, txid: maxTxid, key, sizeBytes, latencyMs });
  }

  resyncBegins(reason: ResyncReason): void {
    resyncs.add({ database: this.#database, reason });
    this.tell("warn", "comparing the whole database", { reason });
    this.#listener?.({ kind: "comparing", reason });
  }

  /** `file` is null if nothing differed. */
  resyncEnds(file: OutboxFile | null): void {
    const event = file === null ? "compared: nothing differs" : "compared: differences staged";
    this.tell("info", event, { txid: file?.maxTxid, sizeBytes: file?.sizeBytes });
  }

  checkpointed({ mode, result }: Checkpoint): void {
    checkpoints.add({ database: this.#database, mode, result });
  }

  snapshotStaged(durationMs: number): void {
    snapshots.observe({ database: this.#database }, durationMs);
  }

  scanned(outcome: LiveScanOutcome): void {
    validations.add({ database: this.#database, result: outcome.kind === "done" ? "same" : outcome.reason });
  }

  /** Told at most once a minute: the WAL grows until that reader is done. */
  readerBlocks(sizeBytes: number): void {
    const nowMs = monotonicMs();
    if (nowMs - this.#readerToldMs < READER_PAUSE_MS) return;
    this.#readerToldMs = nowMs;
    const hint = "A long read transaction of the application is open. The WAL cannot be restarted before it ends.";
    this.tell("warn", "a reader keeps the WAL growing", { sizeBytes, hint });
  }
}

// --- internal ---

const READER_PAUSE_MS = 60_000;
