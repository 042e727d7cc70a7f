/** What happens to one database, told: each event is a line of the log, and counted. */
import { monotonicMs } from "../clock.ts";
import { type LogFields, type LogLevel, logEvent } from "../log.ts";
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

export class Journal {
  readonly #database: string;
  #readerToldMs = Number.NEGATIVE_INFINITY;

  constructor(name: string) {
    this.#database = name;
  }

  tell(level: LogLevel, event: string, fields: LogFields = {}): void {
    logEvent(level, event, { database: this.#database, ...fields });
  }

  /** What one look at the database did. */
  tended({ captured, checkpoints: taken }: Tended): void {
    for (const { file, commits } of captured) {
      commitsCaptured.add({ database: this.#database }, commits);
      this.tell("debug", "captured", { txid: file.maxTxid, commits, sizeBytes: file.sizeBytes });
    }
    for (const checkpoint of taken) this.checkpointed(checkpoint);
  }

  shipped({ file, key }: Shipped): void {
    const { maxTxid, sizeBytes } = file;
    const isSnapshot = file.minTxid === 1n;
    if (!isSnapshot) {
      const durationMs = Math.max(0, Date.now() - file.stagedAtMs);
      syncs.observe({ database: this.#database }, durationMs);
      syncLatencies.observe({}, durationMs);
    }
    filesShipped.add({ database: this.#database, kind: isSnapshot ? "snapshot" : "increment" });
    bytesShipped.add({ database: this.#database }, sizeBytes);
    this.tell(isSnapshot ? "info" : "debug", isSnapshot ? "snapshot shipped" : "shipped", {
      txid: maxTxid,
      key,
      sizeBytes,
    });
  }

  resyncBegins(reason: ResyncReason): void {
    resyncs.add({ database: this.#database, reason });
    this.tell("warn", "comparing the whole database", { reason });
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
