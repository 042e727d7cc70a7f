// Goal: retention keeps what it says, in every history and under every policy: the newest, at least two, one for each period,
// every moment of the point-in-time window; and what stays listed stays restorable, also if deleting stops half way.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ChainFile, planChain, restorePoints } from "../../src/chain/plan.ts";
import { deletionOrder, planRetention, type RetentionPolicy } from "../../src/upkeep/retention.ts";
import { listed } from "../chain/make.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const POLICY: RetentionPolicy = { hourly: 24, daily: 7, weekly: 12, monthly: 12, pointInTimeMs: DAY };
const NONE: RetentionPolicy = { hourly: 0, daily: 0, weekly: 0, monthly: 0, pointInTimeMs: 0 };

interface History {
  files: ChainFile[];
  /** When the state after a txid was captured. */
  times: Map<bigint, number>;
}

const snapshotsOf = ({ files, times }: History) =>
  files.filter((file) => file.kind === "snapshot").map((file) => ({ file, timestampMs: times.get(file.maxTxid)! }));

const plan = (history: History, policy: RetentionPolicy, nowMs: number) =>
  planRetention(history.files, snapshotsOf(history), policy, nowMs);

/** Snapshots at these times, each after one increment. */
function snapshotsAt(...timesMs: number[]): History {
  const times = new Map(timesMs.map((ms, i) => [BigInt(i + 1), ms]));
  const files = timesMs.flatMap((_, i) => {
    const txid = BigInt(i + 1);
    return i === 0 ? [listed(1n, 1n)] : [listed(txid, txid), listed(1n, txid)];
  });
  return { files, times };
}

const keptTimes = (history: History, policy: RetentionPolicy, nowMs: number) =>
  plan(history, policy, nowMs)
    .snapshots.filter(({ keptFor }) => keptFor !== null)
    .map(({ timestampMs, keptFor }) => `${new Date(timestampMs).toISOString().slice(0, 16)} ${keptFor}`);

const isRestorable = (files: readonly ChainFile[], txid: bigint): boolean => {
  try {
    return planChain("app", files, txid).length > 0;
  } catch {
    return false;
  }
};

describe("snapshots", () => {
  const now = Date.parse("2026-03-30T12:30:00Z");

  test("of one hour: the newest stays", () => {
    const history = snapshotsAt(now - DAY, now - 50 * 60_000, now - 40 * 60_000, now - 35 * 60_000);
    expect(keptTimes(history, { ...NONE, hourly: 24 }, now)).toEqual([
      "2026-03-30T11:55 newest",
      "2026-03-29T12:30 hourly",
    ]);
  });

  test("tiers follow on from each other, and a period without a snapshot does not count", () => {
    const history = snapshotsAt(
      Date.parse("2025-11-15T08:00Z"),
      Date.parse("2026-01-31T23:59Z"),
      Date.parse("2026-02-28T23:59Z"),
      Date.parse("2026-03-29T23:59Z"), // Sunday
      Date.parse("2026-03-30T00:01Z"), // Monday
      Date.parse("2026-03-30T10:00Z"),
      Date.parse("2026-03-30T10:59Z"),
    );
    expect(keptTimes(history, { hourly: 2, daily: 2, weekly: 3, monthly: 4, pointInTimeMs: 0 }, now)).toEqual([
      "2026-03-30T10:59 newest",
      "2026-03-30T00:01 hourly",
      "2026-03-29T23:59 daily",
      "2026-02-28T23:59 weekly",
      "2026-01-31T23:59 monthly",
      "2025-11-15T08:00 monthly",
    ]);
  });

  test("daylight saving and leap days change nothing: days are UTC", () => {
    // Europe changes on 2024-03-31 at 01:00 UTC; 2024 has a 29 February.
    const days = ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-30", "2024-03-31", "2024-04-01"];
    const history = snapshotsAt(...days.flatMap((day) => [`${day}T00:00Z`, `${day}T23:59Z`].map(Date.parse)));
    const kept = keptTimes(history, { ...NONE, daily: 6 }, Date.parse("2024-04-02T00:00Z"));
    expect(kept.map((line) => line.slice(0, 16))).toEqual(days.map((day) => `${day}T23:59`).reverse());
  });

  test("a policy of nothing keeps two", () => {
    expect(keptTimes(snapshotsAt(1 * DAY, 2 * DAY, 3 * DAY), NONE, 4 * DAY)).toEqual([
      "1970-01-04T00:00 newest",
      "1970-01-03T00:00 at least two",
    ]);
  });

  test("one that bridges a gap stays while increments follow on from it", () => {
    const files = [listed(1n, 1n), listed(2n, 2n), listed(1n, 5n), listed(6n, 6n), listed(7n, 7n), listed(1n, 7n)];
    const history = { files, times: new Map([1n, 2n, 5n, 6n, 7n].map((txid) => [txid, Number(txid) * HOUR])) };
    const { snapshots } = plan(history, { ...NONE, pointInTimeMs: 100 * HOUR }, 8 * HOUR);
    expect(snapshots.map(({ file, keptFor }) => [file.maxTxid, keptFor])).toEqual([
      [7n, "newest"],
      [5n, "bridges a gap"],
      [1n, "point in time"],
    ]);
  });
});

/** A day or a year of commits, snapshots, merges and losses. */
const histories = fc
  .record({
    steps: fc.array(
      fc.record({
        gapMs: fc.oneof(fc.integer({ min: 1, max: 60_000 }), fc.integer({ min: 1, max: 40 * DAY })),
        snapshot: fc.boolean(),
        fate: fc.constantFrom("stays", "stays", "stays", "is lost", "merges with the one before"),
      }),
      { minLength: 1, maxLength: 40 },
    ),
    beginMs: fc.integer({ min: Date.parse("2023-12-01"), max: Date.parse("2028-03-01") }),
  })
  .map(({ steps, beginMs }): History => {
    const times = new Map([[1n, beginMs]]);
    const files = [listed(1n, 1n)];
    let timeMs = beginMs;
    let txid = 1n;
    let last: ChainFile | null = null;
    for (const { gapMs, snapshot, fate } of steps) {
      txid++;
      timeMs += gapMs;
      times.set(txid, timeMs);
      const minTxid = fate === "merges with the one before" && last !== null ? last.minTxid : txid;
      // The narrow ones stay for a while beside the merged one.
      last = listed(minTxid, txid);
      if (fate !== "is lost") files.push(last);
      if (minTxid !== txid) files.push(listed(txid, txid));
      if (snapshot) files.push(listed(1n, txid));
    }
    return { files, times };
  });

const policies = fc.record({
  hourly: fc.integer({ min: 0, max: 30 }),
  daily: fc.integer({ min: 0, max: 10 }),
  weekly: fc.integer({ min: 0, max: 6 }),
  monthly: fc.integer({ min: 0, max: 6 }),
  pointInTimeMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 3 * DAY }), fc.integer({ min: 0, max: 90 * DAY })),
});

describe("any history under any policy", () => {
  const cases = fc
    .tuple(histories, policies, fc.integer({ min: 0, max: 10 * DAY }))
    .map(([history, policy, laterMs]) => {
      const nowMs = Math.max(...history.times.values()) + laterMs;
      return { history, policy, nowMs, planned: plan(history, policy, nowMs) };
    });

  test("what was restorable and stays listed, stays restorable, after every single deletion", () => {
    fc.assert(
      fc.property(cases, ({ history, planned }) => {
        const { files } = history;
        const before = new Set(restorePoints(files).filter((txid) => isRestorable(files, txid)));
        const doomed = deletionOrder(planned);
        for (let count = 0; count <= doomed.length; count++) {
          const gone = new Set(doomed.slice(0, count).map(({ key }) => key));
          const left = files.filter(({ key }) => !gone.has(key));
          for (const txid of restorePoints(left)) if (before.has(txid)) expect(isRestorable(left, txid)).toBe(true);
        }
      }),
      { numRuns: 300 },
    );
  });

  test("every moment of the window, and now, is restored to the state that it had", () => {
    fc.assert(
      fc.property(cases, ({ history, policy, nowMs, planned }) => {
        const { files, times } = history;
        const gone = new Set(deletionOrder(planned).map(({ key }) => key));
        const left = files.filter(({ key }) => !gone.has(key));
        const pointAt = (listing: readonly ChainFile[], atMs: number) =>
          restorePoints(listing).findLast((txid) => times.get(txid)! <= atMs);
        const moments = [...times.values(), nowMs - policy.pointInTimeMs].filter(
          (ms) => ms >= nowMs - policy.pointInTimeMs,
        );
        for (const atMs of moments) {
          const expected = pointAt(files, atMs);
          if (expected !== undefined && isRestorable(files, expected)) expect(pointAt(left, atMs)).toBe(expected);
        }
        expect(restorePoints(left).at(-1)).toBe(restorePoints(files).at(-1)!);
      }),
      { numRuns: 300 },
    );
  });

  test("at least two snapshots stay, the newest among them, and one for each period that counts", () => {
    fc.assert(
      fc.property(cases, ({ history, policy, planned }) => {
        const all = snapshotsOf(history).toSorted((a, b) => b.timestampMs - a.timestampMs);
        const kept = planned.snapshots.filter(({ keptFor }) => keptFor !== null);
        expect(kept.length).toBeGreaterThanOrEqual(Math.min(2, all.length));
        expect(kept[0]!.file.key).toBe(all[0]!.file.key);
        const keptKeys = new Set(kept.map(({ file }) => file.key));
        const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
        const month = (ms: number) => day(ms).slice(0, 7);
        for (const [period, count] of [
          [day, policy.daily],
          [month, policy.monthly],
        ] as const) {
          const periods = [...new Set(all.map(({ timestampMs }) => period(timestampMs)))].slice(0, count);
          for (const each of periods) {
            expect(keptKeys.has(all.find(({ timestampMs }) => period(timestampMs) === each)!.file.key)).toBe(true);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test("deciding again a moment later deletes nothing new", () => {
    fc.assert(
      fc.property(cases, ({ history, policy, nowMs, planned }) => {
        const gone = new Set(deletionOrder(planned).map(({ key }) => key));
        const left = { ...history, files: history.files.filter(({ key }) => !gone.has(key)) };
        expect(deletionOrder(plan(left, policy, nowMs))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});
test("the defaults keep a year of hourly snapshots in some fifty files", () => {
  const now = Date.parse("2026-11-01T00:30Z");
  const history = snapshotsAt(...Array.from({ length: 24 * 365 }, (_, i) => now - (24 * 365 - i) * HOUR));
  const { snapshots, keptIncrements } = plan(history, POLICY, now);
  const kept = snapshots.filter(({ keptFor }) => keptFor !== null).length;
  expect(kept).toBeGreaterThan(40);
  expect(kept).toBeLessThan(24 + 7 + 12 + 12);
  expect(keptIncrements.length).toBeLessThanOrEqual(25);
});
