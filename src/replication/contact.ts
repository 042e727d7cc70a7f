/**
 * First contact with a destination: where its chain ends, and what that means for a database. A writer that does not know
 * the end of the chain would mint txids twice.
 */
import { readChains, readFileEnds, readToldTime } from "../chain/chain.ts";
import type { LayoutRules } from "../chain/layout-rules.ts";
import { type ChainFile, planChain } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import type { Layout } from "../destination/layout.ts";
import { ChainGapError, WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import type { Position } from "./position.ts";

/** The last transaction at the destination. */
export interface RemoteEnd {
  txid: Txid;
  /**
   * Database checksum after it; 0 if it is not one of our files and has none. Null if the destination cannot tell, not even
   * of files of ours.
   */
  checksum: bigint | null;
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

/** Null if there is nothing of `name` at the destination. Throws E_CONFIG if what is there has another layout. */
export async function readRemoteEnd(
  destination: Destination,
  name: string,
  rules: LayoutRules,
  signal?: AbortSignal,
): Promise<RemoteEnd | null> {
  const [chain] = await readChains(destination, `${name}/`, name, signal);
  if (chain === undefined) return null;
  if (chain.layout !== rules.layout) throw otherLayout(name, destination.url, rules.layout, chain.layout);
  // Any level may reach furthest: the txids of all of them are taken. Of those that end together the one as shipped tells most.
  const last = chain.files.reduce((a, b) => (reachesFurther(b, a) ? b : a));
  const told = await readEnd(destination, last, rules, signal);
  const snapshots = chain.files.filter((file) => file.kind === "snapshot");
  const snapshot = snapshots.length === 0 ? null : snapshots.reduce((a, b) => (b.maxTxid > a.maxTxid ? b : a));
  return {
    txid: last.maxTxid,
    ...told,
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
  const ours =
    remote.txid === captured.txid ? captured.checksum : remote.txid === shippedTxid ? checksumAtShipped : null;
  if (ours !== null && remote.checksum !== null && remote.checksum !== ours) return { kind: "fenced" };
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

/**
 * Throws E_IDENTITY where files cannot be read: whoever takes a chain over has to know the state at its end, which the next file
 * names.
 */
export function requireReadableEnd(name: string, { url, capabilities }: Destination): void {
  if (capabilities.encryption !== "sealed") return;
  throw new WalsyncError(
    "E_IDENTITY",
    `${name}: expected local state that goes on with the encrypted chain in ${url}, found none`,
    {
      hint: "Start once with --identity FILE, which reads where it ends, or give this database another name with name=path.",
    },
  );
}

// --- internal ---

/** What the last file tells. Without an identity its time, and that it is an encrypted one: its state is not known then. */
async function readEnd(
  destination: Destination,
  last: ChainFile,
  rules: LayoutRules,
  signal: AbortSignal | undefined,
): Promise<Pick<RemoteEnd, "checksum" | "timestampMs" | "pageSize">> {
  if (destination.capabilities.encryption === "sealed") {
    return { checksum: null, timestampMs: await readToldTime(destination, last, signal), pageSize: 0 };
  }
  const ends = await readFileEnds(destination, last, signal);
  const { timestampMs, pageSize } = ends.header;
  return { checksum: rules.checksumsOf(ends)?.post ?? null, timestampMs, pageSize };
}

function reachesFurther(file: ChainFile, than: ChainFile): boolean {
  return file.maxTxid === than.maxTxid ? file.level < than.level : file.maxTxid > than.maxTxid;
}

function otherLayout(name: string, url: string, expected: Layout, found: Layout): WalsyncError {
  return new WalsyncError("E_CONFIG", `${name}: expected the ${expected} layout at ${url}, found ${found}`, {
    hint: `Go on with what is there with --layout ${found}, or give the database another name with name=path.`,
  });
}

function isWhole(name: string, files: readonly ChainFile[]): boolean {
  try {
    planChain(name, files, null);
    return true;
  } catch (error) {
    if (error instanceof ChainGapError) return false;
    throw error;
  }
}
