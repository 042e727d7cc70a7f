/** When the next snapshot, validation and checkpoint of a live database are due. */
import type { Txid } from "../ltx/txid.ts";
import type { WalIndexHead } from "../sqlite/wal-index.ts";
import type { ReplicationPolicy } from "./capture.ts";
import type { OpenDatabase } from "./open-database.ts";
import type { OutboxFile } from "./outbox.ts";
import { QUIET_MS } from "./plan.ts";
import type { Position } from "./position.ts";

export type ScanPlan = { kind: "snapshot" } | { kind: "validate" } | { kind: "wait"; untilMs: number };

/** A snapshot or validation that failed is tried again after this time. */
export const SCAN_RETRY_MS = 60_000;
/** Least time between two snapshots. */
export const SCAN_PAUSE_MS = 1000;

/** When a database that changed since its last snapshot gets the next one: whatever comes first. 0 is never. */
export interface SnapshotTriggers {
  /** This long after the last one. */
  intervalMs: number;
  /** So many frames after it. */
  maxFrames: number;
  /** At the latest this long after it: a limit for one database, where the interval is for all. */
  maxIntervalMs: number;
  /** When nothing was captured for so long. */
  onIdleMs: number;
  /** At the start. */
  onStartup: boolean;
}

export const NO_SNAPSHOTS: SnapshotTriggers = {
  intervalMs: 0,
  maxFrames: 0,
  maxIntervalMs: 0,
  onIdleMs: 0,
  onStartup: false,
};

/** What has to be read whole now, or the time until which nothing has; at most `untilMs`. */
export function planScan(open: OpenDatabase, policy: ReplicationPolicy, nowMs: number, untilMs: number): ScanPlan {
  if (open.scanQueued) return { kind: "wait", untilMs };
  const snapshotMs = snapshotDueMs(open, policy, nowMs);
  if (nowMs >= snapshotMs) return { kind: "snapshot" };
  const validationMs = validationDueMs(open, policy, nowMs);
  if (nowMs >= validationMs) return { kind: "validate" };
  return { kind: "wait", untilMs: Math.min(untilMs, snapshotMs, validationMs) };
}

/** When frames that are captured are copied back at the latest; infinite if none wait. */
export function checkpointDueMs(open: OpenDatabase, { checkpoint }: ReplicationPolicy, head: WalIndexHead): number {
  if (head.frameCount <= head.backfilled) return Number.POSITIVE_INFINITY;
  return Math.min(open.quietFromMs + QUIET_MS, open.lastCheckpointMs + checkpoint.intervalMs);
}

/**
 * Files at the destination are missing: only a snapshot of the newest shipped state, or of a later one, makes it restorable.
 * `snapshotTxid` is the newest one that is there.
 */
export function oweSnapshot(position: Position, snapshotTxid: Txid): void {
  position.snapshotTxid = snapshotTxid;
  position.owedTxid = position.shippedTxid;
}

// --- internal ---

function snapshotDueMs(open: OpenDatabase, { snapshot }: ReplicationPolicy, nowMs: number): number {
  const { position, outbox } = open.state;
  const { captured, shippedTxid, snapshotTxid, snapshotAtMs, snapshotPageSize, owedTxid } = position!;
  // One that waits already may be older than the one that is owed: it is shipped, and then looked at again.
  if (outbox.files.some(isSnapshot)) return Number.POSITIVE_INFINITY;
  const isOwed = shippedTxid > 0n && (snapshotPageSize !== captured.pageSize || snapshotTxid < owedTxid);
  if (isOwed) return open.snapshotNotBeforeMs;
  if (snapshotTxid === 0n || captured.txid <= snapshotTxid) return Number.POSITIVE_INFINITY;
  const { intervalMs, maxIntervalMs, maxFrames, onIdleMs } = snapshot;
  const isDue = open.wantsSnapshot || (maxFrames > 0 && open.framesSinceSnapshot >= maxFrames);
  const dueMs = Math.min(
    isDue ? nowMs : Number.POSITIVE_INFINITY,
    intervalMs > 0 ? nowMs + leftOf(intervalMs, snapshotAtMs) : Number.POSITIVE_INFINITY,
    maxIntervalMs > 0 ? nowMs + leftOf(maxIntervalMs, snapshotAtMs) : Number.POSITIVE_INFINITY,
    onIdleMs > 0 ? open.lastCaptureMs + onIdleMs : Number.POSITIVE_INFINITY,
  );
  return Math.max(dueMs, open.snapshotNotBeforeMs);
}

function validationDueMs(open: OpenDatabase, { validationIntervalMs }: ReplicationPolicy, nowMs: number): number {
  if (validationIntervalMs === 0) return Number.POSITIVE_INFINITY;
  const { validatedAtMs } = open.state.position!;
  return Math.max(nowMs + leftOf(validationIntervalMs, validatedAtMs), open.validationNotBeforeMs);
}

const isSnapshot = (file: OutboxFile): boolean => file.minTxid === 1n;

/** Ms that are left of an interval since `atMs` of the host's clock. After a jump back of that clock none is. */
function leftOf(intervalMs: number, atMs: number): number {
  const ageMs = Date.now() - atMs;
  return ageMs < -intervalMs ? 0 : intervalMs - ageMs;
}
