// Goal: over the whole space of what a look can find, each plan is made exactly when its proof is complete, and every
// other case is a resync for the reason that keeps it from being one.
import { expect, test } from "bun:test";
import {
  type CapturePlan,
  type CheckpointPolicy,
  planCapture,
  planCheckpoint,
  proveScan,
} from "../../src/replication/plan.ts";
import type { Captured } from "../../src/replication/position.ts";
import type { WalIndexHead } from "../../src/sqlite/wal-index.ts";
import type { WalCursor, WalScan } from "../../src/sqlite/wal-reader.ts";

const PAGE_SIZES = [512, 4096];
const COUNTER_MAX = 2 ** 32 - 1;
const offsetOf = (frames: number, pageSize: number) => 32 + frames * (24 + pageSize);

/** Every combination of one value from each list. */
function* combinations<T extends Record<string, readonly unknown[]>>(
  lists: T,
): Generator<{ [K in keyof T]: T[K][number] }> {
  const [first] = Object.entries(lists);
  if (first === undefined) {
    yield {} as never;
    return;
  }
  const [name, values] = first;
  const { [name]: _taken, ...others } = lists;
  for (const value of values) for (const other of combinations(others)) yield { [name]: value, ...other } as never;
}

function cursorOf(frames: number, pageSize: number, sums: readonly [number, number]): WalCursor {
  const [checksum1, checksum2] = sums;
  return { salt1: 1, salt2: 2, walOffset: offsetOf(frames, pageSize), checksum1, checksum2, bigEndianChecksums: false };
}

function headOf(changes: Partial<WalIndexHead>): WalIndexHead {
  const known = { bigEndianChecksums: false, commit: 9, backfilled: 0, changeCount: 100, pageSize: 4096 };
  return { ...known, frameCount: 0, checksum1: 3, checksum2: 4, salt1: 1, salt2: 2, ...changes };
}

test("a look appends, restarts or rests only with proof, and says what was missing from it", () => {
  const seen = new Map<string, number>();
  const space = combinations({
    pageSize: PAGE_SIZES,
    capturedFrames: [null, 0, 1, 2],
    capturedCount: [null, 0, 5, COUNTER_MAX],
    salt1: [1, 9],
    salt2: [2, 9],
    frameCount: [0, 1, 2, 3],
    checksum1: [3, 9],
    checksum2: [4, 9],
    changeCount: [0, 5, 6, COUNTER_MAX],
  });
  for (const one of space) {
    const { capturedFrames, capturedCount, frameCount } = one;
    const cursor = capturedFrames === null ? null : cursorOf(capturedFrames, 4096, [3, 4]);
    const captured: Captured = {
      txid: 1n,
      checksum: 0n,
      commit: 9,
      pageSize: 4096,
      timestampMs: 0,
      cursor,
      changeCount: capturedCount,
    };
    const plan = planCapture(captured, headOf(one));

    const isSameSize = one.pageSize === 4096;
    const isSameGeneration = cursor !== null && one.salt1 === 1 && one.salt2 === 2;
    const isSameEnd =
      frameCount === capturedFrames && (frameCount === 0 || (one.checksum1 === 3 && one.checksum2 === 4));
    const commits = capturedCount === null ? null : (one.changeCount - capturedCount + 2 ** 32) % 2 ** 32;
    let expected: CapturePlan;
    if (!isSameSize) expected = { kind: "resync", reason: "page-size-changed" };
    else if (isSameGeneration && frameCount < capturedFrames!) expected = { kind: "resync", reason: "wal-truncated" };
    else if (isSameGeneration && frameCount > capturedFrames!) expected = { kind: "append" };
    else if (isSameGeneration) expected = isSameEnd ? { kind: "idle" } : { kind: "resync", reason: "wal-restarted" };
    else if (commits !== null && frameCount > 0) expected = { kind: "restarted", expectedCommits: commits };
    else if (commits === 0) expected = { kind: "idle" };
    else expected = { kind: "resync", reason: cursor === null ? "position-unknown" : "wal-restarted" };
    if (!Bun.deepEquals(plan, expected)) expect({ one, plan }).toEqual({ one, plan: expected });
    const kind = plan.kind === "resync" ? plan.reason : plan.kind;
    seen.set(kind, (seen.get(kind) ?? 0) + 1);
  }
  const kinds = [
    "append",
    "idle",
    "page-size-changed",
    "position-unknown",
    "restarted",
    "wal-restarted",
    "wal-truncated",
  ];
  expect([...seen.keys()].sort()).toEqual(kinds);
});

test("a scan is proof only if it ends where SQLite counts the end, and holds as many commits as were counted", () => {
  const plans: CapturePlan[] = [
    { kind: "append" },
    ...[0, 1, 2].map((expectedCommits) => ({ kind: "restarted", expectedCommits }) as const),
  ];
  const space = combinations({
    plan: plans,
    reached: [0, 1, 2, 3],
    commitCount: [0, 1, 2],
    frameCount: [0, 1, 2, 3],
    checksum1: [3, 9],
    checksum2: [4, 9],
  });
  const seen = new Set<string | null>();
  for (const one of space) {
    const { plan, reached, commitCount, frameCount, checksum1, checksum2 } = one;
    const pages = { pgnos: new Uint32Array(), frameIndexes: new Uint32Array() };
    const scan: WalScan = {
      end: cursorOf(reached, 4096, [checksum1, checksum2]),
      commitCount,
      commit: 9,
      frameCount: reached,
      pages,
    };
    const isAtEnd = reached === frameCount && (frameCount === 0 || (checksum1 === 3 && checksum2 === 4));
    const isCounted = plan.kind !== "restarted" || plan.expectedCommits === commitCount;
    const doubt = proveScan(plan, scan, headOf({ frameCount }));
    const expected = isAtEnd ? (isCounted ? null : "wal-restarted") : "wal-unreadable";
    if (doubt !== expected) expect({ one, doubt }).toEqual({ one, doubt: expected });
    seen.add(doubt);
  }
  expect(seen).toEqual(new Set([null, "wal-restarted", "wal-unreadable"]));
});

test("checkpoints are due at their bounds, not one frame or one millisecond before", () => {
  const policy: CheckpointPolicy = { minFrames: 100, intervalMs: 60_000, fenceFrames: 400 };
  const planOf = (frameCount: number, backfilled: number, sinceLastMs: number, quietMs: number, mayFence = true) =>
    planCheckpoint(headOf({ frameCount, backfilled }), policy, sinceLastMs, quietMs, mayFence);
  expect([planOf(400, 0, 200, 0), planOf(399, 0, 200, 0), planOf(400, 0, 200, 0, false)]).toEqual([
    "fence",
    "passive",
    "passive",
  ]);
  // The length of the WAL counts for the fence, what waits in it for the others.
  expect([planOf(400, 399, 2000, 0), planOf(400, 400, 2000, 1e9)]).toEqual(["fence", "none"]);
  expect([planOf(150, 50, 200, 0), planOf(149, 50, 200, 0), planOf(150, 50, 199, 0)]).toEqual([
    "passive",
    "none",
    "none",
  ]);
  expect([planOf(1, 0, 60_000, 0), planOf(1, 0, 59_999, 0)]).toEqual(["passive", "none"]);
  expect([planOf(1, 0, 0, 500), planOf(1, 0, 0, 499), planOf(0, 0, 1e9, 1e9)]).toEqual(["passive", "none", "none"]);
});
