/** Where measuring takes place: the server, the contenders, folders, and how much of everything. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BenchServer, type Bucket } from "./bucket.ts";
import type { Contender } from "./contender.ts";
import type { BenchDatabase } from "./databases.ts";
import type { Entrant, Figures } from "./measure.ts";
import { waitUntil } from "./measure.ts";
import type { RunningProgram } from "./running-program.ts";

/** Sizes and times. MB are MiB. */
export interface Scale {
  databaseCounts: readonly number[];
  /** From the first snapshot of the last database until memory is read. */
  settleMs: number;
  loadMs: number;
  /** Long enough for what comes once a minute to be over. */
  idleSettleMs: number;
  idleMs: number;
  latencyCommits: number;
  /** Of databases that are read or restored whole. */
  wholeMb: readonly number[];
  incrementHours: number;
  startCount: number;
  manyCount: number;
  /** Databases that one of `fairMb` must not hold up, and how long they are watched without it. */
  fairCount: number;
  fairMb: number;
  fairMs: number;
  costMs: number;
  encodeMb: number;
}

/** A database that is larger than memory should ever notice. */
export const LARGE_MB = 2048;

export const FULL_SCALE: Scale = {
  databaseCounts: [1, 20, 100, 1000],
  settleMs: 15_000,
  loadMs: 30_000,
  idleSettleMs: 75_000,
  idleMs: 60_000,
  latencyCommits: 100,
  wholeMb: [445],
  incrementHours: 24,
  startCount: 1000,
  manyCount: 10_000,
  fairCount: 200,
  fairMb: LARGE_MB,
  fairMs: 20_000,
  costMs: 120_000,
  encodeMb: 512,
};

/** Minutes instead of hours: shows that everything works, and where something is badly wrong. */
export const QUICK_SCALE: Scale = {
  databaseCounts: [1, 20],
  settleMs: 2000,
  loadMs: 5000,
  idleSettleMs: 3000,
  idleMs: 5000,
  latencyCommits: 20,
  wholeMb: [32],
  incrementHours: 1,
  startCount: 50,
  manyCount: 200,
  fairCount: 20,
  fairMb: 64,
  fairMs: 4000,
  costMs: 8000,
  encodeMb: 64,
};

export class Stage {
  readonly server: BenchServer;
  readonly scale: Scale;
  readonly contenders: readonly Contender[];
  readonly #root = mkdtempSync(join(tmpdir(), "walsync-bench-"));

  static async open(scale: Scale, contenders: readonly Contender[]): Promise<Stage> {
    return new Stage(await BenchServer.start(), scale, contenders);
  }

  private constructor(server: BenchServer, scale: Scale, contenders: readonly Contender[]) {
    this.server = server;
    this.scale = scale;
    this.contenders = contenders;
  }

  /** The contenders as entrants: each measurement in an empty folder and a bucket of its own. */
  entrants(measure: (contender: Contender, folder: string, bucket: Bucket) => Promise<Figures>): Entrant[] {
    return this.contenders.map((contender) => ({
      name: contender.name,
      measure: () => this.inFolder(async (folder) => await measure(contender, folder, await this.server.makeBucket())),
    }));
  }

  /** A folder that stays until the end. */
  makeFolder(): string {
    return mkdtempSync(join(this.#root, "kept-"));
  }

  async inFolder<T>(action: (folder: string) => Promise<T>): Promise<T> {
    const folder = mkdtempSync(join(this.#root, "run-"));
    try {
      return await action(folder);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    await this.server.stop();
    rmSync(this.#root, { recursive: true, force: true });
  }
}

/** Waits until the bucket has a file of every database. */
export async function untilReplicated(
  program: RunningProgram,
  bucket: Bucket,
  databases: readonly BenchDatabase[],
): Promise<void> {
  let ready = 0;
  const areReady = () => {
    program.requireRunning();
    while (ready < databases.length && bucket.filesOf(databases[ready]!.name) > 0) ready++;
    return ready === databases.length;
  };
  await waitUntil(`an object of each of ${databases.length} databases`, areReady, READY_WITHIN_MS);
}

// --- internal ---

const READY_WITHIN_MS = 300_000;
