/** The half of `walsync migrate` that reads litestream.yml and writes walsync.toml. */
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { resolveSettings } from "../config.ts";
import { parseConfig } from "../config-file.ts";
import { asDiskError, writeFileDurably } from "../durable.ts";
import { WATCH_FLAGS } from "../engine/watch-settings.ts";
import { messageOf, WalsyncError } from "../errors.ts";
import { print, printJson, printNote } from "../log.ts";
import { sqliteFilesBelow } from "../migrate/found-files.ts";
import { parseLitestreamConfig } from "../migrate/litestream-config.ts";
import { type MigratedFile, planMigration } from "../migrate/plan.ts";
import { commandOf, formatToml } from "../migrate/toml.ts";

export interface MigrateConfigOptions {
  /** Of litestream.yml. */
  path: string;
  output: string | undefined;
  force: boolean;
  json: boolean;
  env: Readonly<Record<string, string | undefined>>;
}

interface Written {
  path: string | null;
  toml: string;
  command: string;
  file: MigratedFile;
}

/** Throws E_CONFIG for a file that cannot be read or means nothing, E_OUTPUT_EXISTS, E_USAGE, E_DISK. */
export function migrateConfig({ path, output, force, json, env }: MigrateConfigOptions): void {
  const label = basename(path);
  const context = { label, env, notes: [], folder: process.cwd(), filesBelow: sqliteFilesBelow };
  const migration = planMigration(parseLitestreamConfig(readYml(path), label, env), context);
  const { config, files, notes } = migration;
  const places = placesOf(files, output, json);
  const written = files.map((file, index): Written => {
    const place = places[index] ?? null;
    const toml = formatToml(file, { config, label, path: place, index });
    requireReadable(toml, place ?? "walsync.toml");
    return { path: place, toml, command: commandOf(config, place), file };
  });
  if (output !== undefined) writeAll(written, force);
  if (json) {
    const rows = written.map(({ file, ...rest }) => ({
      ...rest,
      destination: file.bucket,
      databases: file.databases.length,
    }));
    printJson({ files: rows, notes });
    return;
  }
  for (const { line, key, kind, message } of notes) printNote(`${kind} ${label}:${line} ${key}: ${message}`);
  if (output === undefined) print(written[0]!.toml.trimEnd());
  else for (const { command, file } of written) print(`${command}   # ${file.bucket}`);
}

// --- internal ---

function readYml(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new WalsyncError("E_CONFIG", `${path}: expected a configuration of Litestream, found: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Where each file goes; none for standard output. */
function placesOf(files: readonly MigratedFile[], output: string | undefined, json: boolean): string[] {
  if (files.length === 1 || output === undefined) {
    if (files.length > 1 && !json) throw severalDestinations(files, "-o FOLDER", "standard output");
    const isFolder = output !== undefined && statSync(output, { throwIfNoEntry: false })?.isDirectory() === true;
    if (output === undefined) return [];
    return [isFolder ? join(output, "walsync.toml") : output];
  }
  if (output.endsWith(".toml")) throw severalDestinations(files, "-o FOLDER", `-o ${output}`);
  const names = new Set<string>();
  for (const { slug } of files) {
    let name = slug;
    for (let i = 2; names.has(name); i++) name = `${slug}-${i}`;
    names.add(name);
  }
  return [...names].map((name) => join(output, `${name}.toml`));
}

function severalDestinations(files: readonly MigratedFile[], expected: string, found: string): WalsyncError {
  const list = files.map(({ bucket, databases }) => `${bucket} (${databases.length})`).join(", ");
  return new WalsyncError(
    "E_USAGE",
    `migrate: expected ${expected} for ${files.length} destinations, found ${found}: ${list}`,
    { hint: "A process of walsync has one destination: the folder gets one file, and so one process, for each." },
  );
}

/** What is written is what watch reads, or it is a bug that must not reach a disk. */
function requireReadable(toml: string, label: string): void {
  // Whatever the environment has to say is not known here.
  const anything = new Proxy({}, { get: () => "x" });
  const { layer, databases } = parseConfig(toml, label, "/", anything);
  for (const { layer: own } of databases) resolveSettings(WATCH_FLAGS, [own, layer]);
}

function writeAll(written: readonly Written[], force: boolean): void {
  const existing = written.find(({ path }) => path !== null && existsSync(path));
  if (existing !== undefined && !force) {
    throw new WalsyncError("E_OUTPUT_EXISTS", `${existing.path}: expected no such file, found one`, {
      hint: "Replace it with --force.",
    });
  }
  for (const { path, toml } of written) {
    if (path === null) continue;
    try {
      mkdirSync(dirname(path), { recursive: true });
    } catch (error) {
      throw asDiskError(dirname(path), error);
    }
    writeFileDurably(path, Buffer.from(toml));
  }
}
