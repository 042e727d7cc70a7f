// Goal: the planned files rebuild exactly the transaction that was asked for, whenever any set of the files can; and if
// none can, the error says what is missing. A gap is never stepped over.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ChainFile, planChain, restorePoints } from "../../src/chain/plan.ts";
import { WalsyncError } from "../../src/errors.ts";

function file(minTxid: number, maxTxid: number): ChainFile {
  return {
    key: `app/${minTxid}-${maxTxid}.ltx`,
    kind: minTxid === 1 ? "snapshot" : "increment",
    minTxid: BigInt(minTxid),
    maxTxid: BigInt(maxTxid),
    sizeBytes: 1,
    modifiedAt: new Date(0),
    storedAt: new Date(0),
    level: 0,
  };
}

const ranges = (files: readonly ChainFile[]) => files.map(({ minTxid, maxTxid }) => `${minTxid}-${maxTxid}`);
const files = (...texts: string[]) => texts.map((text) => file(...(text.split("-").map(Number) as [number, number])));

describe("the planned chain", () => {
  test.each<[string, string[], bigint | null, string[]]>([
    ["a snapshot alone", ["1-1"], null, ["1-1"]],
    ["increments follow", ["1-1", "2-2", "3-3"], null, ["1-1", "2-2", "3-3"]],
    ["up to the target", ["1-1", "2-2", "3-3"], 2n, ["1-1", "2-2"]],
    ["from the newest snapshot", ["1-1", "2-2", "1-2", "3-3"], null, ["1-2", "3-3"]],
    ["from an older snapshot for an older target", ["1-1", "2-2", "3-3", "1-3", "4-4"], 2n, ["1-1", "2-2"]],
    ["by merged files where they reach further", ["1-1", "2-2", "3-3", "2-3", "4-4"], null, ["1-1", "2-3", "4-4"]],
    ["never beyond the target", ["1-1", "2-2", "3-3", "2-4", "4-4"], 3n, ["1-1", "2-2", "3-3"]],
    ["a merged file may begin before the snapshot's end", ["1-3", "2-5"], null, ["1-3", "2-5"]],
  ])("%s", (_, given, target, expected) => {
    for (const order of [given, given.toReversed()]) {
      expect(ranges(planChain("app", files(...order), target))).toEqual(expected);
    }
  });

  test.each<[string, string[], bigint | null, string, RegExp]>([
    ["nothing", [], null, "E_NOT_FOUND", /found none/],
    ["a gap", ["1-1", "3-3"], null, "E_CHAIN_GAP", /0000000000000002.*0000000000000003/],
    ["a gap before an exact target", ["1-1", "3-3"], 3n, "E_CHAIN_GAP", /0000000000000002/],
    ["no snapshot", ["2-2", "3-3"], null, "E_CHAIN_GAP", /increments only/],
    ["a target before the first snapshot", ["1-5", "6-6"], 3n, "E_NOT_FOUND", /first at 5/],
    ["a target within a merged file", ["1-1", "2-5"], 3n, "E_NOT_FOUND", /txid 3/],
    [
      "a restore point behind a gap that a merged file goes over",
      ["1-1", "5-5", "3-8"],
      5n,
      "E_CHAIN_GAP",
      /0000000000000002/,
    ],
    ["a target that was pruned", ["1-1", "1-9"], 5n, "E_NOT_FOUND", /txid 5/],
    ["a target behind the end", ["1-1", "2-2"], 3n, "E_NOT_FOUND", /txid 3/],
  ])("cannot be made of %s", (_, given, target, code, message) => {
    const plan = () => planChain("app", files(...given), target);
    expect(plan).toThrow(expect.objectContaining({ code }));
    expect(plan).toThrow(message);
  });

  test("exists whenever any set of files leads to the target", () => {
    const range = fc
      .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 4 }))
      .map(([min, length]) => file(min, min + length));
    const uniqueFiles = fc.uniqueArray(range, { maxLength: 14, selector: ({ key }) => key });
    fc.assert(
      fc.property(uniqueFiles, fc.bigInt(1n, 13n), (given, target) => {
        const reachable = reachableFrom(given);
        let chain: ChainFile[] | null = null;
        try {
          chain = planChain("app", given, target);
        } catch (error) {
          if (!(error instanceof WalsyncError)) throw error;
        }
        if (chain !== null) expectContiguous(chain, target);
        // A gap behind the newest snapshot is an error although an older snapshot and its increments might go round it.
        const isBridged = newestSnapshotReaches(given, target);
        if (isBridged) expect(chain).not.toBeNull();
        if (!reachable.has(target)) expect(chain).toBeNull();
      }),
      { numRuns: 3000 },
    );
  });

  test("of twenty thousand increments is found in no time", () => {
    const many = [file(1, 1), ...Array.from({ length: 20_000 }, (_, i) => file(i + 2, i + 2))];
    const startedMs = performance.now();
    expect(planChain("app", many, null)).toHaveLength(20_001);
    expect(performance.now() - startedMs).toBeLessThan(300);
  });
});

test("restore points are every end of a file, once, in order", () => {
  expect(restorePoints(files("3-3", "1-1", "2-2", "1-3", "2-3"))).toEqual([1n, 2n, 3n]);
  expect(restorePoints([])).toEqual([]);
});

function expectContiguous(chain: readonly ChainFile[], target: bigint): void {
  expect(chain[0]!.minTxid).toBe(1n);
  for (let i = 1; i < chain.length; i++) {
    expect(chain[i]!.minTxid).toBeLessThanOrEqual(chain[i - 1]!.maxTxid + 1n);
    expect(chain[i]!.maxTxid).toBeGreaterThan(chain[i - 1]!.maxTxid);
  }
  expect(chain.at(-1)!.maxTxid).toBe(target);
}

/** Every txid that some sequence of files leads to, by trying all. */
function reachableFrom(given: readonly ChainFile[]): Set<bigint> {
  const reached = new Set(given.filter(({ kind }) => kind === "snapshot").map(({ maxTxid }) => maxTxid));
  for (let before = -1; before !== reached.size; ) {
    before = reached.size;
    for (const { kind, minTxid, maxTxid } of given) {
      if (kind === "increment" && [...reached].some((txid) => minTxid <= txid + 1n && maxTxid > txid))
        reached.add(maxTxid);
    }
  }
  return reached;
}

function newestSnapshotReaches(given: readonly ChainFile[], target: bigint): boolean {
  const usable = given.filter(({ maxTxid }) => maxTxid <= target);
  const snapshots = usable.filter(({ kind }) => kind === "snapshot").map(({ maxTxid }) => Number(maxTxid));
  if (snapshots.length === 0) return false;
  const newest = Math.max(...snapshots);
  return reachableFrom([file(1, newest), ...usable.filter(({ kind }) => kind === "increment")]).has(target);
}
