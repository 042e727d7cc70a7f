/** What replication counts and measures. */
import { Counter, defineGauge, type Sample } from "../metrics.ts";
import type { Replicator } from "./replicator.ts";

export const commitsCaptured = new Counter("walsync_commits_captured_total", "SQLite transactions that were captured.");
export const filesShipped = new Counter("walsync_files_shipped_total", "LTX files that the destination acknowledged.");
export const bytesShipped = new Counter("walsync_shipped_bytes_total", "Bytes of LTX files that were acknowledged.");
export const uploadFailures = new Counter("walsync_upload_failures_total", "Uploads that failed and are tried again.");
export const resyncs = new Counter("walsync_resyncs_total", "Comparisons of a whole database, by what gave the doubt.");
export const yields = new Counter(
  "walsync_yields_total",
  "Times the pin was let go for a checkpoint of the application; unproven ones led to a resync.",
);
export const validations = new Counter("walsync_validations_total", "Databases read whole and compared, by result.");
export const chainRepairs = new Counter(
  "walsync_chain_repairs_total",
  "Times that acknowledged files were missing at the destination, and a snapshot replaced them.",
);

/** Defines the gauges of these databases, whichever there are at the time. */
export function measure(replicators: () => readonly Replicator[]): void {
  const define = (name: string, help: string, read: (replicator: Replicator) => number | null) =>
    defineGauge(name, help, () => samplesOf(replicators(), read));
  define("walsync_captured_txid", "Newest captured transaction.", (replicator) =>
    numberOf(replicator.position?.captured.txid),
  );
  define("walsync_shipped_txid", "Newest acknowledged transaction.", (replicator) =>
    numberOf(replicator.position?.shippedTxid),
  );
  define("walsync_outbox_files", "Files that wait for the destination.", (replicator) => replicator.waitingFiles);
  define(
    "walsync_outbox_bytes",
    "Bytes that wait for the destination.",
    (replicator) => replicator.status?.waitingBytes ?? 0,
  );
  define("walsync_lag_seconds", "Age of the oldest transaction that is captured and not acknowledged.", (replicator) =>
    replicator.status === null ? null : replicator.status.lagMs / 1000,
  );
  define("walsync_wal_bytes", "Size of the WAL file.", (replicator) => replicator.status?.walBytes ?? null);
  define(
    "walsync_database_up",
    "1 while the database is replicated, 0 while a fault keeps it from that.",
    (replicator) => (replicator.trouble === null ? 1 : 0),
  );
  defineGauge("walsync_process_resident_bytes", "Memory of the process.", () => [[{}, process.memoryUsage.rss()]]);
}

// --- internal ---

function* samplesOf(
  replicators: readonly Replicator[],
  read: (replicator: Replicator) => number | null,
): Iterable<Sample> {
  for (const replicator of replicators) {
    const value = read(replicator);
    if (value !== null) yield [{ database: replicator.name }, value];
  }
}

function numberOf(txid: bigint | undefined): number | null {
  return txid === undefined ? null : Number(txid);
}
