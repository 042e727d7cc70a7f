/**
 * Decides what the next look at a database must do. Pure: observe before, execute after (replicator.ts).
 * The rules are the reason why no frame is lost; docs/ARCHITECTURE.md numbers them.
 */

import { walFrameCount } from "../sqlite/wal.ts";
import type { WalIndexHead } from "../sqlite/wal-index.ts";
import type { WalScan } from "../sqlite/wal-reader.ts";
import type { Captured } from "./position.ts";

/** Why the whole database must be compared with what was shipped. Counted in the metrics under these words. */
export type ResyncReason =
  | "no-page-table" //     the local state is missing or damaged
  | "position-unknown" //  the position has no cursor in the WAL
  | "page-size-changed" // VACUUM rewrote the database with other pages
  | "wal-truncated" //     the WAL is shorter than what was captured from it
  | "wal-restarted" //     the WAL restarted, and the count of commits does not prove that nothing was lost
  | "checksum-differs" //  pages changed that no transaction of the WAL wrote
  | "wal-unreadable"; //   frames that SQLite counts as committed do not pass their checksums

export type CapturePlan =
  | { kind: "idle" }
  /** Frames follow in the same generation of the WAL. */
  | { kind: "append" }
  /** The WAL restarted: all of the new generation, if the count of commits proves that it is all there was. */
  | { kind: "restarted"; expectedCommits: number }
  | { kind: "resync"; reason: ResyncReason };

export function planCapture(captured: Captured, head: WalIndexHead): CapturePlan {
  if (head.pageSize !== captured.pageSize) return { kind: "resync", reason: "page-size-changed" };
  const { cursor } = captured;
  // An empty WAL had no generation yet: whatever is in it now is as good as restarted.
  if (cursor === null) return planRestarted(captured, head, "position-unknown");
  const capturedFrames = walFrameCount(cursor.walOffset, head.pageSize);
  if (cursor.salt1 === head.salt1 && cursor.salt2 === head.salt2) {
    if (head.frameCount < capturedFrames) return { kind: "resync", reason: "wal-truncated" };
    if (head.frameCount > capturedFrames) return { kind: "append" };
    const sameEnd =
      capturedFrames === 0 || (head.checksum1 === cursor.checksum1 && head.checksum2 === cursor.checksum2);
    return sameEnd ? { kind: "idle" } : { kind: "resync", reason: "wal-restarted" };
  }
  return planRestarted(captured, head, "wal-restarted");
}

/** Whether a scan found everything that the plan and the WAL index promised; the reason for a resync if not. */
export function proveScan(plan: CapturePlan, scan: WalScan, head: WalIndexHead): ResyncReason | null {
  const reached = walFrameCount(scan.end.walOffset, head.pageSize);
  const sameEnd = scan.end.checksum1 === head.checksum1 && scan.end.checksum2 === head.checksum2;
  if (reached !== head.frameCount || (head.frameCount > 0 && !sameEnd)) return "wal-unreadable";
  if (plan.kind === "restarted" && scan.commitCount !== plan.expectedCommits) return "wal-restarted";
  return null;
}

export interface CheckpointPolicy {
  /** Copy frames back when this many wait for it. */
  minFrames: number;
  /** And when this long has passed since the last time, if any wait. */
  intervalMs: number;
  /** Hold writers for a moment rather than let the WAL grow beyond this many frames. */
  fenceFrames: number;
}

export type CheckpointPlan = "none" | "passive" | "fence";

/**
 * `sinceLastMs` counts from our last checkpoint, `quietMs` from the last commit; `mayFence` is false for a while after a fence
 * that was in vain. A passive one is for when everything is captured; a fence captures what is left by itself.
 */
export function planCheckpoint(
  head: WalIndexHead,
  policy: CheckpointPolicy,
  sinceLastMs: number,
  quietMs: number,
  mayFence: boolean,
): CheckpointPlan {
  // Nothing to do for frames that are copied back already: the next writer restarts such a WAL by itself.
  const waiting = head.frameCount - head.backfilled;
  if (waiting <= 0) return "none";
  if (head.frameCount >= policy.fenceFrames && mayFence) return "fence";
  const due = waiting >= policy.minFrames && sinceLastMs >= PASSIVE_PAUSE_MS;
  return due || sinceLastMs >= policy.intervalMs || quietMs >= QUIET_MS ? "passive" : "none";
}

/** A database without a commit for this long is quiet: its pin may rest at mark 0, where it hinders nobody. */
export const QUIET_MS = 500;
/** Least time between two checkpoints of ours, whatever they achieved. */
const PASSIVE_PAUSE_MS = 200;

// --- internal ---

function planRestarted(captured: Captured, head: WalIndexHead, otherwise: ResyncReason): CapturePlan {
  if (captured.changeCount === null) return { kind: "resync", reason: otherwise };
  const expectedCommits = (head.changeCount - captured.changeCount) >>> 0;
  if (head.frameCount > 0) return { kind: "restarted", expectedCommits };
  // A checkpoint renews the salts before the first frame of the new generation is written.
  return expectedCommits === 0 ? { kind: "idle" } : { kind: "resync", reason: otherwise };
}
