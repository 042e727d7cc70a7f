// Goal: what a destination acknowledged is on record, and off the disk, within 15 seconds, 64 files or 4 MiB, whichever comes
// first; not with every file, since recording waits for the disk three times. A record that fails loses nothing.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import { monotonicMs } from "../../src/clock.ts";
import { openDestination } from "../../src/destination/open.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { Delivery } from "../../src/replication/delivery.ts";
import { readPosition } from "../../src/replication/position.ts";
import { tempDir } from "../support/temp.ts";
import { folderOf, Life, NAME } from "./make.ts";

const dir = tempDir();
const LATEST_MS = 15_000;
let life: Life;
let delivery: Delivery;

/** A chain whose snapshot is shipped, recorded and in the manifest: no other manifest is due for a minute. */
beforeEach(async () => {
  const folder = join(dir, crypto.randomUUID());
  life = new Life(folder);
  life.insert(1);
  await life.begin();
  const destination = await openDestination(join(folder, "bucket"));
  await destination.prepare();
  const setup = { destination, name: NAME, ready: Promise.resolve(true), patience: "once" } as const;
  delivery = new Delivery(setup, life.state, {
    onShipped: () => {},
    onContact: async () => {},
    onStop: (error) => {
      throw error;
    },
  });
  await delivery.finish(AbortSignal.timeout(10_000));
  expect([recorded(), left()]).toEqual([1n, 0]);
});

afterEach(async () => {
  observeDurableSteps(null);
  await delivery.stop();
  life.end();
});

/** What the next process would go by. */
function recorded(): bigint {
  return readPosition(join(folderOf(life.stateFolder), "position.json"))!.shippedTxid;
}

/** Files that are acknowledged and on the disk still. */
function left(): number {
  expect(life.state.outbox.files).toEqual([]);
  return readdirSync(life.state.outbox.folder).length;
}

/** Commits, captures and ships one increment. */
async function ship(bytes = 10): Promise<void> {
  life.insert(1, bytes);
  await life.capture();
  await delivery.drained();
}

const isDue = () => delivery.dueMs <= monotonicMs();

test("a record that fails is tried again within 15 seconds; until then the files stay", async () => {
  await ship();
  const { dueMs } = delivery;
  observeDurableSteps(() => {
    throw Object.assign(new Error("EIO: a bad disk"), { code: "EIO" });
  });
  expect(() => delivery.tend(dueMs, false)).toThrow("EIO");
  observeDurableSteps(null);
  expect([recorded(), left()]).toEqual([1n, 1]);
  expect(delivery.dueMs).toBeLessThanOrEqual(dueMs + LATEST_MS);
  delivery.tend(delivery.dueMs, false);
  expect([recorded(), left()]).toEqual([2n, 0]);
});

test("15 seconds after the first of them was acknowledged, however many follow, and not before", async () => {
  const beforeMs = monotonicMs();
  await ship();
  const afterMs = monotonicMs();
  const { dueMs } = delivery;
  expect(dueMs).toBeGreaterThanOrEqual(beforeMs + LATEST_MS);
  expect(dueMs).toBeLessThanOrEqual(afterMs + LATEST_MS);
  await ship();
  await ship();
  expect(delivery.dueMs).toBe(dueMs);
  delivery.tend(dueMs - 1, false);
  expect([recorded(), left()]).toEqual([1n, 3]);
  delivery.tend(dueMs, false);
  expect([recorded(), left()]).toEqual([4n, 0]);
  // Nothing more to record: what is due now is the manifest.
  expect(delivery.dueMs).toBeGreaterThan(dueMs + LATEST_MS);
});

test("after 64 files at once, and not before; then 64 more may come", async () => {
  for (const first of [0, 64]) {
    for (let i = 1; i < 64; i++) await ship();
    delivery.tend(monotonicMs(), false);
    expect([isDue(), recorded(), left()]).toEqual([false, BigInt(first + 1), 63]);
    await ship();
    expect(isDue()).toBe(true);
    delivery.tend(monotonicMs(), false);
    expect([recorded(), left()]).toEqual([BigInt(first + 65), 0]);
  }
}, 20_000);

test("after 4 MiB at once, and not before; then 4 MiB more may come", async () => {
  for (let round = 0; round < 2; round++) {
    let bytes = 0;
    for (;;) {
      await ship(MiB);
      bytes = life.state.outbox.releasedBytes;
      if (bytes > 4 * MiB) break;
      expect(isDue()).toBe(false);
    }
    expect(bytes).toBeLessThan(6 * MiB);
    expect(isDue()).toBe(true);
    delivery.tend(monotonicMs(), false);
    expect([recorded(), left()]).toEqual([life.position.captured.txid, 0]);
  }
}, 20_000);

test("at once where room is needed, and when a snapshot was shipped", async () => {
  await ship();
  delivery.tend(monotonicMs(), true);
  expect([recorded(), left()]).toEqual([2n, 0]);
  await ship();
  await life.snapshot();
  await delivery.drained();
  expect(isDue()).toBe(true);
  delivery.tend(monotonicMs(), false);
  expect([recorded(), left()]).toEqual([3n, 0]);
});
