/** The command line of the bench: which subcommands, how much of everything, and where the results go. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { compile } from "../build.ts";
import { BenchServer } from "./bucket.ts";
import { type Contender, litestream, walsync } from "./contender.ts";
import { costSituations } from "./cost.ts";
import { writeDocs } from "./docs.ts";
import { encodeSituations } from "./encode.ts";
import { fairSituations } from "./fair.ts";
import { latencySituations } from "./latency.ts";
import { manySituations } from "./many.ts";
import { measureSituation, type Result, type Situation } from "./measure.ts";
import { formatText, type Report, readReports, thisMachine } from "./report.ts";
import { FULL_SCALE, LARGE_MB, QUICK_SCALE, type Scale, Stage } from "./stage.ts";
import { idleSituations, jitSituations, rssSituations } from "./watching.ts";
import { restoreSituations, snapshotSituations } from "./whole.ts";

/** Returns the exit status: 1 if anything could not be measured, 2 for a wrong command line. */
export async function runBench(args: readonly string[]): Promise<number> {
  const request = parseRequest(args);
  if (typeof request === "string") {
    console.error(request);
    return request === HELP ? 0 : 2;
  }
  if (request.kind === "docs") {
    await writeDocs(readReports(request.paths));
    return 0;
  }
  const report = await measure(request);
  const json = `${JSON.stringify(report, null, 1)}\n`;
  if (request.out !== null) writeFileSync(request.out, json);
  process.stdout.write(request.isJson ? json : `${formatText(report.results)}\n`);
  return report.results.some(({ faults }) => faults.length > 0) ? 1 : 0;
}

// --- internal ---

/** In the order in which they run. */
const BENCHES: Record<string, { about: string; situations: (stage: Stage) => Situation[] }> = {
  rss: {
    about: "memory, settled and under load, and CPU under load, by number of databases",
    situations: rssSituations,
  },
  idle: { about: "CPU and S3 requests while nothing is written, by number of databases", situations: idleSituations },
  latency: { about: "from a commit to the file on disk and the object", situations: latencySituations },
  snapshot: { about: "a large database, shipped whole", situations: snapshotSituations },
  restore: {
    about: "a large database, restored; and one of a day of one-second increments",
    situations: restoreSituations,
  },
  many: { about: "a start with 1000 databases that are known; 10,000 with 1 % active", situations: manySituations },
  fair: {
    about: "how long commits wait to be captured beside the snapshot of a large database",
    situations: fairSituations,
  },
  encode: { about: "reading a WAL and encoding LTX, on one core", situations: encodeSituations },
  cost: { about: "S3 requests per hour, and what the options for batching save", situations: costSituations },
};
/** Not a part of "all": it decides how walsync is built, not how it compares. */
const JIT = { about: "builds of walsync with several JIT policies against each other", situations: jitSituations };
const JIT_POLICIES = [1, 50, 1000, 100_000];
const ROUNDS = 4;

const HELP = `usage: bun run bench [SUBCOMMAND...] [--rounds N] [--quick] [--large] [--databases N,N] [--json] [--out FILE]
       bun run bench docs REPORT...     writes docs/BENCHMARKS.md from what --out wrote

${Object.entries({ ...BENCHES, jit: JIT })
  .map(([name, { about }]) => `  ${name.padEnd(10)}${about}`)
  .join("\n")}
  all       everything but jit; the default

  --rounds N   how often each is measured, in turns; ${ROUNDS} by default. One round gives no ratios
  --quick      small databases and short times: minutes, and figures that say little
  --databases N,N   of rss and idle, instead of ${FULL_SCALE.databaseCounts.join(", ")}
  --large      a database of ${LARGE_MB} MB as well
  --json       the report as JSON on standard output
  --out FILE   and into a file`;

type Request =
  | { kind: "docs"; paths: string[] }
  | {
      kind: "measure";
      names: string[];
      rounds: number;
      isQuick: boolean;
      scale: Scale;
      isJson: boolean;
      out: string | null;
    };

/** A string is what to say instead. */
function parseRequest(args: readonly string[]): Request | string {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(args);
  } catch (error) {
    return `${(error as Error).message}\n\n${HELP}`;
  }
  const { values, positionals } = parsed;
  if (values.help === true) return HELP;
  if (positionals[0] === "docs") return { kind: "docs", paths: positionals.slice(1) };
  const unknown = positionals.find((name) => name !== "all" && name !== "jit" && BENCHES[name] === undefined);
  if (unknown !== undefined) return `expected a subcommand, found ${unknown}\n\n${HELP}`;
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) return `--rounds: expected 1 or more, found ${values.rounds}`;
  const names = positionals.length === 0 || positionals.includes("all") ? Object.keys(BENCHES) : positionals;
  const isQuick = values.quick === true;
  const base = isQuick ? QUICK_SCALE : FULL_SCALE;
  const databaseCounts = values.databases?.split(",").map(Number) ?? base.databaseCounts;
  if (!databaseCounts.every((count) => Number.isInteger(count) && count > 0)) {
    return `--databases: expected numbers such as 1,100, found ${values.databases}`;
  }
  const wholeMb = values.large === true ? [...base.wholeMb, LARGE_MB] : base.wholeMb;
  const scale = { ...base, databaseCounts, wholeMb };
  return { kind: "measure", names, rounds, isQuick, scale, isJson: values.json === true, out: values.out ?? null };
}

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: String(ROUNDS) },
      quick: { type: "boolean" },
      large: { type: "boolean" },
      databases: { type: "string" },
      json: { type: "boolean" },
      out: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
}

async function measure({ names, rounds, isQuick, scale }: Request & { kind: "measure" }): Promise<Report> {
  const startedAt = new Date().toISOString();
  const folder = mkdtempSync(join(tmpdir(), "walsync-builds-"));
  try {
    const ours = build(join(folder, "walsync"));
    const peer = litestream();
    if (peer === null)
      console.error("litestream is not installed: walsync is measured alone. Run ./scripts/test once.");
    const contenders = peer === null ? [ours] : [ours, peer];
    const results: Result[] = [];
    for (const name of names) {
      const entered =
        name === "jit" ? JIT_POLICIES.map((policy) => build(join(folder, `jit-${policy}`), policy)) : contenders;
      results.push(...(await measureBench(name, entered, scale, rounds)));
    }
    const versions = Object.fromEntries(contenders.map(({ name, version }) => [name, version]));
    return {
      version: 1,
      startedAt,
      machine: thisMachine(),
      versions: { ...versions, Bun: Bun.version, versitygw: BenchServer.version() },
      rounds,
      scale: isQuick ? "quick" : "full",
      results,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureBench(
  name: string,
  contenders: readonly Contender[],
  scale: Scale,
  rounds: number,
): Promise<Result[]> {
  const stage = await Stage.open(scale, contenders);
  try {
    const results: Result[] = [];
    for (const situation of (BENCHES[name] ?? JIT).situations(stage)) {
      results.push(await measureSituation(name, situation, rounds, (line) => console.error(line)));
    }
    return results;
  } finally {
    await stage.close();
  }
}

function build(outfile: string, jitPolicy?: number): Contender {
  if (compile({ outfile, jitPolicy }) !== 0) throw new Error("walsync: expected it to compile, found that it does not");
  return walsync(resolve(outfile), jitPolicy === undefined ? "walsync" : `JIT ${jitPolicy}`);
}
