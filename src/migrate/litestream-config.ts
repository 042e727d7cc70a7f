/**
 * What a litestream.yml says: that of Litestream 0.5, and the older `replicas:` lists of 0.3. Values keep their lines; what
 * has no counterpart in walsync becomes a note. No secret leaves this file.
 * Spec: https://litestream.io/reference/config/
 */
import { DATABASE_NOTES, GLOBAL_NOTES, type Note, REPLICA_NOTES } from "./notes.ts";
import { parseYml, wrong } from "./yml.ts";
import { type Sourced, type YmlContext, YmlSection } from "./yml-section.ts";

export interface LitestreamReplica {
  line: number;
  /** Dotted: "dbs[0].replica". */
  key: string;
  type: Sourced<string> | undefined;
  url: Sourced<string> | undefined;
  bucket: Sourced<string> | undefined;
  path: Sourced<string> | undefined;
  endpoint: Sourced<string> | undefined;
  region: Sourced<string> | undefined;
  forcePathStyle: Sourced<boolean> | undefined;
  storageClass: Sourced<string> | undefined;
  /** Where an access key is named. Its text only tells keys apart, and is written nowhere. */
  accessKeyId: Sourced<string> | undefined;
  /** True if objects are encrypted with a key of AWS's key service. */
  hasKmsKey: boolean;
  /** What makes its files unreadable for walsync, if anything does. */
  closed: Sourced<string> | undefined;
  syncIntervalMs: Sourced<number> | undefined;
  validationIntervalMs: Sourced<number> | undefined;
  // Of Litestream 0.3.
  snapshotIntervalMs: Sourced<number> | undefined;
  retentionMs: Sourced<number> | undefined;
}

export interface LitestreamDatabase {
  line: number;
  key: string;
  path: Sourced<string> | undefined;
  /** Then `pattern` is there, too. */
  dir: Sourced<string> | undefined;
  pattern: Sourced<string> | undefined;
  recursive: boolean;
  checkpointIntervalMs: Sourced<number> | undefined;
  minCheckpointPages: Sourced<number> | undefined;
  snapshotIntervalMs: Sourced<number> | undefined;
  retentionMs: Sourced<number> | undefined;
  restoreIfMissing: boolean;
  replica: LitestreamReplica | null;
}

export interface LitestreamConfig {
  databases: LitestreamDatabase[];
  /** Of the metrics. */
  addr: Sourced<string> | undefined;
  levelsMs: Sourced<number[]> | undefined;
  l0RetentionMs: Sourced<number> | undefined;
  snapshotIntervalMs: Sourced<number> | undefined;
  retentionMs: Sourced<number> | undefined;
  /** False: Litestream deletes nothing. */
  retentionEnabled: boolean;
  validationIntervalMs: Sourced<number> | undefined;
  shutdownTimeoutMs: Sourced<number> | undefined;
  /** The application to run; references to the environment stay. */
  exec: Sourced<string> | undefined;
  /** "debug", "error" and so on. */
  logLevel: string | undefined;
  /** "text" or "json". */
  logType: string | undefined;
  notes: Note[];
}

/** Throws E_CONFIG, naming file and line, for what Litestream would refuse, too. */
export function parseLitestreamConfig(
  text: string,
  label: string,
  env: Readonly<Record<string, string | undefined>>,
): LitestreamConfig {
  const context: YmlContext = { label, env, notes: [] };
  const root = new YmlSection(parseYml(text, label), "", context);
  const snapshot = root.section("snapshot");
  const retention = root.section("retention");
  const validation = root.section("validation");
  const logging = root.section("logging");
  const databases = root.sections("dbs").map((section) => readDatabase(section, root, context));
  const levels = root.sections("levels").map((level) => level.durationMs("interval"));
  const config: LitestreamConfig = {
    databases,
    addr: root.expanded("addr"),
    levelsMs: levelsOf(levels, label),
    l0RetentionMs: root.durationMs("l0-retention"),
    snapshotIntervalMs: snapshot?.durationMs("interval"),
    retentionMs: snapshot?.durationMs("retention"),
    retentionEnabled: retention?.boolean("enabled")?.value ?? true,
    validationIntervalMs: validation?.durationMs("interval"),
    shutdownTimeoutMs: root.durationMs("shutdown-sync-timeout"),
    exec: root.text("exec"),
    logLevel: logging?.expanded("level")?.value.toLowerCase(),
    logType: logging?.expanded("type")?.value.toLowerCase(),
    notes: context.notes,
  };
  for (const key of ["stderr", "source"]) logging?.mark(key);
  for (const section of [snapshot, retention, validation, logging]) section?.noteRest({});
  // Defaults of the replicas stand at the top; what no replica asked for serves nobody.
  for (const key of INHERITED_KEYS) root.mark(key);
  root.noteRest({ ...GLOBAL_NOTES, ...REPLICA_NOTES });
  if (databases.length === 0) throw wrong(label, root.line, "databases as dbs", "none");
  return config;
}

// --- internal ---

const KMS_KEY = "sse-kms-key-id";
const CUSTOMER_KEYS = ["sse-customer-key", "sse-customer-key-path", "sse-customer-algorithm"];
/** Keys of a replica that may stand at the top, for all of them. */
const INHERITED_KEYS = new Set([
  "access-key-id",
  "secret-access-key",
  "region",
  "bucket",
  "endpoint",
  "force-path-style",
  "storage-class",
  "sync-interval",
  "validation-interval",
  KMS_KEY,
  ...CUSTOMER_KEYS,
  "age",
]);

function levelsOf(levels: readonly (Sourced<number> | undefined)[], label: string): Sourced<number[]> | undefined {
  const [first] = levels;
  if (first === undefined) return undefined;
  const windowsMs = levels.map((level, i) => {
    const before = levels[i - 1]?.value ?? 0;
    if (level !== undefined && level.value > before) return level.value;
    throw wrong(label, level?.line ?? first.line, "levels with intervals, each longer than the one before", "others");
  });
  return { value: windowsMs, line: first.line, key: "levels" };
}

function readDatabase(section: YmlSection, root: YmlSection, context: YmlContext): LitestreamDatabase {
  const { label } = context;
  const key = section.path.slice(0, -1);
  const path = section.text("path");
  const dir = section.text("dir");
  const pattern = section.expanded("pattern");
  if ((path === undefined) === (dir === undefined)) {
    throw wrong(label, section.line, `path or dir in ${key}`, path === undefined ? "neither" : "both");
  }
  if (dir !== undefined && pattern === undefined) throw wrong(label, dir.line, "a pattern with dir", "none");
  section.mark("watch"); // walsync looks for databases at every start and reload.
  const snapshot = section.section("snapshot");
  const database: LitestreamDatabase = {
    line: section.line,
    key,
    path,
    dir,
    pattern,
    recursive: section.boolean("recursive")?.value ?? false,
    checkpointIntervalMs: section.durationMs("checkpoint-interval"),
    minCheckpointPages: section.integer("min-checkpoint-page-count"),
    snapshotIntervalMs: snapshot?.durationMs("interval"),
    retentionMs: snapshot?.durationMs("retention"),
    restoreIfMissing: section.boolean("restore-if-db-not-exists")?.value ?? false,
    replica: readOnlyReplica(section, root, label),
  };
  snapshot?.noteRest({});
  section.noteRest(DATABASE_NOTES);
  return database;
}

function readOnlyReplica(section: YmlSection, root: YmlSection, label: string): LitestreamReplica | null {
  const key = section.path.slice(0, -1);
  const defaults = { section: root, keys: INHERITED_KEYS };
  const one = section.section("replica", defaults);
  const many = section.sections("replicas", defaults);
  if (one !== undefined && many.length > 0) throw wrong(label, one.line, `replica or replicas in ${key}`, "both");
  for (const other of many.slice(1)) {
    const at = { line: other.line, key: other.path.slice(0, -1) };
    section.note("unsupported", "a database has one destination: copy its files there by other means", at);
  }
  const [replica] = one === undefined ? many : [one];
  if (replica === undefined) {
    section.note("unsupported", "has no replica, and is left out", { line: section.line, key });
    return null;
  }
  if (one === undefined) {
    const message =
      "what Litestream 0.3 wrote (generations/) is not continued: keep that version to restore from it; 0.5 writes LTX files";
    section.note("different", message, { line: replica.line, key: replica.path.slice(0, -1) });
  }
  return readReplica(replica);
}

function readReplica(section: YmlSection): LitestreamReplica {
  const kms = section.mark(KMS_KEY);
  if (kms !== undefined) {
    const message = 'sse = "aws:kms" takes the key that the bucket names: make this one the default of the bucket';
    section.note("action", message, kms);
  }
  const replica: LitestreamReplica = {
    line: section.line,
    key: section.path.slice(0, -1),
    type: section.expanded("type"),
    url: section.text("url"),
    bucket: section.text("bucket"),
    path: section.text("path"),
    endpoint: section.text("endpoint"),
    region: section.text("region"),
    forcePathStyle: section.boolean("force-path-style"),
    storageClass: section.text("storage-class"),
    accessKeyId: section.text("access-key-id"),
    hasKmsKey: kms !== undefined,
    closed: closedBy(section),
    syncIntervalMs: section.durationMs("sync-interval"),
    validationIntervalMs: section.durationMs("validation-interval"),
    snapshotIntervalMs: section.durationMs("snapshot-interval"),
    retentionMs: section.durationMs("retention"),
  };
  noteSecrets(section, replica.accessKeyId);
  section.noteRest(REPLICA_NOTES, [...INHERITED_KEYS]);
  return replica;
}

function closedBy(section: YmlSection): Sourced<string> | undefined {
  const customer = CUSTOMER_KEYS.map((key) => section.mark(key)).find((found) => found !== undefined);
  if (customer !== undefined) return { ...customer, value: "objects that are encrypted with a key of yours (SSE-C)" };
  const age = section.mark("age");
  return age && { ...age, value: "files that are encrypted with age" };
}

/** Which variables take the place of secrets. Never what they are. */
function noteSecrets(section: YmlSection, accessKeyId: Sourced<string> | undefined): void {
  const found: [Sourced<string> | undefined, string][] = [
    [accessKeyId, "AWS_ACCESS_KEY_ID"],
    [section.text("secret-access-key"), "AWS_SECRET_ACCESS_KEY"],
  ];
  for (const [secret, variable] of found) {
    if (secret === undefined) continue;
    const reference = /^\$\{(\w+)\}$/.exec(secret.value)?.[1];
    if (reference === variable) continue;
    const how =
      reference === undefined ? `set ${variable} to what stands there` : `run: export ${variable}="$${reference}"`;
    section.note("action", `${how}; walsync takes credentials from the environment alone`, secret);
  }
}
