/**
 * The restore points of one database, as the destination lists them when somebody asks. Bounded: two listings at once, each of at
 * most FILES_MAX files; kept for a moment as a few bytes a point, so that looking around in time asks nobody again.
 */
import { type Chain, readChain } from "../chain/chain.ts";
import { readManifest } from "../chain/manifest.ts";
import { pointsOf } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { folderOf } from "../destination/layout.ts";
import { Gate } from "../destination/limit.ts";
import { POINTS_SHOWN, type PointsAnswer, type RestorePoint } from "./protocol.ts";

/** A part of time in ms; null: no bound. */
export interface TimeRange {
  fromMs: number | null;
  toMs: number | null;
}

export class PointsReader {
  readonly #destination: Destination;
  readonly #gate = new Gate(LISTINGS_AT_ONCE);
  readonly #cache = new Map<string, Promise<ListedPoints>>();

  constructor(destination: Destination) {
    this.#destination = destination;
  }

  /**
   * The restore points of `name` in `range`. Throws what listing throws: E_NOT_FOUND before the first file, a DestinationError;
   * E_REFUSED for a chain of more than FILES_MAX files; a TimeoutError if the destination is silent.
   */
  async read(name: string, range: TimeRange): Promise<PointsAnswer> {
    let listed = this.#cache.get(name);
    if (listed === undefined) {
      listed = this.#gate.run(() => listPoints(this.#destination, name));
      this.#keep(name, listed);
    }
    return answerOf(name, await listed, range);
  }

  /** Several pages that ask for the same meanwhile share one listing. */
  #keep(name: string, listed: Promise<ListedPoints>): void {
    const [oldest] = this.#cache.keys();
    if (this.#cache.size >= KEPT_MAX) this.#cache.delete(oldest!);
    this.#cache.set(name, listed);
    const forget = (): void => {
      if (this.#cache.get(name) === listed) this.#cache.delete(name);
    };
    listed.then(() => setTimeout(forget, KEPT_MS).unref(), forget);
  }
}

/** What a listing comes to, in columns: a chain may have tens of thousands of points. */
export interface ListedPoints {
  layout: string;
  readAtMs: number;
  snapshots: number;
  increments: number;
  bytes: number;
  lost: number;
  /** Ascending, as are `times`. */
  txids: Float64Array;
  times: Float64Array;
  flags: Uint8Array;
}

/** The part of `listed` in `range`. The newest and the oldest in it, and as many others as fit, evenly. Pure. */
export function answerOf(name: string, listed: ListedPoints, { fromMs, toMs }: TimeRange): PointsAnswer {
  const { times } = listed;
  const first = fromMs === null ? 0 : firstAt(times, fromMs);
  const end = toMs === null ? times.length : firstAt(times, toMs + 1);
  const inRange = Math.max(0, end - first);
  const shown = Math.min(inRange, POINTS_SHOWN);
  const step = shown < 2 ? 0 : (inRange - 1) / (shown - 1);
  return {
    name,
    layout: listed.layout,
    read_at: listed.readAtMs,
    snapshots: listed.snapshots,
    increments: listed.increments,
    bytes: listed.bytes,
    count: times.length,
    lost: listed.lost,
    oldest: pointAt(listed, 0),
    newest: pointAt(listed, times.length - 1),
    points: Array.from({ length: shown }, (_, i) => pointAt(listed, first + Math.round(i * step))!),
    in_range: inRange,
  };
}

// --- internal ---

/** Points of a listing. `timeOf`: when the state at the end of this file was captured, or null where only its storing is known. Pure. */
function summarize(chain: Chain, timeOf: (key: string) => number | null, nowMs: number): ListedPoints {
  const { restorable, lost } = pointsOf(chain.files);
  const byEnd = Map.groupBy(chain.files, (file) => file.maxTxid);
  const listed: ListedPoints = {
    layout: chain.layout,
    readAtMs: nowMs,
    snapshots: chain.files.filter(({ kind }) => kind === "snapshot").length,
    increments: chain.files.filter(({ kind }) => kind === "increment").length,
    bytes: chain.files.reduce((sum, file) => sum + file.sizeBytes, 0),
    lost: lost.length,
    txids: new Float64Array(restorable.length),
    times: new Float64Array(restorable.length),
    flags: new Uint8Array(restorable.length),
  };
  let lastMs = Number.NEGATIVE_INFINITY;
  for (const [i, txid] of restorable.entries()) {
    const files = byEnd.get(txid)!;
    const exact = files.map(({ key }) => timeOf(key)).filter((time) => time !== null);
    const stored = files.map(({ modifiedAt }) => modifiedAt.getTime());
    // Along a chain time never goes back; only the times of storing may.
    lastMs = Math.max(lastMs, Math.min(...(exact.length > 0 ? exact : stored)));
    listed.txids[i] = Number(txid);
    listed.times[i] = lastMs;
    listed.flags[i] =
      (files.some(({ kind }) => kind === "snapshot") ? IS_SNAPSHOT : 0) | (exact.length === 0 ? IS_ROUGH : 0);
  }
  return listed;
}

const LISTINGS_AT_ONCE = 2;
const KEPT_MAX = 4;
const KEPT_MS = 15_000;
const PATIENCE_MS = 20_000;
/** Some 20 MB while they are listed. A chain with the default merging has a tenth of that. */
const FILES_MAX = 50_000;
const IS_SNAPSHOT = 1;
const IS_ROUGH = 2;

async function listPoints(destination: Destination, name: string): Promise<ListedPoints> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const chain = await readChain(destination, name, signal, FILES_MAX);
  const times = new Map<string, number>();
  if (chain.layout === "walsync") {
    const found = await readManifest(destination, name, signal);
    for (const { key, createdAtMs } of found?.manifest.files ?? []) times.set(`${folderOf(name)}${key}`, createdAtMs);
  }
  return summarize(chain, (key) => times.get(key) ?? null, Date.now());
}

function pointAt({ txids, times, flags }: ListedPoints, i: number): RestorePoint | null {
  const txid = txids[i];
  if (txid === undefined) return null;
  return { txid, at: times[i]!, snapshot: (flags[i]! & IS_SNAPSHOT) !== 0, rough: (flags[i]! & IS_ROUGH) !== 0 };
}

/** Place of the first time at or behind `ms`. */
function firstAt(times: Float64Array, ms: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle]! < ms) low = middle + 1;
    else high = middle;
  }
  return low;
}
