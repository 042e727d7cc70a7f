/**
 * How captures make room for uploads. While files wait, more goes into each: what waits in the outbox cannot be lost with less
 * than the machine, and neither can what waits in the WAL.
 */
import type { ReplicationPolicy } from "./capture.ts";

/**
 * The least time between two captures of a database of which so many files wait, in ms: the destination is slower than it, or
 * away. Restore points stay as close as they were asked for until then. A thousand files that wait: one in ten seconds.
 */
export function intervalBehindMs(filesOfDatabase: number): number {
  return filesOfDatabase < FILES ? 0 : Math.min(INTERVAL_MAX_MS, filesOfDatabase * MS_PER_FILE);
}

/**
 * The same for every database of a process, by how many files of all of them wait: the processor is what is too slow, and each
 * capture takes from it what an upload needs. A thousand files that wait: captures two seconds apart.
 */
export function intervalInCrowdMs(filesOfAll: number): number {
  return filesOfAll < FILES_OF_ALL ? 0 : Math.min(INTERVAL_MAX_MS, filesOfAll * MS_PER_FILE_OF_ALL);
}

/** `policy` with captures that are at least so far apart. */
export function paced(policy: ReplicationPolicy, leastIntervalMs: number): ReplicationPolicy {
  return leastIntervalMs <= policy.syncIntervalMs ? policy : { ...policy, syncIntervalMs: leastIntervalMs };
}

// --- internal ---

const FILES = 32;
const MS_PER_FILE = 10;
const FILES_OF_ALL = 256;
const MS_PER_FILE_OF_ALL = 2;
const INTERVAL_MAX_MS = 60_000;
