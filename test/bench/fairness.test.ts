// Goal: one huge database does not hold up the others. 200 databases are written to while the first snapshot of one of
// 2 GB is read, staged and shipped: how long do their commits wait to be captured?
import { describe, expect, test } from "bun:test";
import { walsync } from "../../scripts/bench/contender.ts";
import { measureFairness } from "../../scripts/bench/fair.ts";
import { LARGE_MB } from "../../scripts/bench/stage.ts";
import { compiledBinary } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const SCALE = { fairCount: 200, fairMs: 8000 };
const MARK_MS = 200;
/** Where another test keeps the disk and the processor busy, commits wait without the large database, too. */
const TIMES_ALONE = 10;

describe.skipIf(requireTool("versitygw") === null)("200 databases, 40 commits a second", () => {
  test("beside the first snapshot of 2 GB, 99 of 100 commits are captured within 200 ms", async () => {
    const program = walsync(compiledBinary());
    const alone = await measureFairness(SCALE, program, tempDir(), null);
    const beside = await measureFairness(SCALE, program, tempDir(), LARGE_MB);
    console.log(
      `commit to staged, p99: ${alone.stagedP99!.toFixed(0)} ms alone, ${beside.stagedP99!.toFixed(0)} ms beside`,
    );
    expect(beside.stagedP99!).toBeLessThan(Math.max(MARK_MS, TIMES_ALONE * alone.stagedP99!));
    // Half of them must not notice.
    expect(beside.stagedP50!).toBeLessThan(Math.max(MARK_MS / 4, TIMES_ALONE * alone.stagedP50!));
  }, 240_000);
});
