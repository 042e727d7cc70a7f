/** What `watch` can be told, on the command line or in walsync.toml, and the policies that it means. */
import type { SettingValues } from "../config.ts";
import { SNAPSHOT_LEVEL } from "../destination/layout.ts";
import { WalsyncError } from "../errors.ts";
import { formatDuration } from "../quantities.ts";
import type { ReplicationPolicy } from "../replication/capture.ts";
import type { CarePolicy } from "../upkeep/caretaker.ts";
import type { MergePolicy } from "../upkeep/merge-plan.ts";
import { requireRetention } from "../upkeep/retention.ts";
import { DESTINATION_FLAGS } from "./destination.ts";
import { DRILL_FLAGS } from "./drill-settings.ts";
import { ENCRYPTION_FLAGS, isSealed } from "./encryption.ts";

/** Flags of the commands that read a live database. */
export const STATE_FLAGS = {
  "state-dir": {
    type: "string",
    placeholder: "DIR",
    description: "where walsync keeps its own files; default: .<file>-walsync beside each database",
  },
  "enable-wal": { type: "boolean", description: "switch databases in another journal mode to WAL" },
} as const;

/** Of the commands that write to a destination. */
export const LAYOUT_FLAG = {
  layout: {
    type: "choice",
    choices: ["walsync", "litestream"],
    default: "walsync",
    description: "how files are laid out at the destination; Litestream reads and continues its own",
  },
} as const;

export const WATCH_FLAGS = {
  ...DESTINATION_FLAGS,
  ...ENCRYPTION_FLAGS,
  ...LAYOUT_FLAG,
  "wal-sync-interval": {
    type: "duration",
    default: "1s",
    description: "capture at most this often; 0 captures every change at once",
  },
  "snapshot-interval": {
    type: "duration",
    default: "1h",
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
    default: "1m",
    description: "and at the latest after this time",
  },
  "validation-interval": {
    type: "duration",
    default: "1d",
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
    default: "1d",
    description: "time in which every restore point stays",
  },
  merge: {
    type: "durations",
    placeholder: "LIST",
    default: "30s,5m,1h",
    description: "windows in which increments become one file; none leaves each a file of its own",
  },
  "merge-keep-fine": {
    type: "duration",
    default: "1h",
    description: "time in which every increment stays a restore point, merged or not",
  },
  "max-outbox": {
    type: "size",
    default: "4GiB",
    description: "files on disk that wait for the destination, for each database; then capture pauses",
  },
  "max-pinned": {
    type: "integer",
    min: 1,
    default: "256",
    description: "databases with an open connection; of more than that those sleep that are not written to",
  },
  "shutdown-timeout": {
    type: "duration",
    default: "5s",
    description: "time at SIGTERM or SIGINT to ship what is left",
  },
  "restore-if-missing": {
    type: "boolean",
    description: "restore databases that do not exist here but at the destination, and wait for the others",
  },
  exec: {
    type: "string",
    placeholder: "CMD",
    description: "run CMD as a child once the databases are restored and watched, and end with it",
  },
  "metrics-port": {
    type: "integer",
    min: 0,
    max: 65535,
    default: "16767",
    description: "port for the status page, /metrics (Prometheus) and /healthz; 0 takes any free one",
  },
  "metrics-listen": { type: "string", default: "127.0.0.1", description: "address that this port is opened on" },
  "no-metrics": { type: "boolean", description: "serve neither metrics nor the status page" },
  "max-lag": {
    type: "duration",
    default: "5m",
    description: "age of what is not shipped at which /healthz fails and an alert is due; 0 never",
  },
  "webhook-url": {
    type: "string",
    env: "WALSYNC_WEBHOOK_URL",
    placeholder: "URL",
    description: "where alerts are posted as JSON; a secret one goes into the environment",
  },
  "webhook-authorization": {
    type: "string",
    env: "WALSYNC_WEBHOOK_AUTHORIZATION",
    placeholder: "TEXT",
    description: "Authorization header of these posts",
  },
  "webhook-events": {
    type: "string",
    default: "fenced,failed,integrity,lag,drill,recovered",
    placeholder: "LIST",
    description: "which events are posted",
  },
  "drill-interval": {
    type: "duration",
    default: "0",
    description: "time between restore drills of a database, one at a time in a process of its own; 0 never",
  },
  "drill-assert": DRILL_FLAGS.assert,
  "drill-assert-timeout": DRILL_FLAGS["assert-timeout"],
  "drill-max-rto": DRILL_FLAGS["max-rto"],
  "drill-max-rpo": DRILL_FLAGS["max-rpo"],
  "drill-temp-dir": DRILL_FLAGS["temp-dir"],
  ...STATE_FLAGS,
} as const;

export type WatchSettings = SettingValues<typeof WATCH_FLAGS>;

export function replicationPolicyOf(settings: WatchSettings): ReplicationPolicy {
  return {
    syncIntervalMs: settings.walSyncInterval,
    snapshot: {
      intervalMs: settings.snapshotInterval,
      maxFrames: settings.maxChanges,
      maxIntervalMs: settings.maxInterval,
      onIdleMs: settings.onIdle,
      onStartup: settings.onStartup,
    },
    validationIntervalMs: settings.validationInterval,
    checkpoint: {
      minFrames: settings.minCheckpointPages,
      intervalMs: settings.checkpointInterval,
      fenceFrames: FENCE_FACTOR * settings.minCheckpointPages,
    },
    maxOutboxBytes: settings.maxOutbox,
    enableWal: settings.enableWal,
  };
}

/** Throws E_USAGE for a retention that keeps nothing. */
export function carePolicyOf(settings: WatchSettings): CarePolicy {
  return {
    layout: settings.layout,
    merge: mergePolicyOf(settings),
    retention: requireRetention({
      hourly: settings.retainHourly,
      daily: settings.retainDaily,
      weekly: settings.retainWeekly,
      monthly: settings.retainMonthly,
      pointInTimeMs: settings.retainPointInTime,
    }),
    compactAfterSnapshot: settings.compactAfterSnapshot,
    compactIntervalMs: settings.compactInterval,
  };
}

// --- internal ---

/** The WAL may grow to this many times --min-checkpoint-pages before writers wait for a moment. */
const FENCE_FACTOR = 4;
/**
 * A writer that pauses asks again who else was there after half an hour, and must find its last file: see `delivery.ts`.
 */
const KEEP_FINE_MIN_MS = 3_600_000;

function mergePolicyOf(settings: WatchSettings): MergePolicy | null {
  const { layout, merge, mergeKeepFine } = settings;
  if (merge.length === 0 || isSealed(settings)) return null;
  if (layout === "litestream" && merge.length >= SNAPSHOT_LEVEL) {
    throw new WalsyncError(
      "E_USAGE",
      `--merge: expected at most ${SNAPSHOT_LEVEL - 1} windows, found ${merge.length}`,
      {
        hint: "The litestream layout has a level for each, and no more.",
      },
    );
  }
  if (mergeKeepFine < KEEP_FINE_MIN_MS) {
    throw new WalsyncError(
      "E_USAGE",
      `--merge-keep-fine: expected at least 1h, found ${formatDuration(mergeKeepFine)}`,
      {
        hint: "A watch that pauses must find its newest increments again.",
      },
    );
  }
  return { windowsMs: merge, keepFineMs: mergeKeepFine };
}
