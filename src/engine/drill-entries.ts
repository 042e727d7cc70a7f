/** Which [[databases]] entry of walsync.toml a database at a destination is of: for whoever knows it by its name alone. */
import type { SettingLayer } from "../config.ts";
import type { ConfigDatabase, ConfigFile } from "../config-file.ts";
import { findDatabases, namedSelections } from "./watch-databases.ts";

/**
 * Finds the settings of the entry that a name is of; null if it is of none. Names are those that a watch of this file would give
 * here, `keptName` included: what the database at a path is called already, or null. A database that is not on this host is found
 * by the name of an entry, or by its prefix. Throws E_CONFIG for entries that cannot be meant, E_DATABASE if a directory of one
 * cannot be read, and what `keptName` throws: what a database must fulfil is not left out in silence.
 */
export function entryLayers(
  config: ConfigFile,
  keptName: (path: string) => string | null,
): (name: string) => SettingLayer | null {
  const { databases } = findDatabases(namedSelections([], config), [], keptName);
  const here = new Map(databases.map(({ name, layer }) => [name, layer]));
  return (name) => here.get(name) ?? config.databases.find((entry) => claims(entry, name))?.layer ?? null;
}

// --- internal ---

function claims(entry: ConfigDatabase, name: string): boolean {
  return entry.name === name || (entry.prefix !== undefined && name.startsWith(`${entry.prefix}/`));
}
