/**
 * First contact with a destination: where its chain ends, and what that means for a database. A writer that does not know
 * the end of the chain would mint txids twice.
 */
import { readChains, readFileEnds } from "../chain/chain.ts";
import { type ChainFile, planChain } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { ChainGapError, WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import type { Position } from "./position.ts";

/** The last transaction at the destination. */
export interface RemoteEnd {
  txid: Txid;
  /** Database checksum after it. */
  checksum: bigint;
  timestampMs: number;
  pageSize: number;
  /** The newest snapshot, and when it was written; 0 if there is none. */
  snapshotTxid: Txid;
  snapshotAtMs: number;
  /** Everything up to it can be restored. */
  whole: boolean;
}

export type ContactPlan =
  /** Nothing there: the chain begins with a snapshot. */
  | { kind: "begin" }
  /** The chain ends where we are, or within what the outbox holds. */
  | { kind: "continue" }
  /** A chain that this host knows nothing about: go on from its end. */
  | { kind: "take-over" }
  /** Files that were acknowledged are gone: only a snapshot makes the newest state restorable. */
  | { kind: "snapshot"; reason: "files-missing" | "chain-gap" }
  /** Somebody else went on with the chain. */
  | { kind: "fenced" };

/** Null if there is nothing of `name` at the destination. */
export async function readRemoteEnd(
  destination: Destination,
  name: string,
  signal?: AbortSignal,
): Promise<RemoteEnd | null> {
  const [chain] = await readChains(destination, `${name}/`, name, signal);
  if (chain === undefined) return null;
  if (chain.layout !== "walsync") {
    throw new WalsyncError(
      "E_CONFIG",
      `${name}: expected the walsync layout at ${destination.url}, found ${chain.layout}`,
      {
        hint: "Give the database another name with name=path, or another prefix.",
      },
    );
  }
  const last = chain.files.reduce((a, b) => (b.maxTxid > a.maxTxid ? b : a));
  const { header, trailer } = await readFileEnds(destination, last, signal);
  const snapshots = chain.files.filter((file) => file.kind === "snapshot");
  const snapshot = snapshots.length === 0 ? null : snapshots.reduce((a, b) => (b.maxTxid > a.maxTxid ? b : a));
  return {
    txid: last.maxTxid,
    checksum: trailer.postApplyChecksum,
    timestampMs: header.timestampMs,
    pageSize: header.pageSize,
    snapshotTxid: snapshot?.maxTxid ?? 0n,
    snapshotAtMs: snapshot?.modifiedAt.getTime() ?? 0,
    whole: isWhole(name, chain.files),
  };
}

/** Decides what the remote end means. Pure. `checksumAtShipped` is ours after the last acknowledged transaction. */
export function planContact(
  position: Position | null,
  checksumAtShipped: bigint | null,
  remote: RemoteEnd | null,
): ContactPlan {
  if (position === null) return remote === null ? { kind: "begin" } : { kind: "take-over" };
  const { shippedTxid, captured } = position;
  if (remote === null) return shippedTxid === 0n ? { kind: "continue" } : { kind: "snapshot", reason: "files-missing" };
  if (remote.txid > captured.txid) return { kind: "fenced" };
  if (remote.txid < shippedTxid) return { kind: "snapshot", reason: "files-missing" };
  // Between the two, the uploads of the outbox find out whose files they are.
  if (remote.txid === captured.txid && remote.checksum !== captured.checksum) return { kind: "fenced" };
  if (remote.txid === shippedTxid && checksumAtShipped !== null && remote.checksum !== checksumAtShipped) {
    return { kind: "fenced" };
  }
  return remote.whole ? { kind: "continue" } : { kind: "snapshot", reason: "chain-gap" };
}

/** E_FENCED: `found` is what another writer left. */
export function fencedError(name: string, url: string, found: string): WalsyncError {
  return new WalsyncError(
    "E_FENCED",
    `${name}: expected to be the only writer in ${url}, found another one's ${found}`,
    {
      hint: "Stop the other writer, or give this database another name. To take the name over, delete its state folder.",
    },
  );
}

// --- internal ---

function isWhole(name: string, files: readonly ChainFile[]): boolean {
  try {
    planChain(name, files, null);
    return true;
  } catch (error) {
    if (error instanceof ChainGapError) return false;
    throw error;
  }
}
