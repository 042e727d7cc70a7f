// Goal: a watch that runs follows what comes, goes and changes: databases under globs and directories, and walsync.toml at
// SIGHUP. Whoever stays is not disturbed, and at the end every database restores to what it was. The compiled program and
// real databases.
import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { WatchReport } from "../../src/control.ts";
import { acquireLock } from "../../src/replication/lock.ts";
import { makeKeys } from "../encryption/make.ts";
import { compiledBinary } from "../support/binary.ts";
import { onText, ownChildren } from "../support/children.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { s3Access, succeed, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
/** Longer than a look takes on a loaded machine. */
const PATIENCE_MS = 20_000;
const running = ownChildren();

afterAll(async () => {
  await server?.stop();
});

class Place {
  readonly folder = join(dir, crypto.randomUUID());
  bucket = join(this.folder, "bucket");
  env: Record<string, string> = { XDG_RUNTIME_DIR: this.folder };
  log = "";
  child!: Bun.Subprocess;
  readonly #apps = new Map<string, Database>();

  constructor() {
    mkdirSync(this.folder);
  }

  path(file: string): string {
    return join(this.folder, file);
  }

  /** The application's connection; made with the file, in WAL mode. */
  app(file: string): Database {
    let app = this.#apps.get(file);
    if (app === undefined) {
      mkdirSync(dirname(this.path(file)), { recursive: true });
      app = new Database(this.path(file), { create: true });
      app.run("pragma journal_mode = wal");
      app.run("pragma busy_timeout = 5000");
      app.run("create table if not exists item (body)");
      this.#apps.set(file, app);
    }
    return app;
  }

  insert(file: string, count = 1): void {
    const app = this.app(file);
    for (let i = 0; i < count; i++) app.run("insert into item values (randomblob(100))");
  }

  close(file: string): void {
    this.#apps.get(file)?.close();
    this.#apps.delete(file);
  }

  remove(file: string): void {
    this.close(file);
    for (const suffix of ["", "-wal", "-shm"]) rmSync(this.path(file + suffix), { force: true });
  }

  async watch(...args: string[]): Promise<void> {
    this.child = Bun.spawn([compiledBinary(), "watch", ...args], {
      cwd: this.folder,
      env: { PATH: process.env.PATH ?? "", ...this.env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    running.push(this.child);
    const { stderr } = this.child as Bun.Subprocess<"ignore", "ignore", "pipe">;
    onText(stderr, (text) => {
      this.log += text;
    });
    await this.until(() => this.log.includes("watching"));
  }

  /** Waits for a condition; shows the log if it never comes true. */
  async until(condition: () => boolean | Promise<boolean>): Promise<void> {
    const endMs = performance.now() + PATIENCE_MS;
    while (!(await condition())) {
      if (performance.now() > endMs) throw new Error(`waited in vain for ${condition}; the log:\n${this.log}`);
      await Bun.sleep(25);
    }
  }

  lines(pattern: RegExp): string[] {
    return this.log.split("\n").filter((line) => pattern.test(line));
  }

  async names(): Promise<string[]> {
    const { stdout } = await succeed(["status", "--json"], { env: this.env });
    const [watch] = (JSON.parse(stdout) as { watches: WatchReport[] }).watches;
    return watch!.databases.map(({ name }) => name).sort();
  }

  async has(...names: string[]): Promise<void> {
    await this.until(async () => (await this.names()).join() === names.sort().join());
  }

  /** Ships what there is. */
  async sync(name: string): Promise<void> {
    await this.until(async () => (await walsync(["sync", name, "--wait"], { env: this.env })).status === 0);
  }

  filesOf(name: string): string[] {
    const folder = join(this.bucket, name);
    return existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith(".ltx")) : [];
  }

  snapshotsOf(name: string): number {
    return this.filesOf(name).filter((file) => file.startsWith("00000001-")).length;
  }

  async stop(): Promise<number> {
    this.child.kill("SIGTERM");
    return await this.child.exited;
  }

  /** Compares what can be restored with the file. */
  async expectRestored(name: string, expected: Uint8Array): Promise<void> {
    const output = this.path(`restored-${crypto.randomUUID()}`);
    await succeed(["restore", name, "-o", output, "-b", this.bucket], { env: this.env });
    expect([name, differingPages(expected, readFileSync(output))]).toEqual([name, []]);
  }

  async expectAll(files: Record<string, string>): Promise<void> {
    for (const [name, file] of Object.entries(files)) await this.expectRestored(name, contentOf(this.path(file)));
  }
}

/** Files that are captured and not yet acknowledged. */
function outboxOf(state: string): number {
  return [...new Bun.Glob("*/outbox/*.ltx").scanSync({ cwd: state })].length;
}

const DIRECT = ["--wal-sync-interval", "0", "--no-metrics"];

describe("a database below a glob", () => {
  test("that appears is replicated, in a folder that appears with it, too; journals and folders of walsync are not", async () => {
    const place = new Place();
    place.insert("tenants/a/app.db");
    await place.watch("tenants/*/app.db*", "-b", place.bucket, ...DIRECT);
    await place.has("a/app");
    place.insert("tenants/b/app.db", 3);
    await place.has("a/app", "b/app");
    // Made elsewhere, and moved here with its folder.
    place.insert("elsewhere/app.db");
    place.close("elsewhere/app.db");
    renameSync(place.path("elsewhere"), place.path("tenants/c"));
    await place.has("a/app", "b/app", "c/app");
    place.insert("tenants/b/app.db", 5);
    place.insert("tenants/c/app.db", 5);
    writeFileSync(place.path("tenants/c/app.db.txt"), "no database");
    writeFileSync(place.path("tenants/c/app.db-journal"), readFileSync(place.path("tenants/c/app.db")));
    writeFileSync(place.path("tenants/c/app.db.empty"), "");
    await Bun.sleep(1500);
    await place.has("a/app", "b/app", "c/app");
    rmSync(place.path("tenants/c/app.db-journal"));
    expect(await place.stop()).toBe(0);
    await place.expectAll({ "a/app": "tenants/a/app.db", "b/app": "tenants/b/app.db", "c/app": "tenants/c/app.db" });
  }, 60_000);

  test("a hundred of them at once, and none of those before is read again", async () => {
    const place = new Place();
    place.insert("data/first.db");
    await place.watch("data", "-b", place.bucket, ...DIRECT);
    await place.until(() => place.snapshotsOf("first") === 1);
    const names = Array.from({ length: 100 }, (_, i) => `n${i}`);
    for (const name of names) {
      place.insert(`data/${name}.db`, 2);
      place.close(`data/${name}.db`);
    }
    await place.has("first", ...names);
    await place.until(() => names.every((name) => place.snapshotsOf(name) > 0));
    place.insert("data/first.db", 2);
    expect(await place.stop()).toBe(0);
    expect(place.snapshotsOf("first")).toBe(1);
    expect(place.lines(/ (warn|error) /)).toEqual([]);
    for (const name of ["first", "n0", "n50", "n99"]) {
      await place.expectRestored(name, contentOf(place.path(`data/${name}.db`)));
    }
  }, 60_000);

  test("that vanishes is released once everything is shipped, and goes on where it was when it returns", async () => {
    const place = new Place();
    place.insert("data/a.db");
    place.insert("data/b.db", 3);
    await place.watch("data/*.db", "-b", place.bucket, ...DIRECT);
    await place.sync("b");
    place.insert("data/b.db", 3);
    await place.sync("b");
    const state = place.path("data/.b.db-walsync");
    const before = contentOf(place.path("data/b.db"));
    place.close("data/b.db");
    for (const suffix of ["", "-wal", "-shm"]) {
      if (existsSync(place.path(`data/b.db${suffix}`))) {
        renameSync(place.path(`data/b.db${suffix}`), place.path(`kept.db${suffix}`));
      }
    }
    await place.has("a");
    expect(place.lines(/database released.*\bb\b/)).toHaveLength(1);
    expect(place.lines(/ error /)).toEqual([]);
    expect(existsSync(state)).toBe(true);
    await place.expectRestored("b", before);
    // Nobody holds the lock.
    acquireLock(state, place.path("data/b.db")).release();
    const files = place.filesOf("b").length;
    for (const suffix of ["", "-wal", "-shm"]) {
      if (existsSync(place.path(`kept.db${suffix}`))) {
        renameSync(place.path(`kept.db${suffix}`), place.path(`data/b.db${suffix}`));
      }
    }
    await place.has("a", "b");
    place.insert("data/b.db", 2);
    await place.sync("b");
    expect(place.filesOf("b").length).toBeGreaterThan(files);
    expect(place.snapshotsOf("b")).toBe(1);
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "data/a.db", b: "data/b.db" });
  }, 60_000);

  test("that another file is moved over is followed as one database", async () => {
    const place = new Place();
    place.insert("data/a.db", 3);
    await place.watch("data", "-b", place.bucket, ...DIRECT);
    await place.sync("a");
    place.insert("new.db", 20);
    place.app("new.db").run("pragma wal_checkpoint(truncate)");
    place.close("new.db");
    place.close("data/a.db");
    // As everybody must who puts another database in the place of one: its WAL is not that of the new one.
    for (const suffix of ["-wal", "-shm"]) rmSync(place.path(`data/a.db${suffix}`));
    renameSync(place.path("new.db"), place.path("data/a.db"));
    await place.until(() => place.log.includes("compared: differences staged"));
    place.insert("data/a.db", 2);
    await place.sync("a");
    expect(await place.names()).toEqual(["a"]);
    expect(place.lines(/database released/)).toEqual([]);
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "data/a.db" });
  }, 60_000);

  test("goes with its whole folder, state and all", async () => {
    const place = new Place();
    place.insert("tenants/a/app.db");
    place.insert("tenants/b/app.db");
    await place.watch("tenants/*/app.db", "-b", place.bucket, ...DIRECT);
    await place.sync("b/app");
    place.close("tenants/b/app.db");
    // What was shipped a moment ago may be recorded there at the same time, and a folder with a new file stays.
    await place.until(() => {
      rmSync(place.path("tenants/b"), { recursive: true, force: true });
      return !existsSync(place.path("tenants/b"));
    });
    await place.has("a/app");
    // Letting go of it brings nothing back.
    expect(existsSync(place.path("tenants/b"))).toBe(false);
    place.insert("tenants/b/app.db", 4);
    await place.has("a/app", "b/app");
    await place.sync("b/app");
    expect(await place.stop()).toBe(0);
    await place.expectAll({ "a/app": "tenants/a/app.db", "b/app": "tenants/b/app.db" });
  }, 60_000);

  test("not in WAL mode is told once, and taken in when it is", async () => {
    const place = new Place();
    place.insert("data/a.db");
    await place.watch("data", "-b", place.bucket, "--wal-sync-interval", "0", "--metrics-port", "0");
    await place.until(() => place.log.includes("port="));
    const port = /port=(\d+)/.exec(place.log)?.[1];
    const health = async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).status;
    expect(await health()).toBe(200);
    const app = new Database(place.path("data/old.db"), { create: true });
    app.run("create table item (body)");
    await place.until(() => place.log.includes("database failed"));
    expect(place.lines(/database failed.*E_DATABASE.*hint/)).toHaveLength(1);
    expect(await health()).toBe(503);
    app.run("pragma journal_mode = wal");
    app.run("insert into item values (1)");
    await place.until(() => place.snapshotsOf("old") > 0);
    expect(await health()).toBe(200);
    expect(place.lines(/ error /)).toHaveLength(1);
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "data/a.db", old: "data/old.db" });
    app.close();
  }, 60_000);

  test("whose name is taken is refused once, whichever order they came in; its series vanish with a database", async () => {
    const place = new Place();
    place.insert("data/a.db");
    await place.watch("data", "-b", place.bucket, "--wal-sync-interval", "0", "--metrics-port", "0");
    await place.until(() => place.snapshotsOf("a") === 1);
    const port = /port=(\d+)/.exec(place.log)?.[1];
    const metrics = async () => await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    place.insert("data/a.sqlite", 2);
    await place.until(() => place.log.includes("database refused"));
    place.insert("data/b.db");
    await place.has("a", "b");
    expect(place.lines(/database refused.*E_USAGE.*hint/)).toHaveLength(1);
    await place.sync("b");
    expect(await metrics()).toContain('walsync_shipped_files_total{database="b",kind="snapshot"} 1');
    place.remove("data/b.db");
    await place.has("a");
    expect(await metrics()).not.toContain('database="b"');
    place.insert("data/a.db", 2);
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "data/a.db" });
  }, 60_000);
});

describe.skipIf(server === null)("while the destination is away", () => {
  test("a database that vanished stays until it is shipped, or comes back as it was", async () => {
    if (server === null) return;
    await server.createBucket("away");
    const proxy = await startFaultProxy(server.endpoint, () => 0);
    const place = new Place();
    place.bucket = "s3://away";
    const access = s3Access(server);
    Object.assign(place.env, access.env, { AWS_ENDPOINT_URL_S3: proxy.endpoint, AWS_REGION: server.region });
    for (const name of ["a", "b", "c"]) place.insert(`data/${name}.db`);
    await place.watch("data", "-b", place.bucket, ...DIRECT);
    for (const name of ["a", "b", "c"]) await place.sync(name);
    proxy.mode = "reset";
    const contents: Record<string, Uint8Array> = {};
    for (const name of ["b", "c"]) {
      place.insert(`data/${name}.db`, 3);
      place.app(`data/${name}.db`).run("pragma wal_checkpoint(passive)");
      await place.until(() => outboxOf(place.path(`data/.${name}.db-walsync`)) > 0);
      await Bun.sleep(300);
      contents[name] = contentOf(place.path(`data/${name}.db`));
      place.close(`data/${name}.db`);
      mkdirSync(place.path(`kept-${name}`));
      for (const suffix of ["", "-wal", "-shm"]) {
        renameSync(place.path(`data/${name}.db${suffix}`), place.path(`kept-${name}/${name}.db${suffix}`));
      }
    }
    await Bun.sleep(2000);
    expect(await place.names()).toEqual(["a", "b", "c"]);
    expect(place.lines(/database released/)).toEqual([]);
    expect(outboxOf(place.path("data/.c.db-walsync"))).toBeGreaterThan(0);
    for (const suffix of ["-shm", "-wal", ""]) {
      renameSync(place.path(`kept-b/b.db${suffix}`), place.path(`data/b.db${suffix}`));
    }
    await place.until(() => place.lines(/database found.*database=b\b/).length === 1);
    place.insert("data/b.db", 2);
    proxy.mode = "pass";
    await place.has("a", "b");
    expect(place.lines(/database released.*database=c\b/)).toHaveLength(1);
    expect(outboxOf(place.path("data/.c.db-walsync"))).toBe(0);
    await place.sync("b");
    expect(await place.stop()).toBe(0);
    await place.expectRestored("c", contents.c!);
    await place.expectAll({ a: "data/a.db", b: "data/b.db" });
    proxy.stop();
  }, 90_000);
});

describe("a database that was named itself", () => {
  test("is missed until it is back", async () => {
    const place = new Place();
    place.insert("a.db");
    place.insert("b.db");
    await place.watch("a.db", "b.db", "-b", place.bucket, ...DIRECT);
    await place.sync("b");
    place.app("b.db").run("pragma wal_checkpoint(truncate)");
    place.close("b.db");
    renameSync(place.path("b.db"), place.path("away.db"));
    await place.until(() => place.log.includes("database failed"));
    expect(await place.names()).toEqual(["a", "b"]);
    renameSync(place.path("away.db"), place.path("b.db"));
    await place.until(() => place.log.includes("database is back"));
    place.insert("b.db", 2);
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "a.db", b: "b.db" });
  }, 60_000);
});

describe("SIGHUP", () => {
  async function begin(): Promise<{ place: Place; configure: (text: string) => void; reload: (text: string) => void }> {
    const place = new Place();
    const configure = (text: string) =>
      writeFileSync(place.path("walsync.toml"), `[s3]\nbucket = "bucket"\n[metrics]\nenabled = false\n${text}`);
    const reload = (text: string) => {
      configure(text);
      place.child.kill("SIGHUP");
    };
    place.insert("a.db");
    place.insert("b.db");
    configure(`[sync]\nwal_sync_interval = "1h"\n[[databases]]\npath = "a.db"\n[[databases]]\npath = "b.db"\n`);
    await place.watch();
    await place.until(() => place.snapshotsOf("a") + place.snapshotsOf("b") === 2);
    return { place, configure, reload };
  }

  test("changes settings of databases that go on undisturbed", async () => {
    const { place, reload } = await begin();
    // The first capture may be at once; then comes an hour.
    place.insert("a.db", 2);
    await Bun.sleep(500);
    const files = place.filesOf("a").length;
    place.insert("a.db", 2);
    await Bun.sleep(1000);
    expect(place.filesOf("a")).toHaveLength(files);
    reload(`[sync]\nwal_sync_interval = 0\n[[databases]]\npath = "a.db"\n[[databases]]\npath = "b.db"\n`);
    await place.until(() => place.filesOf("a").length > files);
    reload(`[[databases]]\npath = "a.db"\nsnapshot_interval = "1ms"\n[[databases]]\npath = "b.db"\n`);
    await place.until(() => place.snapshotsOf("a") > 1);
    expect(place.snapshotsOf("b")).toBe(1);
    expect(place.lines(/database (found|released)|comparing| (warn|error) /)).toEqual([]);
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "a.db", b: "b.db" });
  }, 60_000);

  test("adds, removes and renames databases", async () => {
    const { place, reload } = await begin();
    place.insert("more/c.db");
    place.insert("b.db", 3);
    reload(`[[databases]]\npath = "a.db"\n[[databases]]\npath = "more"\n`);
    await place.has("a", "c");
    // What was committed before it was removed is shipped.
    await place.expectAll({ b: "b.db" });
    expect(place.lines(/database released.*\bb\b/)).toHaveLength(1);
    place.insert("more/d.db");
    await place.has("a", "c", "d");
    reload(`[[databases]]\npath = "a.db"\nname = "shop"\n[[databases]]\npath = "b.db"\nname = "a"\n`);
    await place.has("a", "shop");
    // The chain that had the name goes on with the database that has it now, once the other one has left.
    await place.sync("a");
    place.insert("b.db", 2);
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "b.db", shop: "a.db", c: "more/c.db", d: "more/d.db" });
  }, 60_000);

  test("with a file that is wrong says where, and everything goes on as it was", async () => {
    const { place, reload } = await begin();
    const wrong: [string, RegExp][] = [
      ['[sync]\nwal_sync_intervall = "1s"\n', /E_CONFIG.*walsync\.toml:6: sync\.wal_sync_intervall/],
      ["[sync\n", /E_CONFIG.*walsync\.toml:5/],
      ['[[databases]]\npath = "nothing/*.db"\n', /E_CONFIG.*walsync\.toml:5.*nothing/],
      ["[retention]\nhourly = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n", /E_CONFIG.*retention/],
      [
        '[[databases]]\npath = "a.db"\nname = "x"\n[[databases]]\npath = "b.db"\nname = "x"\n',
        /E_CONFIG.*expected two names/,
      ],
    ];
    for (const [i, [text, says]] of wrong.entries()) {
      reload(text);
      await place.until(() => place.lines(/configuration not reloaded/).length === i + 1);
      expect(place.lines(/configuration not reloaded/)[i]).toMatch(says);
    }
    expect(await place.names()).toEqual(["a", "b"]);
    const alerts = '[alerts]\nwebhook_url = "http://127.0.0.1:9/elsewhere"\n';
    writeFileSync(place.path("walsync.toml"), `[s3]\nbucket = "elsewhere"\n${alerts}[[databases]]\npath = "b.db"\n`);
    place.child.kill("SIGHUP");
    await place.has("b");
    expect(place.lines(/ warn .*restart.*bucket.*webhook-url/)).toHaveLength(1);
    place.insert("b.db", 2);
    expect(await place.stop()).toBe(0);
    expect(existsSync(place.path("elsewhere"))).toBe(false);
    await place.expectAll({ a: "a.db", b: "b.db" });
  }, 60_000);

  test("with another layout is told, and databases that appear are written in the old one", async () => {
    const { place, reload } = await begin();
    place.insert("data/c.db");
    const databases = '[[databases]]\npath = "a.db"\nlayout = "litestream"\n[[databases]]\npath = "data"\n';
    place.insert("own/o.db");
    reload(`[sync]\nlayout = "litestream"\n${databases}[[databases]]\npath = "own"\nlayout = "litestream"\n`);
    await place.has("a", "c", "o");
    place.insert("data/d.db");
    await place.has("a", "c", "d", "o");
    expect(await place.stop()).toBe(0);
    expect(place.lines(/ warn .*restart.*layout/).length).toBeGreaterThan(0);
    expect(["a", "c", "d"].filter((name) => place.snapshotsOf(name) === 0)).toEqual([]);
    // One that was not there at the start may have its own.
    expect([place.snapshotsOf("o"), existsSync(join(place.bucket, "o/ltx/0"))]).toEqual([0, true]);
    await place.expectAll({ d: "data/d.db", o: "own/o.db" });
  }, 60_000);

  test("with another layout or an identity changes nothing about encryption; an entry in Litestream's is refused", async () => {
    const place = new Place();
    const { recipient, identityFile } = await makeKeys(place.path("key.txt"));
    const configure = (encryption: string, rest: string) => {
      const keys = `[encryption]\nrecipients = ["${recipient}"]\n${encryption}`;
      const sync = '[sync]\nwal_sync_interval = 0\nmerge = ["200ms"]\n';
      writeFileSync(
        place.path("walsync.toml"),
        `[s3]\nbucket = "bucket"\n[metrics]\nenabled = false\n${keys}${sync}${rest}`,
      );
    };
    const data = '[[databases]]\npath = "data"\n';
    const identity = `identity_file = "${identityFile}"\n`;
    place.insert("data/a.db");
    const refused = `${data}[[databases]]\npath = "b.db"\nlayout = "litestream"\n`;
    configure("", refused);
    place.insert("b.db");
    const { status, stderr } = await walsync(["watch"], { cwd: place.folder });
    expect([status, stderr]).toEqual([
      2,
      expect.stringMatching(/E_CONFIG.*walsync\.toml:\d+: layout: expected walsync/),
    ]);
    configure("", data);
    await place.watch();
    await place.sync("a");
    configure(identity, `layout = "litestream"\n${data}`);
    place.child.kill("SIGHUP");
    await place.until(() => place.log.includes("configuration reloaded"));
    expect(place.lines(/ warn .*restart.*identity.*layout/)).toHaveLength(1);
    for (let i = 0; i < 3; i++) {
      place.insert("data/c.db");
      await place.sync("c");
    }
    for (const [i, rest] of [refused, `${data}[drill]\ninterval = "1s"\n`].entries()) {
      configure(identity, rest);
      place.child.kill("SIGHUP");
      await place.until(() => place.lines(/configuration not reloaded/).length === i + 1);
    }
    expect(place.lines(/configuration not reloaded/)).toEqual([
      expect.stringMatching(/E_CONFIG.*walsync\.toml:\d+: layout: expected walsync/),
      expect.stringContaining("E_IDENTITY"),
    ]);
    await Bun.sleep(500);
    expect(await place.names()).toEqual(["a", "c"]);
    expect(await place.stop()).toBe(0);
    expect(place.lines(/merge|drill/).filter((line) => !/increments are not merged|E_IDENTITY/.test(line))).toEqual([]);
    const output = place.path("restored.db");
    await succeed(["restore", "c", "-o", output, "-b", place.bucket, "--identity", identityFile]);
    expect(differingPages(contentOf(place.path("data/c.db")), readFileSync(output))).toEqual([]);
  }, 60_000);

  test("without a configuration file looks again", async () => {
    const place = new Place();
    place.insert("data/a.db");
    await place.watch("data/*.db", "-b", place.bucket, ...DIRECT);
    place.insert("data/b.db");
    place.child.kill("SIGHUP");
    await place.until(() => place.log.includes("configuration reloaded"));
    await place.has("a", "b");
    expect(await place.stop()).toBe(0);
    await place.expectAll({ a: "data/a.db", b: "data/b.db" });
  }, 60_000);
});
