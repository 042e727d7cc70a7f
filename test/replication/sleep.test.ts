// Goal: a database that sleeps, without connection and pin, loses nothing: whatever an application does to it meanwhile, the
// next look captures it all, and where the WAL does not tell, the whole database is compared.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { readdirSync, readlinkSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { SleepingDatabase } from "../../src/sqlite/sleeping-database.ts";
import { randomFrom } from "../ltx/make.ts";
import { SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";
import { Host } from "./host.ts";

const dir = tempDir();
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
let hosts: Host[] = [];
let applications: SqliteProcess[] = [];

const { isScarce } = SleepingDatabase;

afterEach(async () => {
  SleepingDatabase.isScarce = isScarce;
  for (const host of hosts) await host.end();
  for (const application of applications) await application.stop();
  hosts = [];
  applications = [];
});

/** A database of another process, all of it shipped. */
async function begin(pageSize = 4096) {
  const host = new Host(join(dir, crypto.randomUUID()));
  hosts.push(host);
  const application = new SqliteProcess();
  applications.push(application);
  await application.open({ path: host.path, pageSize, journalMode: "wal", autocheckpoint: 0 });
  await application.run("create table item (id integer primary key, body)");
  await application.run("insert into item (body) values (randomblob(9000))");
  await host.start();
  await host.settle();
  await asleep(host);
  return { host, application };
}

async function asleep(host: Host, files = [`${host.path}-shm`]): Promise<void> {
  await host.until("it can sleep", () => host.replicator.trySleep());
  expect(host.replicator.isPinned).toBe(false);
  expect(openFiles(host)).toEqual(files);
}

/** Files of the database that this process has open. */
function openFiles(host: Host): string[] {
  return readdirSync("/proc/self/fd")
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return "";
      }
    })
    .filter((path) => path.startsWith(host.path))
    .sort();
}

async function expectWhole(host: Host): Promise<void> {
  await host.settle();
  expect(Buffer.compare(await host.restored(), host.copied())).toBe(0);
}

const resyncs = (host: Host) => host.log.filter((line) => line.includes("comparing the whole database")).length;

describe("a database that sleeps", () => {
  test("holds one descriptor, looks without waking, and is awake when something was committed", async () => {
    const { host, application } = await begin();
    for (let i = 0; i < 20; i++) host.look();
    expect(host.replicator.isPinned).toBe(false);
    const { txid } = host;
    await application.run("insert into item (body) values (randomblob(5000))");
    host.look();
    expect(host.replicator.isPinned).toBe(true);
    expect(host.txid).toBe(txid + 1n);
    await expectWhole(host);
    expect(resyncs(host)).toBe(0);
  });

  test("has its commits counted across restarts of the WAL", async () => {
    const { host, application } = await begin();
    for (let round = 0; round < 5; round++) {
      const { txid } = host;
      // The first write restarts the WAL: it was copied back whole.
      for (let i = 0; i < 3; i++) await application.run("insert into item (body) values (randomblob(3000))");
      host.look();
      expect(host.txid).toBe(txid + 1n);
      await expectWhole(host);
      await asleep(host);
    }
    expect(resyncs(host)).toBe(0);
  });

  test.each(["PASSIVE", "FULL", "RESTART", "TRUNCATE"] as const)(
    "is compared whole where a %s checkpoint took frames away",
    async (mode) => {
      const { host, application } = await begin();
      for (let burst = 0; burst < 3; burst++) {
        for (let i = 0; i < 40; i++) await application.run("insert into item (body) values (randomblob(20000))");
        await application.checkpoint(mode);
        await application.run("update item set body = randomblob(100) where id % 7 = 1");
        await application.checkpoint(mode);
        await application.run("delete from item where id % 5 = 1");
      }
      host.look();
      await expectWhole(host);
      expect(resyncs(host)).toBe(1);
    },
    30_000,
  );

  test("is woken by a checkpoint that wrote nothing new, and nothing is captured", async () => {
    const { host, application } = await begin();
    const { txid } = host;
    await application.checkpoint("TRUNCATE");
    host.look();
    await host.settle();
    expect(host.txid).toBe(txid);
    expect(resyncs(host)).toBe(0);
  });

  test("whose application is killed and comes back: its WAL index is not begun anew", async () => {
    const { host, application } = await begin();
    await application.crash();
    const next = new SqliteProcess();
    applications.push(next);
    await next.open({ path: host.path, journalMode: "wal", autocheckpoint: 0 });
    for (let i = 0; i < 4; i++) await next.run("insert into item (body) values (randomblob(3000))");
    host.look();
    await expectWhole(host);
    expect(resyncs(host)).toBe(0);
  });

  test("that nobody else has open goes on where it was", async () => {
    const { host, application } = await begin();
    await application.crash();
    for (let round = 0; round < 3; round++) {
      const { txid } = host;
      host.insert(2);
      host.look();
      await expectWhole(host);
      expect(host.txid).toBe(txid + 1n);
      host.closeApp();
      await asleep(host);
    }
    expect(resyncs(host)).toBe(0);
  });

  test("whose application closes it, and with that removes WAL and index, and only reads, is not compared", async () => {
    const { host, application } = await begin();
    // Copied back; and a file system's clock is coarse: a younger file proves nothing.
    await Bun.sleep(3100);
    // Woken and put to sleep again, it knows how old the file is.
    await application.checkpoint("TRUNCATE");
    host.look();
    expect(host.replicator.isPinned).toBe(true);
    await asleep(host);
    await application.close();
    // Some versions of SQLite do, others see that the index is in use.
    for (const suffix of ["-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
    const { txid } = host;
    await application.open({ path: host.path, journalMode: "wal", autocheckpoint: 0 });
    host.look();
    await host.settle();
    expect([host.txid, resyncs(host)]).toEqual([txid, 0]);
    await asleep(host);
    await application.run("insert into item (body) values (2)");
    await application.close();
    host.look();
    await expectWhole(host);
  }, 20_000);

  test("whose WAL index was begun anew is compared, even where its count of commits fits", async () => {
    const { host, application } = await begin();
    const { changeCount } = await application.state();
    await application.close();
    for (const suffix of ["-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
    await application.open({ path: host.path, journalMode: "wal", autocheckpoint: 0 });
    // As many as were counted before it slept, and their frames are gone; then one more.
    while ((await application.state()).changeCount < changeCount) {
      await application.run("insert into item (body) values (randomblob(9000))");
    }
    await application.checkpoint("TRUNCATE");
    await application.run("insert into item (body) values (1)");
    host.look();
    await expectWhole(host);
    expect(resyncs(host)).toBe(1);
  });

  test("may be replaced", async () => {
    const { host, application } = await begin();
    await application.close();
    const other = new Database(`${host.path}.new`, { create: true });
    other.run("pragma journal_mode = wal");
    other.run("create table another (body)");
    other.run("insert into another values (randomblob(30000))");
    other.close();
    for (const suffix of ["-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
    renameSync(`${host.path}.new`, host.path);
    host.look();
    await host.until("it is back", () => host.replicator.state === "live");
    await expectWhole(host);
  }, 20_000);

  test("is stopped without being woken, and the next start reads nothing whole", async () => {
    const { host, application } = await begin();
    await host.stop();
    expect(openFiles(host)).toEqual([]);
    await host.start();
    await host.settle();
    await application.run("insert into item (body) values (3)");
    await expectWhole(host);
    expect(resyncs(host)).toBe(0);
  });

  test("is stopped with what was committed meanwhile", async () => {
    const { host, application } = await begin();
    const { txid } = host;
    await application.run("insert into item (body) values (4)");
    await host.stop();
    await host.start();
    await host.settle();
    expect(host.txid).toBe(txid + 1n);
    await expectWhole(host);
  });

  describe("before its chain begins", () => {
    async function beginLater() {
      const ready = Promise.withResolvers<boolean>();
      const host = new Host(join(dir, crypto.randomUUID()), undefined, { ready: ready.promise });
      hosts.push(host);
      const application = new SqliteProcess();
      applications.push(application);
      await application.open({ path: host.path, pageSize: 4096, journalMode: "wal", autocheckpoint: 0 });
      await application.run("create table item (id integer primary key, body)");
      await host.start();
      await asleep(host, []);
      return { host, application, ready };
    }

    test("begins with what it is when it has its turn", async () => {
      const { host, application, ready } = await beginLater();
      await application.run("insert into item (body) values (randomblob(9000))");
      host.look();
      expect(openFiles(host)).toEqual([]);
      const turn = Promise.withResolvers<void>();
      const other = host.scans.run(() => turn.promise);
      ready.resolve(true);
      await host.until("it waits for its turn", () => host.replicator.state === "scanning");
      expect(openFiles(host)).toEqual([]);
      await application.run("insert into item (body) values (randomblob(9000))");
      turn.resolve();
      await other;
      await application.run("insert into item (body) values (randomblob(9000))");
      await expectWhole(host);
      expect(resyncs(host)).toBe(0);
    });

    test("may be stopped", async () => {
      const { host } = await beginLater();
      expect(await host.replicator.stop(AbortSignal.abort())).toBe(0);
      expect(openFiles(host)).toEqual([]);
    });

    test("may be deleted, and made anew", async () => {
      const { host, application, ready } = await beginLater();
      await application.close();
      for (const suffix of ["", "-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
      host.look();
      await host.until("it is missed", () => host.replicator.state === "failed");
      await application.open({ path: host.path, pageSize: 4096, journalMode: "wal", autocheckpoint: 0 });
      await application.run("create table another (body)");
      ready.resolve(true);
      await host.until("it is back", () => host.replicator.state === "live");
      await expectWhole(host);
    }, 20_000);
  });

  test("gets its snapshot when that is asked for", async () => {
    const { host } = await begin();
    const txid = await host.replicator.requests.snapshot();
    await host.settle();
    expect(
      readdirSync(host.bucketFolder).filter((name) => name.endsWith(`-${String(txid).padStart(8, "0")}.ltx`)),
    ).toHaveLength(1);
  });

  test("is not put to sleep while something waits, and sleep may be asked for at any time", async () => {
    const { host, application } = await begin();
    await application.run("insert into item (body) values (5)");
    await host.until("it is awake", () => host.replicator.isPinned);
    await application.run("begin immediate");
    await application.run("insert into item (body) values (6)");
    // Neither committed nor copied back.
    host.replicator.trySleep();
    await application.run("commit");
    host.look();
    await expectWhole(host);
    expect(resyncs(host)).toBe(0);
  });

  test.each([512, 4096, 65536])(
    `survives any course of things, page size %d, seed ${seed}`,
    async (pageSize) => {
      const random = randomFrom(seed + pageSize);
      const { host, application } = await begin(pageSize);
      for (let step = 0; step < 150; step++) {
        switch (random() % 7) {
          case 0:
            SleepingDatabase.isScarce = () => random() % 2 === 0;
            host.replicator.trySleep();
            break;
          case 1:
            host.look();
            break;
          case 2:
            await application.checkpoint((["PASSIVE", "FULL", "RESTART", "TRUNCATE"] as const)[random() % 4]!);
            break;
          case 3:
            await application.run("delete from item where id % 3 = ?", random() % 3);
            break;
          case 4:
            await Bun.sleep(random() % 5);
            break;
          default:
            await application.run("insert into item (body) values (randomblob(?))", random() % 20_000);
        }
      }
      await expectWhole(host);
    },
    30_000,
  );
});
