/**
 * Reads walsync.toml: a layer of settings behind the environment, and the databases that it names. Strict: what is not in the
 * table of `config-keys.ts` is an error that names file, line and key.
 * Spec: https://toml.io/en/v1.0.0
 */
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import type { SettingDef, SettingLayer } from "./config.ts";
import {
  CONFIG_SECTIONS,
  type ConfigKey,
  DATABASE_KEYS,
  DEFAULT_CONFIG,
  OVERRIDE_KEYS,
  OVERRIDE_TABLES,
} from "./config-keys.ts";
import { errnoOf, messageOf, WalsyncError } from "./errors.ts";
import { nearest } from "./suggest.ts";

/** A [[databases]] entry. */
export interface ConfigDatabase {
  /** File, directory or glob; absolute. */
  path: string;
  name: string | undefined;
  prefix: string | undefined;
  /** Its own settings. */
  layer: SettingLayer;
  /** For messages: "walsync.toml:12". */
  place: string;
}

export interface ConfigFile {
  path: string;
  layer: SettingLayer;
  databases: ConfigDatabase[];
}

/**
 * The file at `path`, or walsync.toml in `folder` if there is one; null if there is none. Relative paths in it are relative
 * to it. Throws E_CONFIG.
 */
export function readConfig(
  path: string | undefined,
  folder: string,
  env: Readonly<Record<string, string | undefined>>,
): ConfigFile | null {
  const file = path ?? join(folder, DEFAULT_CONFIG);
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (path === undefined && errnoOf(error) === "ENOENT") return null;
    throw new WalsyncError("E_CONFIG", `${file}: expected a configuration file, found: ${messageOf(error)}`, {
      hint: "Check --config.",
      cause: error,
    });
  }
  return parseConfig(text, path ?? DEFAULT_CONFIG, dirname(resolve(file)), env);
}

/** As `readConfig`, for a text. `label` is what messages call the file. */
export function parseConfig(
  text: string,
  label: string,
  folder: string,
  env: Readonly<Record<string, string | undefined>>,
): ConfigFile {
  const document = new Document(parseToml(text, label), text, label, env);
  const given = new Map<string, Given>();
  const databases: ConfigDatabase[] = [];
  for (const [section, value] of Object.entries(document.root)) {
    const keys = CONFIG_SECTIONS[section];
    if (section === "databases") databases.push(...readDatabases(document, value, folder));
    else if (keys === undefined) throw document.unknown([section], [...Object.keys(CONFIG_SECTIONS), "databases"]);
    else collect(document, [section], document.table([section], value), keys, given);
    if (section === "retention") requireSomething(document, [section], given);
  }
  return { path: label, layer: layerOf(given), databases };
}

// --- internal ---

type Toml = Record<string, unknown>;
type Path = readonly (string | number)[];

interface Given {
  value: unknown;
  key: ConfigKey;
  /** "walsync.toml:12: sync.max_changes". */
  label: string;
}

function parseToml(text: string, label: string): Toml {
  try {
    return parse(text) as Toml;
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "");
    throw new WalsyncError("E_CONFIG", `${label}:${error.line}: expected TOML, found: ${reason}`, { cause: error });
  }
}

/** A parsed file, with what messages need. */
class Document {
  readonly root: Toml;
  readonly #lines: readonly string[];
  readonly #label: string;
  readonly #env: Readonly<Record<string, string | undefined>>;

  constructor(root: Toml, text: string, label: string, env: Readonly<Record<string, string | undefined>>) {
    this.root = root;
    this.#lines = text.split("\n");
    this.#label = label;
    this.#env = env;
  }

  /** "walsync.toml:12: sync.max_changes". */
  at(path: Path): string {
    const dotted = path.map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`)).join("");
    return `${this.place(path)}: ${dotted.slice(1)}`;
  }

  place(path: Path): string {
    return `${this.#label}:${lineOf(this.#lines, path)}`;
  }

  wrong(path: Path, expected: string, found: unknown): WalsyncError {
    const shown = typeof found === "string" || typeof found === "number" || typeof found === "boolean";
    return new WalsyncError(
      "E_CONFIG",
      `${this.at(path)}: expected ${expected}, found ${shown ? JSON.stringify(found) : kindOf(found)}`,
    );
  }

  unknown(path: Path, known: readonly string[]): WalsyncError {
    const name = String(path.at(-1));
    const suggestion = nearest(name, known);
    return new WalsyncError("E_CONFIG", `${this.at(path)}: no such key`, {
      hint: suggestion === undefined ? `There is: ${known.join(", ")}` : `Did you mean ${suggestion}?`,
    });
  }

  table(path: Path, value: unknown): Record<string, unknown> {
    if (kindOf(value) === "a table") return value as Record<string, unknown>;
    throw this.wrong(path, "a table", value);
  }

  /** With each `${NAME}` replaced by what the environment says. */
  text(path: Path, value: unknown): string {
    if (typeof value !== "string") throw this.wrong(path, "text in quotes", value);
    return value.replaceAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g, (_, name: string) => {
      const found = this.#env[name];
      if (found !== undefined && found !== "") return found;
      throw new WalsyncError("E_CONFIG", `${this.at(path)}: expected ${name} in the environment, found nothing`);
    });
  }
}

function readDatabases(document: Document, value: unknown, folder: string): ConfigDatabase[] {
  if (!Array.isArray(value)) throw document.wrong(["databases"], "[[databases]] entries", value);
  return value.map((entry: unknown, i): ConfigDatabase => {
    const path = ["databases", i];
    const table = document.table(path, entry);
    const own = { ...table };
    for (const key of DATABASE_KEYS) delete own[key];
    const given = new Map<string, Given>();
    for (const section of OVERRIDE_TABLES) {
      if (own[section] === undefined) continue;
      const at = [...path, section];
      collect(document, at, document.table(at, own[section]), CONFIG_SECTIONS[section]!, given);
      if (section === "retention") requireSomething(document, at, given);
      delete own[section];
    }
    collect(document, path, own, OVERRIDE_KEYS, given, [...DATABASE_KEYS, ...OVERRIDE_TABLES]);
    const optional = (key: string) =>
      table[key] === undefined ? undefined : document.text([...path, key], table[key]);
    const file = optional("path");
    if (file === undefined) throw document.wrong(path, "a path", entry);
    return {
      path: resolve(folder, file),
      name: optional("name"),
      prefix: optional("prefix"),
      layer: layerOf(given),
      place: document.place(path),
    };
  });
}

/** Takes the settings of one table. `others` are keys that somebody else reads. */
function collect(
  document: Document,
  path: Path,
  table: Record<string, unknown>,
  keys: Readonly<Record<string, ConfigKey>>,
  into: Map<string, Given>,
  others: readonly string[] = [],
): void {
  for (const [name, value] of Object.entries(table)) {
    const at = [...path, name];
    const key = keys[name];
    if (key === undefined) throw document.unknown(at, [...Object.keys(keys), ...others]);
    into.set(key.setting, {
      value: withVariables(document, at, value),
      key,
      label: document.at(at),
    });
  }
}

/** Texts, also those of a list, with what the environment says. */
function withVariables(document: Document, at: Path, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((one: unknown) => withVariables(document, at, one));
  return typeof value === "string" ? document.text(at, value) : value;
}

/** A retention of nothing is one that nobody means. */
function requireSomething(document: Document, path: Path, given: ReadonlyMap<string, Given>): void {
  const tiers = ["hourly", "daily", "weekly", "monthly"];
  if (tiers.some((tier) => given.get(`retain-${tier}`)?.value !== 0)) return;
  throw new WalsyncError(
    "E_CONFIG",
    `${document.at(path)}: expected a tier that keeps something, found 0 in every one`,
  );
}

function layerOf(given: ReadonlyMap<string, Given>): SettingLayer {
  return {
    origin: "file",
    code: "E_CONFIG",
    text: (name, def) => {
      const found = given.get(name);
      return found === undefined ? undefined : textOf(found, def);
    },
    label: (name) => given.get(name)?.label ?? name,
  };
}

/** The value as text for the setting's own parser. Throws E_CONFIG if it is of another kind. */
function textOf({ value, key, label }: Given, def: SettingDef): string {
  const wrong = (expected: string): WalsyncError =>
    new WalsyncError("E_CONFIG", `${label}: expected ${expected}, found ${shown(value)}`);
  switch (def.type) {
    case "boolean":
      if (typeof value !== "boolean") throw wrong("true or false");
      return String(key.negated === true ? !value : value);
    case "integer":
      if (typeof value !== "number" || !Number.isInteger(value)) throw wrong("a whole number");
      return String(value);
    case "duration":
      if (typeof value === "number" || typeof value === "string") return String(value);
      throw wrong('a duration such as "5m", or a number of seconds');
    case "size":
      if (typeof value === "number" || typeof value === "string") return String(value);
      throw wrong('a size such as "64MiB", or a number of bytes');
    case "durations":
      if (Array.isArray(value) && value.every((one) => typeof one === "string" || typeof one === "number")) {
        return value.length === 0 ? "none" : value.join(",");
      }
      throw wrong('a list of durations such as ["30s", "5m"]');
    case "texts":
      if (Array.isArray(value) && value.every((one) => typeof one === "string")) return JSON.stringify(value);
      throw wrong('a list of texts such as ["one", "two"]');
    default:
      if (typeof value !== "string") throw wrong("text in quotes");
      return value;
  }
}

function shown(value: unknown): string {
  return typeof value === "object" ? kindOf(value) : JSON.stringify(value);
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (value instanceof Date) return "a time";
  if (typeof value === "object" && value !== null) return "a table";
  return `a ${typeof value}`;
}

/** The line, from 1, on which a key stands, or the header of its table; for messages, so it need not know every spelling. */
function lineOf(lines: readonly string[], path: Path): number {
  const [section, second, ...rest] = path;
  const isEntry = typeof second === "number";
  const header = isEntry ? `[[${section}]]` : `[${section}]`;
  let skip = isEntry ? second : 0;
  const start = lines.findIndex((line) => strip(line) === header && skip-- === 0);
  if (start < 0) return Math.max(1, lines.findIndex((line) => line.includes(String(section))) + 1);
  const key = isEntry ? rest.at(-1) : second;
  if (key === undefined) return start + 1;
  const names = new RegExp(`^\\s*"?${escapeRegExp(String(key))}"?\\s*[=.]`);
  for (let i = start + 1; i < lines.length; i++) {
    const line = strip(lines[i]!);
    if (names.test(line)) return i + 1;
    // The next table; one of this entry's own is still part of it.
    if (line.startsWith("[") && !line.startsWith(`[${section}.`)) break;
  }
  return start + 1;
}

/** Without a comment, and without the spaces that TOML allows in a header. */
function strip(line: string): string {
  return line
    .replace(/#.*$/, "")
    .trim()
    .replace(/^(\[\[?)\s*(.*?)\s*(\]\]?)$/, "$1$2$3");
}

function escapeRegExp(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
