// Goal: each command does what its help says, as a user runs it: the compiled program, real databases, a directory.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { compiledBinary, type Finished, runBinary } from "../support/binary.ts";
import { textOf } from "../support/children.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
let watchers: Bun.Subprocess[] = [];

afterEach(async () => {
  for (const watcher of watchers) {
    watcher.kill("SIGKILL");
    await watcher.exited;
  }
  watchers = [];
});

interface Place {
  folder: string;
  bucket: string;
  path: string;
  app: Database;
}

function makePlace(mode = "wal"): Place {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  const path = join(folder, "app.db");
  const app = new Database(path, { create: true });
  app.run(`pragma journal_mode = ${mode}`);
  app.run("create table item (id integer primary key, body)");
  return { folder, bucket: join(folder, "bucket"), path, app };
}

const insert = ({ app }: Place, count = 1) => {
  for (let i = 0; i < count; i++) app.run("insert into item (body) values (randomblob(2000))");
};

async function succeed(...args: string[]): Promise<Finished> {
  const finished = await runBinary(args);
  expect(finished).toMatchObject({ status: 0 });
  return finished;
}

/** Starts `watch`; resolves when it says that it replicates. */
async function startWatch(...args: string[]): Promise<{ child: Bun.Subprocess; log: () => string }> {
  const child = Bun.spawn([compiledBinary(), "watch", "--no-metrics", ...args], {
    env: { PATH: process.env.PATH ?? "" },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  watchers.push(child);
  const log = textOf(child.stderr);
  return { child, log };
}

async function until(condition: () => boolean | Promise<boolean>, tell: () => string = () => ""): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await condition()) return;
    await Bun.sleep(20);
  }
  throw new Error(`waited in vain: ${tell()}`);
}

async function stop(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
}

describe("snapshot", () => {
  test("ships a database once; again without a change it ships nothing", async () => {
    const place = makePlace();
    insert(place, 5);
    const first = await succeed("snapshot", place.path, "-b", place.bucket);
    expect(first.stdout).toMatch(/^app: snapshot at txid 1 in .*bucket, in \d+ ms\n$/);
    const objects = readdirSync(join(place.bucket, "app"));
    await succeed("snapshot", place.path, "-b", place.bucket);
    expect(readdirSync(join(place.bucket, "app"))).toEqual(objects);
    insert(place);
    const third = await succeed("snapshot", place.path, "-b", place.bucket, "--json");
    expect(JSON.parse(third.stdout)).toEqual({ name: "app", txid: 2 });
    const output = join(place.folder, "restored.db");
    await succeed("restore", "app", "-b", place.bucket, "-o", output);
    expect(differingPages(contentOf(place.path), contentOf(output))).toEqual([]);
  });

  test("of a database in DELETE mode asks for --enable-wal", async () => {
    const place = makePlace("delete");
    place.app.close();
    await succeed("snapshot", place.path, "-b", place.bucket, "--enable-wal");
    const database = new Database(place.path, { readwrite: true });
    expect(database.query("pragma journal_mode").values()).toEqual([["wal"]]);
    database.close();
  });
});

describe("list", () => {
  test("says the same in its table and as JSON", async () => {
    const place = makePlace();
    insert(place, 3);
    await succeed("snapshot", place.path, "-b", place.bucket);
    await succeed("snapshot", `tenants/7=${place.path}`, "-b", place.bucket);
    const table = (await succeed("list", "-b", place.bucket)).stdout.trimEnd().split("\n");
    const { databases } = JSON.parse((await succeed("list", "-b", place.bucket, "--json")).stdout);
    expect(table).toHaveLength(3);
    for (const [i, { layout, newest }] of databases.entries()) {
      expect(table[i + 1]!.indexOf(layout)).toBe(table[0]!.indexOf("LAYOUT"));
      expect(table[i + 1]!.indexOf(newest.slice(0, 10), table[0]!.indexOf("NEWEST"))).toBe(table[0]!.indexOf("NEWEST"));
    }
    for (const [i, database] of databases.entries()) {
      const [name, layout, txid, snapshots, increments] = table[i + 1]!.split(/\s+/);
      expect([name, layout, Number(txid), Number(snapshots), Number(increments)]).toEqual([
        database.name,
        database.layout,
        database.txid,
        database.snapshots,
        database.increments,
      ]);
      const sizes = readdirSync(join(place.bucket, database.name)).filter((one) => one.endsWith(".ltx"));
      expect(database.bytes).toBe(
        sizes.reduce((sum, one) => sum + Bun.file(join(place.bucket, database.name, one)).size, 0),
      );
      expect(Date.parse(database.oldest)).toBeLessThanOrEqual(Date.parse(database.newest));
    }
    expect(databases.map(({ name }: { name: string }) => name)).toEqual(["app", "tenants/7"]);
  });

  test("of an empty destination is empty, not an error", async () => {
    const bucket = join(dir, "empty-bucket");
    mkdirSync(bucket);
    expect(JSON.parse((await succeed("list", "-b", bucket, "--json")).stdout)).toEqual({ databases: [] });
  });
});

describe("watch", () => {
  test("replicates until SIGTERM, and every point can be restored by txid and by time", async () => {
    const place = makePlace();
    const { child, log } = await startWatch(place.path, "-b", place.bucket, "--wal-sync-interval", "0", "--verbose");
    await until(() => log().includes("replicating"), log);
    const states = new Map<number, Uint8Array>();
    for (let i = 0; i < 4; i++) {
      insert(place);
      const shipped = () => log().match(/ shipped database=app txid=\d+/g)?.length ?? 0;
      const before = i + 1;
      await until(() => shipped() > before, log);
      const txid = Number(
        log()
          .match(/ shipped database=app txid=(\d+)/g)!
          .at(-1)!
          .split("=")
          .at(-1),
      );
      states.set(txid, place.app.serialize());
      await Bun.sleep(5);
    }
    await stop(child);
    expect(log()).not.toMatch(/ (error|warn) /);
    for (const [txid, content] of states) {
      const byTxid = join(place.folder, `txid-${txid}.db`);
      const told = await succeed(
        "restore",
        "app",
        "-b",
        place.bucket,
        "-o",
        byTxid,
        "--point-in-time",
        `txid:${txid}`,
        "--json",
      );
      expect(differingPages(content, readFileSync(byTxid))).toEqual([]);
      const { time, bytes } = JSON.parse(told.stdout);
      expect(bytes).toBe(content.length);
      const byTime = join(place.folder, `time-${txid}.db`);
      await succeed("restore", "app", "-b", place.bucket, "-o", byTime, "--point-in-time", time);
      expect(differingPages(content, readFileSync(byTime))).toEqual([]);
    }
  });

  test("--restore-if-missing fetches a database that is only at the destination, and goes on with its chain", async () => {
    const place = makePlace();
    insert(place, 7);
    await succeed("snapshot", place.path, "-b", place.bucket);
    const content = place.app.serialize();
    place.app.close();
    for (const name of readdirSync(place.folder))
      if (name !== "bucket") rmSync(join(place.folder, name), { recursive: true });
    const { child, log } = await startWatch(place.path, "-b", place.bucket, "--restore-if-missing");
    await until(() => log().includes("replicating"), log);
    const app = new Database(place.path, { readwrite: true });
    expect(differingPages(content, app.serialize())).toEqual([]);
    app.run("insert into item (body) values (1)");
    app.close();
    await stop(child);
    const { databases } = JSON.parse((await succeed("list", "-b", place.bucket, "--json")).stdout);
    expect(databases[0]).toMatchObject({ txid: 2, snapshots: 1, increments: 1 });
  });

  test("--restore-if-missing waits for a database that is nowhere yet", async () => {
    const folder = join(dir, "waiting");
    mkdirSync(folder);
    const path = join(folder, "app.db");
    const bucket = join(folder, "bucket");
    const { child, log } = await startWatch(path, "-b", bucket, "--restore-if-missing");
    await until(() => log().includes("waiting for the database"), log);
    const app = new Database(path, { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id)");
    await until(() => existsSync(join(bucket, "app", "00000001-00000001.ltx")), log);
    app.close();
    await stop(child);
  }, 30_000);

  test("a second one on the same database is refused and changes nothing", async () => {
    const place = makePlace();
    const { child, log } = await startWatch(place.path, "-b", place.bucket);
    await until(() => log().includes("replicating"), log);
    const { status, stderr } = await runBinary(["watch", place.path, "-b", place.bucket]);
    expect({ status, stderr }).toMatchObject({ status: 6, stderr: expect.stringContaining(`process ${child.pid}`) });
    insert(place);
    await stop(child);
    const { databases } = JSON.parse((await succeed("list", "-b", place.bucket, "--json")).stdout);
    expect(databases[0].txid).toBe(2);
  });
});

test("a destination that never answers: a stop waits for it as long as it may, and says what is left", async () => {
  const place = makePlace();
  insert(place, 3);
  const env = { PATH: process.env.PATH ?? "", AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test-secret" };
  const args = ["watch", place.path, "-b", "s3://bucket", "--endpoint", "http://127.0.0.1:9", "--no-metrics"];
  const child = Bun.spawn([compiledBinary(), ...args, "--shutdown-timeout", "1"], { env, stderr: "pipe" });
  watchers.push(child);
  const log = textOf(child.stderr);
  await until(() => log().includes("destination does not answer"), log);
  const startedMs = performance.now();
  child.kill("SIGTERM");
  expect(await child.exited).toBe(3);
  expect(performance.now() - startedMs).toBeGreaterThan(900);
  expect(log()).toMatch(/walsync: E_UNREACHABLE .*app\.db: expected to capture and ship everything at the end/);
  expect(log()).toContain("Nothing is lost");
}, 20_000);

describe("configuration", () => {
  test("walsync.toml names databases and settings; flags beat it; --config names another", async () => {
    const place = makePlace();
    insert(place, 3);
    const config = `[s3]\nbucket = "\${PLACE}"\n[metrics]\nenabled = false\n[[databases]]\npath = "app.db"\nprefix = "shop"\n`;
    await Bun.write(join(place.folder, "walsync.toml"), config);
    const run = (...args: string[]) =>
      Bun.spawn([compiledBinary(), ...args], {
        cwd: place.folder,
        env: { PATH: process.env.PATH ?? "", PLACE: place.bucket },
        stdout: "pipe",
        stderr: "pipe",
      });
    const watcher = run("watch");
    watchers.push(watcher);
    await until(() => existsSync(join(place.bucket, "shop/app/00000001-00000001.ltx")));
    await stop(watcher);
    const listed = run("list", "--json");
    expect(JSON.parse(await new Response(listed.stdout).text()).databases).toMatchObject([{ name: "shop/app" }]);
    const elsewhere = run("list", "-b", join(place.folder, "nowhere"));
    expect(await elsewhere.exited).not.toBe(0);
    await Bun.write(join(place.folder, "other.toml"), "[sink]\n");
    const wrong = run("list", "--config", "other.toml");
    expect(await new Response(wrong.stderr).text()).toContain("walsync: E_CONFIG other.toml:1: sink: no such key");
    expect(await wrong.exited).toBe(2);
    const missing = run("list", "--config", "missing.toml");
    expect(await new Response(missing.stderr).text()).toContain("E_CONFIG missing.toml: expected a configuration file");
  });
});

describe("help", () => {
  test("names every command; that of a command has usage, flags with defaults, and examples that parse", async () => {
    const { stdout } = await succeed("--help");
    const commands = [...stdout.matchAll(/^ {2}([a-z]+) {2,}/gm)].map(([, name]) => name!);
    expect(commands).toEqual([
      "watch",
      "snapshot",
      "restore",
      "list",
      "replicate",
      "status",
      "sync",
      "explain",
      "migrate",
      "compact",
      "verify",
      "drill",
      "doctor",
      "completion",
    ]);
    for (const command of commands) {
      const help = (await succeed(command, "--help")).stdout;
      expect(help).toContain(`walsync ${command}`);
      expect(help).toMatch(/^(Flags|Common flags):$/m);
      if (!["status", "sync", "completion", "replicate"].includes(command))
        expect(help).toMatch(/^ {2}walsync .* -b /m);
      expect(help.split("\n").every((line) => line.length <= 140)).toBe(true);
    }
  });

  test("versions are those of the program, Bun and SQLite", async () => {
    const { stdout } = await succeed("--version");
    expect(stdout).toMatch(/^walsync \d+\.\d+\.\d+ \(commit [0-9a-f]{7}.*\)\nbun \d+\.\d+\.\d+\nsqlite 3\.\d+\.\d+\n$/);
  });

  test("files of the folder it runs in configure nothing", async () => {
    const folder = join(dir, "dotenv");
    mkdirSync(folder);
    await Bun.write(join(folder, ".env"), "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n");
    await Bun.write(join(folder, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
    await Bun.write(join(folder, "evil.ts"), 'console.log("evil")\n');
    const child = Bun.spawnSync([compiledBinary(), "list", "-b", "s3://backups", "--endpoint", "http://127.0.0.1:1"], {
      cwd: folder,
      env: { PATH: process.env.PATH ?? "" },
    });
    expect(child.stdout.toString()).toBe("");
    expect(child.stderr.toString()).toContain("found no AWS_ACCESS_KEY_ID");
  });
});
