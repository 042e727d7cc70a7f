// Goal: every restore point that is shown can be restored, its time is the one that was captured, and neither a long chain nor
// many visitors make a watch ask or keep more than its bounds say.
import { describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { readChain } from "../../src/chain/chain.ts";
import { openDestination } from "../../src/destination/open.ts";
import { answerOf, type ListedPoints, PointsReader } from "../../src/status-page/points.ts";
import { POINTS_SHOWN } from "../../src/status-page/protocol.ts";
import { type MadeUpPoint, writeMadeUpChain } from "../support/status-page.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const START_MS = Date.UTC(2026, 4, 1);
const ALL = { fromMs: null, toMs: null };

function minutes(count: number): MadeUpPoint[] {
  return Array.from({ length: count }, (_, i) => ({ txid: i + 1, atMs: START_MS + i * 60_000, snapshot: i === 0 }));
}

describe("restore points", () => {
  test("are the ends of files that lead somewhere, with the times of the manifest", async () => {
    const points = [...minutes(5), { txid: 5, atMs: START_MS + 4 * 60_000, snapshot: true }];
    writeMadeUpChain(dir, "app", points);
    const answer = await new PointsReader(await openDestination(dir)).read("app", ALL);
    expect(answer).toMatchObject({ layout: "walsync", snapshots: 2, increments: 4, count: 5, lost: 0, in_range: 5 });
    expect(answer.points).toEqual([
      { txid: 1, at: START_MS, snapshot: true, rough: false },
      { txid: 2, at: START_MS + 60_000, snapshot: false, rough: false },
      { txid: 3, at: START_MS + 120_000, snapshot: false, rough: false },
      { txid: 4, at: START_MS + 180_000, snapshot: false, rough: false },
      { txid: 5, at: START_MS + 240_000, snapshot: true, rough: false },
    ]);
  });

  test("behind a missing file are none, and counted as lost", async () => {
    writeMadeUpChain(dir, "gap", minutes(9));
    rmSync(join(dir, "gap", "00000004-00000004.ltx"));
    const answer = await new PointsReader(await openDestination(dir)).read("gap", ALL);
    expect([answer.count, answer.lost, answer.newest?.txid]).toEqual([3, 5, 3]);
  });

  test("that the manifest does not know yet have the time of their file, said to be rough", async () => {
    writeMadeUpChain(dir, "new", minutes(3));
    rmSync(join(dir, "new", "manifest.json"));
    const { points } = await new PointsReader(await openDestination(dir)).read("new", ALL);
    expect(points.map(({ rough }) => rough)).toEqual([true, true, true]);
    expect(points[0]!.at).toBeGreaterThan(Date.now() - 60_000);
  });

  test("of a part of time are those in it, its ends included", async () => {
    const reader = new PointsReader(await openDestination(dir));
    const range = { fromMs: START_MS + 60_000, toMs: START_MS + 180_000 };
    expect((await reader.read("app", range)).points.map(({ txid }) => txid)).toEqual([2, 3, 4]);
    const nothing = await reader.read("app", { fromMs: START_MS + 1, toMs: START_MS + 2 });
    expect([nothing.points, nothing.in_range, nothing.count]).toEqual([[], 0, 5]);
    expect((await reader.read("app", { fromMs: 9e15, toMs: 0 })).points).toEqual([]);
  });

  test.each([POINTS_SHOWN, POINTS_SHOWN + 1, 50_000])("of %d are thinned out evenly, both ends kept", (count) => {
    const listed: ListedPoints = {
      ...{ layout: "walsync", readAtMs: 0, snapshots: 0, increments: count, bytes: 0, lost: 0 },
      txids: Float64Array.from({ length: count }, (_, i) => i + 1),
      times: Float64Array.from({ length: count }, (_, i) => i * 1000),
      flags: new Uint8Array(count),
    };
    const { points, in_range } = answerOf("app", listed, ALL);
    expect([points.length, in_range, points[0]!.txid, points.at(-1)!.txid]).toEqual([POINTS_SHOWN, count, 1, count]);
    const steps = points.slice(1).map(({ txid }, i) => txid - points[i]!.txid);
    expect(Math.max(...steps) - Math.min(...steps)).toBeLessThan(2);
  });
});

describe("bounds", () => {
  test("many visitors share one listing, and looking around asks nobody again", async () => {
    const destination = await openDestination(dir);
    let listings = 0;
    const list = destination.list.bind(destination);
    destination.list = (...args) => {
      listings++;
      return list(...args);
    };
    const reader = new PointsReader(destination);
    await Promise.all(Array.from({ length: 20 }, (_, i) => reader.read("app", { fromMs: i, toMs: null })));
    expect(listings).toBe(1);
    for (const name of ["gap", "new", "app", "none"]) await reader.read(name, ALL).catch(() => {});
    expect(listings).toBe(4);
  });

  test("a listing that failed is not kept", async () => {
    const reader = new PointsReader(await openDestination(dir));
    expect(reader.read("later", ALL)).rejects.toMatchObject({ code: "E_NOT_FOUND" });
    await Bun.sleep(5);
    writeMadeUpChain(dir, "later", minutes(1));
    expect((await reader.read("later", ALL)).count).toBe(1);
  });

  test("a chain of more files than asked for is refused, before it is read to its end", async () => {
    const destination = await openDestination(dir);
    expect((await readChain(destination, "gap", undefined, 8)).files).toHaveLength(8);
    expect(readChain(destination, "gap", undefined, 7)).rejects.toMatchObject({ code: "E_REFUSED" });
  });
});
