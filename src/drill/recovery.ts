/** How much would be lost if the machine were lost now: the newest restore point against what the live database has. Pure. */
import type { Txid } from "../ltx/txid.ts";

/** A restore point. */
export interface RestorePoint {
  txid: Txid;
  /** When that state was captured. */
  timestampMs: number;
}

/** What a running watch knows of the live database. */
export interface LiveState {
  /** Newest transaction that it captured, and newest that it believes to be at the destination. */
  txid: Txid;
  shippedTxid: Txid;
  /** Age of the oldest that it captured and that was not acknowledged. */
  lagMs: number;
}

export interface Recovery {
  newest: RestorePoint;
  /** Age of the newest restore point. */
  ageMs: number;
  /** Captured transactions that are not at the destination; null if nobody watches the database here. */
  missing: bigint | null;
  /**
   * Age of the oldest transaction that would be lost, 0 if none would. Where nobody knows what the live database has, the age of
   * the newest restore point: nothing that is older is lost.
   */
  rpoMs: number;
}

/** `live` must have been asked before the restore points were listed, at `atMs`. */
export function recoveryOf(newest: RestorePoint, live: LiveState | null, atMs: number): Recovery {
  const ageMs = Math.max(0, atMs - newest.timestampMs);
  if (live === null) return { newest, ageMs, missing: null, rpoMs: ageMs };
  const missing = live.txid > newest.txid ? live.txid - newest.txid : 0n;
  if (missing === 0n) return { newest, ageMs, missing, rpoMs: 0 };
  // What was acknowledged once and is not there any more is lost with the machine, whatever the watch believes.
  const rpoMs = newest.txid >= live.shippedTxid ? Math.min(live.lagMs, ageMs) : ageMs;
  return { newest, ageMs, missing, rpoMs };
}
