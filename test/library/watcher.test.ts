// Goal: a watcher in an application's process ships what the application commits, tells of it in the order in which it happens, and
// leaves the process as it was: no output, no handlers, nothing that clashes with another watcher.
import type { Database } from "bun:sqlite";
import { afterAll, afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { listenToLog, WalSync, type Watcher } from "../../src/library/index.ts";
import { contentOf } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";
import { addRow, codeOf, eventOf, LIBRARY, makeDatabase, rowsOf, runScript } from "./make.ts";

// One that nobody answers is told of after some tries.
setDefaultTimeout(20_000);
const dir = tempDir();
// Watches that others run on this machine are none of the tests' business.
process.env.XDG_RUNTIME_DIR = dir;
afterAll(() => delete process.env.XDG_RUNTIME_DIR);
let folder: string;
let app: Database;
let path: string;
let walsync: WalSync;
let count = 0;

beforeEach(() => {
  folder = join(dir, String(++count));
  app = makeDatabase(folder, "app.db");
  path = join(folder, "app.db");
  walsync = new WalSync(join(folder, "bucket"));
});
afterEach(() => app.close());
afterAll(() => expect(listeners()).toEqual(listenersBefore));

const EVENTS = ["SIGINT", "SIGTERM", "SIGHUP", "exit", "uncaughtException", "unhandledRejection"];
const listeners = () => EVENTS.map((name) => process.listenerCount(name));
const listenersBefore = listeners();

/** Restores the newest state and compares it with the database. */
async function expectShipped(name = "app", at = walsync, database = path): Promise<void> {
  const { path: restored } = await at.restore(name, join(folder, `restored-${crypto.randomUUID()}.db`));
  expect(contentOf(restored)).toEqual(contentOf(database));
}

describe("a watcher", () => {
  test("ships everything that was committed before it is disposed of", async () => {
    {
      await using _watcher = await walsync.watch(path);
      for (let i = 0; i < 20; i++) addRow(app);
    }
    await expectShipped();
    expect(app.query("PRAGMA integrity_check").values()).toEqual([["ok"]]);
  });

  test("tells what happens in order, and of nothing before somebody can listen", async () => {
    const watcher = await walsync.watch(path, { walSyncIntervalMs: 0 });
    const told: string[] = [];
    const shippedTxids: bigint[] = [];
    for (const name of ["added", "replicating", "captured", "shipped", "removed", "stopped"] as const) {
      watcher.on(name, (event) => {
        told.push(name === "shipped" ? `shipped ${(event as { file: string }).file}` : name);
        if (name === "shipped") shippedTxids.push((event as { txid: bigint }).txid);
      });
    }
    await eventOf(watcher, "replicating");
    for (let i = 0; i < 3; i++) {
      addRow(app);
      const [synced] = await watcher.sync();
      expect(shippedTxids).toContain(synced!.txid);
    }
    await watcher.stop();
    expect(told.slice(0, 2)).toEqual(["added", "replicating"]);
    expect(told.indexOf("shipped snapshot")).toBeLessThan(told.indexOf("shipped increment"));
    expect(told.at(-1)).toBe("stopped");
    expect(told.filter((one) => one === "captured")).toHaveLength(3);
    // Nothing is shipped that was not captured before.
    let ahead = 0;
    for (const one of told) {
      if (one === "captured") ahead++;
      if (one === "shipped increment") expect(--ahead).toBeGreaterThanOrEqual(0);
    }
    expect(shippedTxids).toEqual([1n, 2n, 3n, 4n]);
  });

  test("answers with its status, in numbers that add up", async () => {
    await using watcher = await walsync.watch([`shop=${path}`]);
    addRow(app);
    const [synced] = await watcher.sync({ name: "shop" });
    const { destination, databases, refused } = watcher.status();
    expect({ destination, refused }).toEqual({ destination: join(folder, "bucket"), refused: [] });
    expect(databases).toHaveLength(1);
    const { txid, shippedTxid, state, lagMs, waitingFiles, error, shippedAt } = databases[0]!;
    expect({ txid, shippedTxid, state, lagMs, waitingFiles, error }).toEqual({
      txid: synced!.txid,
      shippedTxid: synced!.txid,
      state: "live",
      lagMs: 0,
      waitingFiles: 0,
      error: null,
    });
    expect(Date.now() - shippedAt!.getTime()).toBeLessThan(10_000);
    expect(await codeOf(() => watcher.sync({ name: "nobody" }))).toBe("E_NOT_FOUND");
  });

  test("takes the snapshots of the databases that it has", async () => {
    await using watcher = await walsync.watch(path);
    await watcher.sync();
    addRow(app);
    const { name, txid } = await walsync.snapshot(path);
    expect({ name, txid }).toEqual({ name: "app", txid: watcher.status().databases[0]!.shippedTxid });
    const [listed] = await walsync.list();
    expect(listed!.snapshots).toBe(2);
  });

  test("keeps up with databases that come and go, from none on", async () => {
    const tenants = join(folder, "tenants");
    mkdirSync(tenants);
    await using watcher = await walsync.watch(tenants);
    expect(watcher.status().databases).toEqual([]);
    const added = eventOf(watcher, "replicating");
    makeDatabase(tenants, "one.db").close();
    expect(await added).toMatchObject({ database: "one", path: join(tenants, "one.db") });
    await watcher.sync();
    const removed = eventOf(watcher, "removed");
    for (const suffix of ["", "-wal", "-shm"]) rmSync(join(tenants, `one.db${suffix}`), { force: true });
    expect(await removed).toMatchObject({ database: "one" });
    expect((await walsync.list()).map(({ name }) => name)).toEqual(["one"]);
  });

  test("restores what is missing first", async () => {
    addRow(app);
    await walsync.snapshot(path);
    app.close();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true });
    const watcher = await walsync.watch(path, { restoreIfMissing: true });
    const restored = eventOf(watcher, "restored");
    expect(existsSync(path)).toBe(true);
    expect(await restored).toMatchObject({ database: "app", path, txid: 1n });
    expect(rowsOf(path)).toBe(2);
    await watcher.stop();
  });

  test("loses nothing to checkpoints of the application on the same thread, which never wait longer than they want to", async () => {
    await using watcher = await walsync.watch(path, { walSyncIntervalMs: 0 });
    app.run("PRAGMA busy_timeout=20");
    for (let i = 0; i < 60; i++) {
      addRow(app);
      if (i % 3 === 0)
        app.query(`PRAGMA wal_checkpoint(${["PASSIVE", "FULL", "RESTART", "TRUNCATE"][(i / 3) % 4]})`).all();
      if (i % 7 === 0) await Bun.sleep(1);
    }
    await watcher.sync();
    await expectShipped();
    expect(await walsync.verify("app")).toMatchObject({ ok: true });
  });

  test("takes no lock away from the application's connection when it stops", async () => {
    await (await walsync.watch(path)).stop();
    // Another process that opens the database, and is the last to close it, would take the WAL along if nobody else had a lock.
    const script = `const { Database } = require("bun:sqlite"); const db = new Database("app.db");
      db.run("INSERT INTO t (y) VALUES (1)"); db.close();`;
    expect(await runScript(script, folder).exited).toBe(0);
    addRow(app);
    const reader = runScript(script.replace("INSERT INTO t (y) VALUES (1)", "SELECT 1"), folder);
    expect(await reader.exited).toBe(0);
    expect(existsSync(`${path}-wal`)).toBe(true);
    expect(rowsOf(path)).toBe(3);
    expect(app.query("PRAGMA integrity_check").values()).toEqual([["ok"]]);
  });

  test("ends with its signal as with stop", async () => {
    const controller = new AbortController();
    const watcher = await walsync.watch(path, { signal: controller.signal });
    addRow(app);
    controller.abort();
    await watcher.ended;
    await watcher.stop();
    await expectShipped();
  });

  test("stopped at once ships what there is all the same", async () => {
    const watcher = await walsync.watch(path);
    await watcher.stop();
    await expectShipped();
  });

  test("gives up waiting with the signal, and goes on", async () => {
    await using watcher = await walsync.watch(path);
    await watcher.sync();
    const reason = new Error("enough");
    await expect(watcher.sync({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expect(watcher.snapshot("app", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    // In the middle, too, however long the work takes.
    const controller = new AbortController();
    addRow(app);
    const waiting = watcher.sync({ signal: controller.signal });
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    expect(await watcher.sync()).toEqual([{ name: "app", txid: 2n }]);
  });

  test("is the only one of a database, in this process, too; another is refused and holds nothing", async () => {
    await using _watcher = await walsync.watch(path);
    const other = makeDatabase(folder, "other.db");
    const elsewhere = new WalSync(join(folder, "elsewhere"));
    expect(await codeOf(() => elsewhere.watch([join(folder, "other.db"), path]))).toBe("E_LOCKED");
    expect(await codeOf(() => elsewhere.snapshot(path))).toBe("E_LOCKED");
    await (await elsewhere.watch(join(folder, "other.db"))).stop();
    other.close();
  });

  test("that another writer has taken the name from ends with E_FENCED", async () => {
    const first = await walsync.watch(path, { walSyncIntervalMs: 0 });
    await first.sync();
    const other = makeDatabase(join(folder, "copy"), "app.db", 3);
    const second = new WalSync(join(folder, "bucket"));
    await second.snapshot(join(folder, "copy/app.db"));
    const fenced = eventOf(first, "alert", ({ alert }) => alert === "fenced");
    addRow(app);
    expect(await codeOf(() => first.sync())).toBe("E_FENCED");
    expect(await codeOf(() => first.ended)).toBe("E_FENCED");
    expect(await fenced).toMatchObject({ database: "app", code: "E_FENCED" });
    other.close();
  });

  test("of a destination that refuses ends with its code; nothing that was committed is lost", async () => {
    const file = join(folder, "file");
    await Bun.write(file, "no directory");
    const watcher = await new WalSync(join(file, "bucket")).watch(path);
    expect(await codeOf(() => watcher.ended)).toBe("E_REFUSED");
    expect(await codeOf(() => watcher.stop())).toBe("E_REFUSED");
    addRow(app);
    await (await walsync.watch(path)).stop();
    await expectShipped();
  });

  test("that could not ship in time says so, and the next one does it", async () => {
    // Nobody listens there.
    const silent = new WalSync("s3://bucket", {
      endpoint: "http://127.0.0.1:9",
      credentials: { accessKeyId: "test", secretAccessKey: "testtest" },
    });
    const watcher = await silent.watch(path, { shutdownTimeoutMs: 50 });
    expect(await eventOf(watcher, "unreachable")).toMatchObject({ attempt: 1 });
    expect(await codeOf(() => watcher.stop())).toBe("E_UNREACHABLE");
    await (await walsync.watch(path)).stop();
    await expectShipped();
  });
});

test("two watchers in one process do not know of each other: names, events and status are their own", async () => {
  const other = makeDatabase(join(folder, "other"), "app.db", 5);
  const otherPath = join(folder, "other/app.db");
  const elsewhere = new WalSync(join(folder, "elsewhere"));
  const [first, second] = await Promise.all([walsync.watch(path), elsewhere.watch(otherPath)]);
  const seen = { first: new Set<string>(), second: new Set<string>() };
  first.on("shipped", ({ path: from }) => seen.first.add(from));
  second.on("shipped", ({ path: from }) => seen.second.add(from));
  for (let i = 0; i < 5; i++) {
    addRow(app);
    addRow(other);
  }
  await Promise.all([first.sync(), second.sync()]);
  expect(seen).toEqual({ first: new Set([path]), second: new Set([otherPath]) });
  await first.stop();
  // The end of the one is not felt by the other.
  addRow(other);
  const [synced] = await second.sync();
  expect(second.status().databases).toMatchObject([{ name: "app", state: "live", shippedTxid: synced!.txid }]);
  await second.stop();
  await expectShipped();
  await expectShipped("app", elsewhere, otherPath);
  other.close();
});

test("a listener that throws harms neither the watcher nor other listeners", async () => {
  const script = `
    import { WalSync } from ${JSON.stringify(LIBRARY)};
    const caught = [];
    process.on("uncaughtException", (error) => caught.push(error.message));
    const watcher = await new WalSync("bucket").watch("app.db");
    let told = 0;
    watcher.on("shipped", () => { throw new Error("mine"); });
    watcher.on("shipped", () => told++);
    await watcher.sync();
    await watcher.stop();
    console.log(JSON.stringify([caught, told]));`;
  const child = runScript(script, folder);
  expect(JSON.parse(await new Response(child.stdout).text())).toEqual([["mine"], 1]);
});

describe("the process of the application", () => {
  test("sees no output, no handlers, and ends by itself when the watcher has stopped", async () => {
    const script = `
      import { WalSync } from ${JSON.stringify(LIBRARY)};
      import { Database } from "bun:sqlite";
      const app = new Database("app.db");
      const names = ${JSON.stringify(EVENTS)};
      const before = names.map((name) => process.listenerCount(name));
      const watcher = await new WalSync("bucket").watch("app.db");
      app.run("INSERT INTO t (y) VALUES (1)");
      await watcher.sync();
      const during = names.map((name) => process.listenerCount(name));
      await watcher.stop();
      if (String(before) !== String(during)) throw new Error("handlers: " + during);`;
    const child = runScript(script, folder);
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    expect({ stdout, stderr, status: await child.exited }).toEqual({ stdout: "", stderr: "", status: 0 });
    await expectShipped();
  });

  test("gets the log if it asks for it, without secrets", async () => {
    const entries: { event: string; fields: object }[] = [];
    const stop = listenToLog(({ event, fields }) => entries.push({ event, fields }));
    const watcher: Watcher = await walsync.watch(path);
    await watcher.sync();
    stop();
    await watcher.stop();
    expect(entries).toContainEqual({ event: "replicating", fields: { database: "app", path, txid: 1 } });
    expect(entries.map(({ event }) => event)).not.toContain("stopped");
  });

  test("killed while it writes loses nothing that was synced, and the next watcher goes on", async () => {
    const script = `
      import { WalSync } from ${JSON.stringify(LIBRARY)};
      import { Database } from "bun:sqlite";
      const app = new Database("app.db");
      app.run("PRAGMA busy_timeout=5000");
      const watcher = await new WalSync("bucket").watch("app.db", { walSyncIntervalMs: 0 });
      for (;;) {
        app.run("INSERT INTO t (y) VALUES (randomblob(300))");
        const rows = app.query("SELECT count(*) AS n FROM t").get().n;
        await watcher.sync();
        console.log(rows);
      }`;
    for (let round = 0; round < 3; round++) {
      const child = runScript(script, folder);
      let synced = 0;
      for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
        synced = Number(text.trim().split("\n").at(-1)) || synced;
        if (synced > (round + 1) * 8) break;
      }
      child.kill("SIGKILL");
      await child.exited;
      const out = join(folder, `after-${round}.db`);
      await walsync.restore("app", out);
      expect(rowsOf(out)).toBeGreaterThanOrEqual(synced);
    }
    await (await walsync.watch(path)).stop();
    await expectShipped();
    expect(await walsync.verify("app")).toMatchObject({ ok: true });
  });
});
