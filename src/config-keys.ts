/**
 * walsync.toml: which keys there are, and which setting each one is. Types, defaults and descriptions are those of the flags
 * of the same setting, so that file, command line and documentation cannot differ.
 */

/** Found without a flag in the working directory. */
export const DEFAULT_CONFIG = "walsync.toml";

export interface ConfigKey {
  /** The setting's name in the tables of the commands: the flag without its dashes. */
  setting: string;
  /** The key says the opposite of the flag: `enabled = false` is --no-metrics. */
  negated?: true;
}

const same = (...names: string[]): Record<string, ConfigKey> =>
  Object.fromEntries(names.map((name) => [name, { setting: name.replaceAll("_", "-") }]));

/** Keys by section. */
export const CONFIG_SECTIONS: Readonly<Record<string, Readonly<Record<string, ConfigKey>>>> = {
  s3: same("bucket", "endpoint", "region", "force_path_style", "storage_class", "sse"),
  encryption: {
    recipients: { setting: "recipient" },
    recipients_file: { setting: "recipients-file" },
    identity_file: { setting: "identity" },
  },
  sync: same(
    "layout",
    "wal_sync_interval",
    "snapshot_interval",
    "max_changes",
    "max_interval",
    "on_idle",
    "on_startup",
    "checkpoint_interval",
    "min_checkpoint_pages",
    "validation_interval",
    "compact_after_snapshot",
    "compact_interval",
    "merge",
    "merge_keep_fine",
    "max_outbox",
    "max_pinned",
    "shutdown_timeout",
    "state_dir",
    "enable_wal",
    "restore_if_missing",
    "exec",
  ),
  retention: {
    hourly: { setting: "retain-hourly" },
    daily: { setting: "retain-daily" },
    weekly: { setting: "retain-weekly" },
    monthly: { setting: "retain-monthly" },
    point_in_time: { setting: "retain-point-in-time" },
  },
  metrics: {
    enabled: { setting: "no-metrics", negated: true },
    port: { setting: "metrics-port" },
    listen: { setting: "metrics-listen" },
    max_lag: { setting: "max-lag" },
  },
  drill: {
    interval: { setting: "drill-interval" },
    assert: { setting: "drill-assert" },
    assert_timeout: { setting: "drill-assert-timeout" },
    max_rto: { setting: "drill-max-rto" },
    max_rpo: { setting: "drill-max-rpo" },
    temp_dir: { setting: "drill-temp-dir" },
  },
  alerts: same("webhook_url", "webhook_authorization", "webhook_events"),
};

/** Keys of a [[databases]] entry that are not settings. */
export const DATABASE_KEYS = ["path", "name", "prefix"] as const;

/** Sections that a [[databases]] entry may have as tables of its own. */
export const OVERRIDE_TABLES = ["retention", "drill"] as const;

/** Settings that belong to the whole process: a [[databases]] entry cannot have its own. */
const PROCESS_SETTINGS: ReadonlySet<string> = new Set([
  "shutdown-timeout",
  "max-pinned",
  "state-dir",
  "restore-if-missing",
  "exec",
  "compact-after-snapshot",
  "compact-interval",
]);

/** Settings that a running watch cannot take over: another value needs a restart. */
export const FIXED_SETTINGS: ReadonlySet<string> = new Set([
  ...Object.values(CONFIG_SECTIONS.s3!).map(({ setting }) => setting),
  ...Object.values(CONFIG_SECTIONS.encryption!).map(({ setting }) => setting),
  ...Object.values(CONFIG_SECTIONS.metrics!).map(({ setting }) => setting),
  ...Object.values(CONFIG_SECTIONS.alerts!).map(({ setting }) => setting),
  "state-dir",
  "restore-if-missing",
  "exec",
  "max-pinned",
  "layout",
]);

/** Keys of a [[databases]] entry that override a setting for it: those of [sync] that are not about the process, and [retention]'s. */
export const OVERRIDE_KEYS: Readonly<Record<string, ConfigKey>> = Object.fromEntries(
  Object.entries(CONFIG_SECTIONS.sync!).filter(([, { setting }]) => !PROCESS_SETTINGS.has(setting)),
);
