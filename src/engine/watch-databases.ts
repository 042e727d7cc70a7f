/**
 * Which databases `watch` replicates, and by which settings: those of the command line, or else those of walsync.toml. Asked
 * at the start, after each reload, and whenever files come and go.
 */
import { basename, extname } from "node:path";
import type { SettingLayer } from "../config.ts";
import type { ConfigDatabase, ConfigFile } from "../config-file.ts";
import { WalsyncError } from "../errors.ts";
import { mergeSources, type NamedDatabase, type Naming, nameSources, tryNames } from "../replication/names.ts";
import { findIn, type Pattern, parsePattern, requireIn, type Source } from "../replication/sources.ts";

export interface WatchedDatabase extends NamedDatabase {
  /** Settings of its own, from walsync.toml. */
  layer: SettingLayer | null;
  /** A directory or a glob found it, and it may be gone one day. */
  mayVanish: boolean;
}

/** One argument, or one entry of walsync.toml. */
export interface Selection {
  pattern: Pattern;
  entry: ConfigDatabase | null;
}

type KeptName = (path: string) => string | null;

/** What was asked for. Throws E_USAGE or E_CONFIG for what cannot be meant. */
export function selectionsOf(arguments_: readonly string[], config: ConfigFile | null): Selection[] {
  const selections = namedSelections(arguments_, config);
  if (selections.length > 0) return selections;
  throw new WalsyncError("E_USAGE", "DATABASES is missing: expected databases to watch, found none", {
    hint: "Name them on the command line, or as [[databases]] in walsync.toml.",
  });
}

/** As `selectionsOf`, but nothing may be asked for. */
export function namedSelections(arguments_: readonly string[], config: ConfigFile | null): Selection[] {
  if (arguments_.length > 0) {
    return arguments_.map((argument) => ({ pattern: parsePattern(argument), entry: null }));
  }
  return (config?.databases ?? []).map((entry) => {
    const { path, name, place } = entry;
    return { pattern: inConfig(place, () => parsePattern(name === undefined ? path : `${name}=${path}`)), entry };
  });
}

/**
 * The databases that are there, strictly: throws E_USAGE or E_CONFIG for two with one name, and for a directory or a glob
 * without one, unless databases are `awaited`.
 */
export function requireDatabases(
  selections: readonly Selection[],
  config: ConfigFile | null,
  keptName: KeptName,
  missing: "refused" | "awaited",
): WatchedDatabase[] {
  const sources = merge(
    selections.flatMap((selection) =>
      sourcesOf(
        selection,
        inConfig(selection.entry?.place, () =>
          missing === "refused" ? requireIn(selection.pattern) : findIn(selection.pattern),
        ),
      ),
    ),
  );
  const place = selections.some(({ entry }) => entry !== null) ? config?.path : undefined;
  return withSettings(
    inConfig(place, () => nameSources(sources, keptName)),
    sources,
  );
}

/**
 * The databases that are there, `running` ones first: whoever has a name keeps it. Those that cannot have theirs are
 * refused. Throws E_DATABASE if a directory cannot be read.
 */
export function findDatabases(
  selections: readonly Selection[],
  running: readonly NamedDatabase[],
  keptName: KeptName,
): { databases: WatchedDatabase[]; refused: Naming["refused"] } {
  const names = new Map(running.map(({ path, name }) => [path, name]));
  const known = new Set(names.keys());
  const found = merge(selections.flatMap((selection) => sourcesOf(selection, findIn(selection.pattern, known))));
  const sources = [...found.filter(({ path }) => known.has(path)), ...found.filter(({ path }) => !known.has(path))];
  const { named, refused } = tryNames(sources, (path) => names.get(path) ?? keptName(path));
  return { databases: withSettings(named, sources), refused };
}

// --- internal ---

interface SelectedSource extends Source {
  selection: Selection;
}

function sourcesOf(selection: Selection, sources: readonly Source[]): SelectedSource[] {
  const prefix = selection.entry?.prefix;
  return sources.map((source) => {
    if (prefix === undefined) return { ...source, selection };
    const below = source.givenName ?? source.nameBelow ?? basename(source.path, extname(source.path));
    return { ...source, givenName: `${prefix}/${below}`, selection };
  });
}

function merge(sources: readonly SelectedSource[]): SelectedSource[] {
  if (sources.every(({ selection }) => selection.entry === null)) return mergeSources(sources);
  // Of two entries for one file the first one counts: put the special case before the rule.
  const first = new Map<string, SelectedSource>();
  for (const source of sources) if (!first.has(source.path)) first.set(source.path, source);
  return [...first.values()];
}

function withSettings(named: readonly NamedDatabase[], sources: readonly SelectedSource[]): WatchedDatabase[] {
  const selections = new Map(sources.map(({ path, selection }) => [path, selection]));
  return named.map((database) => {
    const { entry, pattern } = selections.get(database.path)!;
    return { ...database, layer: entry?.layer ?? null, mayVanish: pattern.kind !== "file" };
  });
}

/** What is wrong with the command line there is wrong with the file here. */
function inConfig<T>(place: string | undefined, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (place === undefined || !(error instanceof WalsyncError) || error.code !== "E_USAGE") throw error;
    throw new WalsyncError("E_CONFIG", `${place}: ${error.message}`, { hint: error.hint, cause: error.cause });
  }
}
