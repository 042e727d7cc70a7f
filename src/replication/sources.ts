/**
 * Which files are meant by a path, a directory or a glob: now, and whenever it is asked again while databases come and go.
 * What this process has open is never opened for a look.
 */
import { readdirSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, extname, join, relative, resolve, sep } from "node:path";
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

/** What was asked for, understood once: a directory that vanishes later is still one. */
export type Pattern =
  | { kind: "file"; argument: string; source: Source }
  | { kind: "directory"; argument: string; folder: string }
  /** `rest` is the glob below `folder`. */
  | { kind: "glob"; argument: string; folder: string; rest: string };

/** Understands `path`, `name=path`, a directory or a glob. Throws E_USAGE for a name with something that is several files. */
export function parsePattern(argument: string): Pattern {
  return explaining(argument, () => {
    const match = GIVEN_NAME.exec(argument);
    // A file whose own name has a "=" in it stays reachable: what exists is meant as it is.
    const isGiven = match !== null && statOrNull(argument) === null;
    const [name, path] = isGiven ? [match[1]!, match[2]!] : [undefined, argument];
    const stats = statOrNull(path);
    const isGlob = stats === null && GLOB_CHARACTERS.test(path);
    const isFolder = stats?.isDirectory() === true;
    if (name !== undefined && (isGlob || isFolder)) {
      throw new WalsyncError("E_USAGE", `${argument}: expected name=file, found a name for several files`, {
        hint: "Leave the name out: files below a directory are called by their path below it.",
      });
    }
    if (isFolder) return { kind: "directory", argument, folder: realPath(path) };
    if (isGlob) {
      const fixed = fixedPart(path);
      return { kind: "glob", argument, folder: realPath(fixed), rest: relative(fixed, resolve(path)) };
    }
    const source: Source = { path: realPath(path) };
    if (name !== undefined) source.givenName = name;
    return { kind: "file", argument, source };
  });
}

/**
 * The databases that a pattern means now; a file is meant whether it exists or not. One of `known` need not look like a
 * database to stay one. Throws E_DATABASE if a directory cannot be read.
 */
export function findIn(pattern: Pattern, known: ReadonlySet<string> = new Set()): Source[] {
  if (pattern.kind === "file") return [pattern.source];
  return explaining(pattern.argument, () => {
    const found: Source[] = [];
    for (const entry of filesOf(pattern).sort()) {
      const path = realPath(join(pattern.folder, entry));
      if (!isCandidate(path) || !(known.has(path) ? isFile(path) : isSqliteFile(path))) continue;
      found.push({ path, nameBelow: withoutExtension(entry.split(sep).join("/")) });
    }
    return found;
  });
}

/** As `findIn`. Throws E_USAGE if there is none. */
export function requireIn(pattern: Pattern): Source[] {
  const found = findIn(pattern);
  if (found.length > 0) return found;
  const { argument, kind } = pattern;
  throw new WalsyncError("E_USAGE", `${argument}: expected SQLite databases in this ${kind}, found none`, {
    hint: "Check the path, and quote a glob if the shell should leave it alone.",
  });
}

/** The directories in which a database that the pattern means may appear, or a directory on the way to one. */
export function foldersOf(pattern: Pattern): string[] {
  if (pattern.kind === "file") return [];
  if (pattern.kind === "directory") return [pattern.folder];
  const parts = pattern.rest.split(sep).slice(0, -1);
  // Braces may hold a slash: then it is not told what stands at which depth.
  if (pattern.rest.includes("{") || parts.includes("**")) return foldersBelow(pattern.folder, () => true, MAX_DEPTH);
  const globs = parts.map((part) => new Bun.Glob(part));
  return foldersBelow(pattern.folder, (name, depth) => globs[depth]!.match(name), globs.length);
}

/** False for what is beside databases: what SQLite and walsync put there themselves. */
export function isCandidate(path: string): boolean {
  return !OTHER_FILES.test(path);
}

// --- internal ---

const GLOB_CHARACTERS = /[*?[\]{}]/;
const GIVEN_NAME = /^([^=/\\]+(?:\/[^=/\\]+)*)=(.+)$/s;
/** Rollback journals, WALs and their indexes; files of restores under way; folders with the state of a database. */
const OTHER_FILES = /(?:-(?:journal|wal|shm)|\.tmp-restore)$|\/\.[^/]+-walsync(?:\/|$)/;
const MAX_DEPTH = 16;

function filesOf(pattern: Exclude<Pattern, { kind: "file" }>): string[] {
  try {
    if (pattern.kind === "directory") return readdirSync(pattern.folder);
    return [...new Bun.Glob(pattern.rest).scanSync({ cwd: pattern.folder, dot: false, onlyFiles: true })];
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** `folder`, and every directory below it whose name `isMeant`, at most `depth` levels below. Hidden ones are not. */
function foldersBelow(folder: string, isMeant: (name: string, depth: number) => boolean, depth: number): string[] {
  const found = [folder];
  let level = [folder];
  for (let i = 0; i < depth && level.length > 0; i++) {
    level = level.flatMap((parent) => childrenOf(parent).filter((path) => isMeant(basename(path), i)));
    found.push(...level);
  }
  return found;
}

function childrenOf(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."))
      .map((entry) => join(folder, entry.name));
  } catch {
    return []; // Gone, or not to be read: whoever looks for databases there says so.
  }
}

function explaining<T>(argument: string, action: () => T): T {
  try {
    return action();
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

/** The directory above the first part with a glob character in it. */
function fixedPart(pattern: string): string {
  const parts = resolve(pattern).split(sep);
  const first = parts.findIndex((part) => GLOB_CHARACTERS.test(part));
  return parts.slice(0, first).join(sep) || sep;
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

function isFile(path: string): boolean {
  return statOrNull(path)?.isFile() === true;
}

function statOrNull(path: string) {
  return statSync(path, { throwIfNoEntry: false }) ?? null;
}
