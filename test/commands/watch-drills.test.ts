// Goal: a watch drills each of its databases in its turn, one at a time, out of the way of captures; what came of it is in the log,
// the metrics, the status and the webhook, and a stop leaves nothing behind. The compiled program and a real S3 server.
import { Database } from "bun:sqlite";
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { getPriority } from "node:os";
import { join } from "node:path";
import { STATUS_RESULT } from "../../src/commands/results.ts";
import type { WatchReport } from "../../src/control.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { parseExposition } from "../support/exposition.ts";
import { schemaFaults } from "../support/json-schema.ts";
import { tempDir } from "../support/temp.ts";
import { freePort, startVersitygw } from "../support/versitygw.ts";
import { s3Access, succeed } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const children = ownChildren();
setDefaultTimeout(40_000);
afterAll(() => server?.stop());

const ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

interface Started {
  child: Bun.Subprocess;
  port: number;
  folder: string;
  temp: string;
  apps: Database[];
  env: Record<string, string>;
  log: () => string;
}

/** A watch with new databases of these names and drills at this interval. */
function startWatch(names: string[], interval: string, url: string, ...args: string[]): Started {
  const folder = join(dir, crypto.randomUUID());
  const temp = join(folder, "temp");
  mkdirSync(temp, { recursive: true });
  const apps = names.map((name) => {
    const app = new Database(join(folder, `${name}.db`), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table users (id integer primary key, body)");
    app.run("insert into users (body) values (randomblob(9000))");
    return app;
  });
  return startAgain({ folder, temp, apps }, interval, url, ...args);
}

/** A watch with the databases that are there. */
function startAgain(
  { folder, temp, apps }: Pick<Started, "folder" | "temp" | "apps">,
  interval: string,
  url: string,
  ...args: string[]
): Started {
  const port = freePort();
  const paths = [...new Bun.Glob("*.db").scanSync({ cwd: folder })].sort();
  const flags = ["-b", url, "--metrics-port", String(port), "--drill-interval", interval, "--drill-temp-dir", temp];
  const env: Record<string, string> = { XDG_RUNTIME_DIR: folder, PATH: process.env.PATH ?? "" };
  if (server !== null && url.startsWith("s3:")) {
    const access = s3Access(server);
    Object.assign(env, access.env);
    flags.push(...access.flags);
  }
  const child = Bun.spawn([compiledBinary(), "watch", ...paths, ...flags, ...args], {
    cwd: folder,
    env,
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  children.push(child);
  return { child, port, folder, temp, apps, env, log: textOf(child.stderr) };
}

async function until<T>(
  what: () => T | undefined | false | Promise<T | undefined | false>,
  tell: () => string,
): Promise<T> {
  for (let i = 0; i < 750; i++) {
    const found = await what();
    if (found !== undefined && found !== false) return found;
    await Bun.sleep(20);
  }
  throw new Error(`waited in vain for ${what}:\n${tell()}`);
}

async function stop({ child, temp, log }: Started): Promise<void> {
  child.kill("SIGTERM");
  expect({ status: await child.exited, log: log() }).toMatchObject({ status: 0 });
  expect(readdirSync(temp)).toEqual([]);
}

/** Values of a metric by database. */
async function valuesOf({ port }: Started, metric: string): Promise<Record<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const samples = parseExposition(text).get(metric)?.samples ?? [];
  return Object.fromEntries(samples.map(({ labels, value }) => [labels.database ?? "", value]));
}

async function statusOf({ env }: Started): Promise<WatchReport["databases"]> {
  const report = JSON.parse((await succeed(["status", "--json"], { env })).stdout) as { watches: WatchReport[] };
  expect(schemaFaults(STATUS_RESULT, report)).toEqual([]);
  return report.watches.flatMap(({ databases }) => databases);
}

/** The processes of drills that restore below `folder`. One that a drill starts looks like the drill until it is another program. */
function drillsBelow(folder: string): number[] {
  const parents = new Map<number, number>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      if (words[1] !== "drill" || !words.some((word) => word.includes(folder))) continue;
      const ppid = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
      parents.set(Number(pid), Number(ppid));
    } catch {
      // It has ended.
    }
  }
  return [...parents].filter(([, ppid]) => !parents.has(ppid)).map(([pid]) => pid);
}

describe.skipIf(server === null)("drills of a watch on a bucket", () => {
  test("each database has its turn, one at a time, and again in the next interval", async () => {
    await server?.createBucket("drills");
    const names = ["a", "b", "c"];
    const watch = startWatch(names, "1.5s", "s3://drills/prod", "--drill-assert", "SELECT count(*) = 1 FROM users");
    let most = 0;
    const timesOf = (name: string) => watch.log().split(`restore drill went well database=${name} `).length - 1;
    await until(() => {
      most = Math.max(most, drillsBelow(watch.temp).length);
      return names.every((name) => timesOf(name) >= 2);
    }, watch.log);
    if (process.platform === "linux") expect(most).toBe(1);
    expect(await valuesOf(watch, "walsync_drill_ok")).toEqual({ a: 1, b: 1, c: 1 });
    for (const metric of ["walsync_drill_success_timestamp_seconds", "walsync_drill_rto_seconds"]) {
      const values = await valuesOf(watch, metric);
      expect(Object.keys(values).sort()).toEqual(names);
      for (const value of Object.values(values)) expect(value).toBeGreaterThan(0);
    }
    // Everything is shipped, and the child asked the watch whether it is.
    expect(await valuesOf(watch, "walsync_drill_rpo_seconds")).toEqual({ a: 0, b: 0, c: 0 });
    for (const { drill } of await statusOf(watch)) expect(drill).toMatchObject({ error: null, rpo_seconds: 0 });
    expect(watch.log()).not.toMatch(/ (error|warn) /);
    await stop(watch);
    const again = startAgain(watch, "7d", "s3://drills/prod");
    await until(() => again.log().includes("watching"), again.log);
    const before = (await statusOf(again)).map(({ name, drill }) => [name, drill?.error]);
    expect(before).toEqual(names.map((name) => [name, null]));
    expect(await valuesOf(again, "walsync_drill_ok")).toEqual({ a: 1, b: 1, c: 1 });
    await stop(again);
  });

  test("a failure is told by everything that tells, once by the webhook until it is over; health is that of replication", async () => {
    const bodies: Record<string, unknown>[] = [];
    const receiver = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: async (request) => {
        bodies.push((await request.json()) as Record<string, unknown>);
        return new Response("");
      },
    });
    const hook = `http://127.0.0.1:${receiver.port}/hook`;
    const sql = "SELECT count(*) > 1 FROM users";
    const args = ["--drill-assert", sql, "--webhook-url", hook, "--wal-sync-interval", "0"];
    const watch = startWatch(["app"], "1s", "s3://drills/bad", ...args);
    const { port, log } = watch;
    await until(() => log().split("restore drill failed").length > 2, log);
    expect(log()).toMatch(
      / error restore drill failed database=app code=E_DRILL error="app: expected this to be true: SELECT/,
    );
    expect(await valuesOf(watch, "walsync_drill_ok")).toEqual({ app: 0 });
    expect((await valuesOf(watch, "walsync_drill_failures_total")).app).toBeGreaterThan(1);
    expect(await valuesOf(watch, "walsync_drill_success_timestamp_seconds")).toEqual({});
    expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
    const { stdout } = await succeed(["status"], { env: watch.env });
    expect(stdout).toMatch(/^error app: restore drill of \S+Z: app: expected this to be true/m);
    expect((await statusOf(watch))[0]!.drill!.error).toContain(sql);
    watch.apps[0]!.run("insert into users (body) values ('second')");
    await until(() => bodies.length > 1, log);
    expect(bodies.map(({ event, code }) => [event, code])).toEqual([
      ["drill", "E_DRILL"],
      ["recovered", null],
    ]);
    expect(bodies[0]).toMatchObject({ database: "app", hint: expect.any(String) });
    expect(await valuesOf(watch, "walsync_drill_ok")).toEqual({ app: 1 });
    await stop(watch);
    receiver.stop(true);
  });
});

test.skipIf(process.platform !== "linux")(
  "a drill that takes long is nice, keeps no transaction waiting, and ends with the watch",
  async () => {
    const bucket = join(dir, "slow");
    const args = ["--drill-assert", ENDLESS, "--drill-assert-timeout", "10m", "--wal-sync-interval", "0"];
    const watch = startWatch(["app"], "1s", bucket, ...args);
    const pid = await until(() => drillsBelow(watch.temp)[0], watch.log);
    await until(() => readdirSync(watch.temp).length === 1, watch.log);
    expect(getPriority(pid)).toBe(10);
    for (let i = 0; i < 5; i++) {
      watch.apps[0]!.run("insert into users (body) values ('more')");
      const startedMs = performance.now();
      await succeed(["sync", "app", "--wait"], { env: watch.env });
      expect(performance.now() - startedMs).toBeLessThan(2000);
    }
    expect(drillsBelow(watch.temp)).toEqual([pid]);
    await stop(watch);
    expect(drillsBelow(watch.temp)).toEqual([]);
  },
);

test.skipIf(process.platform !== "linux")(
  "a drill that does not even clean up ends with the watch, also with one that cannot ship",
  async () => {
    const bucket = join(dir, "gone");
    const watch = startWatch(["app"], "1s", bucket, "--drill-assert", ENDLESS, "--shutdown-timeout", "50ms");
    const pid = await until(() => drillsBelow(watch.temp)[0], watch.log);
    await until(() => readdirSync(watch.temp).length === 1, watch.log);
    process.kill(pid, "SIGSTOP");
    rmSync(bucket, { recursive: true });
    writeFileSync(bucket, "no folder");
    watch.apps[0]!.run("insert into users (body) values ('left')");
    watch.child.kill("SIGTERM");
    expect(await watch.child.exited).toBe(3);
    const left = drillsBelow(watch.temp);
    for (const one of left) process.kill(one, "SIGKILL");
    expect(left).toEqual([]);
    // What it left is removed by the next one in that folder.
    expect(readdirSync(watch.temp)).toEqual([expect.stringMatching(/^walsync-drill-/)]);
  },
);

test("an entry of walsync.toml has assertions of its own; a reload changes them; a folder that is gone is a failure", async () => {
  const bucket = join(dir, "toml");
  const folder = join(dir, crypto.randomUUID());
  const temp = join(folder, "temp");
  mkdirSync(temp, { recursive: true });
  for (const name of ["a", "b"]) {
    const app = new Database(join(folder, `${name}.db`), { create: true });
    app.run("pragma journal_mode = wal");
    app.run(`create table ${name} (id)`);
    app.close();
  }
  const config = (extra: string) => `
[s3]
bucket = "${bucket}"
[drill]
interval = "1s"
temp_dir = "${temp}"
[[databases]]
path = "a.db"
drill = { assert = ["SELECT count(*) = 0 FROM a"] }
[[databases]]
path = "b.db"
drill = { assert = ["SELECT count(*) = 0 FROM b"${extra}] }
`;
  const file = join(folder, "walsync.toml");
  writeFileSync(file, config(""));
  const child = Bun.spawn([compiledBinary(), "watch", "--no-metrics"], {
    cwd: folder,
    env: { XDG_RUNTIME_DIR: folder },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  children.push(child);
  const log = textOf(child.stderr);
  for (const name of ["a", "b"]) await until(() => log().includes(`went well database=${name} `), log);
  expect(log()).not.toContain("restore drill failed");
  writeFileSync(file, config(', "SELECT 0"'));
  child.kill("SIGHUP");
  await until(() => /restore drill failed database=b code=E_DRILL .*SELECT 0/.test(log()), log);
  expect(log()).not.toContain("failed database=a");
  rmSync(temp, { recursive: true });
  await until(() => /restore drill failed database=a code=E_DISK .*expected a folder to restore into/.test(log()), log);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
});
