// Goal: the bench says no more than it measured. No ratio from one round, turns that alternate, the right median, faults
// that are named, and no published figures from a quick run.
import { describe, expect, test } from "bun:test";
import { formatResults, plotOf, writeDocs } from "../../scripts/bench/docs.ts";
import { measureSituation, type Result } from "../../scripts/bench/measure.ts";
import { formatText, type Report, rowsOf } from "../../scripts/bench/report.ts";
import { orderOf, quantile, ratioOf, spreadOf } from "../../scripts/bench/statistics.ts";

const result = (walsync: number[], litestream: number[]): Result => ({
  bench: "rss",
  situation: "20 databases",
  databases: 20,
  samples: {
    walsync: walsync.map((rssSettled) => ({ rssSettled })),
    litestream: litestream.map((rssSettled) => ({ rssSettled })),
  },
  faults: [],
});

describe("statistics", () => {
  test.each([
    [[3, 1, 2], { median: 2, low: 1, high: 3, rounds: 3 }],
    [[4, 1, 2, 3], { median: 2.5, low: 1, high: 4, rounds: 4 }],
    [[7], { median: 7, low: 7, high: 7, rounds: 1 }],
    [[], null],
  ])("the spread of %p", (samples, expected) => expect(spreadOf(samples)).toEqual(expected));

  test.each([
    ["one round gives no ratio", [1], [2], null],
    ["nor does one round of one of them", [1, 1], [2], null],
    ["medians are compared", [1, 2, 9], [4, 4, 4], 0.5],
    ["nothing has no share of nothing", [1, 1], [0, 0], null],
  ])("%s", (_law, ours, theirs, expected) => expect(ratioOf(ours, theirs)).toBe(expected));

  test("p99 of a hundred values leaves out the largest, and of ten it is the largest", () => {
    const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1);
    expect(quantile(upTo(100), 0.99)).toBe(99);
    expect(quantile(upTo(10), 0.99)).toBe(10);
  });

  test("whoever was first is last in the next round", () => {
    expect([0, 1, 2, 3].flatMap((round) => orderOf(["A", "B"], round)).join("")).toBe("ABBAABBA");
  });
});

describe("measuring", () => {
  test("a round that fails is named, and the other goes on", async () => {
    let calls = 0;
    const entrants = [
      { name: "walsync", measure: async () => ({ seconds: 1 }) },
      {
        name: "litestream",
        measure: async () => {
          if (++calls === 2) throw new Error("it fell over");
          return { seconds: 2 };
        },
      },
    ];
    const found = await measureSituation("snapshot", { title: "a database", databases: null, entrants }, 3, () => {});
    expect(found.samples.walsync).toHaveLength(3);
    expect(found.samples.litestream).toHaveLength(2);
    expect(found.faults).toEqual(["litestream, round 2: it fell over"]);
    expect(formatText([found])).toContain("! a database, litestream, round 2: it fell over");
  });
});

describe("the report", () => {
  test("a ratio stands in the last column, or why there is none", () => {
    expect(rowsOf([result([50, 52], [100, 104])])[1]!.at(-1)).toBe("0.50");
    expect(rowsOf([result([50], [100])])[1]!.at(-1)).toBe("none from one round");
    expect(rowsOf([result([50, 50], [])])[1]!.at(-1)).toBe("-");
  });

  const report: Report = {
    version: 1,
    startedAt: "2026-05-01T12:00:00.000Z",
    machine: { processor: "A | B", cores: 2, memoryGb: 24, system: "linux" },
    versions: { walsync: "0.1.0", litestream: "0.5.17" },
    rounds: 4,
    scale: "full",
    results: [result([50, 52], [100, 104])],
  };

  test("the document names machine, versions, date and rounds", () => {
    const text = formatResults(report, true);
    for (const part of ["2 cores", "litestream 0.5.17", "2026-05-01", "4 rounds", "| 20 databases | RSS, settled |"]) {
      expect(text).toContain(part);
    }
  });

  test("a quick run and a single round are not published", async () => {
    await expect(writeDocs({ ...report, scale: "quick" })).rejects.toThrow("full run");
    await expect(writeDocs({ ...report, rounds: 1 })).rejects.toThrow("two rounds");
  });

  test("the plot has a point for each count that was measured, also for a processor that did nothing", () => {
    const idle: Result = {
      ...result([], []),
      bench: "idle",
      samples: { walsync: [{ idleCpu: 0 }, { idleCpu: 0 }], litestream: [{ idleCpu: 1 }, { idleCpu: 1 }] },
    };
    const plot = plotOf([result([50, 52], [100, 104]), idle])!;
    expect(plot.match(/<circle /g)).toHaveLength(4);
    expect(plot).not.toMatch(/NaN|Infinity/);
    expect(plotOf([{ ...idle, bench: "cost" }])).toBeNull();
  });
});
