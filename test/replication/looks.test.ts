// Goal: after an event everything that it left unannounced is looked for, soon enough to be captured when that is due, and no
// sooner than it could be.
import { expect, test } from "bun:test";
import type { Delivery } from "../../src/replication/delivery.ts";
import type { LocalState } from "../../src/replication/local-state.ts";
import { OpenDatabase } from "../../src/replication/open-database.ts";
import type { PinnedDatabase } from "../../src/sqlite/database.ts";

const START_MS = 10_000;

/** How long after an event each look comes, if each comes when it is due. Only times are asked for: nothing is opened. */
function looks(captureDueMs?: number): number[] {
  const head = { salt1: 1, salt2: 1, frameCount: 5, backfilled: 0 };
  const database = { walIndex: () => head } as unknown as PinnedDatabase;
  const open = new OpenDatabase(database, {} as LocalState, {} as Delivery, START_MS);
  open.lookStep = 0;
  const found: number[] = [];
  for (let nowMs = START_MS; ; ) {
    nowMs = open.nextLookMs(nowMs, captureDueMs);
    if (nowMs === Number.POSITIVE_INFINITY) return found;
    found.push(nowMs - START_MS);
  }
}

test("where a capture may be made at once, looks come after 1, 2 and 4 ms more, and then more rarely", () => {
  expect(looks().slice(0, 3)).toEqual([1, 3, 7]);
  expect(looks(START_MS - 500)).toEqual(looks());
  expect(looks(START_MS + 16)).toEqual(looks());
  expect(looks().length).toBeGreaterThan(3);
});

test("where none may be made for a second, the first look still comes within 36 ms, and the last ones are the same", () => {
  const rare = looks(START_MS + 1000);
  expect(rare[0]).toBeGreaterThanOrEqual(16);
  expect(rare[0]).toBeLessThanOrEqual(36);
  expect(rare.length).toBe(looks().length - 3);
  expect(Math.abs(rare.at(-1)! - looks().at(-1)!)).toBeLessThanOrEqual(20);
});

test("when the capture is due in the middle of them, those after it are not left out", () => {
  for (const dueMs of [20, 50, 200]) {
    const found = looks(START_MS + dueMs);
    expect(found.filter((ms) => ms >= dueMs).length).toBeGreaterThan(1);
  }
});
