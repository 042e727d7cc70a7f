// Goal: whatever is shipped, merged, removed and restarted in whatever order in the litestream layout, Litestream's own restore
// plan leads to the newest state, a plan that was made stays readable, and Litestream could go on merging.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ChainFile, planChain, restorePoints } from "../../src/chain/plan.ts";
import { formatKey, SNAPSHOT_LEVEL } from "../../src/destination/layout.ts";
import { LEVEL_RULES } from "../../src/upkeep/level-plan.ts";
import type { FrontFile, MergePolicy } from "../../src/upkeep/merge-plan.ts";
import { newestFirst, planRetention } from "../../src/upkeep/retention.ts";

const { dropSettled, frontOf, mustStay, nextMergeMs, planMerge, planSuperseded } = LEVEL_RULES;
const SECOND = 1000;
const HOUR = 3600 * SECOND;
const POLICY: MergePolicy = { windowsMs: [30 * SECOND, 300 * SECOND, HOUR], keepFineMs: HOUR };

function listed(level: number, minTxid: bigint, maxTxid: bigint, atMs: number, storedMs = atMs): ChainFile {
  return {
    key: formatKey({ layout: "litestream", folders: "bucket", name: "app", level, minTxid, maxTxid }),
    kind: minTxid === 1n ? "snapshot" : "increment",
    minTxid,
    maxTxid,
    sizeBytes: 1,
    level,
    modifiedAt: new Date(atMs),
    storedAt: new Date(storedMs),
  };
}

/**
 * Litestream 0.5.17's restore plan for the newest state: the newest snapshot of level 9, then from any level the file that leads
 * on and reaches furthest; among equals the one that begins first, then the one of the highest level. Null where it reports a gap.
 */
function officialPlan(files: readonly ChainFile[]): ChainFile[] | null {
  const snapshots = files.filter((file) => file.level === SNAPSHOT_LEVEL).sort(byReach);
  const plan = snapshots.slice(-1);
  const others = files.filter((file) => file.level < SNAPSHOT_LEVEL);
  for (;;) {
    const reached = plan.at(-1)?.maxTxid ?? 0n;
    const next = others.filter(({ minTxid, maxTxid }) => minTxid <= reached + 1n && maxTxid > reached).sort(byMerit);
    if (next.length > 0) plan.push(next.at(-1)!);
    else return others.some(({ minTxid }) => minTxid > reached + 1n) ? null : plan;
  }
}

const byMerit = (a: ChainFile, b: ChainFile): number =>
  byReach(a, b) || Number(b.minTxid - a.minTxid) || a.level - b.level;
const byReach = (a: ChainFile, b: ChainFile): number => Number(a.maxTxid - b.maxTxid);

/** A destination and the process that merges there, in virtual time. */
class World {
  files = new Map<string, ChainFile>();
  front: FrontFile[] = [];
  nowMs: number;
  txid = 1n;

  constructor(beginMs: number) {
    this.nowMs = beginMs;
    for (const level of [0, SNAPSHOT_LEVEL]) this.#put(listed(level, 1n, 1n, beginMs));
  }

  get list(): ChainFile[] {
    return [...this.files.values()];
  }

  /** `lateMs`: how long it waited for the destination. */
  ship(lateMs = 0): void {
    this.txid++;
    const capturedMs = this.nowMs - lateMs;
    this.#put(listed(0, this.txid, this.txid, capturedMs, this.nowMs));
    const { key, sizeBytes, level } = this.files.get(keyAt(0, this.txid, this.txid))!;
    this.front.push({ key, sizeBytes, level, minTxid: this.txid, maxTxid: this.txid, timestampMs: capturedMs });
  }

  snapshot(): void {
    this.#put(listed(SNAPSHOT_LEVEL, 1n, this.txid, this.nowMs));
  }

  merge(most = Number.POSITIVE_INFINITY): void {
    for (let i = 0; i < most; i++) {
      const planned = planMerge(this.front, POLICY, this.nowMs);
      if (planned === null) break;
      const { files, level } = planned;
      const { timestampMs, maxTxid } = files.at(-1)!;
      const merged = listed(level, files[0]!.minTxid, maxTxid, timestampMs, this.nowMs);
      this.#put(merged);
      const { key, sizeBytes, minTxid } = merged;
      const entry = { key, sizeBytes, level, minTxid, maxTxid, timestampMs };
      this.front.splice(this.front.indexOf(files[0]!), files.length, entry);
    }
    this.front = dropSettled(this.front, POLICY, this.nowMs);
  }

  doomed(): ChainFile[] {
    return planSuperseded(this.list, POLICY.keepFineMs, this.nowMs).flatMap(({ parts }) => newestFirst(parts));
  }

  sweep(): void {
    for (const { key } of this.doomed()) this.files.delete(key);
  }

  #put(file: ChainFile): void {
    this.files.set(file.key, file);
  }
}

const keyAt = (level: number, minTxid: bigint, maxTxid: bigint) => listed(level, minTxid, maxTxid, 0).key;

/** What Litestream would merge next: of each level what the next one does not hold. It gives up at a gap. */
function gaps(files: readonly ChainFile[]): string[] {
  return POLICY.windowsMs.flatMap((_, level) => {
    const held = restorePoints(files.filter((file) => file.level === level + 1)).at(-1) ?? 0n;
    const front = files.filter((file) => file.level === level && file.minTxid > held).sort(byReach);
    const begins = front.length > 0 && held > 0n && front[0]!.minTxid !== held + 1n ? [front[0]!.key] : [];
    const inside = front.slice(1).filter((file, i) => file.minTxid !== front[i]!.maxTxid + 1n);
    return [...begins, ...inside.map((file) => file.key)];
  });
}

function expectSound(world: World): void {
  const { list, txid } = world;
  expect(officialPlan(list)?.at(-1)?.maxTxid).toBe(txid);
  expect(planChain("app", list, null).at(-1)?.maxTxid).toBe(txid);
  expect(gaps(list)).toEqual([]);
  expect(world.files.has(keyAt(0, txid, txid))).toBe(true);
}

test("a day of one file a second: few reads, the last hour in full, and no gap at any level", () => {
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
    if (second % 3777 !== 0 && second !== seconds) continue;
    expectSound(world);
    mostReads = Math.max(mostReads, officialPlan(world.list)!.length);
    const points = new Set(restorePoints(world.list));
    for (let back = 0; back < Math.min(second, 3599); back++) expect(points.has(world.txid - BigInt(back))).toBe(true);
  }
  expect(mostReads).toBeLessThanOrEqual(100);
  expect(mostFront).toBeLessThan(100);
  expect(world.files.size).toBeLessThan(2 * 3600 * 1.2 + 100);
}, 60_000);

describe("in any order of shipping, merging, removing and restarting", () => {
  const step = fc.oneof(
    {
      weight: 10,
      arbitrary: fc.record({
        kind: fc.constant("ship" as const),
        afterMs: fc.constantFrom(5, 900, 31_000, 400_000),
        lateMs: fc.constantFrom(0, 0, 0, 4000, 7_200_000),
      }),
    },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("merge" as const), most: fc.constantFrom(1, 2, 999) }) },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("sweep" as const), afterMs: fc.constantFrom(0, 1000, HOUR, 2 * HOUR) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("snapshot" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const) }) },
  );

  test("every plan that was made in the last hour can still be read, and the newest state always", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 80 }), (steps) => {
        const world = new World(Date.parse("2026-01-01T00:00:00Z"));
        const plans: { madeMs: number; files: ChainFile[] }[] = [];
        let lastMs = 0;
        for (const act of steps) {
          if (act.kind === "ship") {
            world.nowMs += act.afterMs;
            // Timestamps never decrease along a chain.
            const capturedMs = Math.max(lastMs, world.nowMs - act.lateMs);
            lastMs = capturedMs;
            world.ship(world.nowMs - capturedMs);
          } else if (act.kind === "merge") world.merge(act.most);
          else if (act.kind === "snapshot") world.snapshot();
          else if (act.kind === "restart") world.front = frontOf(world.list, POLICY);
          else {
            world.nowMs += act.afterMs;
            for (const { key } of world.doomed()) {
              world.files.delete(key);
              expect(officialPlan(world.list)?.at(-1)?.maxTxid).toBe(world.txid);
            }
          }
          expectSound(world);
          plans.push({ madeMs: world.nowMs, files: officialPlan(world.list)! });
          for (const { madeMs, files } of plans) {
            if (world.nowMs - madeMs >= POLICY.keepFineMs) continue;
            for (const { key } of files)
              expect([world.nowMs - madeMs, key, world.files.has(key)]).toEqual([world.nowMs - madeMs, key, true]);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test("a restart finds what the process knew", () => {
    const world = new World(Date.parse("2026-01-01T00:00:00Z"));
    for (let i = 0; i < 500; i++) {
      world.nowMs += (i * 7919) % 40_000;
      world.ship();
      if (i % 3 === 0) world.merge(1 + (i % 4));
      if (i % 50 === 49) world.sweep();
      expect(frontOf(world.list, POLICY).map(({ key }) => key)).toEqual(
        dropSettled(world.front, POLICY, world.nowMs).map(({ key }) => key),
      );
    }
  });
});

describe("the newest file of level 0", () => {
  test("stays right after a snapshot, under a retention that keeps nothing before it", () => {
    const files = [
      listed(0, 1n, 1n, 0),
      listed(9, 1n, 1n, 0),
      listed(0, 2n, 2n, 0),
      listed(0, 3n, 3n, 0),
      listed(9, 1n, 3n, 0),
    ];
    const snapshots = files.filter(({ kind }) => kind === "snapshot").map((file) => ({ file, timestampMs: 0 }));
    const policy = { hourly: 1, daily: 0, weekly: 0, monthly: 0, pointInTimeMs: 0 };
    const plan = planRetention(files, snapshots, policy, HOUR, mustStay(files));
    expect(plan.keptIncrements.map(({ key }) => key)).toEqual([keyAt(0, 3n, 3n)]);
    expect(plan.deletedIncrements.map(({ key }) => key)).toEqual([keyAt(0, 2n, 2n)]);
  });

  test("stays although level 1 holds it, and so does the only one", () => {
    const wide = listed(1, 2n, 3n, 0);
    const files = [listed(0, 1n, 1n, 0), listed(9, 1n, 1n, 0), listed(0, 2n, 2n, 0), listed(0, 3n, 3n, 0), wide];
    const doomed = planSuperseded(files, HOUR, HOUR).flatMap(({ parts }) => parts.map(({ key }) => key));
    expect(doomed).toEqual([keyAt(0, 2n, 2n), keyAt(0, 1n, 1n)]);
    expect(planSuperseded(files.slice(0, 2), HOUR, HOUR)).toEqual([]);
  });

  test("a wide file that has only just arrived replaces nothing yet, however old its parts are", () => {
    const files = [listed(9, 1n, 1n, 0), listed(0, 2n, 2n, 0), listed(0, 3n, 3n, 0), listed(1, 2n, 2n, 0, HOUR)];
    expect(planSuperseded(files, HOUR, 2 * HOUR - 1)).toEqual([]);
    expect(planSuperseded(files, HOUR, 2 * HOUR)).toHaveLength(1);
  });
});

describe("what Litestream wrote is continued", () => {
  test("its first merged file, which begins with txid 1, is not merged again, and holds what it holds", () => {
    const files = [listed(1, 1n, 4n, 0), listed(0, 3n, 3n, 0), listed(0, 4n, 4n, 0), listed(0, 5n, 5n, 0)];
    expect(frontOf(files, POLICY).map(({ key }) => key)).toEqual([keyAt(0, 5n, 5n)]);
  });
});
