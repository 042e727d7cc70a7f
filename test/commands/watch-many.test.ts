// Goal: a watch of many databases holds few of them open, also before their chains begin.
import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { freePort } from "../support/versitygw.ts";
import { succeed } from "./run.ts";

const dir = tempDir();
const children = ownChildren();
setDefaultTimeout(40_000);

const COUNT = 60;
const MAX_PINNED = 5;
/** Whole databases that are read at once, and some that are on their way to or from sleep. */
const OTHERS = 8;

/** Databases of which the process has the WAL open. */
function connected(pid: number): number {
  const targets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return ""; // Closed meanwhile.
    }
  });
  return new Set(targets.filter((target) => target.endsWith("-wal"))).size;
}

function makeDatabases(): string {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  for (let i = 0; i < COUNT; i++) {
    const app = new Database(join(folder, `${i}.db`), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (body)");
    app.run("insert into item values (randomblob(20000))");
    app.close();
  }
  return folder;
}

function watch(folder: string, destination: string, env: Record<string, string> = {}) {
  const flags = ["--no-metrics", "--max-pinned", String(MAX_PINNED), "-b", destination];
  const child = Bun.spawn([compiledBinary(), "watch", folder, ...flags], {
    env: { XDG_RUNTIME_DIR: folder, PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  children.push(child);
  return { child, log: textOf(child.stderr) };
}

test.skipIf(process.platform !== "linux")("while the destination does not answer", async () => {
  const credentials = { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b", AWS_REGION: "us-east-1" };
  const endpoint = `http://127.0.0.1:${freePort()}`;
  const { child, log } = watch(makeDatabases(), "s3://bucket", { ...credentials, AWS_ENDPOINT_URL_S3: endpoint });
  while (!log().includes("watching")) await Bun.sleep(20);
  await Bun.sleep(300);
  expect(connected(child.pid)).toBeLessThanOrEqual(MAX_PINNED);
  child.kill("SIGKILL");
});

test.skipIf(process.platform !== "linux")("while all of them are read for the first time", async () => {
  const folder = makeDatabases();
  const bucket = join(dir, crypto.randomUUID());
  const { child, log } = watch(folder, bucket);
  let most = 0;
  const replicating = () => log().split(" replicating database=").length - 1;
  for (let i = 0; i < 1000 && replicating() < COUNT; i++) {
    if (log().includes("watching")) most = Math.max(most, connected(child.pid));
    await Bun.sleep(10);
  }
  expect(replicating()).toBe(COUNT);
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(MAX_PINNED + OTHERS);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  const { stdout } = await succeed(["verify", "--all", "--json", "-b", bucket]);
  expect(stdout.match(/"ok": ?true/g)).toHaveLength(COUNT);
});

test.skipIf(process.platform !== "linux")(
  "that are known, and nobody touched, none is read again, also after a kill",
  async () => {
    const folder = makeDatabases();
    const bucket = join(dir, crypto.randomUUID());
    // A file that was written to a moment ago may be written to again without a later time.
    await Bun.sleep(3100);
    const count = (log: string, text: string) => log.split(text).length - 1;
    for (const end of ["SIGKILL", "SIGTERM", "SIGTERM"] as const) {
      const { child, log } = watch(folder, bucket);
      for (let i = 0; i < 1000 && count(log(), " replicating database=") < COUNT; i++) await Bun.sleep(10);
      expect(count(log(), " replicating database=")).toBe(COUNT);
      expect(log()).not.toContain("comparing the whole database");
      // The last snapshot's record and manifest.
      await Bun.sleep(500);
      child.kill(end);
      await child.exited;
    }
  },
);
