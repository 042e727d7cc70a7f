/**
 * Which files are kept. Pure: the listing and the times of its snapshots come in, a verdict on each file comes out.
 *
 * Snapshots: grandfather, father, son. Of each of the last N hours, days, weeks (from Monday) and months that have a snapshot,
 * all in UTC, the newest one is kept; the newest of all always is, and never are fewer than two.
 * Increments: every one that leads from the snapshot at the beginning of the point-in-time window to the newest state.
 *
 * Promise: whatever is kept and could be restored before can be restored after.
 */
import type { ChainFile } from "../chain/plan.ts";
import { WalsyncError } from "../errors.ts";
import { compareTxids, type Txid } from "../ltx/txid.ts";

export interface RetentionPolicy {
  /** How many hours, days, weeks and months keep a snapshot. */
  hourly: number;
  daily: number;
  weekly: number;
  monthly: number;
  /** Every restore point of this long stays. */
  pointInTimeMs: number;
}

export type KeepReason = "newest" | Tier | "at least two" | "point in time" | "bridges a gap";
export type Tier = "hourly" | "daily" | "weekly" | "monthly";

export interface DatedSnapshot {
  file: ChainFile;
  /** From the file's header. */
  timestampMs: number;
}

export interface SnapshotVerdict extends DatedSnapshot {
  /** Why it is kept; null if it is deleted. */
  keptFor: KeepReason | null;
}

export interface RetentionPlan {
  /** Newest first. */
  snapshots: SnapshotVerdict[];
  keptIncrements: ChainFile[];
  deletedIncrements: ChainFile[];
}

/** Throws E_USAGE for a policy that asks for nothing, which nobody means. */
export function requireRetention(policy: RetentionPolicy): RetentionPolicy {
  if (TIERS.some((tier) => policy[tier] > 0)) return policy;
  throw new WalsyncError("E_USAGE", "retention: expected one that keeps something, found 0 in every tier", {
    hint: "Keep at least one hourly, daily, weekly or monthly snapshot.",
  });
}

/** `snapshots` are those of `files`, in any order. `staying`: keys of increments that are kept in any case. */
export function planRetention(
  files: readonly ChainFile[],
  snapshots: readonly DatedSnapshot[],
  policy: RetentionPolicy,
  nowMs: number,
  staying: ReadonlySet<string> = new Set(),
): RetentionPlan {
  const byAge = snapshots.toSorted((a, b) => compareTxids(b.file.maxTxid, a.file.maxTxid));
  const windowMs = nowMs - policy.pointInTimeMs;
  const reasons = new Map<Txid, KeepReason>();
  const keep = (snapshot: DatedSnapshot | undefined, reason: KeepReason): void => {
    if (snapshot !== undefined && !reasons.has(snapshot.file.maxTxid)) reasons.set(snapshot.file.maxTxid, reason);
  };
  keep(byAge[0], "newest");
  for (const tier of TIERS) for (const snapshot of newestOfEach(byAge, tier, policy[tier])) keep(snapshot, tier);
  // What the first moment of the window was is told by the last state before it.
  const base = byAge.find(({ timestampMs }) => timestampMs <= windowMs) ?? byAge.at(-1);
  keep(base, "point in time");
  for (const snapshot of byAge) if (reasons.size < SNAPSHOTS_MIN) keep(snapshot, "at least two");

  const increments = files.filter((file) => file.kind === "increment");
  const baseTxid = base?.file.maxTxid ?? 0n;
  const following = increments.filter((file) => file.maxTxid > baseTxid);
  const isKept = (file: ChainFile): boolean => file.maxTxid > baseTxid || staying.has(file.key);
  for (const snapshot of bridges(byAge, following, reasons, windowMs)) keep(snapshot, "bridges a gap");
  return {
    snapshots: byAge.map((snapshot) => ({ ...snapshot, keptFor: reasons.get(snapshot.file.maxTxid) ?? null })),
    keptIncrements: increments.filter(isKept),
    deletedIncrements: increments.filter((file) => !isKept(file)),
  };
}

/**
 * What is deleted, in an order in which a crash, or a reader, between any two of them finds every listed point restorable:
 * increments from the newest down, each run of them from its end; then the snapshots that they followed on from.
 */
export function deletionOrder({ snapshots, deletedIncrements }: RetentionPlan): ChainFile[] {
  const doomed = snapshots.filter(({ keptFor }) => keptFor === null).map(({ file }) => file);
  return [...newestFirst(deletedIncrements), ...newestFirst(doomed)];
}

/** From the newest down; of two that end together the narrow one first: what a merged file replaced may not be whole any more. */
export function newestFirst(files: readonly ChainFile[]): ChainFile[] {
  return files.toSorted((a, b) => compareTxids(b.maxTxid, a.maxTxid) || compareTxids(b.minTxid, a.minTxid));
}

// --- internal ---

const SNAPSHOTS_MIN = 2;
const TIERS: readonly Tier[] = ["hourly", "daily", "weekly", "monthly"];
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** 1 January 1970 was a Thursday; weeks begin on Monday. */
const THURSDAY = 3;

/** The hour, day, week or month of UTC that a moment is in. */
function periodOf(tier: Tier, timestampMs: number): number {
  switch (tier) {
    case "hourly":
      return Math.floor(timestampMs / HOUR_MS);
    case "daily":
      return Math.floor(timestampMs / DAY_MS);
    case "weekly":
      return Math.floor((Math.floor(timestampMs / DAY_MS) + THURSDAY) / 7);
    case "monthly": {
      const date = new Date(timestampMs);
      return date.getUTCFullYear() * 12 + date.getUTCMonth();
    }
  }
}

/** The newest snapshot of each of the last `count` periods that have one. */
function newestOfEach(newestFirst: readonly DatedSnapshot[], tier: Tier, count: number): DatedSnapshot[] {
  const found = new Map<number, DatedSnapshot>();
  for (const snapshot of newestFirst) {
    const period = periodOf(tier, snapshot.timestampMs);
    if (!found.has(period)) {
      if (found.size === count) break;
      found.set(period, snapshot);
    }
  }
  return [...found.values()];
}

/**
 * Snapshots that are not kept yet, although files between them and the snapshot before are missing, and increments that are
 * kept follow on from nothing else, or the state itself is in the window and comes from nothing else.
 */
function bridges(
  newestFirst: readonly DatedSnapshot[],
  increments: readonly ChainFile[],
  kept: ReadonlyMap<Txid, KeepReason>,
  windowMs: number,
): DatedSnapshot[] {
  const found: DatedSnapshot[] = [];
  const byReach = increments.toSorted(
    (a, b) => compareTxids(a.maxTxid, b.maxTxid) || compareTxids(b.minTxid, a.minTxid),
  );
  let next = 0;
  let reached: Txid = 0n;
  const follow = (upTo: Txid | null): void => {
    for (; next < byReach.length && (upTo === null || byReach[next]!.maxTxid <= upTo); next++) {
      const file = byReach[next]!;
      if (file.minTxid <= reached + 1n && file.maxTxid > reached) reached = file.maxTxid;
    }
  };
  for (const snapshot of newestFirst.toReversed()) {
    const { maxTxid } = snapshot.file;
    follow(maxTxid);
    if (reached >= maxTxid) continue;
    if (!kept.has(maxTxid)) {
      const follower = byReach[next];
      const leadsOn = follower !== undefined && follower.minTxid <= maxTxid + 1n && follower.minTxid > reached + 1n;
      if (!leadsOn && snapshot.timestampMs < windowMs) continue;
      found.push(snapshot);
    }
    reached = maxTxid;
  }
  return found;
}
