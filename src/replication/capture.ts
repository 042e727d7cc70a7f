/**
 * The care for one live database: whatever was committed since the last look becomes one staged LTX file, and then the
 * pin moves on. Synchronous from end to end, so nothing of ours happens between observing and recording.
 */
import type { PinnedDatabase } from "../sqlite/database.ts";
import { walFrameCount } from "../sqlite/wal.ts";
import type { WalIndexHead } from "../sqlite/wal-index.ts";
import { cursorAtStart, readWalHeaderOf, scanWal, type WalCursor } from "../sqlite/wal-reader.ts";
import { intervalBehindMs } from "./backlog.ts";
import { checkpointDueMs, planScan, type SnapshotTriggers } from "./due.ts";
import type { LocalState } from "./local-state.ts";
import type { OpenDatabase } from "./open-database.ts";
import type { OutboxFile } from "./outbox.ts";
import {
  type CapturePlan,
  type CheckpointPlan,
  type CheckpointPolicy,
  planCapture,
  planCheckpoint,
  proveScan,
  type ResyncReason,
} from "./plan.ts";
import type { Position } from "./position.ts";
import { captureSegment } from "./segment.ts";

export type CaptureOutcome =
  | { kind: "idle" }
  | { kind: "captured"; file: OutboxFile; commits: number; frames: number }
  /** Nothing was staged: what happened cannot be read from the WAL any more. */
  | { kind: "resync"; reason: ResyncReason };

export interface ReplicationPolicy {
  /** At most one capture in this time; the first after a pause is immediate. */
  syncIntervalMs: number;
  snapshot: SnapshotTriggers;
  /** The whole database, and the end of the chain at the destination, are checked this long after the last time; 0 never. */
  validationIntervalMs: number;
  checkpoint: CheckpointPolicy;
  /** Bytes in the outbox at which capture pauses. */
  maxOutboxBytes: number;
  enableWal: boolean;
}

/** A checkpoint of ours, or one of the application that the pin made way for, and what came of it. */
export type Checkpoint =
  /** "reader": a reader of the application kept frames from being copied back. */
  | { mode: "passive"; result: "done" | "reader" | "busy" }
  /** "held-off": other processes kept their locks. */
  | { mode: "fence"; result: "done" | "reader" | "held-off" }
  /** Whether everything that was committed meanwhile could be proven; if not, a resync follows. */
  | { mode: "yield"; result: "proven" | "unproven" };

export interface Tended {
  captured: { file: OutboxFile; commits: number }[];
  checkpoints: Checkpoint[];
  next:
    | { kind: "wait"; untilMs: number }
    | { kind: "snapshot" }
    | { kind: "validate" }
    /** Everything is captured, and a checkpoint of the application may be waiting for our pin. */
    | { kind: "yield" }
    | { kind: "resync"; reason: ResyncReason }
    /** The path names another file than the one that is open, or none. */
    | { kind: "replaced" }
    /** The outbox takes no more; the pin keeps the frames. */
    | { kind: "full" };
}

/**
 * Does everything that is due for a database that is live (`nowMs`: monotonic): captures, moves the pin, copies frames back. `force` captures
 * what there is, due or not, and does nothing else.
 */
export function tend(open: OpenDatabase, policy: ReplicationPolicy, nowMs: number, force: boolean): Tended {
  const { state } = open;
  const position = state.position!;
  const captured: Tended["captured"] = [];
  const checkpoints: Checkpoint[] = [];
  if (open.isReplaced()) return { captured, checkpoints, next: { kind: "replaced" } };
  if (open.sleepsWell()) {
    const untilMs = open.nextLookMs(nowMs);
    const next = force ? ({ kind: "wait", untilMs } as const) : planScan(open, policy, nowMs, untilMs);
    return { captured, checkpoints, next };
  }
  const { database } = open;
  if (open.yieldedAtMs !== null) {
    if (!force) return { captured, checkpoints, next: { kind: "wait", untilMs: Number.POSITIVE_INFINITY } };
    open.takePinBack();
  }
  for (let round = 0; round < ROUNDS; round++) {
    const head = force ? database.walIndex() : database.tryWalIndex();
    if (head === null) {
      open.unreadableSinceMs ??= nowMs;
      if (nowMs - open.unreadableSinceMs >= INDEX_BROKEN_MS) {
        // A writer died in the middle of changing it. The next reader repairs it, and its count of commits starts anew.
        open.movePin();
        position.captured.changeCount = null;
      }
      return { captured, checkpoints, next: { kind: "wait", untilMs: nowMs + INDEX_BUSY_MS } };
    }
    open.unreadableSinceMs = null;
    const plan = planCapture(position.captured, head);
    if (plan.kind === "resync") return { captured, checkpoints, next: plan };
    const dueMs = open.lastCaptureMs + Math.max(policy.syncIntervalMs, intervalBehindMs(state.outbox.files.length));
    if (plan.kind !== "idle") {
      open.quietFromMs = nowMs;
      // Somebody else copies frames back, so that we need not.
      if (plan.kind === "restarted") open.lastCheckpointMs = nowMs;
      // A busy writer leaves no moment in which everything is captured: the fence makes one.
      if (captured.length > 0 && !force && checkpointOf(open, policy, head, nowMs) === "fence") {
        checkpoints.push(fence(open, captured, nowMs));
        continue;
      }
      // What slipped in while the pin moved is safe for now only if the pin keeps the WAL from being restarted.
      const unsafe = open.pinMoved && (open.restsAtZero || plan.kind === "restarted");
      const isLong = uncapturedFrames(plan, position, head) >= policy.checkpoint.fenceFrames;
      if (nowMs < dueMs && !unsafe && !isLong && !force && !open.mustYield(nowMs)) {
        const lookMs = open.nextLookMs(nowMs, dueMs);
        return { captured, checkpoints, next: planScan(open, policy, nowMs, Math.min(dueMs, lookMs)) };
      }
      if (state.outbox.sizeBytes >= policy.maxOutboxBytes) return { captured, checkpoints, next: { kind: "full" } };
      const outcome = capture(database, state, position);
      if (outcome.kind === "resync") return { captured, checkpoints, next: outcome };
      if (outcome.kind === "captured") {
        captured.push(outcome);
        open.framesSinceSnapshot += outcome.frames;
      }
      open.pinMoved = false;
      open.lastCaptureMs = nowMs;
      open.lookStep = 0;
      continue;
    }
    open.pinMoved = false;
    // Everything is captured, so what the WAL index counts is known here; after a start it was not.
    position.captured.changeCount ??= head.changeCount;
    // A snapshot reads what is pinned now; and at the end only the capture counts.
    if (open.scanning || force) break;
    if (open.mustYield(nowMs)) return { captured, checkpoints, next: { kind: "yield" } };
    if (open.pinIsStale(head)) {
      open.movePin();
      continue;
    }
    const checkpoint = checkpointOf(open, policy, head, nowMs);
    if (checkpoint === "none") {
      const untilMs = Math.min(open.nextLookMs(nowMs, dueMs), checkpointDueMs(open, policy, head));
      return { captured, checkpoints, next: planScan(open, policy, nowMs, untilMs) };
    }
    open.lastCheckpointMs = nowMs;
    // A reader of the application may keep frames from being copied back: one try in each quiet time is enough.
    open.quietFromMs = Number.POSITIVE_INFINITY;
    checkpoints.push(checkpoint === "passive" ? copyBack(open) : fence(open, captured, nowMs));
  }
  return { captured, checkpoints, next: { kind: "wait", untilMs: open.nextLookMs(nowMs) } };
}

/**
 * Captures everything up to `upTo`, by default the newest commit. Throws E_DISK if it cannot be staged: nothing has
 * changed then, and the frames stay in the pinned WAL.
 */
export function capture(
  database: PinnedDatabase,
  state: LocalState,
  position: Position,
  upTo?: WalIndexHead,
): CaptureOutcome {
  let reason: ResyncReason = "wal-unreadable";
  // A writer that restarts the WAL between two reads makes a look worthless, not wrong: look again.
  for (let attempt = 0; attempt < LOOK_ATTEMPTS; attempt++) {
    const head = upTo ?? database.walIndex();
    const plan = planCapture(position.captured, head);
    if (plan.kind === "idle" || plan.kind === "resync") return plan;
    if (state.table === null) return { kind: "resync", reason: "no-page-table" };
    const start = startOf(database, plan, position, head);
    if (start === null) continue;
    const scan = scanWal(database.walFd, database.pageSize, start, head.frameCount);
    const doubt = proveScan(plan, scan, head);
    if (doubt !== null) {
      reason = doubt;
      continue;
    }
    const txid = position.captured.txid + 1n;
    const timestampMs = Math.max(Date.now(), position.captured.timestampMs);
    const segment = captureSegment(database, state.table, state.outbox, start, scan, txid, timestampMs);
    if (segment === null) continue;
    state.advance(segment.change, {
      txid,
      checksum: segment.checksum,
      commit: scan.commit,
      pageSize: database.pageSize,
      timestampMs,
      cursor: scan.end,
      changeCount: head.changeCount,
    });
    const { pageSize } = database;
    const frames = walFrameCount(scan.end.walOffset, pageSize) - walFrameCount(start.walOffset, pageSize);
    return { kind: "captured", file: segment.file, commits: scan.commitCount, frames };
  }
  return { kind: "resync", reason };
}

// --- internal ---

const LOOK_ATTEMPTS = 3;
/** Captures and moves of the pin in one go: enough to settle, few enough to give others their turn. */
const ROUNDS = 8;
const READER_PAUSE_MS = 2000;
const HELD_OFF_PAUSE_MS = 100;
const INDEX_BUSY_MS = 2;
const INDEX_BROKEN_MS = 500;

function checkpointOf(
  open: OpenDatabase,
  { checkpoint }: ReplicationPolicy,
  head: WalIndexHead,
  nowMs: number,
): CheckpointPlan {
  if (open.scanning) return "none";
  const sinceLastMs = nowMs - open.lastCheckpointMs;
  return planCheckpoint(head, checkpoint, sinceLastMs, nowMs - open.quietFromMs, nowMs >= open.fenceNotBeforeMs);
}

function uncapturedFrames(plan: CapturePlan, { captured }: Position, head: WalIndexHead): number {
  if (plan.kind !== "append" || captured.cursor === null) return head.frameCount;
  return head.frameCount - walFrameCount(captured.cursor.walOffset, captured.pageSize);
}

/** Captures what is left while writers wait, and rests the pin at mark 0. */
function fence(open: OpenDatabase, captured: Tended["captured"], nowMs: number): Checkpoint {
  const { database, state } = open;
  const outcome = database.fence(() => {
    const rest = capture(database, state, state.position!);
    if (rest.kind === "captured") captured.push(rest);
    return rest.kind !== "resync";
  });
  if (outcome !== "held-off") open.notePin();
  if (outcome === "freed") return { mode: "fence", result: "done" };
  // A reader of the application keeps frames from being copied back: fencing again and again would not help.
  open.readerBlocks = outcome === "reader";
  open.fenceNotBeforeMs = nowMs + (outcome === "reader" ? READER_PAUSE_MS : HELD_OFF_PAUSE_MS);
  return { mode: "fence", result: outcome };
}

function copyBack({ database }: OpenDatabase): Checkpoint {
  const { busy, frameCount, backfilled } = database.checkpointPassive();
  return { mode: "passive", result: busy ? "busy" : backfilled < frameCount ? "reader" : "done" };
}

/** Where the scan begins; null if the WAL's header is not of the generation that the WAL index told of. */
function startOf(
  database: PinnedDatabase,
  plan: CapturePlan,
  position: Position,
  head: WalIndexHead,
): WalCursor | null {
  if (plan.kind === "append") return position.captured.cursor;
  const header = readWalHeaderOf(database.walFd, head);
  return header === null ? null : cursorAtStart(header);
}
