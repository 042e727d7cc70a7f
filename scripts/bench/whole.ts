/** `snapshot` and `restore`: one large database, whole; and one that was shipped a second at a time for a day. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { type Bucket, requestsBetween, totalOf } from "./bucket.ts";
import type { Contender } from "./contender.ts";
import { type BenchDatabase, contentOf, makeDatabase } from "./databases.ts";
import { shipIncrements } from "./increments.ts";
import type { Figures, Situation } from "./measure.ts";
import type { Stage } from "./stage.ts";

export function snapshotSituations(stage: Stage): Situation[] {
  return stage.scale.wholeMb.map((sizeMb) => {
    const database = once(() => makeLarge(stage.makeFolder(), sizeMb));
    return {
      title: `a database of ${sizeMb} MB`,
      databases: null,
      entrants: stage.contenders.map((contender) => ({
        name: contender.name,
        measure: async () =>
          figuresOf(await stage.server.makeBucket(), (bucket) => take(contender, bucket, database())),
      })),
    };
  });
}

export function restoreSituations(stage: Stage): Situation[] {
  return [...stage.scale.wholeMb.map((sizeMb) => restoreSnapshot(stage, sizeMb)), restoreIncrements(stage)];
}

// --- internal ---

const SECOND_INCREMENTS_PER_HOUR = 3600;

function restoreSnapshot(stage: Stage, sizeMb: number): Situation {
  const database = once(() => makeLarge(stage.makeFolder(), sizeMb));
  return {
    title: `a database of ${sizeMb} MB, one snapshot`,
    databases: null,
    entrants: stage.contenders.map((contender) => {
      const shipped = once(async () => {
        const bucket = await stage.server.makeBucket();
        await take(contender, bucket, database());
        return bucket;
      });
      return {
        name: contender.name,
        measure: async () => await restoreFrom(stage, contender, await shipped(), database()),
      };
    }),
  };
}

function restoreIncrements(stage: Stage): Situation {
  const { incrementHours } = stage.scale;
  const count = incrementHours * SECOND_INCREMENTS_PER_HOUR;
  return {
    title: `${count.toLocaleString("en")} one-second increments, merged`,
    databases: null,
    entrants: stage.contenders.map((contender) => {
      const shipped = once(async () => {
        const bucket = await stage.server.makeBucket();
        const database = { name: "day", path: join(stage.makeFolder(), "day", "app.db") };
        const layout = contender.name === "litestream" ? "litestream" : "walsync";
        await shipIncrements(bucket, database, count, layout);
        return { bucket, database };
      });
      return {
        name: contender.name,
        measure: async () => {
          const { bucket, database } = await shipped();
          return await restoreFrom(stage, contender, bucket, database);
        },
      };
    }),
  };
}

async function restoreFrom(
  stage: Stage,
  contender: Contender,
  bucket: Bucket,
  database: BenchDatabase,
): Promise<Figures> {
  return await stage.inFolder(async (folder) => {
    const output = join(folder, "restored.db");
    const figures = await figuresOf(bucket, () => contender.restore(bucket, database, output));
    const [expected, found] = [contentOf(database.path), contentOf(output)];
    if (found !== expected) throw new Error(`restored database: expected ${expected}, found ${found}`);
    return figures;
  });
}

async function figuresOf(bucket: Bucket, run: (bucket: Bucket) => ReturnType<Contender["restore"]>): Promise<Figures> {
  const before = bucket.requests();
  const { seconds, cpuSeconds, peakMb } = await run(bucket);
  const requests = requestsBetween(before, bucket.requests());
  return { seconds, cpuSeconds, peak: peakMb, requests: totalOf(requests), reads: requests.reads };
}

/** From nothing: what an earlier snapshot left beside the database is removed first. */
async function take(contender: Contender, bucket: Bucket, database: BenchDatabase) {
  for (const suffix of ["walsync", "litestream"]) {
    rmSync(join(database.path, `../.app.db-${suffix}`), { recursive: true, force: true });
  }
  return await contender.snapshot(bucket, database);
}

function makeLarge(folder: string, sizeMb: number): BenchDatabase {
  const path = join(folder, "large", "app.db");
  makeDatabase(path, sizeMb * 1024 * 1024);
  return { name: "large", path };
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null;
  return () => (made ??= { value: make() }).value;
}
