/** What a month of watching costs in requests: for two rhythms that anybody can picture, and for what a running watch measures. */
import { resolve } from "node:path";
import { runningWatches, type WatchReport } from "../control.ts";
import type { DatabasePlan } from "../engine/watch-plan.ts";
import { WalsyncError } from "../errors.ts";

export interface MonthlyCost {
  /** Databases that it is about. */
  databases: number;
  /** PUT and LIST requests. */
  writes: number;
  reads: number;
  dollars: number;
}

export interface MeasuredCost extends MonthlyCost {
  /** How long it was measured: the longest of the watches that count. */
  seconds: number;
}

export interface CostEstimates {
  /** Every database commits every second, or every minute. */
  busy: MonthlyCost;
  minute: MonthlyCost;
  /** As often as the watches that run ship; null if none of them has watched one of the databases for a minute. */
  measured: MeasuredCost | null;
}

interface CostedDatabase {
  path: string;
  plan: Pick<DatabasePlan, "replication" | "care">;
}

/** Without databases the two rhythms are for one with the plan `defaults`. */
export async function estimateCosts(
  databases: readonly CostedDatabase[],
  defaults: CostedDatabase["plan"],
  env: Readonly<Record<string, string | undefined>>,
): Promise<CostEstimates> {
  const all = databases.length > 0 ? databases : [{ path: "", plan: defaults }];
  const measured: { database: CostedDatabase; rhythm: Rhythm }[] = [];
  for (const rhythm of rhythmsOf(await watchesThatAnswer(env), Date.now())) {
    const database = databases.find(({ path }) => resolve(path) === rhythm.path);
    if (database !== undefined) measured.push({ database, rhythm });
  }
  return {
    busy: await costOf(all.map((database) => ({ database, everyMs: 1000 }))),
    minute: await costOf(all.map((database) => ({ database, everyMs: 60_000 }))),
    measured:
      measured.length === 0
        ? null
        : {
            ...(await costOf(measured.map(({ database, rhythm }) => ({ database, everyMs: rhythm.everyMs })))),
            seconds: Math.max(...measured.map(({ rhythm }) => rhythm.seconds)),
          },
  };
}

export interface Rhythm {
  path: string;
  /** Mean time between two increments; infinite if nothing was shipped. */
  everyMs: number;
  seconds: number;
}

/** How often each watched database shipped since its watch began; none from a watch that began a moment ago. */
export function rhythmsOf(watches: readonly WatchReport[], nowMs: number): Rhythm[] {
  return watches.flatMap(({ started_at, databases }) => {
    const watchedMs = nowMs - Date.parse(started_at);
    if (watchedMs < MEASURED_MS) return [];
    return databases.map(({ path, shipped_increments }) => ({
      path: resolve(path),
      everyMs: watchedMs / shipped_increments,
      seconds: Math.round(watchedMs / 1000),
    }));
  });
}

// --- internal ---

/** Shorter than this, a first burst would count for a month. */
const MEASURED_MS = 60_000;

/** A watch that is busy, or somebody else's, measures nothing for us: the other estimates stand without it. */
async function watchesThatAnswer(env: Readonly<Record<string, string | undefined>>): Promise<WatchReport[]> {
  try {
    return await runningWatches(env);
  } catch (error) {
    if (error instanceof WalsyncError) return [];
    throw error;
  }
}

async function costOf(all: readonly { database: CostedDatabase; everyMs: number }[]): Promise<MonthlyCost> {
  const { estimateRequests } = await import("../upkeep/cost.ts");
  const total = { databases: all.length, writes: 0, reads: 0, dollars: 0 };
  for (const { database, everyMs } of all) {
    // An idle database asks for nothing.
    if (!Number.isFinite(everyMs)) continue;
    const { replication, care } = database.plan;
    const { syncIntervalMs, snapshot } = replication;
    const mergeWindowsMs = care.merge?.windowsMs ?? [];
    const policy = { syncIntervalMs, snapshotIntervalMs: snapshot.intervalMs, mergeWindowsMs };
    const { writes, reads, dollars } = estimateRequests(policy, everyMs);
    total.writes += writes;
    total.reads += reads;
    total.dollars += dollars;
  }
  return total;
}
