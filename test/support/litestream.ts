/** The official Litestream, as its users run it: a process that replicates, and restores by the same program. */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { requireTool } from "./tools.ts";
import type { Versitygw } from "./versitygw.ts";

/** Where a replica lies. In a bucket `path` is the key's beginning, and may be "". */
export type LitestreamPlace =
  | { kind: "file"; path: string }
  | { kind: "s3"; server: Versitygw; bucket: string; path: string };

export interface LitestreamDatabase {
  path: string;
  place: LitestreamPlace;
}

/** Durations as Litestream writes them: "100ms", "1s". The defaults are those of the program. */
export interface LitestreamSettings {
  /** Intervals of level 1 and up. */
  levels?: readonly string[];
  snapshotInterval?: string;
  snapshotRetention?: string;
  /** How long a file of level 0 stays once level 1 holds it. */
  l0Retention?: string;
  /** Default here: "100ms". */
  syncInterval?: string;
  /** Pages. */
  minCheckpointPageCount?: number;
  checkpointInterval?: string;
}

export interface LitestreamRestore {
  /** Else the newest. A time is ISO 8601. */
  txid?: bigint;
  timestamp?: string;
}

export interface LitestreamRun {
  status: number;
  /** What it printed on both streams. */
  output: string;
}

/** Litestream with one generated litestream.yml in `folder`. */
export class Litestream {
  readonly configPath: string;
  readonly #program: string;
  #child: Bun.Subprocess | null = null;

  /** Null if Litestream is not installed (see `requireTool`). */
  static configured(
    folder: string,
    databases: readonly LitestreamDatabase[],
    settings: LitestreamSettings = {},
  ): Litestream | null {
    const program = requireTool("litestream");
    return program === null ? null : new Litestream(program, folder, databases, settings);
  }

  private constructor(
    program: string,
    folder: string,
    databases: readonly LitestreamDatabase[],
    settings: LitestreamSettings,
  ) {
    this.#program = program;
    mkdirSync(folder, { recursive: true });
    const own = mkdtempSync(join(folder, "litestream-"));
    this.configPath = join(own, "litestream.yml");
    // JSON is YAML.
    writeFileSync(this.configPath, JSON.stringify(configOf(databases, settings), null, 2));
  }

  /** Begins `litestream replicate`. It runs until `stop` or `kill`, or until the tests end. */
  start(): void {
    const log = Bun.file(`${this.configPath}.log`);
    const child = Bun.spawn([this.#program, "replicate", "-config", this.configPath], {
      env: environment(),
      stdin: "ignore",
      stdout: log,
      stderr: log,
    });
    this.#child = child;
    const onExit = (): void => child.kill("SIGKILL");
    process.on("exit", onExit);
    void child.exited.then(() => process.off("exit", onExit));
  }

  /** As a service manager stops it: what is committed is shipped. Returns what it logged. */
  async stop(): Promise<string> {
    return await this.#end("SIGTERM");
  }

  /** As a crash would. */
  async kill(): Promise<string> {
    return await this.#end("SIGKILL");
  }

  /** What the running program, or the one before, has logged. */
  async log(): Promise<string> {
    return await Bun.file(`${this.configPath}.log`).text();
  }

  /** One sync of all databases, and the end: `litestream replicate -once`. */
  async replicateOnce(...args: string[]): Promise<LitestreamRun> {
    return await this.run("replicate", "-config", this.configPath, "-once", ...args);
  }

  /** `litestream restore` of a database of the configuration. */
  async restore(databasePath: string, output: string, target: LitestreamRestore = {}): Promise<LitestreamRun> {
    const args = ["restore", "-config", this.configPath, "-o", output];
    if (target.txid !== undefined) args.push("-txid", target.txid.toString(16).padStart(16, "0"));
    if (target.timestamp !== undefined) args.push("-timestamp", target.timestamp);
    return await this.run(...args, databasePath);
  }

  /** Any command. */
  async run(...args: string[]): Promise<LitestreamRun> {
    const child = Bun.spawn([this.#program, ...args], {
      env: environment(),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    return { status: await child.exited, output: stdout + stderr };
  }

  async #end(signal: "SIGTERM" | "SIGKILL"): Promise<string> {
    const child = this.#child;
    if (child === null) throw new Error("litestream: expected it to run");
    this.#child = null;
    child.kill(signal);
    const killer = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
    await child.exited;
    clearTimeout(killer);
    return await this.log();
  }
}

// --- internal ---

const STOP_WITHIN_MS = 20_000;

/** Nothing of the machine's own settings: a foreign AWS_CA_BUNDLE breaks Litestream's client, and HOME may hold a profile. */
function environment(): Record<string, string> {
  return { PATH: process.env.PATH ?? "" };
}

function configOf(databases: readonly LitestreamDatabase[], settings: LitestreamSettings) {
  const { levels, snapshotInterval, snapshotRetention, l0Retention, syncInterval = "100ms" } = settings;
  return {
    snapshot: { interval: snapshotInterval, retention: snapshotRetention },
    "l0-retention": l0Retention,
    "l0-retention-check-interval": l0Retention === undefined ? undefined : "500ms",
    levels: levels?.map((interval) => ({ interval })),
    dbs: databases.map(({ path, place }) => ({
      path,
      "monitor-interval": syncInterval,
      "checkpoint-interval": settings.checkpointInterval,
      "min-checkpoint-page-count": settings.minCheckpointPageCount,
      replica: { ...replicaOf(place), "sync-interval": syncInterval },
    })),
  };
}

function replicaOf(place: LitestreamPlace) {
  if (place.kind === "file") return { type: "file", path: place.path };
  const { server, bucket, path } = place;
  return {
    type: "s3",
    bucket,
    path,
    endpoint: server.endpoint,
    region: server.region,
    "force-path-style": true,
    "access-key-id": server.accessKeyId,
    "secret-access-key": server.secretAccessKey,
  };
}
