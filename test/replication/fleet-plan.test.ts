// Goal: whatever set of databases runs and whatever set is wanted, what happens leads from one to the other, touches nobody
// who stays, and never gives a path or a name to two at once.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type FleetDatabase, type Membership, planFleet } from "../../src/replication/fleet-plan.ts";

const database = (path: string, name = path, settings: object = {}): FleetDatabase => ({ path, name, settings });
const here = (one: FleetDatabase, membership: Membership = "here") => ({ database: one, membership });

describe("a plan", () => {
  test.each([
    ["leaves alone who stays", [here(database("a"))], [database("a", "a", {})], []],
    ["adopts who is new", [], [database("a")], [{ kind: "adopt", database: database("a") }]],
    ["releases who is not wanted", [here(database("a"))], [], [{ kind: "release", path: "a" }]],
    [
      "adjusts whose settings differ, however deep",
      [here(database("a", "a", { x: { y: 1 } }))],
      [database("a", "a", { x: { y: 2 } })],
      [{ kind: "adjust", database: database("a", "a", { x: { y: 2 } }) }],
    ],
    [
      "lets go of a database before it comes back with another name",
      [here(database("a"))],
      [database("a", "b")],
      [{ kind: "release", path: "a" }],
    ],
    ["waits for one that leaves with another name", [here(database("a"), "leaving")], [database("a", "b")], []],
    ["waits for a name", [here(database("a", "n"), "leaving")], [database("b", "n")], []],
    [
      "hurries one that is wanted again",
      [here(database("a"), "leaving")],
      [database("a")],
      [{ kind: "hurry", path: "a" }],
    ],
    ["hurries nobody twice", [here(database("a"), "hurried")], [database("a")], []],
    ["does not release who leaves already", [here(database("a"), "leaving")], [], []],
  ] as const)("%s", (_law, current, wanted, steps) => {
    expect(planFleet<FleetDatabase>(current, wanted)).toEqual([...steps]);
  });

  test("carried out again and again ends with what is wanted, and no path or name is ever twice there", () => {
    const names = fc.constantFrom("x", "y", "z");
    const set = fc
      .uniqueArray(
        fc.record({ path: fc.constantFrom("a", "b", "c", "d"), name: names, settings: fc.record({ s: fc.nat(1) }) }),
        {
          selector: ({ path }) => path,
        },
      )
      .map((all) => all.filter(({ name }, i) => all.findIndex((one) => one.name === name) === i));
    fc.assert(
      fc.property(
        set,
        fc.array(set, { minLength: 1, maxLength: 4 }),
        fc.array(fc.boolean()),
        (start, wishes, leave) => {
          const members = new Map<string, ReturnType<typeof here>>(start.map((one) => [one.path, here(one)]));
          const carryOut = (wanted: FleetDatabase[]): number => {
            const steps = planFleet([...members.values()], wanted);
            for (const step of steps) {
              if (step.kind === "adopt") {
                for (const { database: one } of members.values()) {
                  expect([one.path === step.database.path, one.name === step.database.name]).toEqual([false, false]);
                }
                members.set(step.database.path, here(step.database));
              } else if (step.kind === "adjust") members.set(step.database.path, here(step.database));
              else members.get(step.path)!.membership = step.kind === "release" ? "leaving" : "hurried";
            }
            return steps.length;
          };
          const letGo = () => {
            for (const [path, { membership }] of members) if (membership !== "here") members.delete(path);
          };
          for (const [i, wanted] of wishes.entries()) {
            carryOut(wanted);
            if (leave[i] === true) letGo();
          }
          const last = wishes.at(-1)!;
          for (let round = 0; round < 4; round++) {
            carryOut(last);
            letGo();
          }
          expect(carryOut(last)).toBe(0);
          const order = (all: FleetDatabase[]) => all.sort((a, b) => a.path.localeCompare(b.path));
          expect(order([...members.values()].map((one) => one.database))).toEqual(order([...last]));
        },
      ),
    );
  });
});
