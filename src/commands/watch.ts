/** `walsync watch`: replicates databases for as long as it runs. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineWalsyncCommand } from "../cli/command.ts";
import { monotonicMs } from "../clock.ts";
import type { Destination } from "../destination/destination.ts";
import { Gate } from "../destination/limit.ts";
import { retrying } from "../destination/retry.ts";
import { WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { MetricsServer } from "../metrics-server.ts";
import type { ReplicationPolicy } from "../replication/capture.ts";
import type { NamedDatabase } from "../replication/names.ts";
import type { Replicator } from "../replication/replicator.ts";
import type { CarePolicy } from "../upkeep/caretaker.ts";
import { requireRetention } from "../upkeep/retention.ts";
import { DESTINATION_FLAGS, destinationOf } from "./destination.ts";

/** Flags of the commands that read a live database. */
export const STATE_FLAGS = {
  "state-dir": {
    type: "string",
    placeholder: "DIR",
    description: "where walsync keeps its own files; default: .<file>-walsync beside each database",
  },
  "enable-wal": { type: "boolean", description: "switch databases in another journal mode to WAL" },
} as const;

export default defineWalsyncCommand({
  meta: { name: "watch", description: "Replicate live databases continuously" },
  positionals: {
    databases: {
      required: true,
      variadic: true,
      description: "database files, name=file, directories of databases, or quoted globs",
    },
  },
  flags: {
    ...DESTINATION_FLAGS,
    "wal-sync-interval": {
      type: "duration",
      default: "1",
      description: "capture at most this often; 0 captures every change at once",
    },
    "snapshot-interval": {
      type: "duration",
      default: "3600",
      description: "time between snapshots of a database that changes; 0 takes only the first",
    },
    "max-changes": {
      type: "integer",
      min: 0,
      default: "0",
      description: "take a snapshot after so many pages written to the WAL; 0 never",
    },
    "max-interval": {
      type: "duration",
      default: "0",
      description: "take one at the latest after this time, if anything changed; 0 never",
    },
    "on-idle": { type: "duration", default: "0", description: "take one after so long without a change; 0 never" },
    "on-startup": { type: "boolean", description: "take one at the start, if anything changed since the last" },
    "min-checkpoint-pages": {
      type: "integer",
      min: 1,
      default: "1000",
      description: "pages in the WAL at which walsync asks SQLite to copy them back",
    },
    "checkpoint-interval": {
      type: "duration",
      default: "60",
      description: "and at the latest after this time",
    },
    "validation-interval": {
      type: "duration",
      default: "86400",
      description: "time between full checks of a database and of the end of its chain; 0 never",
    },
    "compact-after-snapshot": {
      type: "boolean",
      description: "delete what retention does not keep after each snapshot",
    },
    "compact-interval": { type: "duration", default: "0", description: "and at this interval; 0 never" },
    "retain-hourly": { type: "integer", min: 0, default: "24", description: "hours that keep their newest snapshot" },
    "retain-daily": { type: "integer", min: 0, default: "7", description: "days" },
    "retain-weekly": { type: "integer", min: 0, default: "12", description: "weeks, from Monday" },
    "retain-monthly": { type: "integer", min: 0, default: "12", description: "months; all in UTC" },
    "retain-point-in-time": {
      type: "duration",
      default: "86400",
      description: "time in which every restore point stays",
    },
    "no-merge": { type: "boolean", description: "leave every increment a file of its own" },
    "max-outbox": {
      type: "size",
      default: "4GiB",
      description: "files on disk that wait for the destination, for each database; then capture pauses",
    },
    "shutdown-timeout": {
      type: "duration",
      default: "5",
      description: "time at SIGTERM or SIGINT to ship what is left",
    },
    "restore-if-missing": {
      type: "boolean",
      description: "restore databases that do not exist here but at the destination, and wait for the others",
    },
    "metrics-port": {
      type: "integer",
      min: 0,
      max: 65535,
      default: "16767",
      description: "port for /metrics (Prometheus) and /healthz; 0 takes any free one",
    },
    "metrics-listen": { type: "string", default: "127.0.0.1", description: "address that this port is opened on" },
    "no-metrics": { type: "boolean", description: "serve no metrics" },
    ...STATE_FLAGS,
  },
  examples: [
    ["walsync watch app.db -b s3://backups/prod", "One database"],
    ["walsync watch 'tenants/*/app.db' -b s3://backups/prod", "Every tenant's database, named by its path"],
    ["walsync watch shop=/data/app.db -b file:///mnt/backup", "Under a name of its own, to a directory"],
  ],
  async run({ flags, positionals, origins, env, signal }) {
    const { findSources, nameSources } = await import("../replication/names.ts");
    const { keptName, stateFolderOf } = await import("../replication/local-state.ts");
    const { Replicator } = await import("../replication/replicator.ts");
    const { Watcher } = await import("../replication/watcher.ts");
    const { Caretaker } = await import("../upkeep/caretaker.ts");

    const sources = findSources(positionals.databases);
    const stop = new AbortController();
    const destination = await destinationOf(flags, env, stop.signal);
    const folderOf = (path: string) => stateFolderOf(path, flags.stateDir);
    const databases = nameSources(sources, (path) => keptName(folderOf(path), destination.url));
    let reaching: Promise<void> | null = null;
    const reached = () => (reaching ??= reach(destination, signal));
    const ready = Promise.withResolvers<boolean>();
    const scans = new Gate(SCANS_AT_ONCE);
    const create = ({ path, name }: NamedDatabase): Replicator =>
      new Replicator({
        path,
        name,
        destination,
        stateFolder: folderOf(path),
        policy: policyOf(flags),
        ready: ready.promise,
        patience: "endless",
        scans,
      });

    const care = new Caretaker(destination, carePolicyOf(flags));
    const replicators: Replicator[] = [];
    try {
      for (const database of databases) {
        const replicator = create(database);
        if (!flags.restoreIfMissing || existsSync(database.path)) replicator.open();
        else {
          await reached();
          if (await restoreMissing(destination, database, signal)) replicator.open();
          else replicator.openWhenPossible(monotonicMs());
        }
        replicators.push(replicator);
        care.follow(replicator, join(folderOf(database.path), "merge"));
      }
    } catch (error) {
      await Promise.all(replicators.map((replicator) => replicator.stop(AbortSignal.abort())));
      throw error;
    }

    // Only now: a destination is not touched for databases that are refused.
    const answered = reached();
    answered.then(
      () => ready.resolve(true),
      () => ready.resolve(false),
    );
    const isPortChosen = origins["metrics-port"] !== "default";
    const watcher = new Watcher(replicators);
    let metrics: MetricsServer | null = null;
    try {
      metrics = flags.noMetrics ? null : await openMetrics(flags, isPortChosen, replicators);
      watcher.start();
      const { length } = replicators;
      logEvent("info", "watching", { databases: length, destination: destination.url, port: metrics?.port });
      // A definite refusal ends it here; silence of the destination does not.
      await Promise.race([answered.then(() => watcher.finished(signal)), watcher.finished(signal)]);
    } catch (error) {
      metrics?.stop();
      await care.stop();
      await watcher.stop(0).catch(() => {});
      throw error;
    }
    logEvent("info", "stopping", { databases: replicators.length });
    await care.stop();
    await watcher.stop(flags.shutdownTimeout);
    stop.abort();
    metrics?.stop();
    destination.close();
    logEvent("info", "stopped", { databases: replicators.length });
  },
});

/** Whole databases read at once: each needs memory and the disk for itself. */
const SCANS_AT_ONCE = 1;
/** The WAL may grow to this many times --min-checkpoint-pages before writers wait for a moment. */
const FENCE_FACTOR = 4;
/** Increments of 30 seconds, 5 minutes and an hour become one; each stays a restore point for an hour. */
const MERGE_WINDOWS_MS = [30_000, 300_000, 3_600_000];
const KEEP_FINE_MS = 3_600_000;

interface PolicyFlags {
  walSyncInterval: number;
  snapshotInterval: number;
  maxChanges: number;
  maxInterval: number;
  onIdle: number;
  onStartup: boolean;
  validationInterval: number;
  minCheckpointPages: number;
  checkpointInterval: number;
  maxOutbox: number;
  enableWal: boolean;
}

function policyOf(flags: PolicyFlags): ReplicationPolicy {
  return {
    syncIntervalMs: flags.walSyncInterval,
    snapshot: {
      intervalMs: flags.snapshotInterval,
      maxFrames: flags.maxChanges,
      maxIntervalMs: flags.maxInterval,
      onIdleMs: flags.onIdle,
      onStartup: flags.onStartup,
    },
    validationIntervalMs: flags.validationInterval,
    checkpoint: {
      minFrames: flags.minCheckpointPages,
      intervalMs: flags.checkpointInterval,
      fenceFrames: FENCE_FACTOR * flags.minCheckpointPages,
    },
    maxOutboxBytes: flags.maxOutbox,
    enableWal: flags.enableWal,
  };
}

interface CareFlags {
  compactAfterSnapshot: boolean;
  compactInterval: number;
  retainHourly: number;
  retainDaily: number;
  retainWeekly: number;
  retainMonthly: number;
  retainPointInTime: number;
  noMerge: boolean;
}

function carePolicyOf(flags: CareFlags): CarePolicy {
  const { retainHourly: hourly, retainDaily: daily, retainWeekly: weekly, retainMonthly: monthly } = flags;
  return {
    merge: flags.noMerge ? null : { windowsMs: MERGE_WINDOWS_MS, keepFineMs: KEEP_FINE_MS },
    retention: requireRetention("watch", { hourly, daily, weekly, monthly, pointInTimeMs: flags.retainPointInTime }),
    compactAfterSnapshot: flags.compactAfterSnapshot,
    compactIntervalMs: flags.compactInterval,
  };
}

/** Null if the default port is taken: a second walsync on one host replicates all the same. A chosen port must be free. */
async function openMetrics(
  flags: { metricsPort: number; metricsListen: string },
  isPortChosen: boolean,
  replicators: readonly Replicator[],
): Promise<MetricsServer | null> {
  const { serveMetrics } = await import("../metrics-server.ts");
  const { measure } = await import("../replication/metrics.ts");
  measure(replicators);
  try {
    return serveMetrics(flags.metricsListen, flags.metricsPort, () => faultOf(replicators));
  } catch (error) {
    if (isPortChosen || !(error instanceof WalsyncError)) throw error;
    logEvent("warn", "metrics are off", { port: flags.metricsPort, error: error.message, hint: error.hint });
    return null;
  }
}

/** One line for each database that is not replicated, or null. */
function faultOf(replicators: readonly Replicator[]): string | null {
  const faults = replicators.flatMap(({ name, trouble }) => (trouble === null ? [] : [`${name}: ${trouble}`]));
  return faults.length === 0 ? null : faults.join("\n");
}

/** Waits until the destination answers, for as long as it takes. Throws if it refuses. */
async function reach(destination: Destination, signal: AbortSignal): Promise<void> {
  await retrying(
    "prepare",
    () => destination.prepare({ signal }),
    {
      attempts: Number.MAX_SAFE_INTEGER,
      baseDelayMs: 500,
      maxDelayMs: 30_000,
      onRetry: ({ attempt, delayMs, error }) => {
        const { code, hint } = error;
        const fields = { destination: destination.url, code, error, attempt, delayMs: Math.round(delayMs), hint };
        logEvent("error", "destination does not answer", fields);
      },
    },
    signal,
  );
}

/** False if the destination does not have it either. */
async function restoreMissing(
  destination: Destination,
  { path, name }: NamedDatabase,
  signal: AbortSignal,
): Promise<boolean> {
  const { restoreDatabase } = await import("../restore/restore.ts");
  try {
    const options = { target: { kind: "newest" }, integrity: "quick", force: false, signal } as const;
    const { txid, sizeBytes } = await restoreDatabase(destination, name, path, options);
    logEvent("info", "restored", { database: name, path, txid, sizeBytes });
    return true;
  } catch (error) {
    if (!(error instanceof WalsyncError) || error.code !== "E_NOT_FOUND") throw error;
    logEvent("info", "waiting for the database: it is neither here nor at the destination", { database: name, path });
    return false;
  }
}
