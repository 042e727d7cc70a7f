// Goal: the schedule always hands out what is due first, whatever was set, moved or taken out before.
import { expect, test } from "bun:test";
import fc from "fast-check";
import { Schedule } from "../../src/replication/schedule.ts";

const item = fc.integer({ min: 0, max: 12 });
const action = fc.oneof(
  fc.record({ kind: fc.constant("set" as const), item, dueMs: fc.nat(50) }),
  fc.record({ kind: fc.constant("never" as const), item }),
  fc.record({ kind: fc.constant("take" as const), nowMs: fc.nat(50) }),
);

test("it agrees with a list that is searched from end to end", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
      const schedule = new Schedule<number>();
      const model = new Map<number, number>();
      for (const one of actions) {
        if (one.kind === "set") {
          schedule.set(one.item, one.dueMs);
          model.set(one.item, one.dueMs);
        } else if (one.kind === "never") {
          schedule.set(one.item, Number.POSITIVE_INFINITY);
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
    { numRuns: 2000 },
  );
});
