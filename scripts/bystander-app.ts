/**
 * One connection of an application, as a process of its own: `bun bystander-app.ts '{"path":…}'` (see `AppSetup`). Says
 * "ready" when the database is open, begins when a line comes in on standard input, and prints an `AppReport` as JSON.
 */
import { Database } from "bun:sqlite";
import { readSync } from "node:fs";

export interface AppSetup {
  path: string;
  seconds: number;
  busyTimeoutMs: number;
  autocheckpoint: number;
  /** "flat-out"; so many transactions a second by the clock; or a pause of so many ms after each. */
  pace: "flat-out" | { perSecond: number } | { pauseMs: number };
  /** Checkpoints of its own, each after so many of its transactions. */
  checkpoint: { mode: "FULL" | "RESTART" | "TRUNCATE"; every: number } | null;
  /** Does not write, but holds one read transaction for this long. */
  readMs: number | null;
}

export interface AppReport {
  commits: number;
  elapsedMs: number;
  /** Transactions that ended in SQLITE_BUSY. */
  busy: number;
  writes: Latencies;
  checkpointsTried: number;
  checkpointsDone: number;
  checkpoints: Latencies;
}

/** Durations in buckets 2 % wide, so that those of several processes add up. */
export interface Latencies {
  maxMs: number;
  /** Bucket number -> count. */
  buckets: Record<number, number>;
}

export function mergeLatencies(all: readonly Latencies[]): Latencies {
  const merged = noLatencies();
  for (const { maxMs, buckets } of all) {
    merged.maxMs = Math.max(merged.maxMs, maxMs);
    for (const [bucket, count] of Object.entries(buckets)) {
      merged.buckets[Number(bucket)] = (merged.buckets[Number(bucket)] ?? 0) + count;
    }
  }
  return merged;
}

/** Upper edge of the bucket that holds this share of the durations; NaN without any. */
export function quantileMs({ buckets }: Latencies, share: number): number {
  const sorted = Object.entries(buckets)
    .map(([bucket, count]) => [Number(bucket), count] as const)
    .sort(([a], [b]) => a - b);
  let left = share * sorted.reduce((sum, [, count]) => sum + count, 0);
  for (const [bucket, count] of sorted) if ((left -= count) <= 0) return SMALLEST_MS * BUCKET_RATIO ** bucket;
  return Number.NaN;
}

// --- internal ---

function noLatencies(): Latencies {
  return { maxMs: 0, buckets: {} };
}

function addLatency(to: Latencies, ms: number): void {
  to.maxMs = Math.max(to.maxMs, ms);
  const bucket = Math.ceil(Math.log(Math.max(ms, SMALLEST_MS) / SMALLEST_MS) / Math.log(BUCKET_RATIO));
  to.buckets[bucket] = (to.buckets[bucket] ?? 0) + 1;
}

const SMALLEST_MS = 0.001;
const BUCKET_RATIO = 1.02;
const BODY = "x".repeat(200);

function open({ path, busyTimeoutMs, autocheckpoint }: AppSetup): Database {
  const database = new Database(path, { readwrite: true, create: false });
  database.run(`pragma busy_timeout = ${busyTimeoutMs}`);
  database.run("pragma synchronous = normal");
  database.run(`pragma wal_autocheckpoint = ${autocheckpoint}`);
  return database;
}

function write(setup: AppSetup): AppReport {
  const database = open(setup);
  const insert = database.query("insert into entry (body) values (?)");
  const { pace, checkpoint } = setup;
  const report: AppReport = {
    commits: 0,
    elapsedMs: 0,
    busy: 0,
    writes: noLatencies(),
    checkpointsTried: 0,
    checkpointsDone: 0,
    checkpoints: noLatencies(),
  };
  waitForStart();
  const startMs = performance.now();
  const endMs = startMs + setup.seconds * 1000;
  for (let i = 1; performance.now() < endMs; i++) {
    const beganMs = performance.now();
    try {
      insert.run(BODY);
      report.commits++;
    } catch (error) {
      if (!isBusy(error)) throw error;
      report.busy++;
    }
    addLatency(report.writes, performance.now() - beganMs);
    if (checkpoint !== null && i % checkpoint.every === 0) {
      const checkpointMs = performance.now();
      report.checkpointsTried++;
      if (checkpointed(database, checkpoint.mode)) report.checkpointsDone++;
      addLatency(report.checkpoints, performance.now() - checkpointMs);
    }
    if (pace === "flat-out") continue;
    const pauseMs = "pauseMs" in pace ? pace.pauseMs : startMs + (i * 1000) / pace.perSecond - performance.now();
    if (pauseMs > 0) Bun.sleepSync(pauseMs);
  }
  report.elapsedMs = performance.now() - startMs;
  database.close();
  return report;
}

/** True if the checkpoint did all that its mode promises. */
function checkpointed(database: Database, mode: string): boolean {
  try {
    return database.query(`pragma wal_checkpoint(${mode})`).values()[0]?.[0] === 0;
  } catch (error) {
    if (!isBusy(error)) throw error;
    return false;
  }
}

function read(setup: AppSetup, forMs: number): AppReport {
  const database = open(setup);
  waitForStart();
  database.run("begin");
  database.query("select count(*) from entry").get();
  Bun.sleepSync(forMs);
  database.run("commit");
  // Stays open, as an idle connection of a pool does.
  Bun.sleepSync(Math.max(0, setup.seconds * 1000 - forMs));
  database.close();
  const nothing = { commits: 0, elapsedMs: 0, busy: 0, checkpointsTried: 0, checkpointsDone: 0 };
  return { ...nothing, writes: noLatencies(), checkpoints: noLatencies() };
}

function waitForStart(): void {
  console.log("ready");
  readSync(0, Buffer.alloc(16), 0, 16, null);
}

function isBusy(error: unknown): boolean {
  return String((error as { code?: unknown }).code).startsWith("SQLITE_BUSY");
}

if (import.meta.main) {
  const setup = JSON.parse(process.argv[2] ?? "null") as AppSetup | null;
  if (setup === null) throw new Error("usage: bystander-app.ts SETUP");
  console.log(JSON.stringify(setup.readMs === null ? write(setup) : read(setup, setup.readMs)));
}
