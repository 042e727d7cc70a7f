/**
 * Which databases are meant, and what each is called at the destination. Files, directories and globs come in; paths with
 * names come out. Naming itself is pure.
 */
import { readdirSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, extname, join, relative, resolve, sep } from "node:path";
import { requireName } from "../destination/layout.ts";
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";
import { isSqliteFile } from "../sqlite/database.ts";

/** A database that was asked for, before it has a name. */
export interface Source {
  /** Absolute, without symbolic links. The file may be missing if it was named itself. */
  path: string;
  /** As written: name=path. */
  givenName?: string;
  /** For files found below a directory or by a glob: the path below its fixed part, without the extension. */
  nameBelow?: string;
}

export interface NamedDatabase {
  path: string;
  name: string;
}

/**
 * Finds what `arguments_` mean: `path`, `name=path`, a directory (the databases in it), or a glob. Throws E_USAGE for a
 * directory or glob without a database, and for a name with something that is more than one file.
 */
export function findSources(arguments_: readonly string[]): Source[] {
  const sources = new Map<string, Source>();
  for (const argument of arguments_) {
    for (const source of readSources(argument)) {
      const known = sources.get(source.path);
      // The same file named twice, for example by two globs that overlap, is one database.
      if (known === undefined || source.givenName !== undefined) sources.set(source.path, source);
    }
  }
  return [...sources.values()];
}

/**
 * Names every source: given, else kept from before, else below its directory or glob, else the file stem with as many
 * parents as it takes to tell it from the others. Pure but for `keptName`. Throws E_USAGE if two end up with one name.
 */
export function nameSources(
  sources: readonly Source[],
  keptName: (path: string) => string | null = () => null,
): NamedDatabase[] {
  const called = sources.filter(({ givenName, nameBelow }) => givenName === undefined && nameBelow === undefined);
  // Also those that keep a name from before: what one is called must not depend on how far the others have come.
  const names = distinguish(called.map(({ path }) => path));
  for (const { path, givenName, nameBelow } of sources) {
    const name = givenName ?? keptName(path) ?? nameBelow;
    if (name !== undefined) names.set(path, name);
  }
  const owners = new Map<string, string>();
  for (const { path } of sources) {
    const name = names.get(path)!;
    requireName(name);
    const other = owners.get(name);
    if (other !== undefined) throw sameName(name, other, path);
    owners.set(name, path);
  }
  return sources.map(({ path }) => ({ path, name: names.get(path)! }));
}

// --- internal ---

const GLOB_CHARACTERS = /[*?[\]{}]/;
const GIVEN_NAME = /^([^=/\\]+(?:\/[^=/\\]+)*)=(.+)$/s;

function readSources(argument: string): Source[] {
  try {
    return sourcesOf(argument);
  } catch (error) {
    if (error instanceof WalsyncError || errnoOf(error) === undefined) throw error;
    throw new WalsyncError(
      "E_DATABASE",
      `${argument}: expected to look for databases there, found: ${messageOf(error)}`,
      {
        hint: "Give walsync permission to read the directory and the databases in it.",
        cause: error,
      },
    );
  }
}

function sourcesOf(argument: string): Source[] {
  const match = GIVEN_NAME.exec(argument);
  // A file whose own name has a "=" in it stays reachable: what exists is meant as it is.
  const isGiven = match !== null && statOrNull(argument) === null;
  const [name, pattern] = isGiven ? [match[1]!, match[2]!] : [undefined, argument];
  const stats = statOrNull(pattern);
  const isGlob = stats === null && GLOB_CHARACTERS.test(pattern);
  if (name !== undefined && (isGlob || stats?.isDirectory() === true)) {
    throw new WalsyncError("E_USAGE", `${argument}: expected name=file, found a name for several files`, {
      hint: "Leave the name out: files below a directory are called by their path below it.",
    });
  }
  if (isGlob) return filesOfGlob(pattern);
  if (stats?.isDirectory() === true) return filesOfFolder(pattern);
  const source: Source = { path: realPath(pattern) };
  if (name !== undefined) source.givenName = name;
  return [source];
}

function filesOfFolder(folder: string): Source[] {
  const found: Source[] = [];
  for (const entry of readdirSync(folder).sort()) {
    const path = join(folder, entry);
    if (isSqliteFile(path)) found.push({ path: realPath(path), nameBelow: withoutExtension(entry) });
  }
  return requireSome(found, folder, "directory");
}

function filesOfGlob(pattern: string): Source[] {
  const fixed = fixedPart(pattern);
  const rest = relative(fixed, resolve(pattern));
  const found: Source[] = [];
  for (const entry of [...new Bun.Glob(rest).scanSync({ cwd: fixed, dot: false, onlyFiles: true })].sort()) {
    // A pattern like "*" also matches the -wal and -shm files beside a database.
    if (!isSqliteFile(join(fixed, entry))) continue;
    found.push({ path: realPath(join(fixed, entry)), nameBelow: withoutExtension(entry.split(sep).join("/")) });
  }
  return requireSome(found, pattern, "glob");
}

/** The directory above the first part with a glob character in it. */
function fixedPart(pattern: string): string {
  const parts = resolve(pattern).split(sep);
  const first = parts.findIndex((part) => GLOB_CHARACTERS.test(part));
  return parts.slice(0, first).join(sep) || sep;
}

function requireSome(found: Source[], argument: string, kind: string): Source[] {
  if (found.length > 0) return found;
  throw new WalsyncError("E_USAGE", `${argument}: expected SQLite databases in this ${kind}, found none`, {
    hint: "Check the path, and quote a glob if the shell should leave it alone.",
  });
}

/** Adds parents to stems that collide, as few as it takes. Files that differ only in their extension keep it. */
function distinguish(paths: readonly string[]): Map<string, string> {
  const names = new Map<string, string>();
  let open = paths.map((path) => ({ path, parts: partsOf(path) }));
  for (let depth = 1; open.length > 0; depth++) {
    const groups = Map.groupBy(open, ({ parts }) => parts.slice(-depth).join("/"));
    open = [];
    for (const [name, group] of groups) {
      if (group.length === 1) names.set(group[0]!.path, name);
      else if (group.every(({ parts }) => parts.length <= depth)) {
        for (const { path } of group) names.set(path, `${name}${extname(path)}`);
      } else open.push(...group);
    }
  }
  return names;
}

function partsOf(path: string): string[] {
  return withoutExtension(path)
    .split(sep)
    .filter((part) => part !== "");
}

function withoutExtension(path: string): string {
  return path.slice(0, path.length - extname(path).length);
}

/** Without symbolic links, also for a file that does not exist yet. */
function realPath(path: string): string {
  const absolute = resolve(path);
  try {
    return realpathSync(absolute);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    try {
      return join(realpathSync(dirname(absolute)), basename(absolute));
    } catch {
      return absolute;
    }
  }
}

function statOrNull(path: string) {
  return statSync(path, { throwIfNoEntry: false }) ?? null;
}

function sameName(name: string, a: string, b: string): WalsyncError {
  return new WalsyncError("E_USAGE", `${a} and ${b}: expected two names, found ${JSON.stringify(name)} for both`, {
    hint: `Give one of them another name: walsync watch other=${b}`,
  });
}
