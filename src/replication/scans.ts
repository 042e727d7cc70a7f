/**
 * What a replicator does with a whole database: begin a chain, take one over, compare after a doubt, take a snapshot.
 * Each pins one commit, reads every page of it, stages what has to be shipped, and only then records the new position.
 */
import { assert } from "../assert.ts";
import type { Txid } from "../ltx/txid.ts";
import type { PinnedDatabase } from "../sqlite/database.ts";
import { capture } from "./capture.ts";
import type { RemoteEnd } from "./contact.ts";
import {
  fillTable,
  type PinnedState,
  pinState,
  type ScanOptions,
  scanChecksum,
  stageResync,
  stageSnapshot,
} from "./full-scan.ts";
import type { LocalState } from "./local-state.ts";
import { isSnapshotAt, type OutboxFile } from "./outbox.ts";
import type { PageTableWriter } from "./page-table.ts";
import { planCapture, type ResyncReason } from "./plan.ts";
import type { Captured, Position } from "./position.ts";

/** The identity of a chain: what a position says besides how far it is. */
export interface ChainIdentity {
  destination: string;
  name: string;
  lineage: string;
}

/** Begins a chain with the snapshot 1-1. */
export async function beginChain(
  database: PinnedDatabase,
  state: LocalState,
  identity: ChainIdentity,
  options: ScanOptions,
): Promise<void> {
  const pinned = pinState(database);
  const timestampMs = Date.now();
  await withNewTable(database, state, async (table) => {
    const { checksum } = await stageSnapshot(database, pinned, state.outbox, 1n, timestampMs, table, options);
    const captured = capturedAt(database, pinned, 1n, checksum, timestampMs);
    return () => ({ ...identity, ...NOTHING_SHIPPED, validatedAtMs: Date.now(), captured });
  });
}

/** Goes on with a chain of the destination. Ships nothing if the database is what the chain ends with, as after a restore. */
export async function takeOver(
  database: PinnedDatabase,
  state: LocalState,
  identity: ChainIdentity,
  remote: RemoteEnd,
  options: ScanOptions,
): Promise<OutboxFile | null> {
  const pinned = pinState(database);
  const timestampMs = Math.max(Date.now(), remote.timestampMs);
  const { snapshotTxid, snapshotAtMs, pageSize: snapshotPageSize } = remote;
  const shipped = { shippedTxid: remote.txid, snapshotTxid, snapshotAtMs, snapshotPageSize };
  const begun = { ...identity, ...NOTHING_SHIPPED, ...shipped, validatedAtMs: Date.now() };
  let file: OutboxFile | null = null;
  await withNewTable(database, state, async (table) => {
    const checksum = await fillTable(database, pinned, table, options);
    if (checksum === remote.checksum) {
      const captured = capturedAt(database, pinned, remote.txid, checksum, remote.timestampMs);
      return () => ({ ...begun, captured });
    }
    const txid = remote.txid + 1n;
    const pre = remote.checksum ?? 0n;
    ({ file } = await stageResync(database, pinned, state.outbox, txid, timestampMs, pre, null, null, options));
    const captured = capturedAt(database, pinned, txid, checksum, timestampMs);
    return () => ({ ...begun, captured });
  });
  return file;
}

/**
 * Compares the whole database with the page table, and stages what differs as the next increment. Null if nothing does.
 * Also right without a table and after a change of the page size: every page differs then.
 */
export async function resync(
  database: PinnedDatabase,
  state: LocalState,
  options: ScanOptions,
): Promise<OutboxFile | null> {
  const { position, outbox } = state;
  assert(position !== null, "a resync goes on from a position");
  const before = position.captured;
  const pinned = pinState(database);
  const known = before.pageSize === database.pageSize ? state.table : null;
  const timestampMs = Math.max(Date.now(), before.timestampMs);
  const txid = before.txid + 1n;
  const pre = before.checksum;
  let file: OutboxFile | null = null;
  await withNewTable(database, state, async (table) => {
    const staged = await stageResync(database, pinned, outbox, txid, timestampMs, pre, known, table, options);
    file = staged.file;
    const reached = file === null ? { ...before } : { ...before, txid, timestampMs };
    const captured = capturedAt(database, pinned, reached.txid, staged.checksum, reached.timestampMs);
    // Uploads went on meanwhile, and moved the position.
    return () => ({ ...state.position!, validatedAtMs: Date.now(), captured });
  });
  return file;
}

/** What a look at the whole database came to. "resync": the WAL leaves a doubt, or pages changed that it does not tell of. */
export type LiveScanOutcome = { kind: "done" } | { kind: "resync"; reason: ResyncReason };

/**
 * Stages a snapshot of the newest commit, capturing what is left before it. Captures may go on while it is read, but the
 * pin must stay where it is. Nothing is staged if a resync must come first.
 */
export async function snapshot(
  database: PinnedDatabase,
  state: LocalState,
  position: Position,
  options: ScanOptions,
): Promise<LiveScanOutcome> {
  const pinned = pinCaptured(database, state, position);
  if ("kind" in pinned) return pinned;
  const { txid, timestampMs, checksum } = position.captured;
  if (state.outbox.files.some((file) => isSnapshotAt(file, txid))) return { kind: "done" };
  const staged = await stageSnapshot(database, pinned, state.outbox, txid, timestampMs, null, options);
  if (staged.checksum === checksum) return recordValid(state);
  state.outbox.remove(staged.file);
  return { kind: "resync", reason: "checksum-differs" };
}

/** Reads the whole database and compares its checksum with that of what is captured. As `snapshot` otherwise. */
export async function validate(
  database: PinnedDatabase,
  state: LocalState,
  position: Position,
  options: ScanOptions,
): Promise<LiveScanOutcome> {
  const pinned = pinCaptured(database, state, position);
  if ("kind" in pinned) return pinned;
  const { checksum } = position.captured;
  const found = await scanChecksum(database, pinned, options);
  return found === checksum ? recordValid(state) : { kind: "resync", reason: "checksum-differs" };
}

// --- internal ---

const NOTHING_SHIPPED = {
  shippedTxid: 0n,
  snapshotTxid: 0n,
  snapshotAtMs: 0,
  snapshotPageSize: 0,
  owedTxid: 0n,
  manifestTxid: 0n,
  file: null,
};

/** Captures up to the newest commit and pins it. */
function pinCaptured(
  database: PinnedDatabase,
  state: LocalState,
  position: Position,
): PinnedState | { kind: "resync"; reason: ResyncReason } {
  const first = capture(database, state, position);
  if (first.kind === "resync") return first;
  const pinned = pinState(database);
  const rest = capture(database, state, position, pinned.head);
  if (rest.kind === "resync") return rest;
  assert(planCapture(position.captured, pinned.head).kind === "idle", "what is pinned is what is captured");
  return pinned;
}

/** The position may be another object by now: uploads and captures went on. */
function recordValid(state: LocalState): LiveScanOutcome {
  state.position!.validatedAtMs = Date.now();
  state.save();
  return { kind: "done" };
}

/** Runs a scan that fills a new page table, and makes the position it leads to the one that holds. */
async function withNewTable(
  database: PinnedDatabase,
  state: LocalState,
  scan: (table: PageTableWriter) => Promise<() => Position>,
): Promise<void> {
  const table = state.newTable(database.pageSize);
  let position: () => Position;
  try {
    position = await scan(table);
  } catch (error) {
    table.abort();
    throw error;
  }
  state.install(table, position());
}

function capturedAt(
  database: PinnedDatabase,
  pinned: PinnedState,
  txid: Txid,
  checksum: bigint,
  timestampMs: number,
): Captured {
  const { head, cursor } = pinned;
  const { commit, changeCount } = head;
  return { txid, checksum, commit, pageSize: database.pageSize, timestampMs, cursor, changeCount };
}
