/** `fair`: how long commits of many databases wait to be captured while one large database is shipped whole. Only walsync says when. */
import { statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { MiB } from "../../src/bytes.ts";
import { BenchServer, type Bucket } from "./bucket.ts";
import { type Contender, DEFAULT_PACE, type Pace } from "./contender.ts";
import { Applications, type BenchDatabase, makeDatabase, makeSmallDatabases } from "./databases.ts";
import { type Figures, type Situation, waitUntil } from "./measure.ts";
import { type Scale, type Stage, untilReplicated } from "./stage.ts";
import { quantile } from "./statistics.ts";

export function fairSituations(stage: Stage): Situation[] {
  const { fairCount, fairMb } = stage.scale;
  const title = `${fairCount} databases with an insert each in ${WRITE_EVERY_MS / 1000} s`;
  return [
    { title, largeMb: null },
    { title: `${title}, beside the snapshot of one of ${fairMb} MB`, largeMb: fairMb },
  ].map(({ title, largeMb }) => ({
    title,
    databases: null,
    entrants: stage.contenders
      .filter(({ name }) => name === "walsync")
      .map((contender) => ({
        name: contender.name,
        measure: () => stage.inFolder((folder) => measureFairness(stage.scale, contender, folder, largeMb)),
      })),
  }));
}

/**
 * `largeMb`: the size of a database that is shipped whole meanwhile; null for none. Commits are spread evenly over the
 * databases and the time.
 */
export async function measureFairness(
  scale: Pick<Scale, "fairCount" | "fairMs">,
  contender: Contender,
  folder: string,
  largeMb: number | null,
): Promise<Figures> {
  const server = await BenchServer.start(serverFolder(largeMb ?? 0));
  try {
    return await measureWaits(scale, contender, folder, await server.makeBucket(), largeMb);
  } finally {
    await server.stop();
  }
}

// --- internal ---

async function measureWaits(
  { fairCount, fairMs }: Pick<Scale, "fairCount" | "fairMs">,
  contender: Contender,
  folder: string,
  bucket: Bucket,
  largeMb: number | null,
): Promise<Figures> {
  const databases = makeSmallDatabases(folder, fairCount);
  const large: BenchDatabase = { name: "large", path: `${folder}/large/app.db` };
  if (largeMb !== null) makeDatabase(large.path, largeMb * MiB);
  const applications = new Applications(databases);
  // Scans take turns in this order: the large one is read when all others are replicated.
  const program = contender.watch(bucket, largeMb === null ? databases : [...databases, large], PACE);
  const waits = new Waits();
  program.eachLine((line, atMs) => waits.captured(line, atMs));
  try {
    await untilReplicated(program, bucket, databases);
    const startMs = performance.now();
    const isOver = () => (largeMb === null ? performance.now() - startMs >= fairMs : bucket.filesOf(large.name) > 0);
    for (let i = 0; !isOver(); i++) {
      const { name } = databases[i % fairCount]!;
      applications.write(i);
      waits.committed(name, performance.now());
      await Bun.sleep(Math.max(0, startMs + ((i + 1) * WRITE_EVERY_MS) / fairCount - performance.now()));
      program.requireRunning();
    }
    await waitUntil("a capture of every commit", () => waits.pending === 0, CAPTURED_WITHIN_MS);
  } finally {
    await program.stop();
    applications.close();
  }
  return {
    stagedP50: quantile(waits.all, 0.5),
    stagedP99: quantile(waits.all, 0.99),
    stagedMax: Math.max(...waits.all),
  };
}

const PACE: Pace = { ...DEFAULT_PACE, intervalMs: 0, isVerbose: true };
/** Far from what the processor can do, so that whoever waits does so because of somebody else. */
const WRITE_EVERY_MS = 5000;
const CAPTURED_WITHIN_MS = 30_000;

const IN_MEMORY = "/dev/shm";

/**
 * An S3 server is another machine with another disk. Where both are one, its putting the parts of a large object together
 * is what every fsync on the machine waits for: with it in memory the wait that is measured is ours.
 */
function serverFolder(largeMb: number): string {
  try {
    const { bavail, bsize } = statfsSync(IN_MEMORY);
    // Parts, and the object that they are put together to.
    if (bavail * bsize > 2 * largeMb * MiB) return IN_MEMORY;
  } catch {
    // There is none.
  }
  return tmpdir();
}

/** From each commit to the line that tells of its capture. */
class Waits {
  readonly all: number[] = [];
  readonly #since = new Map<string, number>();

  get pending(): number {
    return this.#since.size;
  }

  committed(name: string, atMs: number): void {
    if (!this.#since.has(name)) this.#since.set(name, atMs);
  }

  captured(line: string, atMs: number): void {
    const name = / captured .*database=(\S+)/.exec(line)?.[1];
    const sinceMs = name === undefined ? undefined : this.#since.get(name);
    if (sinceMs === undefined) return;
    this.all.push(Math.max(0, atMs - sinceMs));
    this.#since.delete(name!);
  }
}
