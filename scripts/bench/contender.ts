/** The programs that are measured against each other, each as its users run it. */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { requireTool } from "../../test/support/tools.ts";
import type { Bucket } from "./bucket.ts";
import type { BenchDatabase } from "./databases.ts";
import { type Run, runToEnd } from "./processes.ts";
import { RunningProgram } from "./running-program.ts";

/** How eagerly commits are shipped. */
export interface Pace {
  /** Ship at most this often, in ms; null leaves it as each program has it: a second for both. 0 is as fast as it can. */
  intervalMs: number | null;
  /** Flags that only walsync has. A pace with some is not for Litestream. */
  walsyncFlags: readonly string[];
  /** Log each captured and each shipped file. */
  isVerbose: boolean;
}

export const DEFAULT_PACE: Pace = { intervalMs: null, walsyncFlags: [], isVerbose: false };

export interface Contender {
  name: string;
  version: string;
  /** Starts replicating; returns at once. */
  watch(bucket: Bucket, databases: readonly BenchDatabase[], pace: Pace): RunningProgram;
  /** Ships one database whole, from nothing. */
  snapshot(bucket: Bucket, database: BenchDatabase): Promise<Run>;
  /** Rebuilds the newest state at `output`, with SQLite's quick check. */
  restore(bucket: Bucket, database: BenchDatabase, output: string): Promise<Run>;
}

/** walsync as `binary`. `name` tells builds apart. */
export function walsync(binary: string, name = "walsync"): Contender {
  const version = Bun.spawnSync([binary, "--version"])
    .stdout.toString()
    .split("\n")[0]!
    .replace(/^walsync /, "");
  return {
    name,
    version,
    watch(bucket, databases, { intervalMs, walsyncFlags, isVerbose }) {
      const flags = [
        ...(intervalMs === null ? [] : ["--wal-sync-interval", String(intervalMs / 1000)]),
        ...(isVerbose ? ["--verbose"] : []),
        ...walsyncFlags,
      ];
      const named = databases.map((database) => `${database.name}=${database.path}`);
      // Metrics as by default, on a port that nobody else has.
      const command = [binary, "watch", "-b", `s3://${bucket.name}`, "--metrics-port", "0", ...flags, ...named];
      return new RunningProgram(name, command, bucket.env);
    },
    async snapshot(bucket, database) {
      const command = [binary, "snapshot", `${database.name}=${database.path}`, "-b", `s3://${bucket.name}`];
      return await runToEnd(command, bucket.env);
    },
    async restore(bucket, database, output) {
      return await runToEnd([binary, "restore", database.name, "-o", output, "-b", `s3://${bucket.name}`], bucket.env);
    },
  };
}

/** Null if Litestream is not installed. */
export function litestream(): Contender | null {
  const program = process.env.LITESTREAM ?? requireTool("litestream");
  if (program === null) return null;
  return {
    name: "litestream",
    version: Bun.spawnSync([program, "version"]).stdout.toString().trim(),
    watch(bucket, databases, pace) {
      const config = writeConfig(bucket, databases, pace.intervalMs);
      return new RunningProgram("litestream", [program, "replicate", "-config", config], bucket.env);
    },
    async snapshot(bucket, database) {
      const config = writeConfig(bucket, [database], null);
      return await runToEnd([program, "replicate", "-once", "-config", config], bucket.env);
    },
    async restore(bucket, database, output) {
      const config = writeConfig(bucket, [database], null);
      const command = [program, "restore", "-config", config, "-integrity-check", "quick", "-o", output, database.path];
      return await runToEnd(command, bucket.env);
    },
  };
}

// --- internal ---

/** Litestream looks at a database at this interval, and does not know 0. */
const FASTEST_MS = 10;

function writeConfig(bucket: Bucket, databases: readonly BenchDatabase[], intervalMs: number | null): string {
  const replica = {
    type: "s3",
    bucket: bucket.name,
    endpoint: bucket.endpoint,
    region: "us-east-1",
    "force-path-style": true,
  };
  const pace = intervalMs === null ? {} : { "sync-interval": `${Math.max(intervalMs, FASTEST_MS)}ms` };
  const look =
    intervalMs === null ? {} : { "monitor-interval": `${Math.min(1000, Math.max(intervalMs, FASTEST_MS))}ms` };
  const dbs = databases.map(({ name, path }) => ({ path, ...look, replica: { ...replica, path: name, ...pace } }));
  const file = join(dirname(dirname(databases[0]!.path)), `litestream-${bucket.name}.yml`);
  // JSON is YAML.
  writeFileSync(file, JSON.stringify({ dbs }));
  return file;
}
