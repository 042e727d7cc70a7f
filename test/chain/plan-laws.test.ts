// Goal: the planned files rebuild exactly the moment that was asked for, or the error says truthfully why none can. What
// "rebuild" means is played through here with small databases; what is possible at all is found by trying everything.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ChainFile, planChain, pointsOf, restorePoints } from "../../src/chain/plan.ts";
import { SNAPSHOT_LEVEL } from "../../src/destination/layout.ts";
import { WalsyncError } from "../../src/errors.ts";
import { codeOf, listed } from "./make.ts";

type Range = readonly [minTxid: number, maxTxid: number];

const filesOf = (ranges: readonly Range[]) => ranges.map(([min, max]) => listed(BigInt(min), BigInt(max)));
const textOf = (files: readonly ChainFile[]) => files.map(({ minTxid, maxTxid }) => `${minTxid}-${maxTxid}`).join(" ");
const parsed = (text: string) =>
  filesOf(text.split(" ").map((range) => range.split("-").map(Number) as [number, number]));

const SHARED_PAGES = 3;

/** Each transaction writes a page of its own, one that it shares with others, and the size. */
type Database = Map<string, number>;

function write(database: Database, firstTxid: number, lastTxid: number): Database {
  for (let txid = firstTxid; txid <= lastTxid; txid++) {
    database.set(`own ${txid}`, txid);
    database.set(`shared ${txid % SHARED_PAGES}`, txid);
    database.set("size", txid);
  }
  return database;
}

/** What applying files in this order gives: each holds the newest of every page that its transactions wrote. */
function rebuilt(files: readonly ChainFile[]): Database {
  const database: Database = new Map();
  for (const { minTxid, maxTxid } of files) {
    for (const [page, value] of write(new Map(), Number(minTxid), Number(maxTxid))) database.set(page, value);
  }
  return database;
}

const isSame = (a: Database, b: Database) =>
  a.size === b.size && [...a].every(([page, value]) => b.get(page) === value);

/** Every choice of some of `files`, each in the order of its last txids. */
function* choices(files: readonly ChainFile[]): Generator<ChainFile[]> {
  const ordered = [...files].sort((a, b) => Number(a.maxTxid - b.maxTxid));
  for (let bits = 1; bits < 1 << ordered.length; bits++) yield ordered.filter((_, i) => (bits & (1 << i)) !== 0);
}

const MAX_TXID = 8;
const NUM_RUNS = 3000;
const range = fc
  .tuple(fc.integer({ min: 1, max: MAX_TXID }), fc.integer({ min: 0, max: 3 }))
  .map(([min, length]): Range => [min, Math.min(MAX_TXID, min + length)]);
const snapshot = fc.integer({ min: 1, max: MAX_TXID }).map((max): Range => [1, max]);
/** Whole chains with some files taken away and some put in: rebuilt neither always nor never. */
const rangeSet = fc
  .record({
    single: fc.subarray(
      Array.from({ length: MAX_TXID }, (_, i): Range => [i + 1, i + 1]),
      { minLength: 3 },
    ),
    others: fc.array(fc.oneof(range, snapshot), { maxLength: 3 }),
  })
  .map(({ single, others }) => [...new Map([...single, ...others].map((one) => [String(one), one])).values()]);
const target = fc.option(fc.integer({ min: 0, max: MAX_TXID + 1 }), { nil: null });
const asTxid = (wanted: number | null) => (wanted === null ? null : BigInt(wanted));

const BOTH = ["E_CHAIN_GAP", "E_NOT_FOUND"];
/** The code that the error must have; both where the files alone cannot tell a lost file from one that never was. */
function rightCodes(ranges: readonly Range[], goal: number | null): string[] {
  const ends = ranges.map(([, max]) => max);
  const snapshotEnds = ranges.filter(([min]) => min === 1).map(([, max]) => max);
  if (goal === null) return ["E_CHAIN_GAP"];
  if (goal > Math.max(...ends)) return ["E_NOT_FOUND"];
  if (snapshotEnds.length === 0) return ["E_CHAIN_GAP"];
  if (goal < Math.min(...snapshotEnds)) return ["E_NOT_FOUND"];
  // What was on the way may have been merged into what is behind it, or be lost.
  if (ends.includes(goal))
    return ranges.some(([min, max]) => min > 1 && min <= goal && max > goal) ? BOTH : ["E_CHAIN_GAP"];
  // A snapshot behind the goal tells nothing of the files that led to it.
  const isLost = (txid: number) => !ranges.some(([min, max]) => min <= txid && txid <= max && (min > 1 || max <= goal));
  const lost = Array.from({ length: goal }, (_, i) => i + 1).some(isLost);
  return lost ? BOTH : ["E_NOT_FOUND"];
}

describe("any set of files", () => {
  test("rebuilds every moment that some choice of them rebuilds, exactly, and no other", () => {
    let rebuildable = 0;
    fc.assert(
      fc.property(rangeSet, target, (ranges, wanted) => {
        const files = filesOf(ranges);
        const goal = wanted ?? Math.max(...ranges.map(([, max]) => max));
        const truth = write(new Map(), 1, goal);
        const isPossible = goal > 0 && [...choices(files)].some((choice) => isSame(rebuilt(choice), truth));
        const isPlanned = codeOf(() => planChain("app", files, asTxid(wanted))) === null;
        expect(isPlanned).toBe(isPossible);
        if (!isPlanned) return;
        expect(isSame(rebuilt(planChain("app", files, asTxid(wanted))), truth)).toBe(true);
        rebuildable++;
      }),
      { numRuns: NUM_RUNS },
    );
    // Neither side of the law was left to chance.
    expect(rebuildable).toBeGreaterThan(NUM_RUNS / 10);
    expect(rebuildable).toBeLessThan((NUM_RUNS * 9) / 10);
  });

  test("begins with the newest snapshot, and no plan with it needs fewer files", () => {
    fc.assert(
      fc.property(rangeSet, fc.integer({ min: 1, max: MAX_TXID }), (ranges, goal) => {
        const files = filesOf(ranges);
        if (codeOf(() => planChain("app", files, BigInt(goal))) !== null) return;
        const plan = planChain("app", files, BigInt(goal));
        const ends = ranges.filter(([min, max]) => min === 1 && max <= goal).map(([, max]) => max);
        expect(textOf(plan.slice(0, 1))).toBe(`1-${Math.max(...ends)}`);
        const truth = write(new Map(), 1, goal);
        for (const choice of choices(files)) {
          if (choice.length < plan.length && choice.includes(plan[0]!))
            expect(isSame(rebuilt(choice), truth)).toBe(false);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("gives the same plan in any order, and is left as it was", () => {
    const inTwoOrders = rangeSet.chain((ranges) =>
      fc.tuple(fc.constant(ranges), fc.shuffledSubarray(ranges, { minLength: ranges.length })),
    );
    fc.assert(
      fc.property(inTwoOrders, target, (orders, wanted) => {
        const [one, other] = orders.map((each) => {
          const files = Object.freeze(filesOf(each));
          return (
            codeOf(() => planChain("app", files, asTxid(wanted))) ?? textOf(planChain("app", files, asTxid(wanted)))
          );
        });
        expect(other).toBe(one!);
      }),
      { numRuns: NUM_RUNS },
    );
  });

  test("fails with the code that tells a gap from a moment that never was", () => {
    fc.assert(
      fc.property(rangeSet, target, (ranges, wanted) => {
        const code = codeOf(() => planChain("app", filesOf(ranges), asTxid(wanted)));
        if (code !== null) expect(rightCodes(ranges, wanted)).toContain(code);
      }),
      { numRuns: NUM_RUNS },
    );
  });

  test("fails with a gap at a restore point that a merged file reaches over", () => {
    expect(codeOf(() => planChain("app", parsed("1-1 5-5 3-8"), 5n))).toBe("E_CHAIN_GAP");
  });
});

describe("the plan", () => {
  test.each<[law: string, ranges: string, target: bigint | null, expected: string]>([
    ["a snapshot behind the target is of no use", "1-1 2-2 1-3", 2n, "1-1 2-2"],
    ["a snapshot bridges a gap before it", "1-1 3-3 1-4 5-5", null, "1-4 5-5"],
    ["a merged file that reaches too far is not used", "1-1 2-2 2-3 3-3", 2n, "1-1 2-2"],
    ["among files of one reach the narrower", "1-3 2-5 4-5 3-5", null, "1-3 4-5"],
    ["a reach that an earlier step has passed is not taken", "1-1 2-2 2-6 3-3 4-4", 4n, "1-1 2-2 3-3 4-4"],
  ])("%s", (_, ranges, goal, expected) => {
    for (const files of [parsed(ranges), parsed(ranges).toReversed()])
      expect(textOf(planChain("app", files, goal))).toBe(expected);
  });

  test("tells txids apart that are beyond what a number holds", () => {
    const big = 2n ** 53n;
    const files = [listed(1n, big), listed(big + 1n, big + 1n), listed(big + 2n, big + 2n)];
    expect(planChain("app", files, big + 1n)).toEqual(files.slice(0, 2));
    expect(planChain("app", files, null)).toEqual(files);
    expect(codeOf(() => planChain("app", [files[0]!, files[2]!], null))).toBe("E_CHAIN_GAP");
  });

  test("takes one of two files of one range, in whichever folders they lie", () => {
    const twins = [listed(1n, 1n), listed(2n, 2n)].flatMap((file) => [file, { ...file, key: `other/${file.key}` }]);
    expect(textOf(planChain("app", twins, null))).toBe("1-1 2-2");
  });

  test("of a long chain takes work that grows with its length, not with the square of it", () => {
    const length = 4000;
    let looks = 0;
    const files = Array.from({ length }, (_, i) => {
      const { maxTxid, ...file } = listed(BigInt(i + 1), BigInt(i + 1));
      return Object.defineProperty(file, "maxTxid", {
        get: () => {
          looks++;
          return maxTxid;
        },
      }) as ChainFile;
    });
    expect(planChain("app", files, null)).toHaveLength(length);
    expect(looks).toBeLessThan(length * Math.log2(length) * 20);
  });
});

describe("an error", () => {
  test.each<[law: string, ranges: string, target: bigint | null, found: string]>([
    ["tells the first of two gaps", "1-1 3-3 5-5", null, "expected txid 0000000000000002, found 0000000000000003"],
    ["tells where the chain goes on", "1-1 1-4 9-12", null, "expected txid 0000000000000005, found 0000000000000009"],
    [
      "tells the file of the target itself",
      "1-1 2-2 4-4",
      3n,
      "expected txid 0000000000000003, found 0000000000000004",
    ],
    ["tells that no snapshot is left", "2-2 3-3", 2n, "expected a snapshot, found increments only"],
    ["tells the first point, for a target before it", "1-5 4-4", 4n, "at or before txid 4, found the first at 5"],
    ["tells that txid 0 is before everything", "1-1", 0n, "at or before txid 0, found the first at 1"],
  ])("%s", (_, ranges, goal, found) => {
    const plan = () => planChain("app", parsed(ranges), goal);
    expect(plan).toThrow(WalsyncError);
    expect(plan).toThrow(found);
  });

  test.each<[ranges: string, target: bigint, hint: string]>([
    ["1-2 3-7", 4n, "txid:2 and txid:7"],
    ["1-2 3-7", 9n, "The nearest is txid:7."],
    ["1-6 1-8", 2n, "txid:6"],
  ])("tells what is nearest: %s, asked for %p", (ranges, goal, hint) => {
    const plan = () => planChain("app", parsed(ranges), goal);
    expect(plan).toThrow(expect.objectContaining({ code: "E_NOT_FOUND", hint: expect.stringContaining(hint) }));
  });
});

describe("points", () => {
  const pointsFrom = (ranges: string, level = 1) => {
    const files = parsed(ranges).map((file) => (file.minTxid < file.maxTxid ? { ...file, level } : file));
    const points = pointsOf(files);
    return Object.entries(points).map(([kind, txids]) => `${kind} ${txids.join(" ")}`.trim());
  };

  test.each<[law: string, ranges: string, ...kinds: string[]]>([
    ["all are restorable in a whole chain", "1-1 2-2 3-3", "restorable 1 2 3", "merged", "lost", "stranded"],
    ["behind a gap they are lost", "1-1 3-3 4-4", "restorable 1", "merged", "lost 3 4", "stranded"],
    ["what a merged file leads past is merged", "1-1 4-4 5-5 2-6", "restorable 1 6", "merged 4 5", "lost", "stranded"],
    ["also by a merged file from 1 on", "3-3 1-4 5-5", "restorable 4 5", "merged 3", "lost", "stranded"],
    ["one that nothing leads to passes nothing", "1-1 5-5 3-8", "restorable 1", "merged", "lost 5 8", "stranded"],
    ["before the first snapshot they are stranded", "2-2 3-3 5-7", "restorable", "merged", "lost", "stranded 2 3 7"],
  ])("%s: %s", (_, ranges, ...kinds) => expect(pointsFrom(ranges)).toEqual(kinds));

  test("a snapshot tells nothing of the files before it: they stay lost", () => {
    expect(pointsFrom("1-1 3-3 1-4", SNAPSHOT_LEVEL)).toEqual(["restorable 1 4", "merged", "lost 3", "stranded"]);
  });

  test("are restorable just where a plan leads", () => {
    fc.assert(
      fc.property(rangeSet, (ranges) => {
        const files = filesOf(ranges);
        const planned = restorePoints(files).filter((txid) => codeOf(() => planChain("app", files, txid)) === null);
        const { restorable, merged, lost, stranded } = pointsOf(files);
        expect(restorable).toEqual(planned);
        const all = [...restorable, ...merged, ...lost, ...stranded].sort((a, b) => Number(a - b));
        expect(all).toEqual(restorePoints(files));
      }),
      { numRuns: NUM_RUNS },
    );
  });
});

test("restore points are the ends of all files, each once, ascending as numbers", () => {
  fc.assert(
    fc.property(fc.array(fc.bigInt(1n, 2n ** 64n - 1n)), fc.array(range), (ends, ranges) => {
      const files = [...ends.map((end) => listed(end, end)), ...filesOf(ranges)];
      const points = restorePoints(files);
      expect(new Set(points)).toEqual(new Set(files.map(({ maxTxid }) => maxTxid)));
      for (let i = 1; i < points.length; i++) expect(points[i]! > points[i - 1]!).toBe(true);
    }),
  );
});
