/** What each database is called at the destination. Pure, but for the question what one was called before. */
import { extname, sep } from "node:path";
import { requireName } from "../destination/layout.ts";
import { WalsyncError } from "../errors.ts";
import { parsePattern, requireIn, type Source } from "./sources.ts";

export interface NamedDatabase {
  path: string;
  name: string;
}

export interface Naming {
  named: NamedDatabase[];
  /** Those that cannot have their name, and why. */
  refused: { path: string; error: WalsyncError }[];
}

/**
 * Finds what `arguments_` mean: `path`, `name=path`, a directory (the databases in it), or a glob. Throws E_USAGE for a
 * directory or glob without a database, and for a name with something that is more than one file.
 */
export function findSources(arguments_: readonly string[]): Source[] {
  return mergeSources(arguments_.flatMap((argument) => requireIn(parsePattern(argument))));
}

/** The same file named twice, for example by two globs that overlap, is one database. A given name counts. */
export function mergeSources<S extends Source>(sources: readonly S[]): S[] {
  const merged = new Map<string, S>();
  for (const source of sources) {
    const known = merged.get(source.path);
    if (known === undefined || (known.givenName === undefined && source.givenName !== undefined)) {
      merged.set(source.path, source);
    }
  }
  return [...merged.values()];
}

/** As `tryNames`. Throws E_USAGE for the first database that cannot have its name. */
export function nameSources(
  sources: readonly Source[],
  keptName: (path: string) => string | null = () => null,
): NamedDatabase[] {
  const { named, refused } = tryNames(sources, keptName);
  if (refused[0] !== undefined) throw refused[0].error;
  return named;
}

/**
 * Names every source: given, else kept from before, else below its directory or glob, else the file stem with as many
 * parents as it takes to tell it from the others. Of two with one name the first one has it.
 */
export function tryNames(sources: readonly Source[], keptName: (path: string) => string | null = () => null): Naming {
  const called = sources.filter(({ givenName, nameBelow }) => givenName === undefined && nameBelow === undefined);
  // Also those that keep a name from before: what one is called must not depend on how far the others have come.
  const names = distinguish(called.map(({ path }) => path));
  for (const { path, givenName, nameBelow } of sources) {
    const name = givenName ?? keptName(path) ?? nameBelow;
    if (name !== undefined) names.set(path, name);
  }
  const owners = new Map<string, string>();
  const naming: Naming = { named: [], refused: [] };
  for (const { path } of sources) {
    const name = names.get(path)!;
    const error = faultOf(name, path, owners.get(name));
    if (error !== null) naming.refused.push({ path, error });
    else {
      owners.set(name, path);
      naming.named.push({ path, name });
    }
  }
  return naming;
}

// --- internal ---

/** What is wrong with the name of a file, or null. `owner` is the file that has it already. */
function faultOf(name: string, path: string, owner: string | undefined): WalsyncError | null {
  if (owner !== undefined) return sameName(name, owner, path);
  try {
    requireName(name);
    return null;
  } catch (error) {
    if (error instanceof WalsyncError) return error;
    throw error;
  }
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
  return path
    .slice(0, path.length - extname(path).length)
    .split(sep)
    .filter((part) => part !== "");
}

function sameName(name: string, a: string, b: string): WalsyncError {
  return new WalsyncError("E_USAGE", `${a} and ${b}: expected two names, found ${JSON.stringify(name)} for both`, {
    hint: `Give one of them another name: walsync watch other=${b}`,
  });
}
