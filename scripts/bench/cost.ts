/** `cost`: S3 requests of a database that is written to in bursts, and what the options for batching save. */
import { requestsBetween } from "./bucket.ts";
import { type Contender, DEFAULT_PACE, type Pace } from "./contender.ts";
import { Applications, makeSmallDatabases } from "./databases.ts";
import type { Situation } from "./measure.ts";
import { type Stage, untilReplicated } from "./stage.ts";
import { WRITE_EVERY_MS } from "./watching.ts";

export function costSituations(stage: Stage): Situation[] {
  const paces: [title: string, pace: Pace][] = [
    ["by default", DEFAULT_PACE],
    ["at most every 10 s (--wal-sync-interval 10)", { ...DEFAULT_PACE, intervalMs: 10_000 }],
    ["at most every minute (--wal-sync-interval 60)", { ...DEFAULT_PACE, intervalMs: 60_000 }],
    ["by default, a snapshot when idle (--on-idle 2)", { ...DEFAULT_PACE, walsyncFlags: ["--on-idle", "2"] }],
    [
      "by default, a snapshot each 10 s (--max-interval 10)",
      { ...DEFAULT_PACE, walsyncFlags: ["--max-interval", "10"] },
    ],
    ["by default, no merging (--merge none)", { ...DEFAULT_PACE, walsyncFlags: ["--merge", "none"] }],
  ];
  return paces.map(([title, pace]) => ({ title, databases: null, entrants: entrantsAt(stage, pace) }));
}

// --- internal ---

const DATABASES = 5;
/** Bursts, with pauses of the same length: what most databases of applications see. */
const BURST_MS = 5000;
const HOUR_MS = 3_600_000;

function entrantsAt(stage: Stage, pace: Pace): Situation["entrants"] {
  const measured = stage.entrants(async (contender: Contender, folder, bucket) => {
    const databases = makeSmallDatabases(folder, DATABASES);
    const applications = new Applications(databases);
    const program = contender.watch(bucket, databases, pace);
    try {
      await untilReplicated(program, bucket, databases);
      const [before, startMs] = [bucket.requests(), performance.now()];
      while (performance.now() - startMs < stage.scale.costMs) {
        await applications.load(BURST_MS, WRITE_EVERY_MS);
        await Bun.sleep(BURST_MS);
      }
      program.requireRunning();
      const { writes, lists, reads } = requestsBetween(before, bucket.requests());
      const perHour = HOUR_MS / (performance.now() - startMs) / DATABASES;
      return { writesPerHour: (writes + lists) * perHour, readsPerHour: reads * perHour };
    } finally {
      await program.stop();
      applications.close();
    }
  });
  return pace.walsyncFlags.length === 0 ? measured : measured.filter(({ name }) => name !== "litestream");
}
