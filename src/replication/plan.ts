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
  | "remote-ahead" //      the destination's chain does not end at our position
  | "position-unknown" //  the position has no cursor in the WAL
  | "page-size-changed" // VACUUM rewrote the database with other pages
  | "wal-truncated" //     the WAL is shorter than what was captured from it
  | "wal-restarted" //     the WAL restarted, and the count of commits does not prove that nothing was lost
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
  if (cursor === null) return planWithoutCursor(captured, head);
  const capturedFrames = walFrameCount(cursor.walOffset, head.pageSize);
  if (cursor.salt1 === head.salt1 && cursor.salt2 === head.salt2) {
    if (head.frameCount < capturedFrames) return { kind: "resync", reason: "wal-truncated" };
    if (head.frameCount > capturedFrames) return { kind: "append" };
    const sameEnd =
      capturedFrames === 0 || (head.checksum1 === cursor.checksum1 && head.checksum2 === cursor.checksum2);
    return sameEnd ? { kind: "idle" } : { kind: "resync", reason: "wal-restarted" };
  }
  if (captured.changeCount === null) return { kind: "resync", reason: "wal-restarted" };
  return { kind: "restarted", expectedCommits: (head.changeCount - captured.changeCount) >>> 0 };
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
  /** Copy the WAL back when it has this many frames. */
  minFrames: number;
  /** And when this long has passed since the last time, if there is anything to copy. */
  intervalMs: number;
  /** Hold writers for a moment rather than let the WAL grow beyond this many frames. */
  fenceFrames: number;
}

export type CheckpointPlan = "none" | "passive" | "fence";

/** Asked when everything is captured. `sinceLastMs` counts from the last checkpoint of ours, `quietMs` from the last commit. */
export function planCheckpoint(
  head: WalIndexHead,
  policy: CheckpointPolicy,
  sinceLastMs: number,
  quietMs: number,
): CheckpointPlan {
  const waiting = head.frameCount - head.backfilled;
  // Never fence because of frames that are copied back already: the next writer restarts such a WAL by itself.
  if (head.frameCount >= policy.fenceFrames && waiting > 0) return "fence";
  if (waiting <= 0) return "none";
  const due = head.frameCount >= policy.minFrames || sinceLastMs >= policy.intervalMs || quietMs >= QUIET_MS;
  return due ? "passive" : "none";
}

/** A database without a commit for this long is quiet: its pin may rest at mark 0, where it hinders nobody. */
export const QUIET_MS = 500;

// --- internal ---

/** An empty WAL had no generation yet. If nothing was committed since, or all of it is in the first one, it goes on. */
function planWithoutCursor(captured: Captured, head: WalIndexHead): CapturePlan {
  if (captured.changeCount === null) return { kind: "resync", reason: "position-unknown" };
  const expectedCommits = (head.changeCount - captured.changeCount) >>> 0;
  if (head.frameCount === 0 && expectedCommits === 0) return { kind: "idle" };
  return { kind: "restarted", expectedCommits };
}
