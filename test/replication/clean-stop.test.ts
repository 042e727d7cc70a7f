// Goal: after a clean stop the file's fingerprint proves what the next start need not read; it never proves too much.
import { afterEach, expect, test } from "bun:test";
import { join } from "node:path";
import { SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";
import { Host } from "./host.ts";

const dir = tempDir();
/** A fingerprint counts once the file has been left alone for this long. */
const AGE_MS = 3100;
let hosts: Host[] = [];
let applications: SqliteProcess[] = [];

afterEach(async () => {
  for (const host of hosts) await host.end();
  for (const application of applications) await application.stop();
  hosts = [];
  applications = [];
});

/** Everything is shipped and copied back, nobody has the database open, and the file was left alone for a while. */
async function stopped(): Promise<Host> {
  const host = new Host(join(dir, crypto.randomUUID()));
  hosts.push(host);
  host.create();
  host.insert(20, 2000);
  host.checkpoint("TRUNCATE");
  host.closeApp();
  await host.start();
  await host.settle();
  await Bun.sleep(AGE_MS);
  await host.stop();
  host.log.length = 0;
  return host;
}

async function writer(host: Host): Promise<SqliteProcess> {
  const application = new SqliteProcess();
  applications.push(application);
  await application.open({ path: host.path, pageSize: 4096, journalMode: "wal", autocheckpoint: 0 });
  return application;
}

async function startAgain(host: Host): Promise<void> {
  await host.start();
  await host.settle();
  expect(Buffer.compare(await host.restored(), host.copied())).toBe(0);
}

const resyncs = (host: Host) => host.log.filter((line) => line.includes("comparing the whole database")).length;
const INSERT = "insert into item (body) values (randomblob(3000))";

test("a database that nobody touched is read by nobody", async () => {
  const host = await stopped();
  await startAgain(host);
  expect({ resyncs: resyncs(host), txid: host.txid }).toEqual({ resyncs: 0, txid: 1n });
});

test("what was committed meanwhile, and is in the WAL alone, is captured from there", async () => {
  const host = await stopped();
  const application = await writer(host);
  for (let i = 0; i < 3; i++) await application.run(INSERT);
  await startAgain(host);
  expect({ resyncs: resyncs(host), txid: host.txid }).toEqual({ resyncs: 0, txid: 2n });
});

test("what comes while it starts is captured as well", async () => {
  const host = await stopped();
  const application = await writer(host);
  await application.run(INSERT);
  const writing = (async () => {
    for (let i = 0; i < 50; i++) await application.run(INSERT);
  })();
  await host.start();
  await writing;
  await host.stop();
  await startAgain(host);
  expect(resyncs(host)).toBe(0);
});

test.each(["PASSIVE", "TRUNCATE"] as const)(
  "a checkpoint (%s) between two commits takes the proof away",
  async (mode) => {
    const host = await stopped();
    const application = await writer(host);
    await application.run(INSERT);
    await application.checkpoint(mode);
    await application.run(INSERT);
    await startAgain(host);
    expect(resyncs(host)).toBe(1);
  },
);

test("so does the last connection's checkpoint, although the WAL is gone as it was", async () => {
  const host = await stopped();
  const application = await writer(host);
  await application.run(INSERT);
  await application.close();
  await startAgain(host);
  expect(resyncs(host)).toBe(1);
});
