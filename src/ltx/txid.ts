/** Transaction ids: what one shipped change set is called. A `bigint` at rest, since LTX stores a u64. */
import { hex64 } from "../bytes.ts";

export type Txid = bigint;

/** An inclusive range of transaction ids. `min` = 1 marks a snapshot in LTX. */
export interface TxidRange {
  minTxid: Txid;
  maxTxid: Txid;
}

/** Sixteen hex digits, the form the LTX tools print. */
export function formatTxid(txid: Txid): string {
  return hex64(txid);
}

/** Ascending order. */
export function compareTxids(a: Txid, b: Txid): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
