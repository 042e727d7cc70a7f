/** Writes a migrated configuration as walsync.toml. Pure. What the keys mean: docs/CONFIG.md. */
import type { LitestreamConfig } from "./litestream-config.ts";
import type { Note } from "./notes.ts";
import type { MigratedDatabase, MigratedFile, MigratedSettings } from "./plan.ts";

export interface TomlContext {
  config: LitestreamConfig;
  /** What comments call the file that this one was made from. */
  label: string;
  /** Where it will be; null for standard output. */
  path: string | null;
  /** Files that were written before this one: each process needs a metrics port of its own. */
  index: number;
}

export function formatToml(file: MigratedFile, context: TomlContext): string {
  const { config, label } = context;
  const sections = [
    `# Written by walsync migrate from ${comment(label)}. Run it with:\n#   ${comment(commandOf(config, context.path))}`,
    noteLines(file.notes, label),
    table("[s3]", s3Lines(file)),
    table("[sync]", [
      'layout = "litestream"',
      ...settingLines(file.settings, WALSYNC_DEFAULTS),
      ...processLines(file, config),
    ]),
    table(
      "[retention]",
      retentionPairs(file.settings.retentionMs).map(([key, value]) => `${key} = ${value}`),
    ),
    table("[metrics]", metricsLines(config, context.index)),
    ...file.databases.map((database) => table("[[databases]]", databaseLines(database, file.settings))),
  ];
  return `${sections.filter((section) => section !== "").join("\n\n")}\n`;
}

/** How the process of this file is started. */
export function commandOf({ logLevel, logType }: LitestreamConfig, path: string | null): string {
  const flags = [
    logLevel === "debug" || logLevel === "trace" ? " --verbose" : "",
    logLevel === "warn" || logLevel === "error" ? " --quiet" : "",
    logType === "json" ? " --log-format json" : "",
  ];
  return `walsync watch --config ${path ?? "walsync.toml"}${flags.join("")}`;
}

// --- internal ---

/** "1h", "90s", "500ms": the largest unit in which it is a whole number. */
function formatInterval(ms: number): string {
  const [unit, factor] = UNITS.find(([, unitMs]) => ms % unitMs === 0)!;
  return `${ms / factor}${unit}`;
}

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const UNITS = [
  ["d", DAY_MS],
  ["h", HOUR_MS],
  ["m", 60_000],
  ["s", 1000],
  ["ms", 1],
] as const;

/** What does not have to be written. */
const WALSYNC_DEFAULTS: Partial<MigratedSettings> = {
  walSyncIntervalMs: 1000,
  snapshotIntervalMs: HOUR_MS,
  checkpointIntervalMs: 60_000,
  minCheckpointPages: 1000,
  validationIntervalMs: null,
};
const WALSYNC_MERGE_MS = [30_000, 300_000, HOUR_MS];
/** Litestream goes on trying for this long at the end. */
const LITESTREAM_SHUTDOWN_MS = 30_000;

function table(header: string, lines: readonly string[]): string {
  return lines.length === 0 ? "" : [header, ...lines].join("\n");
}

function noteLines(notes: readonly Note[], label: string): string {
  if (notes.length === 0) return "";
  const lines = notes.map(({ line, key, kind, message }) => `#   ${label}:${line} ${kind}: ${key}: ${message}`);
  return ["# Without a counterpart, or to be done by hand:", ...lines].map(comment).join("\n");
}

function s3Lines({ bucket, endpoint, region, forcePathStyle, storageClass, usesKms }: MigratedFile): string[] {
  // The key can only ask for path style. What an endpoint gets without it can be said in the URL alone.
  const isVirtual = forcePathStyle === false && endpoint !== undefined;
  const lines = [`bucket = ${text(isVirtual ? `${bucket}?forcePathStyle=false` : bucket)}`];
  if (endpoint !== undefined) lines.push(`endpoint = ${text(endpoint)}`);
  if (region !== undefined) lines.push(`region = ${text(region)}`);
  if (forcePathStyle === true) lines.push("force_path_style = true");
  if (storageClass !== undefined) lines.push(`storage_class = ${text(storageClass)}`);
  if (usesKms) lines.push('sse = "aws:kms"');
  return lines;
}

/** Those that differ from `base`. */
function settingLines(settings: MigratedSettings, base: Partial<MigratedSettings>): string[] {
  const lines: string[] = [];
  const interval = (key: string, ms: number) => lines.push(`${key} = ${text(formatInterval(ms))}`);
  const { walSyncIntervalMs, snapshotIntervalMs, checkpointIntervalMs, minCheckpointPages, validationIntervalMs } =
    settings;
  if (walSyncIntervalMs !== base.walSyncIntervalMs) interval("wal_sync_interval", walSyncIntervalMs);
  if (snapshotIntervalMs !== base.snapshotIntervalMs) interval("snapshot_interval", snapshotIntervalMs);
  if (checkpointIntervalMs !== base.checkpointIntervalMs) interval("checkpoint_interval", checkpointIntervalMs);
  if (minCheckpointPages !== base.minCheckpointPages) lines.push(`min_checkpoint_pages = ${minCheckpointPages}`);
  // Null is walsync's own: where only the base has another, it has to be said.
  if (validationIntervalMs !== base.validationIntervalMs)
    interval("validation_interval", validationIntervalMs ?? DAY_MS);
  return lines;
}

function processLines(file: MigratedFile, config: LitestreamConfig): string[] {
  const { levelsMs, l0RetentionMs, shutdownTimeoutMs, retentionEnabled } = config;
  const lines: string[] = [];
  const windows = levelsMs?.value;
  if (windows !== undefined && windows.join() !== WALSYNC_MERGE_MS.join()) {
    lines.push(`merge = [${windows.map((ms) => text(formatInterval(ms))).join(", ")}]`);
  }
  if (l0RetentionMs !== undefined && l0RetentionMs.value > HOUR_MS) {
    lines.push(`merge_keep_fine = ${text(formatInterval(l0RetentionMs.value))}`);
  }
  if (retentionEnabled) lines.push("compact_after_snapshot = true");
  if (file.restoreIfMissing) lines.push("restore_if_missing = true");
  if (file.exec !== null) lines.push(`exec = ${text(file.exec)}`);
  lines.push(`shutdown_timeout = ${text(formatInterval(shutdownTimeoutMs?.value ?? LITESTREAM_SHUTDOWN_MS))}`);
  return lines;
}

/** Every restore point of the time that Litestream keeps, and the newest snapshot of each day of it. */
function retentionPairs(retentionMs: number): [string, string][] {
  return [
    ["hourly", "0"],
    ["daily", String(Math.max(1, Math.ceil(retentionMs / DAY_MS)))],
    ["weekly", "0"],
    ["monthly", "0"],
    ["point_in_time", text(formatInterval(retentionMs))],
  ];
}

function metricsLines({ addr }: LitestreamConfig, index: number): string[] {
  const [, host = "", port] = /^(?:https?:\/\/)?(.*):(\d+)$/.exec(addr?.value ?? "") ?? [];
  if (port === undefined) return ["enabled = false"];
  const listen = host === "" ? "0.0.0.0" : host.replace(/^\[|\]$/g, "");
  const lines = [`port = ${Number(port) + index}`];
  return listen === "127.0.0.1" || listen === "localhost" ? lines : [...lines, `listen = ${text(listen)}`];
}

function databaseLines({ path, name, prefix, settings }: MigratedDatabase, base: MigratedSettings): string[] {
  const lines = [`path = ${text(path)}`];
  if (name !== null) lines.push(`name = ${text(name)}`);
  if (prefix !== null) lines.push(`prefix = ${text(prefix)}`);
  lines.push(...settingLines(settings, base));
  if (settings.retentionMs !== base.retentionMs) {
    const pairs = retentionPairs(settings.retentionMs).map(([key, value]) => `${key} = ${value}`);
    lines.push(`retention = { ${pairs.join(", ")} }`);
  }
  return lines;
}

/** A basic string. Spec: https://toml.io/en/v1.0.0#string */
function text(value: string): string {
  return JSON.stringify(value).replaceAll("\u007f", "\\u007f");
}

/** Nothing in a comment may end it. */
function comment(line: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
  return line.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
}
