/**
 * Measures the compiled program on a real S3 server: `bun run bench [rss] [latency] [jit] [--rounds N]`, by default rss
 * and latency. Prints the lines that the README quotes. Every figure is the median of several rounds, with its range.
 */
import { Database } from "bun:sqlite";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { table } from "../src/log.ts";
import { startVersitygw, type Versitygw } from "../test/support/versitygw.ts";

const ROOT = join(import.meta.dir, "..");
const BINARY = join(ROOT, "dist", "walsync");
/** Long enough for the JIT, the allocator and the first snapshots to settle. */
const LOAD_MS = 15_000;
const WRITE_EVERY_MS = 500;
const LATENCY_COMMITS = 200;
const JIT_POLICIES = [1, 50, 1000, 100_000];

const args = process.argv.slice(2);
const roundsAt = args.indexOf("--rounds");
const rounds = roundsAt === -1 ? 3 : Number(args.splice(roundsAt, 2)[1]);
const parts = args.length === 0 ? ["rss", "latency"] : args;
const unknown = parts.filter((part) => !["rss", "latency", "jit"].includes(part));
if (unknown.length > 0 || !(rounds >= 1)) throw new Error("usage: bench.ts [rss] [latency] [jit] [--rounds N]");

process.env.WALSYNC_TOOLS ??= join(ROOT, ".cache/tools/bin");
const server = await startVersitygw();
if (server === null) throw new Error("versitygw is not installed: run scripts/test once");
const work = mkdtempSync(join(tmpdir(), "walsync-bench-"));
let buckets = 0;
try {
  build(BINARY);
  const version = Bun.spawnSync([BINARY, "--version"]).stdout.toString().split("\n")[0];
  console.log(`${version}; ${cpus().length} cores, ${process.platform} ${process.arch}; ${rounds} rounds`);
  if (parts.includes("rss")) await benchRss();
  if (parts.includes("latency")) await benchLatency();
  if (parts.includes("jit")) await benchJit();
} finally {
  await server.stop();
  rmSync(work, { recursive: true, force: true });
}

async function benchRss(): Promise<void> {
  const rows = [["databases", "RSS under load", "peak"]];
  for (const count of [1, 20]) {
    const samples: Memory[] = [];
    for (let round = 0; round < rounds; round++) samples.push(await memoryUnderLoad(BINARY, count));
    rows.push([
      String(count),
      spread(
        samples.map(({ rssMb }) => rssMb),
        "MB",
      ),
      spread(
        samples.map(({ peakMb }) => peakMb),
        "MB",
      ),
    ]);
  }
  console.log(`\nmemory: watch, one insert per ${WRITE_EVERY_MS} ms and database, after ${LOAD_MS / 1000} s`);
  console.log(table(rows, [0]));
}

async function benchLatency(): Promise<void> {
  const captured: number[][] = [];
  const shipped: number[][] = [];
  for (let round = 0; round < rounds; round++) {
    const result = await latencies(BINARY);
    captured.push(result.capturedMs);
    shipped.push(result.shippedMs);
  }
  const at = (samples: number[][], share: number) =>
    spread(
      samples.map((sample) => quantile(sample, share)),
      "ms",
    );
  console.log(`\nlatency: ${LATENCY_COMMITS} commits, --wal-sync-interval 0`);
  const rows = [
    ["from commit to", "p50", "p99"],
    ["file on disk", at(captured, 0.5), at(captured, 0.99)],
    ["object in S3", at(shipped, 0.5), at(shipped, 0.99)],
  ];
  console.log(table(rows));
}

/** Alternates the policies, so that whatever changes on the machine meanwhile meets them all. */
async function benchJit(): Promise<void> {
  const binaries = new Map(JIT_POLICIES.map((policy) => [policy, join(work, `walsync-${policy}`)]));
  for (const [policy, path] of binaries) build(path, policy);
  const samples = new Map(JIT_POLICIES.map((policy) => [policy, [] as (Memory & { p50: number; cpuMs: number })[]]));
  for (let round = 0; round < rounds; round++) {
    for (const [policy, path] of binaries) {
      const memory = await memoryUnderLoad(path, 20);
      const { capturedMs } = await latencies(path);
      samples.get(policy)!.push({ ...memory, p50: quantile(capturedMs, 0.5) });
    }
  }
  console.log("\nJIT policies: watch with 20 databases under load");
  const rows = [...samples].map(([policy, found]) => [
    String(policy),
    spread(
      found.map(({ rssMb }) => rssMb),
      "MB",
    ),
    spread(
      found.map(({ peakMb }) => peakMb),
      "MB",
    ),
    spread(
      found.map(({ cpuMs }) => cpuMs),
      "ms",
    ),
    spread(
      found.map(({ p50 }) => p50),
      "ms",
    ),
  ]);
  console.log(table([["policy", "RSS under load", "peak", "CPU time", "capture p50"], ...rows]));
}

interface Memory {
  rssMb: number;
  peakMb: number;
  /** Processor time of the whole run. */
  cpuMs: number;
}

/** Runs watch over `count` databases that are written to, and reads what the kernel says of the process. */
async function memoryUnderLoad(binary: string, count: number): Promise<Memory> {
  const databases = Array.from({ length: count }, (_, i) => createDatabase(`app${i}.db`));
  const watch = await startWatch(
    binary,
    databases.map(({ path }) => path),
    [],
  );
  const endMs = Date.now() + LOAD_MS;
  for (let i = 0; Date.now() < endMs; i++) {
    databases[i % count]!.write();
    await Bun.sleep(WRITE_EVERY_MS / count);
  }
  const status = readFileSync(`/proc/${watch.child.pid}/status`, "utf8");
  const [rss, peak] = ["VmRSS", "VmHWM"].map((name) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]));
  await watch.stop();
  for (const { close } of databases) close();
  const usage = watch.child.resourceUsage()!;
  return { rssMb: rss! / 1024, peakMb: peak! / 1024, cpuMs: Number(usage.cpuTime.total) / 1000 };
}

/** Milliseconds from the end of a commit in this process to the line that says it is captured, and shipped. */
async function latencies(binary: string): Promise<{ capturedMs: number[]; shippedMs: number[] }> {
  const database = createDatabase("latency.db");
  const watch = await startWatch(binary, [database.path], ["--wal-sync-interval", "0", "--verbose"]);
  const capturedMs: number[] = [];
  const shippedMs: number[] = [];
  for (let i = 0; i < LATENCY_COMMITS; i++) {
    const captured = watch.line(/ captured /);
    const shipped = watch.line(/ shipped /);
    database.write();
    const committedAt = performance.now();
    capturedMs.push((await captured) - committedAt);
    shippedMs.push((await shipped) - committedAt);
    await Bun.sleep(20);
  }
  await watch.stop();
  database.close();
  return { capturedMs, shippedMs };
}

function createDatabase(name: string) {
  const folder = mkdtempSync(join(work, "db-"));
  const path = join(folder, name);
  const database = new Database(path);
  database.run("pragma journal_mode = wal");
  database.run("create table entry (id integer primary key, body text)");
  const insert = database.query("insert into entry (body) values (?)");
  return { path, write: () => insert.run("x".repeat(200)), close: () => database.close() };
}

async function startWatch(binary: string, paths: readonly string[], flags: readonly string[]) {
  const bucket = `bench-${++buckets}`;
  const s3 = server as Versitygw;
  await s3.createBucket(bucket);
  const named = paths.map((path, i) => `db${i}=${path}`);
  const child = Bun.spawn([binary, "watch", ...named, "-b", `s3://${bucket}`, ...flags], {
    env: {
      PATH: process.env.PATH ?? "",
      AWS_ACCESS_KEY_ID: s3.accessKeyId,
      AWS_SECRET_ACCESS_KEY: s3.secretAccessKey,
      AWS_ENDPOINT_URL_S3: s3.endpoint,
    },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const waiting = new Set<{ pattern: RegExp; resolve: (at: number) => void }>();
  const line = (pattern: RegExp): Promise<number> => new Promise((resolve) => waiting.add({ pattern, resolve }));
  void (async () => {
    for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
      const at = performance.now();
      for (const waiter of waiting) {
        if (!waiter.pattern.test(chunk)) continue;
        waiting.delete(waiter);
        waiter.resolve(at);
      }
    }
  })();
  for (const _ of paths) await line(/ snapshot shipped /);
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    const status = await child.exited;
    if (status !== 0) throw new Error(`watch: expected exit status 0, found ${status}`);
  };
  return { child, line, stop };
}

function build(path: string, policy?: number): void {
  mkdirSync(join(path, ".."), { recursive: true });
  const command = [
    process.execPath,
    join(ROOT, "scripts/build.ts"),
    path,
    ...(policy === undefined ? [] : [`${policy}`]),
  ];
  const built = Bun.spawnSync(command, { stdout: "ignore", stderr: "pipe" });
  if (!built.success || !existsSync(path)) throw new Error(`build failed: ${built.stderr.toString()}`);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

/** "48.1 MB (47.9 to 48.3)": median and range over the rounds. */
function spread(values: readonly number[], unit: string): string {
  const [low, middle, high] = [0, 0.5, 1].map((share) => quantile(values, share).toFixed(1));
  return values.length === 1 ? `${middle} ${unit}` : `${middle} ${unit} (${low} to ${high})`;
}
