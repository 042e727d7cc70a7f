/** What a policy costs in requests and money. Pure: an estimate, with what it assumes in its names. */

/** US dollars. Amazon S3 Standard in us-east-1: https://aws.amazon.com/s3/pricing, January 2025. */
export const PRICES = {
  /** For a thousand PUT, COPY, POST or LIST requests. DELETE is free. */
  per1000Writes: 0.005,
  per1000Reads: 0.0004,
  perGbMonth: 0.023,
  asOf: "January 2025",
  source: "https://aws.amazon.com/s3/pricing",
};

export interface CostPolicy {
  syncIntervalMs: number;
  /** 0: only the first. */
  snapshotIntervalMs: number;
  /** Ascending; none: increments are not merged. */
  mergeWindowsMs: readonly number[];
}

export interface RequestRates {
  /** For each database and month. */
  writes: number;
  reads: number;
  dollars: number;
}

/** For one database that commits every `commitIntervalMs`, day and night, for 30 days. */
export function estimateRequests(policy: CostPolicy, commitIntervalMs: number): RequestRates {
  const every = (intervalMs: number) => (intervalMs > 0 ? MONTH_MS / intervalMs : 0);
  const shippedEveryMs = Math.max(commitIntervalMs, policy.syncIntervalMs, 1);
  const increments = every(shippedEveryMs);
  const snapshots = policy.snapshotIntervalMs > 0 ? every(Math.max(policy.snapshotIntervalMs, shippedEveryMs)) : 0;
  // Read and written at most once a minute.
  const manifests = every(Math.max(MANIFEST_INTERVAL_MS, shippedEveryMs));
  let merged = 0;
  let mergeReads = 0;
  let partsEveryMs = shippedEveryMs;
  for (const windowMs of policy.mergeWindowsMs) {
    // A window with a single file in it is left as it is.
    if (windowMs < 2 * partsEveryMs) continue;
    mergeReads += every(partsEveryMs);
    merged += every(windowMs);
    partsEveryMs = windowMs;
  }
  const sweeps = merged > 0 ? every(SWEEP_INTERVAL_MS) : 0;
  const writes = increments + snapshots + manifests + merged + sweeps;
  // To remove what was merged, the ends of three files are read.
  const reads = manifests + mergeReads + 6 * Math.min(merged, sweeps);
  const dollars = (writes * PRICES.per1000Writes + reads * PRICES.per1000Reads) / 1000;
  return { writes: Math.round(writes), reads: Math.round(reads), dollars };
}

// --- internal ---

const MONTH_MS = 30 * 86_400_000;
const MANIFEST_INTERVAL_MS = 60_000;
const SWEEP_INTERVAL_MS = 3_600_000;
