// Goal: one huge database does not hold up the others. 200 databases are written to while the first snapshot of one of
// 2 GB is read, staged and shipped: how long do their commits wait to be captured? These are times, and everything else
// that uses disk and processor meanwhile makes them longer: scripts/test runs this file alone, after all others.
import { describe, expect, test } from "bun:test";
import { walsync } from "../../scripts/bench/contender.ts";
import { measureFairness } from "../../scripts/bench/fair.ts";
import { LARGE_MB } from "../../scripts/bench/stage.ts";
import { compiledBinary } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const P50_MS = 50;
const P99_MS = 200;
/** The machine may do something else once. Whoever holds others up does so each time. */
const ATTEMPTS = 2;

describe.skipIf(requireTool("versitygw") === null)("200 databases, 40 commits a second", () => {
  test("beside the first snapshot of 2 GB, 99 of 100 commits are captured within 200 ms", async () => {
    const measured: { p50: number; p99: number }[] = [];
    const isFair = () => measured.some(({ p50, p99 }) => p50 < P50_MS && p99 < P99_MS);
    while (measured.length < ATTEMPTS && !isFair()) {
      const scale = { fairCount: 200, fairMs: 0 };
      const figures = await measureFairness(scale, walsync(compiledBinary()), tempDir(), LARGE_MB);
      measured.push({ p50: Math.round(figures.stagedP50!), p99: Math.round(figures.stagedP99!) });
    }
    console.log(`commit to staged, in ms: ${JSON.stringify(measured)}`);
    expect(isFair(), `one of ${JSON.stringify(measured)} within ${P50_MS} and ${P99_MS} ms`).toBe(true);
  }, 300_000);
});
