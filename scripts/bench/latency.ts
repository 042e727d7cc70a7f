/** `latency`: from the end of a commit to the file on disk, and to the object at the server. */
import { DEFAULT_PACE, type Pace } from "./contender.ts";
import { Applications, makeSmallDatabases } from "./databases.ts";
import { type Figures, type Situation, waitUntil } from "./measure.ts";
import { type Stage, untilReplicated } from "./stage.ts";
import { quantile } from "./statistics.ts";

export function latencySituations(stage: Stage): Situation[] {
  const paces: [title: string, pace: Pace][] = [
    ["as fast as each can (walsync --wal-sync-interval 0)", { ...DEFAULT_PACE, intervalMs: 0, isVerbose: true }],
    ["as set by default: at most once a second", { ...DEFAULT_PACE, isVerbose: true }],
  ];
  return paces.map(([title, pace]) => ({
    title,
    databases: null,
    entrants: stage.entrants(async (contender, folder, bucket) => {
      const [database] = makeSmallDatabases(folder, 1) as [{ name: string; path: string }];
      const application = new Applications([database]);
      const program = contender.watch(bucket, [database], pace);
      const staged: number[] = [];
      const shipped: number[] = [];
      try {
        await untilReplicated(program, bucket, [database]);
        await Bun.sleep(SETTLE_MS);
        for (let i = 0; i < stage.scale.latencyCommits; i++) {
          // Applications do not keep step with timers.
          await Bun.sleep(Math.random() * (pace.intervalMs ?? 1000) + PAUSE_MS);
          const before = bucket.newestIncrement(database.name);
          const staging = program.nextLine(" captured ");
          application.write(0);
          const committedMs = performance.now();
          // Only walsync says when it has staged a file.
          void staging.then((atMs) => staged.push(atMs - committedMs));
          const isThere = () => bucket.newestIncrement(database.name) !== before;
          await waitUntil("an object of the commit", isThere, OBJECT_WITHIN_MS, LOOK_EVERY_MS);
          shipped.push(performance.now() - committedMs);
        }
      } finally {
        await program.stop();
        application.close();
      }
      const figures: Figures = { objectP50: quantile(shipped, 0.5), objectP99: quantile(shipped, 0.99) };
      return staged.length === 0
        ? figures
        : { stagedP50: quantile(staged, 0.5), stagedP99: quantile(staged, 0.99), ...figures };
    }),
  }));
}

// --- internal ---

const SETTLE_MS = 2000;
const PAUSE_MS = 30;
const OBJECT_WITHIN_MS = 30_000;
/** What looking costs either of them in precision. */
const LOOK_EVERY_MS = 1;
