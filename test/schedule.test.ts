// Goal: the schedule always hands out what is due first, whatever was set, moved or taken out before.
import { expect, test } from "bun:test";
import fc from "fast-check";
import { Schedule } from "../src/schedule.ts";

const item = fc.integer({ min: 0, max: 40 });
const never = fc.constantFrom(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY);
const action = fc.oneof(
  fc.record({ kind: fc.constant("set" as const), item, dueMs: fc.nat(50) }),
  fc.record({ kind: fc.constant("never" as const), item, dueMs: never }),
  fc.record({ kind: fc.constant("take" as const), nowMs: fc.nat(50) }),
);

test("it agrees with a list that is searched from end to end", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200, size: "max" }), (actions) => {
      const schedule = new Schedule<number>();
      const model = new Map<number, number>();
      for (const one of actions) {
        if (one.kind === "set") {
          schedule.set(one.item, one.dueMs);
          model.set(one.item, one.dueMs);
        } else if (one.kind === "never") {
          schedule.set(one.item, one.dueMs);
          model.delete(one.item);
        } else {
          const taken = schedule.takeDue(one.nowMs);
          const earliest = Math.min(...model.values());
          if (earliest > one.nowMs) expect(taken).toBeUndefined();
          else {
            expect(model.get(taken!)).toBe(earliest);
            model.delete(taken!);
          }
        }
        expect(schedule.nextDueMs).toBe(Math.min(...model.values()));
      }
    }),
    { numRuns: 400 },
  );
});

test("it is drained in order, each item once, however often it was moved", () => {
  const times = fc.array(fc.nat(1000), { minLength: 1, maxLength: 200, size: "max" });
  fc.assert(
    fc.property(times, times, fc.array(fc.nat(199)), (first, second, removed) => {
      const schedule = new Schedule<number>();
      const due = new Map<number, number>();
      for (const round of [first, second]) {
        for (const [place, dueMs] of round.entries()) {
          schedule.set(place, dueMs);
          due.set(place, dueMs);
        }
      }
      for (const place of removed) {
        schedule.set(place, Number.POSITIVE_INFINITY);
        due.delete(place);
      }
      const drained: number[] = [];
      for (let next = schedule.takeDue(1000); next !== undefined; next = schedule.takeDue(1000)) drained.push(next);
      expect(drained.map((place) => due.get(place)!)).toEqual([...due.values()].sort((a, b) => a - b));
      expect(new Set(drained).size).toBe(due.size);
      expect(schedule.nextDueMs).toBe(Number.POSITIVE_INFINITY);
    }),
    { numRuns: 300 },
  );
});

test("an item that is due earlier is not put off by being made due", () => {
  const schedule = new Schedule<string>();
  schedule.set("a", 5);
  schedule.set("b", 7);
  schedule.advance("a", 9);
  schedule.advance("b", 4);
  schedule.advance("c", 6);
  expect([10, 10, 10].map((nowMs) => schedule.takeDue(nowMs))).toEqual(["b", "a", "c"]);
});

test("an item that moves a hundred thousand times takes one place", () => {
  const schedule = new Schedule<string>();
  schedule.set("other", 1e9);
  for (let dueMs = 100_000; dueMs > 0; dueMs--) schedule.set("restless", dueMs);
  expect(schedule.takeDue(1e8)).toBe("restless");
  expect(schedule.takeDue(1e8)).toBeUndefined();
  expect(schedule.takeDue(1e9)).toBe("other");
});
