// Goal: replicate keeps a copy current while the source is written to, at a bucket as in a directory; whatever kills it, readers of
// the copy see moments that were. The compiled program.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { randomFrom } from "../ltx/make.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { freePort, startVersitygw } from "../support/versitygw.ts";
import { expectOneError, s3Access, succeed, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
const random = randomFrom(seed);
const ROUNDS = Number(process.env.WALSYNC_ROUNDS ?? 8);
const children = ownChildren();

afterAll(() => server?.stop());

async function until(condition: () => boolean | Promise<boolean>, tell: () => string = () => ""): Promise<void> {
  for (let i = 0; i < 600; i++) {
    if (await condition()) return;
    await Bun.sleep(20);
  }
  throw new Error(`waited in vain: ${tell()}`);
}

/** Rows of the copy; -1 while there is none. Throws if it is not a consistent database. */
function rowsOf(local: string): number {
  if (!existsSync(local)) return -1;
  const reader = new Database(local, { readwrite: true, create: false });
  try {
    reader.run("pragma busy_timeout = 10000");
    reader.run("begin");
    const [[count, highest]] = reader.query("select count(*), coalesce(max(id), 0) from item").values() as [
      [number, number],
    ];
    // Rows are only ever added: what was there at some moment has no holes.
    expect(count).toBe(highest);
    expect(reader.query("pragma integrity_check").values()).toEqual([["ok"]]);
    reader.run("commit");
    return count;
  } finally {
    reader.close();
  }
}

describe.each(["directory", "bucket"])(`from a %s, seed ${seed}`, (kind) => {
  const isBucket = kind === "bucket";
  const skipped = isBucket && server === null;
  const access = server !== null && isBucket ? s3Access(server) : { flags: [], env: {} };
  const folder = join(dir, kind);
  const url = isBucket ? "s3://replicate/prod" : join(folder, "backups");
  const source = `${url}/app`;
  let app: Database;

  function start(...args: string[]): { child: Bun.Subprocess; log: () => string } {
    const child = Bun.spawn([compiledBinary(), ...args, ...access.flags], {
      cwd: folder,
      env: { PATH: process.env.PATH ?? "", ...access.env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    children.push(child);
    const log = textOf(child.stderr);
    return { child, log };
  }
  const insert = (count: number) => {
    for (let i = 0; i < count; i++)
      app.run("insert into item (body) values (randomblob(?))", [100 + (random() % 3000)]);
  };
  const sourceRows = () => Number(app.query("select count(*) from item").values()[0]![0]);
  const watch = () => start("watch", "app.db", "-b", url, "--no-metrics", "--wal-sync-interval", "0.05");

  beforeAll(async () => {
    mkdirSync(folder);
    if (isBucket) await server?.createBucket("replicate");
    app = new Database(join(folder, "app.db"), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id integer primary key, body)");
    insert(20);
  });
  afterAll(() => app.close());

  test.skipIf(skipped)(
    "the copy follows, is found again after a kill at any moment, and says how far it is",
    async () => {
      const local = join(folder, "copy.db");
      const port = freePort();
      const watching = watch();
      await until(() => watching.log().includes("snapshot shipped"), watching.log);
      const replicate = () =>
        start("replicate", source, "--local", local, "--interval", "0.05", "--metrics-port", String(port));
      // Nothing yet: a kill may come before the first state is there.
      let seen = -1;
      for (let round = 0; round < ROUNDS; round++) {
        const { child, log } = replicate();
        const endMs = performance.now() + 200 + (random() % 600);
        while (performance.now() < endMs) {
          insert(1 + (random() % 3));
          await Bun.sleep(random() % 10);
          const rows = rowsOf(local);
          if (rows >= 0) expect(rows).toBeGreaterThanOrEqual(seen);
          seen = Math.max(seen, rows);
        }
        expect(log()).not.toMatch(/ error |bug/);
        child.kill("SIGKILL");
        await child.exited;
        expect(rowsOf(local)).toBeGreaterThanOrEqual(seen);
      }
      const last = replicate();
      await until(() => rowsOf(local) === sourceRows(), last.log);
      const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
      expect(metrics).toMatch(/^walsync_replica_txid\{database="[^"]*app"\} [1-9]\d*$/m);
      expect(metrics).toMatch(/^walsync_replica_lag_seconds\{database="[^"]*app"\} [0-9.]+$/m);
      expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
      last.child.kill("SIGTERM");
      expect(await last.child.exited).toBe(0);
    },
    60_000,
  );

  test.skipIf(skipped)(
    "--once brings it up to date and ends; a second process at once is refused",
    async () => {
      const { child } = watch();
      insert(3);
      await Bun.sleep(300);
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
      const once = ["replicate", source, "--local", "once.db", "--once", "--json", ...access.flags];
      const options = { cwd: folder, env: access.env };
      expect(JSON.parse((await succeed(once, options)).stdout)).toMatchObject({
        local: "once.db",
        reason: "bootstrap",
      });
      expect(rowsOf(join(folder, "once.db"))).toBe(sourceRows());
      expect(JSON.parse((await succeed(once, options)).stdout)).toMatchObject({ reason: "current", files: 0 });
      const first = start("replicate", source, "--local", "once.db");
      await until(() => first.log().includes("copy is current"), first.log);
      expectOneError(await walsync(once, options), "E_LOCKED", /once\.db/);
    },
    30_000,
  );
});

test("waits for the first snapshot of a name that is not there yet, and says so", async () => {
  const place = join(dir, "waits");
  mkdirSync(join(place, "backups"), { recursive: true });
  const command = [compiledBinary(), "replicate", "backups/app", "--local", "new/folder/copy.db", "--interval", "0.05"];
  const child = Bun.spawn(command, { cwd: place, env: {}, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  children.push(child);
  const log = textOf(child.stderr);
  await until(() => log().includes("waiting for the first snapshot"), log);
  const source = new Database(join(place, "app.db"), { create: true });
  source.run("pragma journal_mode = wal");
  source.run("create table item (id integer primary key, body)");
  source.run("insert into item (body) values ('first')");
  await succeed(["snapshot", "app.db", "-b", "backups"], { cwd: place });
  const copy = join(place, "new/folder/copy.db");
  await until(() => rowsOf(copy) === 1, log);
  // Other users may be meant to read it: only the state is private.
  expect(statSync(join(place, "new/folder")).mode & 0o055).toBe(0o055);
  expect(statSync(join(place, "new/folder/.copy.db-walsync-replica")).mode & 0o077).toBe(0);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  source.close();
}, 30_000);

test("a copy that somebody wrote to ends it with exit status 2, and stays", async () => {
  const place = join(dir, "written");
  mkdirSync(place, { recursive: true });
  const source = new Database(join(place, "app.db"), { create: true });
  source.run("pragma journal_mode = wal");
  source.run("create table item (id integer primary key, body)");
  await succeed(["snapshot", "app.db", "-b", "backups"], { cwd: place });
  await succeed(["replicate", "backups/app", "--local", "copy.db", "--once"], { cwd: place });
  const child = Bun.spawn([compiledBinary(), "replicate", "backups/app", "--local", "copy.db", "--interval", "0.05"], {
    cwd: place,
    env: {},
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  children.push(child);
  const writer = new Database(join(place, "copy.db"));
  writer.run("pragma busy_timeout = 5000");
  writer.run("create table mine (body)");
  const log = await new Response(child.stderr).text();
  expect(log).toMatch(/E_OUTPUT_EXISTS .*somebody wrote to it/);
  expect(await child.exited).toBe(2);
  expect(writer.query("select count(*) from mine").values()).toEqual([[0]]);
  writer.close();
  source.close();
}, 30_000);

test("a source without a name, an unknown one, and a file that is somebody else's", async () => {
  const place = join(dir, "wrong");
  mkdirSync(join(place, "empty"), { recursive: true });
  await Bun.write(join(place, "mine.db"), "mine");
  const options = { cwd: place, env: { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "bbbbbbbb" } };
  const run = (...args: string[]) => walsync(["replicate", ...args, "--once"], options);
  expectOneError(await run("/", "--local", "x.db"), "E_USAGE", /the folder of a database/);
  expectOneError(await run("empty/app", "--local", "x.db"), "E_NOT_FOUND", /app: expected a database of this name/);
  expectOneError(await run("empty/app", "--local", "mine.db"), "E_OUTPUT_EXISTS", /mine\.db/);
  expect(await Bun.file(join(place, "mine.db")).text()).toBe("mine");
});
