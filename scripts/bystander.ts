/**
 * What walsync costs the application that owns the database: `bun run bystander [write] [checkpoints] [many] [growth]
 * [--seconds N] [--only TEXT] [--s3]`. Every case runs without and with the compiled program in the order A B B A, each
 * time on a fresh database with application processes of its own (scripts/bystander-app.ts), to a directory or, with
 * --s3, to versitygw. After each run with walsync a restore is compared with the source page by page.
 */
import { Database } from "bun:sqlite";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { table } from "../src/log.ts";
import { contentOf, differingPages } from "../test/support/databases.ts";
import { startVersitygw, type Versitygw } from "../test/support/versitygw.ts";
import { type AppReport, type AppSetup, type Latencies, mergeLatencies, quantileMs } from "./bystander-app.ts";

/** One run. */
export interface Scene {
  /** Databases at once; each has the same writers. */
  databases: number;
  /** Processes that write to each database. */
  writers: number;
  /** How many of them checkpoint. */
  checkpointers: number;
  /** Megabytes in the database when the run begins. */
  sizeMb: number;
  /** A process that reads each database holds one transaction for this share of the run; 0: there is none. */
  readerShare: number;
  app: Omit<AppSetup, "path" | "readMs">;
  /** Flags of `walsync watch`. */
  flags: readonly string[];
}

export interface Outcome {
  commits: number;
  perSecond: number;
  busy: number;
  writes: Latencies;
  checkpointsTried: number;
  checkpointsDone: number;
  checkpoints: Latencies;
  /** Largest size of a -wal file, in pages, in each quarter of the run. */
  walPages: number[];
  /** Share of the whole machine's processors that was in use. */
  machineShare: number;
  /** Only with walsync. */
  watch: {
    /** Processor time for each second, in ms. */
    cpuMsPerSecond: number;
    /** Events of its log and how often each came. */
    events: Record<string, number>;
    /** Lines of level warn and error. */
    complaints: string[];
    drainMs: number;
    exitStatus: number;
    /** Pages of all databases that a restore got wrong. */
    wrongPages: number;
  } | null;
}

export const SCENE: Scene = {
  databases: 1,
  writers: 1,
  checkpointers: 1,
  sizeMb: 0,
  readerShare: 0,
  app: { seconds: 5, busyTimeoutMs: 1000, autocheckpoint: 1000, pace: "flat-out", checkpoint: null },
  flags: [],
};

/** Where databases are replicated to. */
export interface Place {
  url: string;
  env: Record<string, string>;
}

/** Runs a scene in `folder`, which must not exist yet; with `binary` watching if it is not null. */
export async function play(scene: Scene, folder: string, binary: string | null, place: Place): Promise<Outcome> {
  mkdirSync(folder, { recursive: true });
  const template = join(folder, "template.db");
  createDatabase(template, scene.sizeMb);
  const paths = Array.from({ length: scene.databases }, (_, i) => join(folder, `db${i}`, "app.db"));
  for (const path of paths) {
    mkdirSync(join(path, ".."));
    copyFileSync(template, path);
  }
  const setups = paths.flatMap((path) => setupsOf(scene, path));
  const apps = await Promise.all(setups.map((setup) => startApp(setup)));
  const watch = binary === null ? null : await startWatch(binary, paths, scene.flags, place, join(folder, "watch.log"));
  const wal = new WalSizes(paths, scene.app.seconds * 1000);
  const [machineBefore, watchBefore] = [machineTicks(), watch === null ? 0 : processTicks(watch.pid)];
  const startMs = performance.now();
  for (const app of apps) app.begin();
  const reports = await Promise.all(apps.map(({ report }) => report));
  const seconds = (performance.now() - startMs) / 1000;
  const machineAfter = machineTicks();
  const watchTicks = watch === null ? 0 : processTicks(watch.pid) - watchBefore;
  const walPages = wal.stop();
  const sum = (of: (report: AppReport) => number) => reports.reduce((total, report) => total + of(report), 0);
  return {
    commits: sum(({ commits }) => commits),
    perSecond: sum(({ commits, elapsedMs }) => (commits === 0 ? 0 : (commits * 1000) / elapsedMs)),
    busy: sum(({ busy }) => busy),
    writes: mergeLatencies(reports.map(({ writes }) => writes)),
    checkpointsTried: sum(({ checkpointsTried }) => checkpointsTried),
    checkpointsDone: sum(({ checkpointsDone }) => checkpointsDone),
    checkpoints: mergeLatencies(reports.map(({ checkpoints }) => checkpoints)),
    walPages,
    machineShare: (machineAfter.busy - machineBefore.busy) / (machineAfter.all - machineBefore.all),
    watch:
      watch === null
        ? null
        : {
            cpuMsPerSecond: (watchTicks * MS_PER_TICK) / seconds,
            ...(await watch.stop()),
            wrongPages: await wrongPages(binary!, paths, place, folder),
          },
  };
}

// --- internal ---

const ROOT = join(import.meta.dir, "..");
const MS_PER_TICK = 10;
const PAGE_SIZE = 4096;
const FRAME_SIZE = PAGE_SIZE + 24;
const WAL_SAMPLE_MS = 10;
/** No divisor of anything, so that checkpoints meet captures at every distance. */
const EVERY = 97;

function createDatabase(path: string, sizeMb: number): void {
  const database = new Database(path);
  database.run(`pragma page_size = ${PAGE_SIZE}`);
  database.run("pragma journal_mode = wal");
  database.run("create table entry (id integer primary key, body text)");
  database.run("create table old (body blob)");
  const fill = database.query("insert into old values (randomblob(?))");
  database.transaction(() => {
    for (let i = 0; i < sizeMb * 10; i++) fill.run(100_000);
  })();
  database.run("pragma wal_checkpoint(truncate)");
  database.close();
}

function setupsOf({ writers, checkpointers, readerShare, app }: Scene, path: string): AppSetup[] {
  const setups = Array.from({ length: writers }, (_, i) => {
    const checkpoint = i < checkpointers ? app.checkpoint : null;
    return { ...app, path, readMs: null, checkpoint } as AppSetup;
  });
  if (readerShare > 0) setups.push({ ...app, path, readMs: readerShare * app.seconds * 1000 });
  return setups;
}

async function startApp(setup: AppSetup) {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "bystander-app.ts"), JSON.stringify(setup)], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const ready = Promise.withResolvers<void>();
  const report = (async (): Promise<AppReport> => {
    let output = "";
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      output += chunk;
      if (output.startsWith("ready\n")) ready.resolve();
    }
    const status = await child.exited;
    if (status !== 0) throw new Error(`${setup.path}: the application ended with exit status ${status}`);
    return JSON.parse(output.split("\n")[1]!) as AppReport;
  })();
  report.catch((error) => ready.reject(error));
  await ready.promise;
  const begin = (): void => {
    child.stdin.write("begin\n");
    child.stdin.end();
  };
  return { begin, report };
}

async function startWatch(
  binary: string,
  paths: readonly string[],
  flags: readonly string[],
  { url, env }: Place,
  log: string,
) {
  const named = paths.map((path, i) => `db${i}=${path}`);
  const all = [...named, "-b", url, "--verbose", "--shutdown-timeout", "60s", ...flags];
  const child = Bun.spawn([binary, "watch", ...all], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: Bun.file(log),
  });
  const lines = (): string[] => readFileSync(log, "utf8").trimEnd().split("\n");
  const deadlineMs = performance.now() + 60_000;
  while (lines().filter((line) => line.includes(" snapshot shipped ")).length < paths.length) {
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      child.kill("SIGKILL");
      throw new Error(`watch: expected a snapshot of each database, found:\n${lines().slice(-20).join("\n")}`);
    }
    await Bun.sleep(20);
  }
  const stop = async () => {
    const stopMs = performance.now();
    child.kill("SIGTERM");
    const exitStatus = await child.exited;
    const drainMs = performance.now() - stopMs;
    const events: Record<string, number> = {};
    for (const line of lines()) {
      const event = /^\S+ \w+ +(.+?)(?: +\w+=|$)/.exec(line)?.[1] ?? line;
      events[event] = (events[event] ?? 0) + 1;
    }
    const complaints = lines().filter((line) => /^\S+ (warn|error) /.test(line));
    return { events, complaints, drainMs, exitStatus };
  };
  return { pid: child.pid, stop };
}

/** Restores every database and compares it with what the application has. */
async function wrongPages(binary: string, paths: readonly string[], place: Place, folder: string): Promise<number> {
  let wrong = 0;
  for (const [i, path] of paths.entries()) {
    const output = join(folder, `restored${i}.db`);
    const child = Bun.spawn([binary, "restore", `db${i}`, "-o", output, "-b", place.url, "--quiet"], {
      env: { PATH: process.env.PATH ?? "", ...place.env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const complaint = await new Response(child.stderr).text();
    if ((await child.exited) !== 0) throw new Error(`restore of db${i}: ${complaint}`);
    wrong += differingPages(contentOf(path), contentOf(output)).length;
  }
  return wrong;
}

/** Looks at -wal files by name only: opening and closing them here would not harm, but it would not be the same either. */
class WalSizes {
  readonly #quarters = [0, 0, 0, 0];
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(paths: readonly string[], durationMs: number) {
    const startMs = performance.now();
    this.#timer = setInterval(() => {
      const quarter = Math.min(3, Math.floor((4 * (performance.now() - startMs)) / durationMs));
      for (const path of paths) {
        const size = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
        this.#quarters[quarter] = Math.max(this.#quarters[quarter]!, Math.floor(size / FRAME_SIZE));
      }
    }, WAL_SAMPLE_MS);
  }

  stop(): number[] {
    clearInterval(this.#timer);
    return this.#quarters;
  }
}

function machineTicks(): { busy: number; all: number } {
  const ticks = readFileSync("/proc/stat", "utf8").split("\n")[0]!.trim().split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((sum, each) => sum + each, 0);
  return { busy: all - ticks[3]! - ticks[4]!, all };
}

function processTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

// --- the program ---

interface Case {
  name: string;
  scene: Scene;
}

const PARTS = ["write", "checkpoints", "many", "growth"] as const;
type Part = (typeof PARTS)[number];

async function main(args: string[]): Promise<void> {
  const option = (name: string): string | undefined => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args.splice(at, 2)[1];
  };
  const seconds = Number(option("--seconds") ?? 5);
  const only = option("--only") ?? "";
  const s3 = args.includes("--s3");
  const parts = args.filter((arg) => arg !== "--s3");
  const known = parts.every((part) => (PARTS as readonly string[]).includes(part));
  if (!known || !(seconds > 0)) {
    throw new Error("usage: bystander.ts [write] [checkpoints] [many] [growth] [--seconds N] [--only TEXT] [--s3]");
  }
  process.env.WALSYNC_TOOLS ??= join(ROOT, ".cache/tools/bin");
  const server = s3 ? await startVersitygw() : null;
  if (s3 && server === null) throw new Error("versitygw is not installed: run scripts/test once");
  const work = mkdtempSync(join(tmpdir(), "walsync-bystander-"));
  try {
    const binary = build(join(work, "walsync"));
    const version = Bun.spawnSync([binary, "--version"]).stdout.toString().split("\n")[0];
    const machine = `${cpus().length} cores, ${process.platform} ${process.arch}`;
    console.log(`${version}; ${machine}; to ${s3 ? "S3" : "a directory"}; A B B A, ${seconds} s each`);
    const bench = new Bench(work, binary, server, seconds, only);
    for (const part of parts.length === 0 ? PARTS : (parts as Part[])) await bench[part]();
  } finally {
    await server?.stop();
    rmSync(work, { recursive: true, force: true });
  }
}

class Bench {
  #runs = 0;

  constructor(
    readonly work: string,
    readonly binary: string,
    readonly server: Versitygw | null,
    readonly seconds: number,
    readonly only: string,
  ) {}

  async write(): Promise<void> {
    const paced = { perSecond: 200 };
    const pages = ["--min-checkpoint-pages", "100"];
    const cases = [
      this.#case("200/s", { app: { pace: paced } }),
      this.#case("200/s, --wal-sync-interval 0", { app: { pace: paced }, flags: ["--wal-sync-interval", "0"] }),
      this.#case("200/s, 50 MB, snapshots", { app: { pace: paced }, sizeMb: 50, flags: SNAPSHOTS }),
      this.#case("unpaced", {}),
      this.#case("unpaced, --wal-sync-interval 0", { flags: ["--wal-sync-interval", "0"] }),
      this.#case("unpaced, 50 MB, snapshots", { sizeMb: 50, flags: SNAPSHOTS }),
      this.#case("unpaced, checkpoint at 100 pages", { flags: pages }),
      this.#case("unpaced, autocheckpoint 0", { app: { autocheckpoint: 0 } }),
      this.#case("unpaced, 3 writers", { writers: 3 }),
    ];
    const heads = ["tx/s", "ratio", "p50 ms", "p99", "p99.9", "max", "BUSY", ...WATCH_HEADS];
    await this.#table("write: single inserts, synchronous=NORMAL, busy_timeout 1000", heads, cases, (a, b, outcome) => [
      ...throughput(a, b, outcome),
      ...latency(outcome.writes),
      String(outcome.busy),
      ...watchCells(outcome),
    ]);
  }

  async checkpoints(): Promise<void> {
    const cases: Case[] = [];
    for (const mode of ["TRUNCATE", "RESTART", "FULL"] as const) {
      const app = { busyTimeoutMs: 5000, pace: { pauseMs: 4 }, checkpoint: { mode, every: EVERY } };
      cases.push(this.#case(mode, { app }));
      cases.push(this.#case(`${mode}, 3 writers`, { app, writers: 3 }));
      cases.push(this.#case(`${mode}, 50 MB, snapshots`, { app, sizeMb: 50, flags: SNAPSHOTS }));
      cases.push(this.#case(`${mode}, 50 MB, snapshots, 3 writers`, { app, writers: 3, sizeMb: 50, flags: SNAPSHOTS }));
      cases.push(this.#case(`${mode}, unpaced`, { app: { ...app, pace: "flat-out" } }));
    }
    const app = { busyTimeoutMs: 5000, pace: { pauseMs: 4 }, checkpoint: { mode: "TRUNCATE", every: EVERY } } as const;
    cases.push(this.#case("TRUNCATE by each of 3 writers", { app, writers: 3, checkpointers: 3 }));
    const title = `checkpoints: one in ${EVERY} transactions, 4 ms after each transaction, busy_timeout 5000`;
    await this.#table(title, CHECKPOINT_HEADS, cases, checkpointCells);
  }

  async many(): Promise<void> {
    const checkpoint = { mode: "TRUNCATE", every: EVERY } as const;
    const app = { busyTimeoutMs: 5000, pace: { pauseMs: 20 } } as const;
    const many = { databases: 20 };
    const cases = [
      this.#case("writes", { ...many, app }),
      this.#case("TRUNCATE", { ...many, app: { ...app, checkpoint } }),
      this.#case("RESTART", { ...many, app: { ...app, checkpoint: { ...checkpoint, mode: "RESTART" } } }),
      this.#case("FULL", { ...many, app: { ...app, checkpoint: { ...checkpoint, mode: "FULL" } } }),
      this.#case("TRUNCATE, snapshots", { ...many, app: { ...app, checkpoint }, flags: SNAPSHOTS }),
    ];
    const title = `many: 20 databases, one process each, 20 ms after each transaction, one checkpoint in ${EVERY}`;
    await this.#table(title, CHECKPOINT_HEADS, cases, checkpointCells);
  }

  async growth(): Promise<void> {
    const slow = { pauseMs: 1 };
    const growing = (name: string, autocheckpoint: number, minPages: number, more: Change = {}): Case =>
      this.#case(`${name}, autocheckpoint ${autocheckpoint}, --min-checkpoint-pages ${minPages}`, {
        ...more,
        app: { autocheckpoint, ...more.app },
        flags: ["--min-checkpoint-pages", String(minPages), ...(more.flags ?? [])],
      });
    const cases = [
      growing("unpaced", 0, 1000),
      growing("unpaced", 1000, 1000),
      growing("unpaced", 1000, 100),
      growing("unpaced", 1000, 10_000),
      growing("1 ms pause", 0, 100, { app: { pace: slow } }),
      growing("1 ms pause", 0, 1000, { app: { pace: slow } }),
      growing("1 ms pause", 1000, 1000, { app: { pace: slow } }),
      growing("1 ms pause, reader all the time", 1000, 100, { app: { pace: slow }, readerShare: 1 }),
      growing("1 ms pause, reader in the first half", 1000, 100, { app: { pace: slow }, readerShare: 0.5 }),
      growing("unpaced, reader in the first half", 1000, 1000, { readerShare: 0.5 }),
    ];
    const heads = ["tx/s", "ratio", "max write ms", "BUSY", "most pages in -wal, by quarters", "of 4 x min", "drain s"];
    const all = [...heads, ...WATCH_HEADS, "complaints"];
    await this.#table("growth of the -wal file", all, cases, (a, b, outcome, { scene }) => {
      const bound = 4 * Number(scene.flags[1]);
      return [
        ...throughput(a, b, outcome),
        outcome.writes.maxMs.toFixed(1),
        String(outcome.busy),
        outcome.walPages.join(" "),
        (Math.max(...outcome.walPages) / bound).toFixed(2),
        outcome.watch === null ? "" : (outcome.watch.drainMs / 1000).toFixed(1),
        ...watchCells(outcome),
        outcome.watch === null ? "" : [...new Set(outcome.watch.complaints.map(withoutTime))].join("; ") || "none",
      ];
    });
  }

  /** A B B A for each case, and a table with two lines for each. */
  async #table(
    title: string,
    heads: readonly string[],
    cases: readonly Case[],
    cells: (without: Outcome, withWalsync: Outcome, shown: Outcome, shownCase: Case) => string[],
  ): Promise<void> {
    const rows = [["case", "walsync", ...heads]];
    const seen: string[] = [];
    for (const each of cases.filter(({ name }) => name.includes(this.only))) {
      const outcomes: { without: Outcome[]; with: Outcome[] } = { without: [], with: [] };
      for (const who of ["without", "with", "with", "without"] as const)
        outcomes[who].push(await this.#play(each, who));
      const [a, b] = [merged(outcomes.without), merged(outcomes.with)];
      rows.push([each.name, "without", ...cells(a, b, a, each)], ["", "with", ...cells(a, b, b, each)]);
      seen.push(`${each.name}: ${eventsOf(b)}`);
      console.error(`${each.name}: ratio ${(b.perSecond / a.perSecond).toFixed(2)}`);
    }
    if (rows.length === 1) return;
    const right = heads.map((_, i) => i + 2).filter((i) => rows[0]![i] !== "complaints");
    console.log(`\n${title}\n${table(rows, right)}\n\nevents of walsync\n${seen.join("\n")}`);
  }

  async #play({ scene }: Case, who: "without" | "with"): Promise<Outcome> {
    const run = ++this.#runs;
    const folder = join(this.work, `run${run}`);
    try {
      return await play(scene, folder, who === "with" ? this.binary : null, await this.#place(folder, run));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  async #place(folder: string, run: number): Promise<Place> {
    if (this.server === null) return { url: `file://${folder}/destination`, env: {} };
    const { accessKeyId, secretAccessKey, endpoint } = this.server;
    await this.server.createBucket(`run-${run}`);
    const env = {
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_ENDPOINT_URL_S3: endpoint,
    };
    return { url: `s3://run-${run}`, env };
  }

  #case(name: string, change: Change): Case {
    const app = { ...SCENE.app, seconds: this.seconds, ...change.app };
    return { name, scene: { ...SCENE, ...change, app } };
  }
}

type Change = Partial<Omit<Scene, "app">> & { app?: Partial<Scene["app"]> };

const SNAPSHOTS = ["--snapshot-interval", "2s"];
const WATCH_HEADS = ["machine", "CPU ms/s", "yields", "resyncs", "wrong pages"];
const CHECKPOINT_HEADS = [
  "tx/s",
  "ratio",
  "checkpoints done",
  "share",
  "p50 ms",
  "p99",
  "max",
  "write p99",
  "max",
  "BUSY",
  "-wal pages",
  ...WATCH_HEADS,
];

function checkpointCells(a: Outcome, b: Outcome, outcome: Outcome): string[] {
  const { checkpointsDone, checkpointsTried, checkpoints, writes } = outcome;
  return [
    ...throughput(a, b, outcome),
    `${checkpointsDone} of ${checkpointsTried}`,
    checkpointsTried === 0 ? "" : (checkpointsDone / checkpointsTried).toFixed(3),
    quantileMs(checkpoints, 0.5).toFixed(2),
    quantileMs(checkpoints, 0.99).toFixed(1),
    checkpoints.maxMs.toFixed(1),
    quantileMs(writes, 0.99).toFixed(2),
    writes.maxMs.toFixed(1),
    String(outcome.busy),
    String(Math.max(...outcome.walPages)),
    ...watchCells(outcome),
  ];
}

function throughput(a: Outcome, b: Outcome, shown: Outcome): string[] {
  return [shown.perSecond.toFixed(0), shown === a ? "" : (b.perSecond / a.perSecond).toFixed(3)];
}

function latency(latencies: Latencies): string[] {
  const [p50, p99, p999] = [0.5, 0.99, 0.999].map((share) => quantileMs(latencies, share).toFixed(3));
  return [p50!, p99!, p999!, latencies.maxMs.toFixed(1)];
}

function watchCells({ machineShare, watch }: Outcome): string[] {
  const machine = `${(100 * machineShare).toFixed(0)} %`;
  if (watch === null) return [machine, "", "", "", ""];
  const { cpuMsPerSecond, events, wrongPages: wrong } = watch;
  const counts = ["yielded to a checkpoint", "comparing the whole database"].map((name) => String(events[name] ?? 0));
  return [machine, cpuMsPerSecond.toFixed(0), ...counts, String(wrong)];
}

/** The events that say what the program went through. */
function eventsOf({ watch }: Outcome): string {
  const { events, exitStatus } = watch!;
  const counts = Object.entries(events).map(([name, count]) => `${name} ${count}`);
  return [...counts, ...(exitStatus === 0 ? [] : [`exit status ${exitStatus}`])].join(", ");
}

function merged(outcomes: readonly Outcome[]): Outcome {
  const sum = (of: (outcome: Outcome) => number) => outcomes.reduce((total, outcome) => total + of(outcome), 0);
  const mean = (of: (outcome: Outcome) => number) => sum(of) / outcomes.length;
  const watches = outcomes.flatMap(({ watch }) => (watch === null ? [] : [watch]));
  const events: Record<string, number> = {};
  for (const watch of watches) {
    for (const [name, count] of Object.entries(watch.events)) events[name] = (events[name] ?? 0) + count;
  }
  return {
    commits: sum(({ commits }) => commits),
    perSecond: mean(({ perSecond }) => perSecond),
    busy: sum(({ busy }) => busy),
    writes: mergeLatencies(outcomes.map(({ writes }) => writes)),
    checkpointsTried: sum(({ checkpointsTried }) => checkpointsTried),
    checkpointsDone: sum(({ checkpointsDone }) => checkpointsDone),
    checkpoints: mergeLatencies(outcomes.map(({ checkpoints }) => checkpoints)),
    walPages: [0, 1, 2, 3].map((quarter) => Math.max(...outcomes.map(({ walPages }) => walPages[quarter]!))),
    machineShare: mean(({ machineShare }) => machineShare),
    watch:
      watches.length === 0
        ? null
        : {
            cpuMsPerSecond: mean(({ watch }) => watch!.cpuMsPerSecond),
            events,
            complaints: watches.flatMap(({ complaints }) => complaints),
            drainMs: Math.max(...watches.map(({ drainMs }) => drainMs)),
            exitStatus: Math.max(...watches.map(({ exitStatus }) => exitStatus)),
            wrongPages: sum(({ watch }) => watch!.wrongPages),
          },
  };
}

function withoutTime(line: string): string {
  return line.replace(/^\S+ /, "");
}

function build(path: string): string {
  const built = Bun.spawnSync([process.execPath, join(import.meta.dir, "build.ts"), path], { stderr: "pipe" });
  if (!built.success) throw new Error(`build failed: ${built.stderr.toString()}`);
  return path;
}

if (import.meta.main) await main(process.argv.slice(2));
