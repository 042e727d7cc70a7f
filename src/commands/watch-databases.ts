/** Which databases `watch` replicates: those of the command line, or else those of walsync.toml. */
import { basename, extname } from "node:path";
import type { SettingLayer } from "../config.ts";
import type { ConfigDatabase, ConfigFile } from "../config-file.ts";
import { WalsyncError } from "../errors.ts";
import { findSources, type NamedDatabase, nameSources, type Source } from "../replication/names.ts";

export interface WatchedDatabase extends NamedDatabase {
  /** Settings of its own, from walsync.toml. */
  layer: SettingLayer | null;
}

/** Throws E_USAGE or E_CONFIG for what cannot be replicated. */
export function databasesOf(
  arguments_: readonly string[],
  config: ConfigFile | null,
  keptName: (path: string) => string | null,
): WatchedDatabase[] {
  if (arguments_.length > 0) {
    return nameSources(findSources(arguments_), keptName).map((database) => ({ ...database, layer: null }));
  }
  if (config === null || config.databases.length === 0) {
    throw new WalsyncError("E_USAGE", "DATABASES is missing: expected databases to watch, found none", {
      hint: "Name them on the command line, or as [[databases]] in walsync.toml.",
    });
  }
  const layers = new Map<string, SettingLayer>();
  const sources = new Map<string, Source>();
  for (const entry of config.databases) {
    for (const source of inConfig(entry.place, () => sourcesOf(entry))) {
      // Of two entries for one file the first one counts: put the special case before the rule.
      if (sources.has(source.path)) continue;
      sources.set(source.path, source);
      layers.set(source.path, entry.layer);
    }
  }
  const named = inConfig(config.path, () => nameSources([...sources.values()], keptName));
  return named.map((database) => ({ ...database, layer: layers.get(database.path) ?? null }));
}

// --- internal ---

function sourcesOf({ path, name, prefix }: ConfigDatabase): Source[] {
  const sources = findSources([name === undefined ? path : `${name}=${path}`]);
  if (prefix === undefined) return sources;
  return sources.map((source) => {
    const below = source.givenName ?? source.nameBelow ?? basename(source.path, extname(source.path));
    return { ...source, givenName: `${prefix}/${below}` };
  });
}

/** What is wrong with the command line there is wrong with the file here. */
function inConfig<T>(place: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof WalsyncError) || error.code !== "E_USAGE") throw error;
    throw new WalsyncError("E_CONFIG", `${place}: ${error.message}`, { hint: error.hint, cause: error.cause });
  }
}
