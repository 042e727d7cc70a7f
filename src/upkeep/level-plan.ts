/**
 * Which increments become one in the litestream layout, and which have become superfluous. Pure.
 *
 * A file of level 1 holds all files of level 0 whose last states were captured in one window of the first width, also if that
 * is a single one; a file of level 2 those of level 1 in one window of the second width, and so on: Litestream merges a level
 * from the end of the next one on, and gives up at a gap. The narrow files stay for a while, since each is a restore point,
 * and until whoever began to read before the wide one was there is done.
 */
import type { ChainFile } from "../chain/plan.ts";
import { SNAPSHOT_LEVEL } from "../destination/layout.ts";
import { MAX_COMPACT_INPUTS } from "../ltx/compactor.ts";
import type { Txid } from "../ltx/txid.ts";
import { type FrontFile, isOver, type MergePolicy, overMs, type Superseded, windowOf } from "./merge-plan.ts";
import type { UpkeepRules } from "./upkeep-rules.ts";

export const LEVEL_RULES: UpkeepRules = {
  frontOf,
  planMerge,
  nextMergeMs,
  dropSettled: (front, { windowsMs }) => front.filter((file) => file.level < windowsMs.length),
  planSuperseded,
  mustStay: (files) => {
    const newest = newestShipped(files);
    return new Set(newest === undefined ? [] : [newest.key]);
  },
};

/** The files that the next level does not hold yet, in order. */
export function frontOf(files: readonly ChainFile[], { windowsMs }: MergePolicy): FrontFile[] {
  const front: FrontFile[] = [];
  let reached: Txid = 0n;
  for (let level = SNAPSHOT_LEVEL - 1; level >= 0; level--) {
    for (const file of levelOf(files, level)) {
      if (file.maxTxid <= reached) continue;
      reached = file.maxTxid;
      const { key, kind, minTxid, maxTxid, sizeBytes, modifiedAt } = file;
      if (kind === "snapshot" || level >= windowsMs.length) continue;
      front.push({ key, minTxid, maxTxid, sizeBytes, level, timestampMs: modifiedAt.getTime() });
    }
  }
  return front;
}

/** The files that become the next one of a level, oldest first; null if there is nothing to do yet. `front` is in order. */
export function planMerge(
  front: readonly FrontFile[],
  { windowsMs }: MergePolicy,
  nowMs: number,
): { files: FrontFile[]; level: number } | null {
  for (const [level, windowMs] of windowsMs.entries()) {
    const files: FrontFile[] = [];
    for (const file of front.filter((each) => each.level === level)) {
      const last = files.at(-1);
      if (last === undefined && !isOver(file, windowMs, nowMs)) break;
      const isNext =
        last === undefined ||
        (file.minTxid === last.maxTxid + 1n && windowOf(file, windowMs) === windowOf(last, windowMs));
      if (!isNext || files.push(file) === MAX_COMPACT_INPUTS) break;
    }
    if (files.length > 0) return { files, level: level + 1 };
  }
  return null;
}

/** When the next window ends in which there is a file; infinite if there is none. */
export function nextMergeMs(front: readonly FrontFile[], { windowsMs }: MergePolicy): number {
  return front.reduce((nextMs, file) => {
    const windowMs = windowsMs[file.level];
    return windowMs === undefined ? nextMs : Math.min(nextMs, overMs(file, windowMs));
  }, Number.POSITIVE_INFINITY);
}

/**
 * Files that one of the next level holds, once both are older than `keepFineMs`; of each level from the oldest on. The newest of
 * a level is never one of them: it tells where Litestream goes on merging from. The first snapshot of level 0 is one once there
 * are others.
 */
export function planSuperseded(files: readonly ChainFile[], keepFineMs: number, nowMs: number): Superseded[] {
  const isOld = (file: ChainFile): boolean => nowMs - file.storedAt.getTime() >= keepFineMs;
  const found: Superseded[] = [];
  for (let level = 1; level < SNAPSHOT_LEVEL; level++) {
    const narrow = levelOf(files, level - 1).slice(0, -1);
    for (const wide of levelOf(files, level)) {
      const parts = narrow.filter((file) => file.minTxid >= wide.minTxid && file.maxTxid <= wide.maxTxid);
      if (!isOld(wide) || !parts.every(isOld)) break;
      if (parts.length > 0) found.push({ wide, parts });
    }
  }
  const [first, ...later] = levelOf(files, 0);
  const snapshot = files.find(({ level, maxTxid }) => level === SNAPSHOT_LEVEL && maxTxid === first?.maxTxid);
  const isTwin = first?.kind === "snapshot" && later.length > 0 && snapshot !== undefined;
  if (isTwin && isOld(first) && isOld(snapshot) && !found.some(({ parts }) => parts.includes(first))) {
    found.push({ wide: snapshot, parts: [first] });
  }
  return found;
}

// --- internal ---

function levelOf(files: readonly ChainFile[], level: number): ChainFile[] {
  return files.filter((file) => file.level === level).sort((a, b) => (a.minTxid < b.minTxid ? -1 : 1));
}

/** Litestream takes its last txid for the end of the chain. */
function newestShipped(files: readonly ChainFile[]): ChainFile | undefined {
  return levelOf(files, 0).at(-1);
}
