/**
 * Which increments become one, and which have become superfluous. Pure.
 *
 * Time is cut into windows of several widths, all counted from 1970. When a window is over, the increments that ended in it
 * are merged into one wider file; those of the narrower windows into one of the next. A reader takes the widest file that
 * leads on, so a day of a file a second is read in some eighty requests. The narrow files stay for a while, since each is a
 * restore point.
 */
import type { ChainFile } from "../chain/plan.ts";
import { MAX_COMPACT_INPUTS } from "../ltx/compactor.ts";
import { compareTxids, type Txid } from "../ltx/txid.ts";
import type { UpkeepRules } from "./upkeep-rules.ts";

export interface MergePolicy {
  /** Widths of the windows, ascending. */
  windowsMs: readonly number[];
  /** Restore points inside a merged file stay for this long. */
  keepFineMs: number;
}

/** An increment at the front: nothing wider holds it. */
export interface FrontFile {
  key: string;
  minTxid: Txid;
  maxTxid: Txid;
  sizeBytes: number;
  /** As in `ChainFile`. */
  level: number;
  /** When the last state in it was captured. */
  timestampMs: number;
}

/** Files that a wider one holds. */
export interface Superseded {
  wide: ChainFile;
  parts: ChainFile[];
}

/** The rules of the walsync layout: any increment may become part of a wider one, wherever it is. */
export const WINDOW_RULES: UpkeepRules = {
  frontOf,
  planMerge: (front, policy, nowMs) => {
    const files = planMerge(front, policy, nowMs);
    return files === null ? null : { files, level: 0 };
  },
  nextMergeMs,
  dropSettled,
  planSuperseded,
  mustStay: () => new Set(),
};

/** The next run of files to merge, oldest first, at least two; null if there is nothing to do yet. `front` is in order. */
export function planMerge(front: readonly FrontFile[], { windowsMs }: MergePolicy, nowMs: number): FrontFile[] | null {
  for (const windowMs of windowsMs) {
    let run: FrontFile[] = [];
    for (const file of front) {
      const last = run.at(-1);
      const isNext =
        last !== undefined &&
        file.minTxid === last.maxTxid + 1n &&
        windowOf(file, windowMs) === windowOf(last, windowMs) &&
        run.length < MAX_COMPACT_INPUTS;
      if (isNext) run.push(file);
      else if (run.length > 1) return run;
      else run = isOver(file, windowMs, nowMs) ? [file] : [];
    }
    if (run.length > 1) return run;
  }
  return null;
}

/** When the next window ends in which there is something to merge; infinite if there is none. */
export function nextMergeMs(front: readonly FrontFile[], { windowsMs }: MergePolicy): number {
  let nextMs = Number.POSITIVE_INFINITY;
  for (const windowMs of windowsMs) {
    for (let i = 1; i < front.length; i++) {
      const [before, file] = [front[i - 1]!, front[i]!];
      if (file.minTxid !== before.maxTxid + 1n || windowOf(file, windowMs) !== windowOf(before, windowMs)) continue;
      nextMs = Math.min(nextMs, overMs(file, windowMs));
    }
  }
  return nextMs;
}

/**
 * `front` without what no merge will ever touch again: the files before the newest window of the widest kind that is not
 * over yet, once each stands alone in its own.
 */
export function dropSettled(front: readonly FrontFile[], policy: MergePolicy, nowMs: number): FrontFile[] {
  const widestMs = policy.windowsMs.at(-1) ?? 0;
  const keepFrom = front.findIndex((file, i) => {
    const next = front[i + 1];
    const isAlone = next === undefined || windowOf(next, widestMs) !== windowOf(file, widestMs);
    return !isAlone || !isOver(file, widestMs, nowMs);
  });
  return keepFrom < 0 ? [] : front.slice(keepFrom);
}

/** The widest increments of a listing, in order: what a restore would read. */
export function frontOf(files: readonly ChainFile[]): FrontFile[] {
  const front: FrontFile[] = [];
  const widestFirst = files
    .filter((file) => file.kind === "increment")
    .sort((a, b) => compareTxids(a.minTxid, b.minTxid) || compareTxids(b.maxTxid, a.maxTxid));
  let reached: Txid = 0n;
  for (const { key, minTxid, maxTxid, sizeBytes, level, modifiedAt } of widestFirst) {
    if (maxTxid <= reached) continue;
    front.push({ key, minTxid, maxTxid, sizeBytes, level, timestampMs: modifiedAt.getTime() });
    reached = maxTxid;
  }
  return front;
}

/**
 * Increments that a wider one holds, all of whose parts are older than `keepFineMs`: whichever part of it is listed, it can
 * be restored to as long as the parts before are. Each with the wider one, which must be whole before they go.
 */
export function planSuperseded(files: readonly ChainFile[], keepFineMs: number, nowMs: number): Superseded[] {
  const increments = files
    .filter((file) => file.kind === "increment")
    .sort((a, b) => compareTxids(a.minTxid, b.minTxid) || compareTxids(b.maxTxid, a.maxTxid));
  const found: Superseded[] = [];
  for (let i = 0; i < increments.length; ) {
    const wide = increments[i]!;
    const parts: ChainFile[] = [];
    let next = i + 1;
    for (; next < increments.length && increments[next]!.minTxid <= wide.maxTxid; next++) {
      if (increments[next]!.maxTxid <= wide.maxTxid) parts.push(increments[next]!);
    }
    const areOld = parts.every((file) => nowMs - file.modifiedAt.getTime() >= keepFineMs);
    if (parts.length > 0 && areOld) {
      found.push({ wide, parts });
      i = next;
    } else i++;
  }
  return found;
}

/** The number of the window that a file ended in. */
export function windowOf({ timestampMs }: FrontFile, windowMs: number): number {
  return Math.floor(timestampMs / windowMs);
}

/** When the window of the file is over. */
export function overMs(file: FrontFile, windowMs: number): number {
  return (windowOf(file, windowMs) + 1) * windowMs + Math.min(GRACE_MAX_MS, windowMs);
}

export function isOver(file: FrontFile, windowMs: number, nowMs: number): boolean {
  return overMs(file, windowMs) <= nowMs;
}

// --- internal ---

/** A file that ended in a window may be shipped a little later: this long, and never longer than the window. */
const GRACE_MAX_MS = 2000;
