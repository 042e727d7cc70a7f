/**
 * Which files rebuild which moment. Pure: the listing comes in, an unbroken chain or an error comes out.
 * A gap is an error for every kind of target: "newest" never silently means "newest before the gap".
 */
import { SNAPSHOT_LEVEL } from "../destination/layout.ts";
import { ChainGapError, WalsyncError } from "../errors.ts";
import { formatTxid, type Txid, type TxidRange } from "../ltx/txid.ts";

/** A file of one database's chain, as listed. */
export interface ChainFile extends TxidRange {
  key: string;
  kind: "snapshot" | "increment";
  sizeBytes: number;
  modifiedAt: Date;
  /** When the destination took it. */
  storedAt: Date;
  /** Of the litestream layout: 0 as shipped, 1 to 8 merged, 9 a snapshot. Always 0 in the other one. */
  level: number;
}

/** What the ends of listed files are good for. Each list is ascending, and each end is in one of them. */
export interface Points {
  /** Files lead there. */
  restorable: Txid[];
  /** Files on the way are gone, and a merged file leads past it: what Litestream leaves when it removes files by age. */
  merged: Txid[];
  /** Files on the way are missing, and nothing took their place. */
  lost: Txid[];
  /** Before the first snapshot. */
  stranded: Txid[];
}

/**
 * The files to apply, oldest first: the newest snapshot at or before the target, then what follows on, the file with the
 * largest reach first. `target` null means the newest transaction. Throws E_NOT_FOUND if the target is not a restore
 * point, E_CHAIN_GAP if files on the way to it are missing.
 */
export function planChain(database: string, files: readonly ChainFile[], target: Txid | null): ChainFile[] {
  if (files.length === 0) {
    throw new WalsyncError("E_NOT_FOUND", `${database}: expected restore points, found none`, {
      hint: "See what is there with: walsync list -b <destination>",
    });
  }
  const newest = restorePoints(files).at(-1)!;
  const goal = target ?? newest;
  if (goal > newest) throw notARestorePoint(database, files, goal);
  const snapshot = newestSnapshot(files, goal);
  if (snapshot === null) throw withoutSnapshot(database, files, goal);

  const { path, reached } = walk(files, snapshot.maxTxid, goal);
  if (reached === goal) return [snapshot, ...path];
  const isPassed = isInsideOnly(files, goal) || pointsOf(files).merged.includes(goal);
  if (target !== null && isPassed) throw notARestorePoint(database, files, goal);
  throw gapAfter(database, files, reached);
}

/** The increments that lead from the state after `from` to `goal`, in order; null if they do not. */
export function followOn(files: readonly ChainFile[], from: Txid, goal: Txid): ChainFile[] | null {
  const { path, reached } = walk(files, from, goal);
  return reached === goal ? path : null;
}

/** Every txid that a file ends at, ascending. Whether the chain to it is whole is for `planChain` to say. */
export function restorePoints(files: readonly ChainFile[]): Txid[] {
  return [...new Set(files.map((file) => file.maxTxid))].sort((a, b) => (a < b ? -1 : 1));
}

/** Tells restore points from ends of files that nothing leads to any more. */
export function pointsOf(files: readonly ChainFile[]): Points {
  const byEnd = Map.groupBy(files, (file) => file.maxTxid);
  const restorable: Txid[] = [];
  const merged: Txid[] = [];
  /** As long as nothing is known to lead past them. */
  const lost: Txid[] = [];
  for (const txid of restorePoints(files)) {
    const reached = restorable.at(-1);
    const leading = byEnd
      .get(txid)!
      .filter((file) => file.kind === "snapshot" || (reached !== undefined && file.minTxid <= reached + 1n));
    if (leading.length === 0) {
      lost.push(txid);
      continue;
    }
    restorable.push(txid);
    for (const { minTxid } of leading.filter(isFromParts)) {
      while (lost.length > 0 && lost.at(-1)! >= minTxid) merged.push(lost.pop()!);
    }
  }
  const first = restorable[0];
  const isStranded = (txid: Txid): boolean => first === undefined || txid < first;
  return {
    restorable,
    merged: merged.sort((a, b) => (a < b ? -1 : 1)),
    lost: lost.filter((txid) => !isStranded(txid)),
    stranded: lost.filter(isStranded),
  };
}

// --- internal ---

/** True for what was shipped, or merged of that, whole databases included. A snapshot tells nothing of the files before it. */
function isFromParts({ kind, level }: Pick<ChainFile, "kind" | "level">): boolean {
  return kind === "increment" || (level > 0 && level < SNAPSHOT_LEVEL);
}

/** As far as increments lead towards `goal`, the one with the largest reach first. */
function walk(files: readonly ChainFile[], from: Txid, goal: Txid): { path: ChainFile[]; reached: Txid } {
  const increments = files.filter((file) => file.kind === "increment").sort(byStart);
  const path: ChainFile[] = [];
  let reached = from;
  let furthest: ChainFile | null = null;
  let next = 0;
  while (reached < goal) {
    // A merged file may begin before the state that is reached: its pages are all newer or equal, so it still follows on.
    for (; next < increments.length && increments[next]!.minTxid <= reached + 1n; next++) {
      const file = increments[next]!;
      if (file.maxTxid <= goal && (furthest === null || file.maxTxid >= furthest.maxTxid)) furthest = file;
    }
    if (furthest === null || furthest.maxTxid <= reached) break;
    path.push(furthest);
    reached = furthest.maxTxid;
  }
  return { path, reached };
}

function newestSnapshot(files: readonly ChainFile[], goal: Txid): ChainFile | null {
  let found: ChainFile | null = null;
  for (const file of files) {
    if (file.kind === "snapshot" && file.maxTxid <= goal && (found === null || file.maxTxid > found.maxTxid))
      found = file;
  }
  return found;
}

/** True for a txid that files hold only together with later ones: merged or pruned, so that it is no restore point. */
function isInsideOnly(files: readonly ChainFile[], txid: Txid): boolean {
  return (
    !files.some((file) => file.maxTxid === txid) && files.some((file) => file.minTxid <= txid && file.maxTxid > txid)
  );
}

/** Among files of one reach the narrower one comes last: it is the cheaper one. */
function byStart(a: ChainFile, b: ChainFile): number {
  if (a.minTxid === b.minTxid) return 0;
  return a.minTxid < b.minTxid ? -1 : 1;
}

function withoutSnapshot(database: string, files: readonly ChainFile[], goal: Txid): WalsyncError {
  const first = restorePoints(files.filter((file) => file.kind === "snapshot")).at(0);
  if (first === undefined) return new ChainGapError(`${database}: expected a snapshot, found increments only`);
  return new WalsyncError(
    "E_NOT_FOUND",
    `${database}: expected a restore point at or before txid ${goal}, found the first at ${first}`,
    { hint: `The oldest point is --point-in-time txid:${first}` },
  );
}

function notARestorePoint(database: string, files: readonly ChainFile[], goal: Txid): WalsyncError {
  const points = pointsOf(files).restorable;
  const below = points.findLast((txid) => txid < goal);
  const above = points.find((txid) => txid > goal);
  const near = [below, above].filter((txid) => txid !== undefined).map((txid) => `txid:${txid}`);
  return new WalsyncError("E_NOT_FOUND", `${database}: expected a restore point at txid ${goal}, found none`, {
    hint: near.length === 0 ? undefined : `The nearest ${near.length === 1 ? "is" : "are"} ${near.join(" and ")}.`,
  });
}

function gapAfter(database: string, files: readonly ChainFile[], reached: Txid): ChainGapError {
  const increments = files.filter((file) => file.kind === "increment").sort(byStart);
  const behind = increments.find((file) => file.minTxid > reached + 1n);
  const found = behind === undefined ? "nothing" : formatTxid(behind.minTxid);
  return new ChainGapError(`${database}: expected txid ${formatTxid(reached + 1n)}, found ${found}`);
}
