/** What a running watch says of one database: to `walsync status`, and on its status page. */
import type { DatabaseReport, DrillSummary } from "../control.ts";
import type { Replicator } from "./replicator.ts";

/** `drill`: the last one of it. */
export function reportOf(replicator: Replicator, drill: DrillSummary | null): DatabaseReport {
  const { name, path, position, status, trouble } = replicator;
  const captured = position?.captured;
  const txid = Number(captured?.txid ?? 0n);
  const shippedTxid = Number(position?.shippedTxid ?? 0n);
  return {
    name,
    path,
    state: replicator.state,
    txid,
    shipped_txid: shippedTxid,
    lag_seconds: (status?.lagMs ?? 0) / 1000,
    lag_transactions: txid - shippedTxid,
    size_bytes: captured === undefined ? 0 : captured.commit * captured.pageSize,
    outbox_bytes: status?.waitingBytes ?? 0,
    wal_bytes: status?.walBytes ?? 0,
    shipped_at: replicator.shippedAtMs === null ? null : new Date(replicator.shippedAtMs).toISOString(),
    shipped_increments: replicator.shippedIncrements,
    error: trouble,
    drill,
  };
}
