/** What following a database into a read copy counts and measures. */
import { Counter, Duration, defineGauge } from "../metrics.ts";

export const steps = new Duration(
  "walsync_replica_step_seconds",
  "Looks at the destination that went well, and the time they took, by what they led to: current, increments, bootstrap.",
  ["database", "kind"],
);
export const failures = new Counter(
  "walsync_replica_failures_total",
  "Looks at the destination that failed and are tried again, by code. The copy stays as it was.",
  ["database", "code"],
);

export interface ReplicaState {
  /** Null before the first look that went well, like the others. */
  txid: bigint | null;
  /** When the state of the copy was captured at the source. */
  capturedAtMs: number | null;
  /** When the copy was last known to be at the end of the chain. */
  currentAtMs: number | null;
}

/** Defines the gauges of the copy of `database`. */
export function measureReplica(database: string, state: () => ReplicaState): void {
  const define = (name: string, help: string, read: (state: ReplicaState) => number | null) =>
    defineGauge(name, help, ["database"], () => {
      const value = read(state());
      return value === null ? [] : [[{ database }, value]];
    });
  define("walsync_replica_txid", "Transaction that the copy is at.", ({ txid }) =>
    txid === null ? null : Number(txid),
  );
  define(
    "walsync_replica_lag_seconds",
    "Time since the copy was last known to be at the end of the chain.",
    ({ currentAtMs }) => (currentAtMs === null ? null : Math.max(0, Date.now() - currentAtMs) / 1000),
  );
  define(
    "walsync_replica_last_success_timestamp_seconds",
    "Unix time when the copy was last known to be at the end of the chain.",
    ({ currentAtMs }) => (currentAtMs === null ? null : currentAtMs / 1000),
  );
  define(
    "walsync_replica_state_timestamp_seconds",
    "Unix time when the state of the copy was captured at the source.",
    ({ capturedAtMs }) => (capturedAtMs === null ? null : capturedAtMs / 1000),
  );
}
