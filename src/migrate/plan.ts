/**
 * From the configuration of Litestream to those of walsync: which databases go into one file, what each is called, and what
 * cannot be said. One process of walsync has one destination; each file is one process.
 */
import { join } from "node:path";
import { nameFault } from "../destination/layout.ts";
import { splitWords } from "../words.ts";
import type { LitestreamConfig, LitestreamDatabase, LitestreamReplica } from "./litestream-config.ts";
import type { Note } from "./notes.ts";
import { absolute, placeOf, type ReplicaPlace } from "./replica-place.ts";
import { wrong } from "./yml.ts";
import type { Sourced, YmlContext } from "./yml-section.ts";

/** Durations in milliseconds. */
export interface MigratedSettings {
  walSyncIntervalMs: number;
  snapshotIntervalMs: number;
  checkpointIntervalMs: number;
  minCheckpointPages: number;
  /** Null: as walsync does by itself. */
  validationIntervalMs: number | null;
  retentionMs: number;
}

export interface MigratedDatabase {
  /** A file, or a glob. */
  path: string;
  name: string | null;
  prefix: string | null;
  settings: MigratedSettings;
}

/** One walsync.toml. */
export interface MigratedFile {
  /** What tells it from the others, fit for a file name. */
  slug: string;
  bucket: string;
  endpoint: string | undefined;
  region: string | undefined;
  forcePathStyle: boolean | undefined;
  storageClass: string | undefined;
  /** Objects are encrypted by AWS's key service. */
  usesKms: boolean;
  /** Of most databases: of the first one. */
  settings: MigratedSettings;
  restoreIfMissing: boolean;
  /** What sync.exec says; null for nothing. */
  exec: string | null;
  databases: MigratedDatabase[];
  /** Those of its databases, and those of the whole file. */
  notes: Note[];
}

export interface Migration {
  config: LitestreamConfig;
  files: MigratedFile[];
  notes: Note[];
}

export interface MigrationContext extends YmlContext {
  /** What relative paths are relative to: Litestream's working directory. */
  folder: string;
  /** The databases that are there, relative to `folder`, with "/" between. */
  filesBelow(folder: string, pattern: string, recursive: boolean): string[];
}

/** Throws E_CONFIG if nothing is left to replicate, or two databases have one place. */
export function planMigration(config: LitestreamConfig, context: MigrationContext): Migration {
  const notes = config.notes;
  const members: Member[] = [];
  for (const database of config.databases) {
    const { replica } = database;
    if (replica === null) continue; // Noted when it was read.
    const place = placeOf(database, replica, context, context.folder);
    if (place.kind === "none") notes.push({ ...place.at, kind: "unsupported", message: leftOut(place.reason) });
    else members.push({ database, replica, place });
  }
  const groups = groupsOf(members);
  const files = groups.map((group) => fileOf(group, config, context));
  noteProcess(config, files, notes);
  const [only] = files;
  if (config.exec !== undefined && only !== undefined) only.exec = execOf(config.exec, files.length, notes);
  const unique = sortedNotes(notes);
  if (files.length === 0) {
    const reason = unique.find(({ kind }) => kind === "unsupported");
    throw wrong(context.label, reason?.line ?? 1, "a database that walsync can replicate", reason?.message ?? "none");
  }
  const keysOf = ({ members: own }: Group) => own.map(({ database }) => database.key);
  const all = new Set(groups.flatMap(keysOf));
  for (const [i, file] of files.entries()) {
    const own = new Set(keysOf(groups[i]!));
    // What was left out belongs to no file, and so to each.
    file.notes = unique.filter(({ key }) => own.has(entryOf(key)) || !all.has(entryOf(key)));
  }
  return { config, files, notes: unique };
}

// --- internal ---

interface Member {
  database: LitestreamDatabase;
  replica: LitestreamReplica;
  place: Exclude<ReplicaPlace, { kind: "none" }>;
}

interface Group {
  members: Member[];
  /** What all keys below the bucket, or all paths, begin with. */
  parts: string[];
}

/** To the environment, as Litestream finds it. */
const REFERENCE = /\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))/g;
const HOUR_MS = 3_600_000;
/** What Litestream does when nobody says anything. */
const LITESTREAM_SNAPSHOT_INTERVAL_MS = 24 * HOUR_MS;
const LITESTREAM_RETENTION_MS = 24 * HOUR_MS;
/** A folder like /mnt or /home holds more than replicas. */
const SHARED_PARTS_MIN = 2;

/** "dbs[0]" of "dbs[0].replica.path". */
function entryOf(key: string): string {
  return key.split(".")[0]!;
}

function leftOut(reason: string): string {
  return `${reason}; this database is left out`;
}

/** What a destination has in common for all that go there. */
function destinationKey({ place, replica }: Member): string {
  if (place.kind === "directory") return JSON.stringify(["directory", place.root]);
  const { bucket, endpoint, region, forcePathStyle } = place;
  // Two access keys are two processes: each has one pair of credentials in its environment.
  const { accessKeyId, storageClass, hasKmsKey } = replica;
  return JSON.stringify([bucket, endpoint, region, forcePathStyle, accessKeyId?.value, storageClass?.value, hasKmsKey]);
}

function groupsOf(members: readonly Member[]): Group[] {
  const groups: Group[] = [];
  for (const alike of Map.groupBy(members, destinationKey).values()) {
    const open: Group[] = [];
    for (const member of alike) {
      const parts = parentParts(member);
      const group = open.find((candidate) => isShared(member, candidate.parts, parts));
      if (group === undefined) open.push({ members: [member], parts });
      else {
        group.members.push(member);
        group.parts = commonParts(group.parts, parts);
      }
    }
    groups.push(...open);
  }
  return groups;
}

/** The parts that are the same for all databases of an entry: what comes before their names. */
function parentParts({ database, place }: Member): string[] {
  return database.dir === undefined ? place.parts.slice(0, -1) : place.parts;
}

function isShared({ place }: Member, a: readonly string[], b: readonly string[]): boolean {
  // In a bucket only what is below a name is ever listed for it.
  if (place.kind === "s3") return true;
  const common = commonParts(a, b);
  return common.length >= SHARED_PARTS_MIN || (common.length === a.length && common.length === b.length);
}

function commonParts(a: readonly string[], b: readonly string[]): string[] {
  const differing = a.findIndex((part, i) => part !== b[i]);
  return a.slice(0, differing < 0 ? a.length : differing);
}

function fileOf({ members, parts }: Group, config: LitestreamConfig, context: MigrationContext): MigratedFile {
  const [first] = members;
  const { place, replica } = first!;
  const databases: MigratedDatabase[] = [];
  const owners = new Map<string, MigratedDatabase>();
  for (const member of members) {
    for (const own of databasesOf(member, parts.length, config, context)) {
      databases.push(own);
      if (own.name === null) continue;
      const other = owners.get(own.name);
      if (other !== undefined && other.path !== own.path) {
        throw wrong(context.label, member.replica.line, `one database at ${own.name}`, `${other.path} and ${own.path}`);
      }
      owners.set(own.name, own);
    }
  }
  const below = parts.join("/");
  const isS3 = place.kind === "s3";
  return {
    slug: slugOf(isS3 ? [place.bucket, ...parts] : parts),
    bucket: isS3 ? `s3://${place.bucket}${below === "" ? "" : `/${below}`}` : `${place.root}${below}`,
    endpoint: isS3 ? place.endpoint : undefined,
    region: isS3 ? place.region : undefined,
    forcePathStyle: isS3 ? place.forcePathStyle : undefined,
    storageClass: isS3 ? replica.storageClass?.value : undefined,
    usesKms: isS3 && replica.hasKmsKey,
    settings: databases[0]!.settings,
    restoreIfMissing: members.some(({ database }) => database.restoreIfMissing),
    exec: null,
    databases,
    notes: [],
  };
}

function databasesOf(
  { database, replica, place }: Member,
  rootLength: number,
  config: LitestreamConfig,
  context: MigrationContext,
): MigratedDatabase[] {
  const settings = settingsOf(database, replica, config);
  const name = place.parts.slice(rootLength).join("/");
  const { path, dir, pattern } = database;
  if (path !== undefined) {
    requireUsable(name, replica, context);
    return [{ path: absolute(path.value, context.folder, context), name, prefix: null, settings }];
  }
  const folder = absolute(dir!.value, context.folder, context);
  const prefix = name === "" ? null : name;
  const glob = join(folder, database.recursive ? "**" : "", pattern!.value);
  const found = context.filesBelow(folder, pattern!.value, database.recursive).map((file): MigratedDatabase => {
    const own = prefix === null ? file : `${prefix}/${file}`;
    requireUsable(own, replica, context);
    return { path: join(folder, file), name: own, prefix: null, settings };
  });
  noteDirectory(database, found.length, config.notes);
  // The first entry for a file counts: the general one is for databases that are not there yet.
  return [...found, { path: glob, name: null, prefix, settings }];
}

function noteDirectory({ key, dir }: LitestreamDatabase, found: number, notes: Note[]): void {
  const at = { line: dir!.line, key: `${key}.dir`, kind: "different" as const };
  if (found === 0)
    notes.push({ ...at, message: "walsync watch wants at least one database in a directory when it starts" });
  else {
    const message =
      "databases that are there now keep the names that Litestream gave them; later ones are called without their extension";
    notes.push({ ...at, message });
  }
}

function requireUsable(name: string, replica: LitestreamReplica, { label }: MigrationContext): void {
  const fault = nameFault(name);
  if (fault === null) return;
  throw wrong(label, replica.line, "a replica path whose end can be a name", `one that ${fault}`, "Move its files.");
}

function settingsOf(
  database: LitestreamDatabase,
  replica: LitestreamReplica,
  config: LitestreamConfig,
): MigratedSettings {
  const snapshotInterval = database.snapshotIntervalMs ?? replica.snapshotIntervalMs ?? config.snapshotIntervalMs;
  const retention = database.retentionMs ?? replica.retentionMs ?? config.retentionMs;
  const validation = replica.validationIntervalMs ?? config.validationIntervalMs;
  return {
    walSyncIntervalMs: replica.syncIntervalMs?.value ?? 1000,
    snapshotIntervalMs: snapshotInterval?.value ?? LITESTREAM_SNAPSHOT_INTERVAL_MS,
    checkpointIntervalMs: database.checkpointIntervalMs?.value ?? 60_000,
    minCheckpointPages: Math.max(1, database.minCheckpointPages?.value ?? 1000),
    validationIntervalMs: validation?.value ?? null,
    retentionMs: retention?.value ?? LITESTREAM_RETENTION_MS,
  };
}

/** What concerns the process and not one database. */
function noteProcess(config: LitestreamConfig, files: readonly MigratedFile[], notes: Note[]): void {
  const { l0RetentionMs, addr, databases } = config;
  if (l0RetentionMs !== undefined && l0RetentionMs.value < HOUR_MS) {
    const message = "walsync keeps every increment for an hour at least";
    notes.push({ line: l0RetentionMs.line, key: l0RetentionMs.key, kind: "different", message });
  }
  if (addr !== undefined && files.length > 1) {
    const message = "each process has a port of its own: they count up from this one";
    notes.push({ line: addr.line, key: addr.key, kind: "different", message });
  }
  const restoring = databases.find(({ restoreIfMissing }) => restoreIfMissing);
  if (restoring !== undefined && databases.some(({ restoreIfMissing }) => !restoreIfMissing)) {
    const message = "restore_if_missing is for all databases of a process";
    notes.push({ line: restoring.line, key: `${restoring.key}.restore-if-db-not-exists`, kind: "different", message });
  }
}

/** As sync.exec says it, which keeps references to the environment; null, with a note, if it has to be done by hand. */
function execOf({ value, line, key }: Sourced<string>, fileCount: number, notes: Note[]): string | null {
  const by = (message: string) => {
    notes.push({ line, key, kind: "action", message });
    return null;
  };
  if (fileCount > 1) return by("an application has one process to run it: put sync.exec into one of the files");
  const split = splitWords(value.replaceAll(REFERENCE, "x"));
  if (split.kind === "fault") return by(`no shell reads sync.exec, and this has ${split.found} in it: use sh -c`);
  return value.replaceAll(REFERENCE, (_, braced?: string, bare?: string) => `\${${braced ?? bare}}`);
}

/** In the order of the file, each once: what stands at the top is read for every replica. */
function sortedNotes(notes: readonly Note[]): Note[] {
  const unique = new Map(notes.map((note) => [JSON.stringify(note), note]));
  return [...unique.values()].sort((a, b) => a.line - b.line);
}

function slugOf(parts: readonly string[]): string {
  const slug = parts
    .join("-")
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .replaceAll(/^[-.]+|[-.]+$/g, "");
  return slug === "" ? "walsync" : slug;
}
