// Goal: what can be restored of a replica can be restored of its copy in the other layout; every file of the copy follows on from a
// state that is known, and has a place of its own; levels are such that Litestream finds its end and can go on merging.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { layoutRules } from "../../src/chain/layout-rules.ts";
import { type ChainFile, planChain, restorePoints } from "../../src/chain/plan.ts";
import { formatKey, type Layout, parseKey, SNAPSHOT_LEVEL } from "../../src/destination/layout.ts";
import { planConversion } from "../../src/upkeep/convert-plan.ts";
import { codeOf } from "../chain/make.ts";

const CAPABILITIES = { metadata: true, levelFolders: "bucket" } as const;
const target = (layout: Layout) => ({ name: "copy", rules: layoutRules(layout, CAPABILITIES) });

/** "0:5-5" is a file of level 0 of the litestream layout, "5-9" one of the walsync layout. */
function file(spec: string): ChainFile {
  const [, level, min, max] = /^(?:(\d):)?(\d+)-(\d+)$/.exec(spec)!;
  const range = { name: "app", minTxid: BigInt(min!), maxTxid: BigInt(max!) };
  const key =
    level === undefined
      ? formatKey({ layout: "walsync", ...range })
      : formatKey({ layout: "litestream", level: Number(level), folders: "bucket", ...range });
  return {
    key,
    kind: range.minTxid === 1n ? "snapshot" : "increment",
    minTxid: range.minTxid,
    maxTxid: range.maxTxid,
    sizeBytes: 1,
    modifiedAt: new Date(0),
    storedAt: new Date(0),
    level: Number(level ?? 0),
  };
}

/** As `file` takes it. */
function specOf(key: string): string {
  const parsed = parseKey(key);
  if (parsed?.is !== "ltx") throw new Error(`${key} is no file`);
  return `${parsed.layout === "litestream" ? `${parsed.level}:` : ""}${parsed.minTxid}-${parsed.maxTxid}`;
}

function planned(specs: readonly string[], layout: Layout) {
  const plan = planConversion({ name: "app", files: specs.map(file) }, target(layout));
  return {
    files: plan.steps.flatMap(({ targets }) => targets.map(({ key }) => specOf(key))),
    skipped: Object.fromEntries(plan.skipped.map(({ file: { key }, reason }) => [specOf(key), reason])),
    plan,
  };
}

describe("into the walsync layout", () => {
  test.each([
    ["levels are no part of a name", ["9:1-1", "0:1-1", "0:2-2", "0:3-3", "1:2-3"], ["1-1", "2-2", "3-3", "2-3"]],
    ["one place for files of one range", ["9:1-4", "1:1-4", "0:5-5", "1:5-5"], ["1-4", "5-5"]],
    ["a file that was merged across a snapshot begins behind it", ["9:1-5", "1:3-8", "0:9-9"], ["1-5", "6-8", "9-9"]],
    [
      "a second way to a state needs a beginning that is known",
      ["9:1-5", "0:6-6", "0:7-7", "1:3-7"],
      ["1-5", "6-6", "7-7"],
    ],
    ["files whose way was removed by age serve nobody", ["1:1-4", "0:7-7", "0:8-8", "1:5-8"], ["1-4", "5-8"]],
    ["what lies before the first snapshot serves nobody", ["0:3-3", "9:1-5", "0:6-6"], ["1-5", "6-6"]],
  ])("%s", (_law, specs, expected) => {
    expect(planned(specs, "walsync").files).toEqual(expected);
  });

  test("what is left out is told, with the reason", () => {
    expect(planned(["0:3-3", "9:1-5", "0:6-6", "1:6-6", "0:7-7", "1:4-7"], "walsync").skipped).toEqual({
      "0:3-3": "unreachable",
      "1:6-6": "same-range",
      "1:4-7": "superseded",
    });
  });

  test("a gap before the newest state is refused", () => {
    expect(codeOf(() => planned(["9:1-5", "0:7-7"], "walsync"))).toBe("E_CHAIN_GAP");
    expect(codeOf(() => planned(["0:7-7"], "walsync"))).toBe("E_CHAIN_GAP");
  });
});

describe("into the litestream layout", () => {
  test.each([
    ["the first snapshot is also the first file as shipped", ["1-1", "2-2"], ["0:1-1", "9:1-1", "0:2-2"]],
    ["but not where the next one was merged away", ["1-1", "2-5", "6-6"], ["9:1-1", "1:2-5", "0:6-6"]],
    [
      "merged files within each other go up level by level",
      ["1-1", "2-3", "4-5", "2-5", "6-6"],
      ["9:1-1", "1:2-3", "1:4-5", "2:2-5", "0:6-6"],
    ],
    ["the end is a file of level 0, made where it was merged away", ["1-4", "5-9"], ["9:1-4", "1:5-9", "0:9-9"]],
    ["also of a snapshot alone", ["1-4"], ["9:1-4", "0:4-4"]],
    ["and of a first snapshot alone", ["1-1"], ["9:1-1", "0:1-1"]],
  ])("%s", (_law, specs, expected) => {
    expect(planned(specs, "litestream").files).toEqual(expected);
  });
});

/** A history: files as shipped, merged in windows of rising size, snapshots, and any of them removed. */
const histories = fc
  .record({
    length: fc.integer({ min: 1, max: 40 }),
    snapshots: fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 4 }),
    windows: fc.constantFrom([], [3], [3, 9], [2, 6, 18], [2, 4, 8, 16]),
    removed: fc.array(fc.nat(), { maxLength: 60 }),
  })
  .map(({ length, snapshots, windows, removed }) => {
    const files = ["9:1-1", "0:1-1", ...snapshots.filter((at) => at <= length).map((at) => `9:1-${at}`)];
    for (let txid = 2; txid <= length; txid++) files.push(`0:${txid}-${txid}`);
    for (const [i, width] of windows.entries()) {
      for (let first = 2; first + width - 1 <= length; first += width)
        files.push(`${i + 1}:${first}-${first + width - 1}`);
    }
    const unique = [...new Set(files)];
    for (const index of removed) if (unique.length > 1) unique.splice(index % unique.length, 1);
    return unique;
  });

const restorable = (files: readonly ChainFile[]) =>
  restorePoints(files).filter((txid) => codeOf(() => planChain("app", files, txid)) === null);

test.each(["walsync", "litestream"] as const)("laws of every copy into the %s layout", (layout) => {
  fc.assert(
    fc.property(histories, (specs) => {
      const source =
        layout === "litestream"
          ? [...new Set(specs.map((spec) => spec.replace(/^\d:/, "")))].map(file)
          : specs.map(file);
      const newest = restorePoints(source).at(-1)!;
      if (!restorable(source).includes(newest)) return; // Refused.
      const { plan, files } = planned(
        source.map(({ key }) => specOf(key)),
        layout,
      );
      const copy = files.map(file);
      const points = restorable(copy);
      expect(points).toEqual(restorable(source));
      expect(plan.points.toSorted((a, b) => Number(a - b))).toEqual(points);
      expect(new Set(files).size).toBe(files.length);
      const made = layout === "litestream" ? `0:${newest}-${newest}` : null;
      for (const each of copy) {
        const isKnown = each.minTxid === 1n || points.includes(each.minTxid - 1n);
        expect([specOf(each.key), isKnown || specOf(each.key) === made]).toEqual([specOf(each.key), true]);
      }
      if (layout === "walsync") return;
      expect(files).toContain(`0:${newest}-${newest}`);
      for (let level = 0; level < 3; level++) {
        const ranges = copy.filter((each) => each.level === level).sort((a, b) => Number(a.minTxid - b.minTxid));
        for (const [i, each] of ranges.entries()) if (i > 0) expect(each.minTxid > ranges[i - 1]!.maxTxid).toBe(true);
      }
      expect(copy.filter((each) => each.level === SNAPSHOT_LEVEL).length).toBeGreaterThan(0);
    }),
    { numRuns: 500 },
  );
});
