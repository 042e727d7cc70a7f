// Goal: readers in other processes are never shown a mix, see the next state in spite of their caches, and are kept out for
// moments only, however long one of them reads.
import { describe, expect, test } from "bun:test";
import { SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";
import { change, changePageSize, expectState, pairsIn } from "./make-copy.ts";

const dir = tempDir();
const { signal } = new AbortController();
const { ends, makePair } = pairsIn(dir);

async function openReader(path: string, busyTimeoutMs: number): Promise<SqliteProcess> {
  const reader = new SqliteProcess();
  ends.push(() => reader.stop());
  await reader.open({ path, journalMode: "delete", busyTimeoutMs });
  return reader;
}

/** Reads in transactions of 90 ms, one after the other, on its own until the test ends; resolves when it has begun. */
async function startBusyReader(path: string, delayMs: number): Promise<void> {
  const script = `
    const { Database } = require("bun:sqlite");
    const database = new Database(process.argv[1], { readonly: true });
    database.run("pragma busy_timeout = 10000");
    await Bun.sleep(Number(process.argv[2]));
    for (;;) {
      database.run("begin");
      database.query("select count(*) from item").values();
      console.log("reads");
      await Bun.sleep(90);
      database.run("commit");
    }`;
  const child = Bun.spawn([process.execPath, "-e", script, path, String(delayMs)], {
    stdout: "pipe",
    stderr: "inherit",
  });
  ends.push(async () => {
    // It never ends by itself: had it failed, nothing would have been proven.
    expect(child.exitCode).toBeNull();
    child.kill("SIGKILL");
    await child.exited;
  });
  await child.stdout.getReader().read();
}

describe("a reader in another process", () => {
  test("that keeps its connection sees every state, through new tables, shrinking and pages of another size", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const reader = await openReader(local, 5000);
    for (let step = 0; step < 8; step++) {
      host.app.run(`create table t${step} (n)`);
      host.app.run(`insert into t${step} values (${step})`);
      if (step === 5) await changePageSize(host, 4096);
      else await change(host, step);
      await one.step(signal);
      expect(await reader.rows(`select n from t${step}`)).toEqual([[step]]);
      const counts = host.app.query("select count(*), total(length(body)) from item").values();
      expect(await reader.rows("select count(*), total(length(body)) from item")).toEqual(counts);
      expect(await reader.rows("pragma integrity_check")).toEqual([["ok"]]);
    }
  });

  test("that reads for long keeps its state and holds the update back, but no other reader out for long", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const long = await openReader(local, 5000);
    const counted = await long.rows("select count(*) from item");
    await long.run("begin");
    expect(await long.rows("select count(*) from item")).toEqual(counted);
    await change(host, 0);
    // Waits no longer than an update may keep it out, and some for this machine.
    const other = await openReader(local, 4000);
    let reads = 0;
    let isDone = false;
    const reading = (async () => {
      for (; !isDone; reads++) expect(await other.rows("select count(*) from item")).toEqual(counted);
    })();
    await expect(one.step(signal)).rejects.toMatchObject({ code: "E_LOCKED" });
    isDone = true;
    await reading;
    expect(reads).toBeGreaterThan(3);
    // Nothing stays locked behind it.
    expect(await other.rows("select count(*) from item")).toEqual(counted);
    expect(await long.rows("select count(*) from item")).toEqual(counted);
    await long.run("commit");
    expect(await one.step(signal)).toMatchObject({ kind: "increments" });
    expectState(local, host.content());
  }, 30_000);

  test("that comes while others are there, over and over, does not hold the update back for ever", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    // Each transaction lasts, and there is always one.
    await Promise.all([0, 30, 60].map((delayMs) => startBusyReader(local, delayMs)));
    for (let step = 0; step < 3; step++) {
      await change(host, step);
      expect(await one.step(signal)).toMatchObject({ kind: "increments" });
    }
    expectState(local, host.content());
  }, 40_000);

  test("that undoes what a crash left holds the copy for a moment: a process that starts then waits, and goes on", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    one.close();
    await change(host, 0);
    // The lock that undoing takes.
    const script = `
      const { Database } = require("bun:sqlite");
      const database = new Database(process.argv[1]);
      database.run("begin exclusive");
      console.log("locked");
      await Bun.sleep(500);
      database.run("rollback");`;
    const other = Bun.spawn([process.execPath, "-e", script, local], { stdout: "pipe", stderr: "inherit" });
    await other.stdout.getReader().read();
    expect(await follower().step(signal)).toMatchObject({ kind: "increments" });
    expect(await other.exited).toBe(0);
    expectState(local, host.content());
  }, 30_000);

  test("a stop does not wait for readers", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const long = await openReader(local, 5000);
    await long.run("begin");
    await long.rows("select count(*) from item");
    await change(host, 0);
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("stopped")), 100);
    await expect(one.step(stop.signal)).rejects.toThrow(/stopped/);
    await long.run("commit");
    expect(await one.step(signal)).toMatchObject({ kind: "increments" });
  }, 20_000);
});
