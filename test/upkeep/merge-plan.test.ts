// Goal: a day of one file a second is read in at most 200 files, every restore point of the last hour is there all the time,
// and whatever is merged or removed in whatever order, what is listed can be restored.
import { expect, test } from "bun:test";
import fc from "fast-check";
import { type ChainFile, planChain, restorePoints } from "../../src/chain/plan.ts";
import {
  dropSettled,
  type FrontFile,
  frontOf,
  type MergePolicy,
  nextMergeMs,
  planMerge,
  planSuperseded,
} from "../../src/upkeep/merge-plan.ts";
import { newestFirst } from "../../src/upkeep/retention.ts";
import { listed } from "../chain/make.ts";

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const POLICY: MergePolicy = { windowsMs: [30 * SECOND, 300 * SECOND, HOUR], keepFineMs: HOUR };

/** A destination and the process that merges there, in virtual time. */
class World {
  files = new Map<string, ChainFile>();
  front: FrontFile[] = [];
  nowMs: number;
  txid = 1n;
  merged = 0;

  constructor(beginMs: number) {
    this.nowMs = beginMs;
    this.#put(1n, 1n);
  }

  ship(): void {
    this.txid++;
    const file = this.#put(this.txid, this.txid);
    this.front.push({ ...file, timestampMs: this.nowMs });
  }

  merge(): void {
    for (;;) {
      const run = planMerge(this.front, POLICY, this.nowMs);
      if (run === null) break;
      expect(run.length).toBeGreaterThan(1);
      const file = this.#put(run[0]!.minTxid, run.at(-1)!.maxTxid);
      this.front.splice(this.front.indexOf(run[0]!), run.length, { ...file, timestampMs: run.at(-1)!.timestampMs });
      this.merged++;
    }
    this.front = dropSettled(this.front, POLICY, this.nowMs);
  }

  /** What would be removed now, in order. */
  doomed(): ChainFile[] {
    return planSuperseded([...this.files.values()], POLICY.keepFineMs, this.nowMs).flatMap(({ parts }) =>
      newestFirst(parts),
    );
  }

  sweep(): void {
    for (const { key } of this.doomed()) this.files.delete(key);
  }

  /** The process is killed, and another one begins with what is listed. */
  restart(): void {
    this.front = frontOf([...this.files.values()]);
  }

  reads(): number {
    return planChain("app", [...this.files.values()], null).length;
  }

  #put(minTxid: bigint, maxTxid: bigint): ChainFile {
    const file = { ...listed(minTxid, maxTxid), modifiedAt: new Date(this.nowMs) };
    this.files.set(file.key, file);
    return file;
  }
}

const isRestorable = (files: readonly ChainFile[], txid: bigint): boolean => {
  try {
    return planChain("app", files, txid).length > 0;
  } catch {
    return false;
  }
};

test("a day of one file a second: at most 200 reads at any time, and the last hour in full", () => {
  const world = new World(Date.parse("2026-02-28T00:00:11Z"));
  let mostReads = 0;
  let mostFront = 0;
  const seconds = 24 * 3600;
  for (let second = 1; second <= seconds; second++) {
    world.nowMs += SECOND;
    world.ship();
    if (world.nowMs >= nextMergeMs(world.front, POLICY)) world.merge();
    mostFront = Math.max(mostFront, world.front.length);
    if (second % 3600 === 0) world.sweep();
    if (second % 1777 !== 0 && second !== seconds) continue;
    mostReads = Math.max(mostReads, world.reads());
    const points = new Set(restorePoints([...world.files.values()]));
    for (let back = 0; back < Math.min(second, 3599); back++) expect(points.has(world.txid - BigInt(back))).toBe(true);
  }
  expect(mostReads).toBeLessThanOrEqual(100);
  expect(mostFront).toBeLessThan(100);
  // Two hours in full at most, and a file for each hour before.
  expect(world.files.size).toBeLessThan(2 * 3600 * 1.05 + 50);
  expect(world.merged).toBeLessThan(seconds / 20);
});

test("of what age which points are left, as docs/RETENTION.md says", () => {
  const world = new World(Date.parse("2026-02-28T00:17:11Z"));
  for (let second = 1; second <= 5 * 3600; second++) {
    world.nowMs += SECOND;
    world.ship();
    if (world.nowMs >= nextMergeMs(world.front, POLICY)) world.merge();
  }
  world.sweep();
  const points = restorePoints([...world.files.values()]);
  /** The most seconds, and so transactions, between two points in a row whose age in seconds is between these. */
  const widest = (youngest: number, oldest: number): number => {
    const inside = points.filter((point) => world.txid - point >= youngest && world.txid - point < oldest);
    return Math.max(...inside.slice(1).map((point, i) => Number(point - inside[i]!)));
  };
  const sinceHour = (17 * 60 + 11) % 3600;
  expect(widest(0, 3600)).toBe(1);
  expect(widest(3600, 3600 + sinceHour)).toBe(300);
  expect(widest(3600 + sinceHour, 5 * 3600 - 1)).toBe(3600);
});

test("thousands of files a second are merged in rounds", () => {
  const world = new World(Date.parse("2026-02-28T00:00:00Z"));
  for (let i = 0; i < 3000; i++) {
    world.nowMs += 5;
    world.ship();
  }
  world.nowMs += HOUR;
  world.merge();
  expect(world.reads()).toBeLessThanOrEqual(3);
});

test("nothing happens to a database that is idle, or writes less than once a window", () => {
  const world = new World(Date.parse("2026-02-28T00:00:00Z"));
  for (let i = 0; i < 48; i++) {
    world.nowMs += HOUR + 7 * SECOND;
    world.ship();
    expect(nextMergeMs(world.front, POLICY)).toBe(Number.POSITIVE_INFINITY);
    world.merge();
    world.sweep();
  }
  expect(world.merged).toBe(0);
  expect(world.front.length).toBeLessThan(3);
  expect(world.files.size).toBe(49);
});

test("in any history, with restarts and removals that stop half way, what is listed can be restored", () => {
  const steps = fc.array(
    fc.oneof(
      {
        weight: 8,
        arbitrary: fc.record({ kind: fc.constant("ship" as const), ms: fc.integer({ min: 1, max: 20_000 }) }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant("ship" as const), ms: fc.integer({ min: 1, max: 2 * HOUR }) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constant("merge" as const), ms: fc.integer({ min: 0, max: 1000 }) }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const), ms: fc.constant(0) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("sweep" as const), ms: fc.integer({ min: 0, max: 30 }) }) },
    ),
    { maxLength: 150 },
  );
  fc.assert(
    fc.property(steps, fc.integer({ min: 0, max: 4e12 }), (history, beginMs) => {
      const world = new World(beginMs);
      for (const { kind, ms } of history) {
        if (kind !== "sweep") world.nowMs += ms;
        if (kind === "ship") world.ship();
        else if (kind === "merge") world.merge();
        else if (kind === "restart") world.restart();
        else {
          // Killed after so many of them.
          for (const { key } of world.doomed().slice(0, ms)) world.files.delete(key);
        }
        if (kind === "ship") continue;
        const files = [...world.files.values()];
        expect(restorePoints(files).at(-1)).toBe(world.txid);
        for (const txid of restorePoints(files)) expect([txid, isRestorable(files, txid)]).toEqual([txid, true]);
      }
    }),
    { numRuns: 200 },
  );
});
