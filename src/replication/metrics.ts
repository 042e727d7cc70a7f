/** What replication counts and measures. */
import { Counter, Duration, defineGauge, Histogram } from "../metrics.ts";
import type { Replicator } from "./replicator.ts";

export const commitsCaptured = new Counter(
  "walsync_captured_commits_total",
  "SQLite transactions that were captured.",
  ["database"],
);
export const filesShipped = new Counter(
  "walsync_shipped_files_total",
  "LTX files that the destination acknowledged, by kind.",
  ["database", "kind"],
);
export const bytesShipped = new Counter(
  "walsync_shipped_bytes_total",
  "Bytes of LTX files that the destination acknowledged.",
  ["database"],
);
export const syncs = new Duration(
  "walsync_sync_seconds",
  "Increments that were shipped, and the time from captured to acknowledged.",
  ["database"],
);
export const syncLatencies = new Histogram(
  "walsync_sync_latency_seconds",
  "Time from captured to acknowledged, of the increments of all databases.",
  [],
);
export const snapshots = new Duration(
  "walsync_snapshot_seconds",
  "Snapshots that were staged, and the time that took, waiting for other scans included.",
  ["database"],
);
export const validations = new Counter(
  "walsync_validations_total",
  "Databases that were read whole and compared with what was captured, by result: same, or the reason of the resync that follows.",
  ["database", "result"],
);
export const resyncs = new Counter(
  "walsync_resyncs_total",
  "Comparisons of a whole database after a doubt, by what gave it.",
  ["database", "reason"],
);
export const checkpoints = new Counter(
  "walsync_checkpoints_total",
  "Checkpoints by mode: passive (ours), fence (ours, writers wait), yield (the application's, which the pin made way for).",
  ["database", "mode", "result"],
);
export const uploadFailures = new Counter(
  "walsync_upload_failures_total",
  "Uploads that failed, and are tried again, by code.",
  ["database", "code"],
);
export const damages = new Counter(
  "walsync_damages_total",
  "Damage that was found, by kind: database (changed behind the WAL), destination (files are missing), outbox.",
  ["database", "kind"],
);

/** Defines the gauges of the databases that are there when somebody reads them. */
export function measure(replicators: () => Iterable<Replicator>): void {
  const define = (name: string, help: string, read: (replicator: Replicator) => number | null) =>
    defineGauge(name, help, ["database"], function* () {
      for (const replicator of replicators()) {
        const value = read(replicator);
        if (value !== null) yield [{ database: replicator.name }, value] as const;
      }
    });
  define(
    "walsync_database_up",
    "1 while the database is replicated, 0 while a fault keeps it from that.",
    ({ trouble }) => (trouble === null ? 1 : 0),
  );
  define("walsync_database_bytes", "Size of the database, as captured.", ({ position }) =>
    position === null ? null : position.captured.commit * position.captured.pageSize,
  );
  define("walsync_wal_bytes", "Size of the WAL file.", ({ status }) => status?.walBytes ?? null);
  define("walsync_outbox_files", "Files that wait for the destination.", ({ waitingFiles }) => waitingFiles);
  define("walsync_outbox_bytes", "Bytes that wait for the destination.", ({ status }) => status?.waitingBytes ?? 0);
  define("walsync_captured_txid", "Newest captured transaction.", ({ position }) => numberOf(position?.captured.txid));
  define("walsync_shipped_txid", "Newest acknowledged transaction.", ({ position }) => numberOf(position?.shippedTxid));
  define("walsync_lag_seconds", "Age of the oldest transaction that is captured and not acknowledged.", ({ status }) =>
    status === null ? null : status.lagMs / 1000,
  );
  define(
    "walsync_last_success_timestamp_seconds",
    "Unix time when the destination last acknowledged a file, or told that the chain is whole; none before the first time.",
    ({ confirmedAtMs }) => secondsOf(confirmedAtMs),
  );
  define("walsync_snapshot_timestamp_seconds", "Unix time of the newest acknowledged snapshot.", ({ position }) =>
    secondsOf(position?.snapshotAtMs),
  );
  define(
    "walsync_validation_timestamp_seconds",
    "Unix time when the whole database was last read and found to be what was captured.",
    ({ position }) => secondsOf(position?.validatedAtMs),
  );
}

// --- internal ---

function numberOf(txid: bigint | undefined): number | null {
  return txid === undefined ? null : Number(txid);
}

/** Null for what never was. */
function secondsOf(atMs: number | null | undefined): number | null {
  return atMs ? atMs / 1000 : null;
}
