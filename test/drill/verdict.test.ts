// Goal: what a drill says a loss would cost is never less than it would; whatever is wrong is a fault, the worst of several decides;
// and every database has its turn, once in each interval.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { readResult } from "../../src/drill/drill-child.ts";
import { recoveryOf } from "../../src/drill/recovery.ts";
import { nextDrillMs } from "../../src/drill/rota.ts";
import { type DrillOutcome, faultsOf, worstOf } from "../../src/drill/verdict.ts";
import { type ErrorCode, WalsyncError } from "../../src/errors.ts";

describe("what would be lost", () => {
  const newest = { txid: 10n, timestampMs: 1000 };
  const live = { txid: 10n, shippedTxid: 10n, lagMs: 0 };

  test.each([
    ["without a watch: whatever came after the newest restore point", null, { rpoMs: 60_000, missing: null }],
    ["nothing of an idle database that is there, however old that is", live, { rpoMs: 0, missing: 0n }],
    ["what waits to be shipped", { ...live, txid: 13n, lagMs: 700 }, { rpoMs: 700, missing: 3n }],
    [
      "what was shipped while it was asked is there",
      { txid: 10n, shippedTxid: 8n, lagMs: 900 },
      { rpoMs: 0, missing: 0n },
    ],
    [
      "what was acknowledged and is gone, though the watch waits for nothing",
      { txid: 13n, shippedTxid: 13n, lagMs: 0 },
      { rpoMs: 60_000, missing: 3n },
    ],
    ["no more than the age of what is there", { ...live, txid: 11n, lagMs: 1e9 }, { rpoMs: 60_000, missing: 1n }],
  ] as const)("%s", (_, state, expected) => {
    expect(recoveryOf(newest, state, 61_000)).toEqual({ newest, ageMs: 60_000, ...expected });
  });

  test("is not less than nothing when something was shipped after the drill began", () => {
    expect(recoveryOf(newest, null, 500)).toMatchObject({ ageMs: 0, rpoMs: 0 });
  });
});

describe("a verdict", () => {
  const good: Omit<DrillOutcome, "faults"> = {
    name: "app",
    restored: null,
    rtoMs: 5000,
    recovery: { newest: { txid: 1n, timestampMs: 0 }, ageMs: 9000, missing: null, rpoMs: 8000 },
    integrity: { result: "ok", found: "" },
    assertions: [{ sql: "select 1", result: "ok", found: "" }],
  };
  const policy = { assertions: [], assertTimeoutMs: 1000, maxRtoMs: 0, maxRpoMs: 0 };
  const bad = { result: "untrue", found: "so" } as const;

  test.each([
    ["good without limits", good, policy, []],
    ["good at the limits", good, { ...policy, maxRtoMs: 5000, maxRpoMs: 8000 }, []],
    ["bad beyond one", good, { ...policy, maxRtoMs: 4999 }, [["E_DRILL", /within 5 s \(--max-rto\), found 5 s$/]]],
    [
      "bad beyond the other",
      good,
      { ...policy, maxRpoMs: 7000 },
      [["E_DRILL", /older than 7 s \(--max-rpo\), found 8 s$/]],
    ],
    [
      "bad if SQLite says so",
      { ...good, integrity: bad },
      policy,
      [["E_INTEGRITY", /integrity_check to say ok, found: so$/]],
    ],
    ["bad if it cannot say", { ...good, integrity: { ...bad, result: "error" } }, policy, [["E_INTEGRITY", /so$/]]],
    [
      "bad for each assertion",
      { ...good, assertions: [{ sql: "a", ...bad }, ...good.assertions, { sql: "b", ...bad, result: "timeout" }] },
      policy,
      [
        ["E_DRILL", /^app: expected this to be true: a, found so$/],
        ["E_DRILL", /: b, found so$/],
      ],
    ],
  ] as const)("is %s", (_, found, limits, expected) => {
    const faults = faultsOf(found as typeof good, limits);
    expect(faults.map(({ code }) => code)).toEqual(expected.map(([code]) => code));
    for (const [i, [, message]] of expected.entries()) expect(faults[i]!.message).toMatch(message);
  });

  test("is decided by the worst fault: a bad copy, none, one out of reach, then this host", () => {
    const order: ErrorCode[] = ["E_LTX", "E_NOT_FOUND", "E_UNREACHABLE", "E_DISK", "E_LOCKED", "E_USAGE"];
    const faults = order.map((code) => new WalsyncError(code, ""));
    for (let i = 0; i < order.length; i++) {
      const some = faults.slice(i);
      expect([worstOf(some)?.code, worstOf(some.toReversed())?.code]).toEqual([order[i], order[i]]);
    }
    expect(worstOf([])).toBeNull();
  });
});

test("each database has one moment in every interval, whenever it is asked for", () => {
  fc.assert(
    fc.property(
      fc.string(),
      fc.integer({ min: 1, max: 1e9 }),
      fc.integer({ min: 0, max: 4e12 }),
      (name, intervalMs, nowMs) => {
        const due = nextDrillMs(name, intervalMs, nowMs, nowMs);
        expect(due).toBeGreaterThan(nowMs);
        expect(due - nowMs).toBeLessThanOrEqual(intervalMs);
        expect(nextDrillMs(name, intervalMs, nowMs, due - 1)).toBe(due);
        expect(nextDrillMs(name, intervalMs, due, due)).toBe(due + intervalMs);
      },
    ),
  );
});

test("a moment that went by without a drill, and a first drill, are made up for within an hour, by many one after the other", () => {
  const weekMs = 7 * 86_400_000;
  const waits = Array.from({ length: 100 }, (_, i) => {
    const own = nextDrillMs(`db${i}`, weekMs, 0, 0);
    for (const lastAtMs of [own - 1, null]) {
      const due = nextDrillMs(`db${i}`, weekMs, lastAtMs, own + 86_400_000);
      expect(due - own - 86_400_000).toBeLessThan(3_600_000);
    }
    return nextDrillMs(`db${i}`, weekMs, null, own) - own;
  });
  expect(new Set(waits).size).toBe(100);
});

test("the moments of many databases are spread over the interval", () => {
  const tenths = new Map<number, number>();
  for (let i = 0; i < 1000; i++) {
    const tenth = Math.floor(nextDrillMs(`tenants/${i}`, 10_000, 0, 0) / 1000) % 10;
    tenths.set(tenth, (tenths.get(tenth) ?? 0) + 1);
  }
  for (let tenth = 0; tenth < 10; tenth++) expect(tenths.get(tenth)).toBeGreaterThan(50);
});

describe("what a child wrote", () => {
  test("that is a result counts", () => {
    const result = readResult("app", JSON.stringify({ databases: [{ name: "app", ok: true }] }), "", "status 0");
    expect(result).toMatchObject({ name: "app", ok: true });
  });

  test.each([
    [
      "nothing",
      "",
      "",
      "SIGKILL",
      { code: "E_DRILL", message: "app: expected a drill to end with a result, found SIGKILL" },
    ],
    ["half of it", '{"databases":[{"na', "", "SIGKILL", { code: "E_DRILL" }],
    ["that of another database", '{"databases":[{"name":"b"}]}', "", "status 0", { code: "E_DRILL" }],
    [
      "why it could not begin",
      "",
      'noise\n{"event":"failed","code":"E_DISK","error":"/x: full","hint":"Free some."}\n',
      "status 7",
      { code: "E_DISK", message: "/x: full", hint: "Free some." },
    ],
  ])("%s is a failure that says so", (_, stdout, stderr, how, fault) => {
    const result = readResult("app", stdout, stderr, how);
    expect(result).toMatchObject({ name: "app", ok: false, restored: null });
    expect(result.faults).toEqual([expect.objectContaining(fault)]);
  });
});
