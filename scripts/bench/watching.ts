/** `rss`, `idle` and `jit`: memory, processor time and requests of a program that watches databases. */
import { requestsBetween, totalOf } from "./bucket.ts";
import { type Contender, DEFAULT_PACE } from "./contender.ts";
import { Applications, makeSmallDatabases } from "./databases.ts";
import type { Figures, Situation } from "./measure.ts";
import { averageMemoryDuring } from "./memory.ts";
import type { RunningProgram } from "./running-program.ts";
import { type Stage, untilReplicated } from "./stage.ts";

/** One insert per database at this interval is what "under load" means. */
export const WRITE_EVERY_MS = 500;

export function rssSituations(stage: Stage): Situation[] {
  return stage.scale.databaseCounts.map((count) => memoryAt(stage, count));
}

export function idleSituations(stage: Stage): Situation[] {
  const { databaseCounts, idleSettleMs, idleMs } = stage.scale;
  return databaseCounts.map((count) => ({
    title: databasesTitle(count),
    databases: count,
    entrants: stage.entrants((contender, folder, bucket) =>
      whileWatching(contender, folder, bucket, count, async (program) => {
        await Bun.sleep(idleSettleMs);
        const [before, requestsBefore, startMs] = [program.read(), bucket.requests(), performance.now()];
        await Bun.sleep(idleMs);
        const [after, requestsAfter, tookMs] = [program.read(), bucket.requests(), performance.now() - startMs];
        return {
          idleCpu: ((after.cpuMs - before.cpuMs) / tookMs) * 100,
          idleRequests: (totalOf(requestsBetween(requestsBefore, requestsAfter)) / tookMs) * 60_000,
        };
      }),
    ),
  }));
}

/** Builds of walsync with another JIT policy against each other: what scripts/build.ts was decided by. */
export function jitSituations(stage: Stage): Situation[] {
  return [memoryAt(stage, JIT_DATABASES)];
}

// --- internal ---

function databasesTitle(count: number): string {
  return count === 1 ? "1 database" : `${count} databases`;
}

const JIT_DATABASES = 20;

function memoryAt(stage: Stage, count: number): Situation {
  const { settleMs, loadMs } = stage.scale;
  const entrants = stage.entrants((contender, folder, bucket) =>
    whileWatching(contender, folder, bucket, count, async (program, applications) => {
      await Bun.sleep(settleMs);
      const [settled, requestsBefore, startMs] = [program.read(), bucket.requests(), performance.now()];
      const memory = await averageMemoryDuring(program, applications.load(loadMs, WRITE_EVERY_MS));
      const [loaded, requestsAfter] = [program.read(), bucket.requests()];
      const seconds = (performance.now() - startMs) / 1000;
      const cpuMs = loaded.cpuMs - settled.cpuMs;
      const { writes } = requestsBetween(requestsBefore, requestsAfter);
      return {
        rssSettled: settled.rssMb,
        anonymousSettled: settled.anonymousMb,
        rssLoaded: memory.rssMb,
        anonymousLoaded: memory.anonymousMb,
        peak: loaded.peakMb,
        cpuLoaded: cpuMs / seconds / count,
        ...(writes === 0 ? {} : { cpuPerObject: cpuMs / writes }),
        inserted: applications.written / seconds,
        objects: writes / seconds,
      };
    }),
  );
  return { title: databasesTitle(count), databases: count, entrants };
}

/** Runs `action` once every database is replicated. Their applications have them open, as they do in real life. */
async function whileWatching(
  contender: Contender,
  folder: string,
  bucket: Parameters<Contender["watch"]>[0],
  count: number,
  action: (program: RunningProgram, applications: Applications) => Promise<Figures>,
): Promise<Figures> {
  const databases = makeSmallDatabases(folder, count);
  const applications = new Applications(databases);
  const program = contender.watch(bucket, databases, DEFAULT_PACE);
  try {
    await untilReplicated(program, bucket, databases);
    return await action(program, applications);
  } finally {
    await program.stop();
    applications.close();
  }
}
