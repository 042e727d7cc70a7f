// Goal: status says what the running watches do, sync makes them ship now, and nobody but their user can ask. The compiled
// program and real sockets.
import { Database } from "bun:sqlite";
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { WatchReport } from "../../src/control.ts";
import { compiledBinary } from "../support/binary.ts";
import { textOf } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { expectOneError, succeed, walsync } from "./run.ts";

const dir = tempDir();
/** Longer than Bun's servers keep a connection on which nothing is said, unless they are told to. */
const IDLE_CONNECTION_MS = 13_000;
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
  env: Record<string, string>;
  apps: Record<string, Database>;
}

function makePlace(...names: string[]): Place {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  const apps = Object.fromEntries(
    names.map((name) => {
      const app = new Database(join(folder, `${name}.db`), { create: true });
      app.run("pragma journal_mode = wal");
      app.run("create table item (body)");
      return [name, app];
    }),
  );
  return { folder, bucket: join(folder, "bucket"), env: { XDG_RUNTIME_DIR: folder }, apps };
}

async function watch(
  { folder, bucket, env }: Place,
  ...args: string[]
): Promise<{ child: Bun.Subprocess; log: () => string }> {
  const child = Bun.spawn([compiledBinary(), "watch", ...args, "-b", bucket, "--no-metrics"], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  watchers.push(child);
  const log = textOf(child.stderr);
  for (let i = 0; i < 500 && !log().includes("snapshot shipped"); i++) await Bun.sleep(20);
  expect(log()).toContain("snapshot shipped");
  return { child, log };
}

async function statusOf({ env }: Place, ...args: string[]): Promise<WatchReport[]> {
  const { stdout } = await succeed(["status", "--json", ...args], { env });
  return (JSON.parse(stdout) as { watches: WatchReport[] }).watches;
}

describe("status", () => {
  test("of several processes and databases, as a table and as JSON", async () => {
    const place = makePlace("a", "b", "c");
    const first = await watch(place, "a.db", "b.db");
    const second = await watch(place, "c.db");
    await Bun.sleep(300);
    const watches = await statusOf(place);
    expect(watches.map(({ pid }) => pid).sort()).toEqual([first.child.pid, second.child.pid].sort());
    for (const { destination, version, started_at } of watches) {
      expect([destination, version.length > 0, Date.parse(started_at) > 0]).toEqual([place.bucket, true, true]);
    }
    const databases = watches.flatMap((one) => one.databases);
    expect(databases.map(({ name }) => name).sort()).toEqual(["a", "b", "c"]);
    for (const database of databases) {
      expect(database).toMatchObject({ state: "live", txid: 1, shipped_txid: 1, lag_transactions: 0, error: null });
      expect(Date.parse(database.shipped_at!)).toBeGreaterThan(Date.now() - 60_000);
    }
    const { stdout } = await succeed(["status"], { env: place.env });
    expect(stdout).toMatch(/^NAME +STATE +TXID +SHIPPED +LAG +OUTBOX +PROCESS$/m);
    expect(stdout).toMatch(new RegExp(`^c +live +1 +1 +- +0 B +${second.child.pid}$`, "m"));
    expect((await statusOf(place, "b")).flatMap((one) => one.databases).map(({ name }) => name)).toEqual(["b"]);
    expectOneError(await walsync(["status", "z"], { env: place.env }), "E_NOT_FOUND", /z: .*\nhint: There is: a, b, c/);
  });

  test("of a database that is in trouble says what it is", async () => {
    const place = makePlace("a");
    await watch(place, "a.db", "--wal-sync-interval", "0");
    place.apps.a!.close();
    rmSync(join(place.folder, "a.db"));
    let error: string | null = null;
    for (let i = 0; i < 100 && error === null; i++) {
      await Bun.sleep(50);
      error = (await statusOf(place))[0]!.databases[0]!.error;
    }
    expect(error).toContain("a.db");
    const { stdout } = await succeed(["status"], { env: place.env });
    expect(stdout).toMatch(/^error a: .*a\.db/m);
  });

  test("without a watch says so; what a dead one left is removed", async () => {
    const place = makePlace("a");
    expectOneError(
      await walsync(["status"], { env: place.env }),
      "E_NOT_FOUND",
      /running watch.*\nhint: .*walsync watch/,
    );
    const { child } = await watch(place, "a.db");
    const sockets = join(place.folder, "walsync");
    expect(readdirSync(sockets)).toEqual([`${child.pid}.sock`]);
    child.kill("SIGKILL");
    await child.exited;
    expectOneError(await walsync(["status"], { env: place.env }), "E_NOT_FOUND", /running watch/);
    expect(readdirSync(sockets)).toEqual([]);
  });
});

describe("sync", () => {
  test("ships at once what is committed, although the interval is long", async () => {
    const place = makePlace("a", "b");
    await watch(place, "a.db", "b.db", "--wal-sync-interval", "1h");
    for (const app of Object.values(place.apps)) {
      // The first capture after a pause is immediate; the next one would wait for an hour.
      for (let i = 0; i < 3; i++) {
        app.run("insert into item values (randomblob(100))");
        await Bun.sleep(60);
      }
    }
    const one = await succeed(["sync", "a", "--wait", "--json"], { env: place.env });
    const { databases } = JSON.parse(one.stdout) as { databases: { name: string; txid: number }[] };
    expect(databases.map(({ name }) => name)).toEqual(["a"]);
    const key = String(databases[0]!.txid).padStart(8, "0");
    expect(readdirSync(join(place.bucket, "a"))).toContain(`${key}-${key}.ltx`);
    const all = await succeed(["sync", "--wait"], { env: place.env });
    expect(all.stdout).toMatch(/^a: shipped up to txid \d+\nb: shipped up to txid \d+\n$/);
    const output = join(place.folder, "restored.db");
    await succeed(["restore", "b", "-o", output, "-b", place.bucket]);
    const restored = new Database(output, { readonly: true });
    expect(restored.query("select count(*) from item").values()).toEqual([[3]]);
    restored.close();
  });

  test("of a name that is not watched, and without a watch", async () => {
    const place = makePlace("a");
    expectOneError(await walsync(["sync"], { env: place.env }), "E_NOT_FOUND", /running watch/);
    await watch(place, "a.db");
    expectOneError(await walsync(["sync", "z"], { env: place.env }), "E_NOT_FOUND", /z: .*\nhint: There is: a/);
  });
});

describe("sync --wait, with a destination that does not answer", () => {
  const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  afterAll(() => silent.stop(true));
  const credentials = { AWS_ACCESS_KEY_ID: "key", AWS_SECRET_ACCESS_KEY: "secret-of-the-test" };

  test("waits as long as it takes, and hears of the end of the watch", async () => {
    const endOf = async (signal: NodeJS.Signals) => {
      const place = makePlace("a");
      const endpoint = `http://127.0.0.1:${silent.port}`;
      const args = [
        "a.db",
        "-b",
        "s3://bucket/x",
        "--endpoint",
        endpoint,
        "--no-metrics",
        "--shutdown-timeout",
        "100ms",
      ];
      const child = Bun.spawn([compiledBinary(), "watch", ...args], {
        cwd: place.folder,
        env: { PATH: process.env.PATH ?? "", ...place.env, ...credentials },
        stdio: ["ignore", "ignore", "ignore"],
      });
      watchers.push(child);
      while (!existsSync(join(place.folder, "walsync", `${child.pid}.sock`))) await Bun.sleep(20);
      const waiting = walsync(["sync", "a", "--wait"], { env: place.env });
      const tooLong = Bun.sleep(IDLE_CONNECTION_MS).then(() => null);
      expect(await Promise.race([waiting, tooLong])).toBeNull();
      child.kill(signal);
      return await waiting;
    };
    const [stopped, killed] = await Promise.all([endOf("SIGTERM"), endOf("SIGKILL")]);
    expectOneError(stopped, "E_UNREACHABLE", /a\.db: expected to capture and ship everything at the end/);
    expectOneError(killed, "E_UNREACHABLE", /a: expected .* process \d+, found that it has ended/);
  }, 30_000);
});

describe("the control socket", () => {
  test("is for its user alone, goes with a clean stop, and answers nothing else", async () => {
    const place = makePlace("a");
    const { child } = await watch(place, "a.db");
    const folder = join(place.folder, "walsync");
    const socket = join(folder, `${child.pid}.sock`);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(lstatSync(socket).mode & 0o777).toBe(0o600);
    const ask = (path: string, method = "GET") => fetch(`http://localhost${path}`, { unix: socket, method });
    expect((await ask("/")).status).toBe(404);
    expect((await ask("/sync?name=a")).status).toBe(404);
    expect((await ask("/sync?name=../a", "POST")).status).toBe(404);
    expect((await ask("/../../etc/passwd")).status).toBe(404);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  test("in a folder that leads elsewhere is not made: replication goes on without it, and says so", async () => {
    const place = makePlace("a");
    const elsewhere = join(place.folder, "elsewhere");
    mkdirSync(elsewhere);
    symlinkSync(elsewhere, join(place.folder, "walsync"));
    const { log } = await watch(place, "a.db");
    expect(log()).toMatch(/warn {2}no control socket.*E_DISK/);
    expect(readdirSync(elsewhere)).toEqual([]);
  });

  test.skipIf(process.getuid?.() !== 0)("in a folder of another user is neither made nor asked", async () => {
    const place = makePlace("a");
    const folder = join(place.folder, "walsync");
    mkdirSync(folder);
    writeFileSync(join(folder, "1.sock"), "");
    chownSync(folder, 65534, 65534);
    const { log } = await watch(place, "a.db");
    expect(log()).toMatch(/warn {2}no control socket.*E_DISK.*found one of user 65534/);
    expect(readdirSync(folder)).toEqual(["1.sock"]);
    expectOneError(await walsync(["status"], { env: place.env }), "E_DISK", /found one of user 65534/);
  });

  test("does not trip over files that are none", async () => {
    const place = makePlace("a");
    mkdirSync(join(place.folder, "walsync"));
    writeFileSync(join(place.folder, "walsync", "notes.txt"), "");
    writeFileSync(join(place.folder, "walsync", "999999999.sock"), "");
    expectOneError(await walsync(["status"], { env: place.env }), "E_NOT_FOUND", /running watch/);
    expect(readdirSync(join(place.folder, "walsync"))).toEqual(["notes.txt"]);
  });
});
