/**
 * Which files a replica has in another layout. Pure: the listing comes in, one step for each file comes out, in an order in
 * which the state after each of them can be known.
 */
import type { LayoutRules } from "../chain/layout-rules.ts";
import { type ChainFile, planChain } from "../chain/plan.ts";
import { compareTxids, type Txid, type TxidRange } from "../ltx/txid.ts";

/** A file to be written. */
export interface ConversionTarget extends TxidRange {
  key: string;
}

/** One file that is read, and what becomes of it: mostly one file, never none. */
export interface ConversionStep {
  file: ChainFile;
  targets: ConversionTarget[];
}

export type SkipReason =
  /** Files on the way to it are gone: it serves no restore point. */
  | "unreachable"
  /** Another file that is copied leads to the same state, and what this one follows on from is not known. */
  | "superseded"
  /** Another file of the same range is copied. The other layout has one place for both. */
  | "same-range";

export interface ConversionPlan {
  steps: ConversionStep[];
  skipped: { file: ChainFile; reason: SkipReason }[];
  /** The newest. */
  txid: Txid;
  /** What can be restored of the copy. */
  points: Txid[];
}

/** Throws what `planChain` throws if nothing leads to the newest state. */
export function planConversion(
  source: { name: string; files: readonly ChainFile[] },
  target: { name: string; rules: LayoutRules },
): ConversionPlan {
  const txid = planChain(source.name, source.files, null).at(-1)!.maxTxid;
  const { ranges, skipped } = usableRanges(source.files);
  const levels = target.rules.layout === "litestream" ? levelsOf(ranges) : new Map<UsableRange, number>();
  const steps: ConversionStep[] = [];
  const taken = new Set<string>();
  for (const range of ranges) {
    const keys = keysOf(range, levels.get(range) ?? 1, ranges, target);
    const free = keys.filter((key) => !taken.has(key));
    for (const key of free) taken.add(key);
    const { file, minTxid, maxTxid } = range;
    if (free.length === 0) skipped.push({ file, reason: "same-range" });
    else steps.push({ file, targets: free.map((key) => ({ key, minTxid, maxTxid })) });
  }
  if (target.rules.layout === "litestream") addNewest(steps, taken, target, txid);
  return { steps, skipped, txid, points: [...new Set(steps.map(({ file }) => file.maxTxid))] };
}

// --- internal ---

/** A file with the range that it gets. */
interface UsableRange extends TxidRange {
  file: ChainFile;
}

type Target = Parameters<typeof planConversion>[1];

/** Litestream merges into three levels above the one that is shipped to. */
const MERGED_LEVEL_MAX = 3;

/**
 * Follows the files by their ends, as whoever computes the states has to. A file whose beginning lies between two known
 * states, as one that was merged across a snapshot, begins at the state that is reached: its pages lead on from there, too.
 */
function usableRanges(files: readonly ChainFile[]): { ranges: UsableRange[]; skipped: ConversionPlan["skipped"] } {
  const ordered = files.toSorted(
    (a, b) => compareTxids(a.maxTxid, b.maxTxid) || compareTxids(b.minTxid, a.minTxid) || a.level - b.level,
  );
  const known = new Set<Txid>();
  const ranges: UsableRange[] = [];
  const skipped: ConversionPlan["skipped"] = [];
  let reached: Txid | null = null;
  for (const file of ordered) {
    const { minTxid, maxTxid } = file;
    const isFollowing = reached !== null && minTxid <= reached + 1n;
    if (minTxid === 1n || (isFollowing && known.has(minTxid - 1n))) ranges.push({ file, minTxid, maxTxid });
    else if (!isFollowing) {
      skipped.push({ file, reason: "unreachable" });
      continue;
    } else if (maxTxid > reached!) ranges.push({ file, minTxid: reached! + 1n, maxTxid });
    else skipped.push({ file, reason: "superseded" });
    reached = maxTxid;
    known.add(maxTxid);
  }
  return { ranges, skipped };
}

function keysOf(range: UsableRange, level: number, ranges: readonly UsableRange[], { name, rules }: Target): string[] {
  const { minTxid, maxTxid } = range;
  if (minTxid !== 1n && minTxid !== maxTxid) return [rules.mergedKey(name, range, level)];
  const keys = [...rules.shippedKeys(name, range)];
  if (minTxid !== 1n || maxTxid !== 1n || rules.layout === "walsync") return keys;
  // The first snapshot is also the first file as shipped, but only where others follow on: Litestream merges no gap away.
  const isFollowed = ranges.some((other) => other.minTxid === 2n && other.maxTxid === 2n);
  return isFollowed ? keys : keys.filter((key) => key !== rules.mergedKey(name, range, 0));
}

/** How many merged files lie within each other, from 1, for all that are wider than one transaction. */
function levelsOf(ranges: readonly UsableRange[]): Map<UsableRange, number> {
  const levels = new Map<UsableRange, number>();
  const wide = ranges.filter(({ minTxid, maxTxid }) => minTxid !== 1n && minTxid !== maxTxid);
  // Inner ones come first. What is open are the widest so far that may lie within the next one.
  wide.sort((a, b) => compareTxids(a.maxTxid, b.maxTxid) || compareTxids(b.minTxid, a.minTxid));
  const open: UsableRange[] = [];
  for (const range of wide) {
    let level = 1;
    while (open.length > 0 && open.at(-1)!.minTxid >= range.minTxid) {
      level = Math.max(level, levels.get(open.pop()!)! + 1);
    }
    levels.set(range, Math.min(level, MERGED_LEVEL_MAX));
    open.push(range);
  }
  return levels;
}

/** Litestream takes the newest file of level 0 for the end: where that was merged away, the narrowest that ends there serves. */
function addNewest(steps: readonly ConversionStep[], taken: Set<string>, { name, rules }: Target, txid: Txid): void {
  const range = { minTxid: txid, maxTxid: txid };
  const key = rules.mergedKey(name, range, 0);
  if (taken.has(key)) return;
  const narrowest = steps.find(({ file }) => file.maxTxid === txid)!;
  narrowest.targets.push({ key, ...range });
}
