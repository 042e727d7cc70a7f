/** What can be measured, and how a situation is measured: every entrant in every round, in turns. */
import { messageOf } from "../../src/errors.ts";
import { orderOf } from "./statistics.ts";

/** Title and unit of every figure. A unit with a limit on its digits below is printed so. */
export const METRICS = {
  rssSettled: { title: "RSS, settled", unit: "MB" },
  anonymousSettled: { title: "anonymous memory, settled", unit: "MB" },
  rssLoaded: { title: "RSS, under load", unit: "MB" },
  anonymousLoaded: { title: "anonymous memory, under load", unit: "MB" },
  peak: { title: "RSS, peak", unit: "MB" },
  cpuLoaded: { title: "CPU under load, per database and second", unit: "ms" },
  cpuPerObject: { title: "CPU under load, per object written", unit: "ms" },
  inserted: { title: "inserts of the applications", unit: "/s" },
  objects: { title: "objects written", unit: "/s" },
  idleCpu: { title: "CPU while idle", unit: "% of a core" },
  idleRequests: { title: "S3 requests while idle, all databases", unit: "/min" },
  stagedP50: { title: "commit to staged, p50", unit: "ms" },
  stagedP99: { title: "commit to staged, p99", unit: "ms" },
  stagedMax: { title: "commit to staged, longest", unit: "ms" },
  objectP50: { title: "commit to object, p50", unit: "ms" },
  objectP99: { title: "commit to object, p99", unit: "ms" },
  seconds: { title: "time", unit: "s" },
  cpuSeconds: { title: "CPU", unit: "s" },
  requests: { title: "S3 requests", unit: "" },
  reads: { title: "GETs", unit: "" },
  firstStaged: { title: "start to first captured frame", unit: "s" },
  firstObject: { title: "start to its object", unit: "s" },
  readMb: { title: "read from disk until then", unit: "MB" },
  restored: { title: "restored equal, of 40 tried", unit: "" },
  scanSpeed: { title: "WAL reading", unit: "MB/s a core" },
  encodeSpeed: { title: "LTX encoding", unit: "MB/s a core" },
  captureSpeed: { title: "WAL to LTX, checksums of pages included", unit: "MB/s a core" },
  copySpeed: { title: "memcpy, for comparison", unit: "MB/s a core" },
  writesPerHour: { title: "writes and listings per hour and database", unit: "" },
  readsPerHour: { title: "reads per hour and database", unit: "" },
} as const;

export type Metric = keyof typeof METRICS;
export type Figures = Partial<Record<Metric, number>>;

export interface Entrant {
  name: string;
  measure: () => Promise<Figures>;
}

export interface Situation {
  title: string;
  /** For plots; null where their number is not the point. */
  databases: number | null;
  entrants: readonly Entrant[];
}

export interface Result {
  bench: string;
  situation: string;
  databases: number | null;
  /** One entry for each round that an entrant finished, by its name. */
  samples: Record<string, Figures[]>;
  /** Rounds that somebody did not finish, and why. */
  faults: string[];
}

/** Measures every entrant `rounds` times, in turns, so that whatever happens on the machine meanwhile meets them all. */
export async function measureSituation(
  bench: string,
  { title, databases, entrants }: Situation,
  rounds: number,
  tell: (line: string) => void,
): Promise<Result> {
  const samples: Result["samples"] = Object.fromEntries(entrants.map(({ name }) => [name, []]));
  const faults: string[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const { name, measure } of orderOf(entrants, round)) {
      const startMs = performance.now();
      try {
        samples[name]!.push(await measure());
      } catch (error) {
        faults.push(`${name}, round ${round + 1}: ${messageOf(error)}`);
      }
      const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
      tell(`${bench}, ${title}: round ${round + 1} of ${rounds}, ${name}, ${seconds} s`);
    }
  }
  return { bench, situation: title, databases, samples, faults };
}

/** Waits until `holds`, looking every `everyMs`. Throws what `expected` names if it takes longer than `withinMs`. */
export async function waitUntil(expected: string, holds: () => boolean, withinMs: number, everyMs = 20): Promise<void> {
  const deadlineMs = performance.now() + withinMs;
  while (!holds()) {
    if (performance.now() > deadlineMs) throw new Error(`expected ${expected} within ${withinMs / 1000} s, found not`);
    await Bun.sleep(everyMs);
  }
}
