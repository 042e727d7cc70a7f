// Goal: size changes nothing: a database that grows across the lock page at 1 GiB, and one transaction of 500 MB, come back
// page by page, and memory stays where it is. The compiled program, real SQLite, a directory.
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { compiledBinary, runBinary } from "../support/binary.ts";
import { onText } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;
const RSS_MAX_MB = 200;
const dir = tempDir();

class Watch implements AsyncDisposable {
  readonly child: Bun.Subprocess<"ignore", "ignore", "pipe">;
  log = "";

  constructor(path: string, bucket: string) {
    const args = ["watch", path, "-b", bucket, "--no-metrics", "--wal-sync-interval", "0", "--shutdown-timeout", "60"];
    const child = Bun.spawn([compiledBinary(), ...args], {
      env: { PATH: process.env.PATH ?? "" },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    this.child = child;
    onText(child.stderr, (text) => {
      this.log += text;
    });
  }

  /** The kernel's own high-water mark, in megabytes. */
  peakMb(): number {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${this.child.pid}/status`, "utf8"))?.[1]) / 1024;
  }

  async until(object: string): Promise<void> {
    for (let i = 0; i < 600 && !existsSync(object); i++) await Bun.sleep(100);
    expect({ object, exists: existsSync(object), log: this.log }).toMatchObject({ exists: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.exited;
  }

  async stop(): Promise<void> {
    this.child.kill("SIGTERM");
    expect({ status: await this.child.exited, log: this.log }).toMatchObject({ status: 0 });
    expect(this.log).not.toMatch(/ (error|warn) /);
  }
}

/** The first byte at which two files differ, or -1. In small pieces: the files are larger than memory should be. */
function firstDifference(one: string, other: string): number {
  expect(statSync(other).size).toBe(statSync(one).size);
  const [a, b] = [openSync(one, "r"), openSync(other, "r")];
  const [left, right] = [Buffer.alloc(4 * MiB), Buffer.alloc(4 * MiB)];
  try {
    for (let at = 0; ; ) {
      const filled = readSync(a, left, 0, left.byteLength, at);
      readSync(b, right, 0, right.byteLength, at);
      if (filled === 0) return -1;
      if (Buffer.compare(left.subarray(0, filled), right.subarray(0, filled)) !== 0) return at;
      at += filled;
    }
  } finally {
    closeSync(a);
    closeSync(b);
  }
}

function place(name: string) {
  const folder = join(dir, name);
  mkdirSync(folder);
  const bucket = join(folder, "bucket");
  return { folder, bucket, path: join(folder, "app.db"), object: (key: string) => join(bucket, "app", `${key}.ltx`) };
}

const key = (minTxid: number, maxTxid: number) => [minTxid, maxTxid].map((n) => String(n).padStart(8, "0")).join("-");

async function restore(bucket: string, output: string, ...args: string[]): Promise<void> {
  expect(await runBinary(["restore", "app", "-o", output, "-b", bucket, ...args])).toMatchObject({ status: 0 });
}

test.each([65536, 4096])(
  "a database of %d-byte pages grows across the lock page",
  async (pageSize) => {
    const { folder, bucket, path, object } = place(`lock-${pageSize}`);
    const app = new Database(path, { create: true });
    app.run(`pragma page_size = ${pageSize}`);
    app.run("pragma journal_mode = off");
    app.run("pragma synchronous = off");
    app.run("create table item (id integer primary key, body)");
    const pages = () => Number(app.query("pragma page_count").values()[0]![0]);
    // Zeros: they are quick to write and to compress; the random rows at both sides of the lock page are not.
    while (pages() * pageSize < GiB - 40 * MiB) app.run("insert into item (body) values (zeroblob(?))", [32 * MiB]);
    while (pages() * pageSize < GiB - 2 * MiB) app.run("insert into item (body) values (randomblob(?))", [MiB]);
    app.run("pragma journal_mode = wal");
    const lockPgno = GiB / pageSize + 1;
    expect(pages()).toBeLessThan(lockPgno);

    await using watcher = new Watch(path, bucket);
    await watcher.until(object(key(1, 1)));
    app.run("insert into item (body) values (randomblob(?))", [5 * MiB]);
    expect(pages()).toBeGreaterThan(lockPgno);
    await watcher.until(object(key(2, 2)));
    app.run("update item set body = randomblob(?) where id = (select max(id) from item)", [4 * MiB]);
    await watcher.until(object(key(3, 3)));
    const peakMb = watcher.peakMb();
    await watcher.stop();
    // A snapshot of a database that holds the lock page.
    expect(await runBinary(["snapshot", path, "-b", bucket])).toMatchObject({ status: 0 });
    expect(existsSync(object(key(1, 3)))).toBe(true);
    app.run("pragma wal_checkpoint(truncate)");
    app.close();

    const ltx = requireTool("ltx");
    if (ltx !== null) {
      for (const name of [key(1, 3), key(2, 2), key(3, 3)]) {
        expect(Bun.spawnSync([ltx, "verify", object(name)])).toMatchObject({ exitCode: 0 });
      }
    }
    const output = join(folder, "restored.db");
    await restore(bucket, output);
    expect(firstDifference(path, output)).toBe(-1);
    // From increments across the lock page, without the second snapshot.
    rmSync(object(key(1, 3)));
    await restore(bucket, output, "--force");
    expect(firstDifference(path, output)).toBe(-1);
    expect(peakMb).toBeLessThan(RSS_MAX_MB);
    rmSync(folder, { recursive: true });
  },
  240_000,
);

test("one transaction of 500 MB", async () => {
  const { folder, bucket, path, object } = place("transaction");
  const app = new Database(path, { create: true });
  app.run("pragma journal_mode = wal");
  app.run("create table item (id integer primary key, body)");
  await using watcher = new Watch(path, bucket);
  await watcher.until(object(key(1, 1)));
  const before = watcher.peakMb();
  app.transaction(() => {
    for (let i = 0; i < 50; i++) {
      // Half of it does not compress.
      app.run("insert into item (body) values (randomblob(?)), (zeroblob(?))", [5 * MiB, 5 * MiB]);
    }
  })();
  await watcher.until(object(key(2, 2)));
  const peakMb = watcher.peakMb();
  await watcher.stop();
  expect(readdirSync(join(bucket, "app")).filter((name) => name.endsWith(".ltx"))).toHaveLength(2);
  app.run("pragma wal_checkpoint(truncate)");
  app.close();
  const output = join(folder, "restored.db");
  await restore(bucket, output);
  expect(firstDifference(path, output)).toBe(-1);
  console.log(`a transaction of 500 MB: peak RSS ${before.toFixed(0)} MB before, ${peakMb.toFixed(0)} MB with it`);
  expect(peakMb).toBeLessThan(RSS_MAX_MB);
}, 240_000);
