// Goal: nothing that is committed while a database sleeps, or while it falls asleep, goes unnoticed; whether its WAL index is held
// or, where descriptors are scarce, the times of the last writes are all there is.
import { afterEach, beforeEach, describe, expect, setSystemTime, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { PinnedDatabase } from "../../src/sqlite/database.ts";
import { SleepingDatabase } from "../../src/sqlite/sleeping-database.ts";
import { SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const { isScarce } = SleepingDatabase;
let application: SqliteProcess;
let path: string;

beforeEach(async () => {
  path = join(dir, `${crypto.randomUUID()}.db`);
  application = new SqliteProcess();
  await application.open({ path, pageSize: 4096, journalMode: "wal", autocheckpoint: 0 });
  await application.run("create table item (id integer primary key, body)");
  await application.run("insert into item (body) values (randomblob(9000))");
});

afterEach(async () => {
  setSystemTime();
  SleepingDatabase.isScarce = isScarce;
  await application.stop();
});

const insert = () => application.run("insert into item (body) values (randomblob(3000))");

function openFiles(): string[] {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target.startsWith(path)).sort();
}

/**
 * As if the last write was long ago: one that was just now may be followed by another with the same time. The file system's clock
 * moves on within these milliseconds.
 */
async function age(): Promise<void> {
  await Bun.sleep(30);
  setSystemTime(new Date(Date.now() + 10_000));
}

/** Copied back whole, as it is before it falls asleep. */
async function open(): Promise<PinnedDatabase> {
  await application.checkpoint("PASSIVE");
  return PinnedDatabase.open(path);
}

describe.skipIf(!SleepingDatabase.isPossible).each([
  ["whose index is held", false],
  ["of which nothing is held", true],
])("a database %s", (_law, scarce) => {
  beforeEach(async () => {
    SleepingDatabase.isScarce = () => scarce;
    await application.checkpoint("PASSIVE");
    await age();
  });

  test("sleeps as long as nothing happens, and is found as it was", async () => {
    const pinned = await open();
    const sleeping = SleepingDatabase.from(pinned, pinned.walIndex());
    expect(openFiles()).toEqual(scarce ? [] : [`${path}-shm`]);
    expect(sleeping.isStirred()).toBe(false);
    const { database, isUntouched } = sleeping.wake();
    expect(isUntouched).toBe(true);
    database.close();
    expect(openFiles()).toEqual([]);
  });

  test("is stirred by each commit, also one that restarts the WAL and leaves its size as it was", async () => {
    for (let i = 0; i < 3; i++) {
      const pinned = await open();
      const sleeping = SleepingDatabase.from(pinned, pinned.walIndex());
      expect(openFiles()).toHaveLength(scarce ? 0 : 1);
      expect(sleeping.isStirred()).toBe(false);
      await insert();
      expect(sleeping.isStirred()).toBe(true);
      sleeping.close();
      await application.checkpoint("PASSIVE");
      await age();
    }
  });

  test("is stirred by what was committed while it fell asleep", async () => {
    const pinned = await open();
    const captured = pinned.walIndex();
    await insert();
    const sleeping = SleepingDatabase.from(pinned, captured);
    expect(sleeping.isStirred()).toBe(true);
    sleeping.close();
  });

  test("has proof of what happened in the WAL alone, and none once a checkpoint wrote to the file", async () => {
    for (const mode of [null, "PASSIVE", "TRUNCATE"] as const) {
      await application.checkpoint("PASSIVE");
      await age();
      const pinned = await open();
      const sleeping = SleepingDatabase.from(pinned, pinned.walIndex());
      await insert();
      if (mode !== null) await application.checkpoint(mode);
      const { database, isUntouched, countShift } = sleeping.wake();
      expect({ mode, isUntouched }).toEqual({ mode, isUntouched: mode === null });
      expect(countShift === null).toBe(scarce);
      database.close();
    }
  });
});

test.skipIf(!SleepingDatabase.isPossible)(
  "one that was written to a moment ago keeps its index, however scarce descriptors are",
  async () => {
    SleepingDatabase.isScarce = () => true;
    await insert();
    const pinned = await open();
    const sleeping = SleepingDatabase.from(pinned, pinned.walIndex());
    expect(openFiles()).toEqual([`${path}-shm`]);
    expect(sleeping.isStirred()).toBe(false);
    await insert();
    expect(sleeping.isStirred()).toBe(true);
    sleeping.close();
  },
);
