// Goal: each trouble is told once, recovery is told when it lasts, and what comes and goes floods nobody.
import { describe, expect, test } from "bun:test";
import { WalsyncError } from "../../src/errors.ts";
import { type Alert, AlertMonitor, planAlert, type Raised, type Watched } from "../../src/replication/alerts.ts";
import { ailmentOf, faultsOf, type Patient } from "../../src/replication/health.ts";

const well: Patient = { name: "app", fencedBy: null, failure: null, trouble: null, status: { lagMs: 0 } };
const lost = new WalsyncError("E_DATABASE", "app.db: gone", { hint: "Look for it." });
const fenced = new WalsyncError("E_FENCED", "app: another writer");

describe("health", () => {
  test.each([
    ["a database that is well is", well, null],
    ["a lag of exactly the limit is none yet", { ...well, status: { lagMs: 300_000 } }, null],
    ["one more millisecond is", { ...well, status: { lagMs: 300_001 } }, "lag"],
    ["a fault beats a lag", { ...well, failure: lost, trouble: "gone", status: { lagMs: 1e9 } }, "failed"],
    ["a full outbox is a failure without a code", { ...well, trouble: "the outbox is full" }, "failed"],
    ["fenced beats all", { ...well, fencedBy: fenced, failure: lost, trouble: "x" }, "fenced"],
    ["what is awaited and not open is well", { ...well, status: null }, null],
  ] as const)("%s", (_law, patient, kind) => {
    expect(ailmentOf(patient, 300_000)?.kind ?? null).toBe(kind);
  });

  test("no limit, no lag", () => expect(ailmentOf({ ...well, status: { lagMs: 1e12 } }, 0)).toBeNull());

  test("says which and why, a line each", () => {
    const late = { ...well, name: "late", status: { lagMs: 7000 } };
    const text = faultsOf([well, late, { ...well, name: "lost", failure: lost, trouble: "x" }], 5000);
    expect(text?.split("\n")).toEqual([
      "late: not shipped for 7 s: more than the 5 s of --max-lag",
      "lost: app.db: gone",
    ]);
    expect(faultsOf([well], 5000)).toBeNull();
  });
});

describe("an alert", () => {
  test("for a lag that flaps every second for an hour is one, and one recovery when it has ended", () => {
    let raised: Raised | null = null;
    const told: string[] = [];
    const look = (atMs: number, lagMs: number) => {
      const ailment = ailmentOf({ ...well, status: { lagMs } }, 5000);
      const plan = planAlert(raised, ailment, true, atMs, 10_000);
      raised = plan.raised;
      if (plan.tell !== null) told.push(plan.tell);
    };
    for (let s = 0; s < 3600; s++) look(s * 1000, s % 2 === 0 ? 6000 : 0);
    expect(told).toEqual(["ailment"]);
    for (let s = 3600; s < 3620; s++) look(s * 1000, 0);
    expect(told).toEqual(["ailment", "recovered"]);
    expect(raised).toBeNull();
  });

  test("is told for each kind and code; a database that is not live has not recovered", () => {
    const failed = ailmentOf({ ...well, failure: lost, trouble: "x" }, 0);
    const late = ailmentOf({ ...well, status: { lagMs: 10 } }, 5);
    const first = planAlert(null, failed, false, 0, 100);
    expect(first.tell).toBe("ailment");
    expect(planAlert(first.raised, failed, false, 1, 100).tell).toBeNull();
    const second = planAlert(first.raised, late, true, 2, 100);
    expect([second.tell, second.raised?.told]).toEqual(["ailment", ["failed E_DATABASE", "lag"]]);
    expect(planAlert(second.raised, null, false, 1000, 100)).toEqual({ raised: second.raised, tell: null });
    const resting = planAlert(second.raised, null, true, 1000, 100);
    expect(resting.tell).toBeNull();
    expect(planAlert(resting.raised, null, true, 1099, 100).tell).toBeNull();
    expect(planAlert(resting.raised, null, true, 1100, 100)).toEqual({ raised: null, tell: "recovered" });
  });

  test("of damage is told once until the database is well; one that is not watched any more is forgotten", () => {
    const sent: Alert[] = [];
    let databases: Watched[] = [{ ...well, state: "live" }];
    const monitor = new AlertMonitor({ databases: () => databases, maxLagMs: 1, send: (alert) => sent.push(alert) });
    const damage = new WalsyncError("E_INTEGRITY", "pages differ", { hint: "h" });
    for (let i = 0; i < 100; i++) monitor.damaged("app", "database", damage);
    monitor.damaged("app", "destination", damage);
    expect(sent.map(({ event, code, hint }) => [event, code, hint])).toEqual([
      ["integrity", "E_INTEGRITY", "h"],
      ["integrity", "E_INTEGRITY", "h"],
    ]);
    monitor.look();
    Bun.sleepSync(5);
    monitor.look();
    expect(sent.at(-1)).toMatchObject({ event: "recovered", message: expect.stringContaining("integrity database") });
    monitor.damaged("app", "database", damage);
    expect(sent.at(-1)?.event).toBe("integrity");
    databases = [];
    monitor.look();
    databases = [{ ...well, state: "live" }];
    monitor.stop();
    expect(sent).toHaveLength(4);
  });
});
