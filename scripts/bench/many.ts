/** `many`: a start with a thousand databases that are known from before, and ten thousand of which few are written to. */
import { join } from "node:path";
import type { Bucket } from "./bucket.ts";
import { type Contender, DEFAULT_PACE, type Pace } from "./contender.ts";
import { Applications, type BenchDatabase, contentOf, makeSmallDatabases } from "./databases.ts";
import { type Figures, type Situation, waitUntil } from "./measure.ts";
import { averageMemoryDuring } from "./memory.ts";
import { type Stage, untilReplicated } from "./stage.ts";
import { WRITE_EVERY_MS } from "./watching.ts";

export function manySituations(stage: Stage): Situation[] {
  const { startCount, manyCount } = stage.scale;
  return [
    {
      title: `start with ${startCount} databases that are known`,
      databases: null,
      entrants: stage.entrants((contender, folder, bucket) => measureStart(contender, folder, bucket, startCount)),
    },
    {
      title: `${manyCount.toLocaleString("en")} databases, 1 % of them active`,
      databases: null,
      entrants: stage.entrants((contender, folder, bucket) => measureMany(stage, contender, folder, bucket, manyCount)),
    },
  ];
}

// --- internal ---

const START_PACE: Pace = { ...DEFAULT_PACE, isVerbose: true };
const OBJECT_WITHIN_MS = 120_000;
const RESTORED_OF_EACH = 20;

async function measureStart(contender: Contender, folder: string, bucket: Bucket, count: number): Promise<Figures> {
  const databases = makeSmallDatabases(folder, count);
  const before = contender.watch(bucket, databases, DEFAULT_PACE);
  try {
    await untilReplicated(before, bucket, databases);
  } finally {
    await before.stop();
  }
  // The last one: whoever opens them one after the other comes to it last.
  const written = databases.at(-1)!;
  const application = new Applications([written]);
  const newest = bucket.newestIncrement(written.name);
  application.write(0);
  const program = contender.watch(bucket, databases, START_PACE);
  try {
    let stagedMs: number | null = null;
    void program.nextLine(" captured ").then((atMs) => (stagedMs = atMs));
    const isThere = () => {
      program.requireRunning();
      return bucket.newestIncrement(written.name) !== newest;
    };
    await waitUntil("an object of the first commit", isThere, OBJECT_WITHIN_MS, 2);
    const firstObject = (performance.now() - program.startedMs) / 1000;
    const { readMb } = program.read();
    return stagedMs === null
      ? { firstObject, readMb }
      : { firstStaged: (stagedMs - program.startedMs) / 1000, firstObject, readMb };
  } finally {
    await program.stop();
    application.close();
  }
}

async function measureMany(
  stage: Stage,
  contender: Contender,
  folder: string,
  bucket: Bucket,
  count: number,
): Promise<Figures> {
  const databases = makeSmallDatabases(folder, count);
  const active = databases.filter((_, i) => i % 100 === 50);
  const program = contender.watch(bucket, databases, DEFAULT_PACE);
  const applications = new Applications(active);
  let figures: Figures;
  try {
    await untilReplicated(program, bucket, databases);
    await Bun.sleep(stage.scale.settleMs);
    const settled = program.read();
    const memory = await averageMemoryDuring(program, applications.load(stage.scale.loadMs, WRITE_EVERY_MS));
    const loaded = program.read();
    const cpuMs = loaded.cpuMs - settled.cpuMs;
    figures = {
      rssSettled: settled.rssMb,
      rssLoaded: memory.rssMb,
      anonymousLoaded: memory.anonymousMb,
      peak: loaded.peakMb,
      cpuLoaded: cpuMs / (stage.scale.loadMs / 1000) / active.length,
    };
  } finally {
    // A stop ships what is left.
    await program.stop();
    applications.close();
  }
  const asleep = databases.filter((database) => !active.includes(database));
  return { ...figures, restored: await countRestored(contender, folder, bucket, [active, asleep]) };
}

async function countRestored(
  contender: Contender,
  folder: string,
  bucket: Bucket,
  groups: readonly (readonly BenchDatabase[])[],
): Promise<number> {
  let restored = 0;
  for (const group of groups) {
    const every = Math.max(1, Math.floor(group.length / RESTORED_OF_EACH));
    for (const database of group.filter((_, i) => i % every === 0).slice(0, RESTORED_OF_EACH)) {
      const output = join(folder, `restored-${database.name}.db`);
      await contender.restore(bucket, database, output);
      if (contentOf(output) === contentOf(database.path)) restored++;
    }
  }
  return restored;
}
