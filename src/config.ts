/**
 * Settings: what each one is called, how its text is read, and which source wins.
 *
 * Every source (flags, environment, later a file) is a layer that maps a setting's name to text. `resolveSettings` asks
 * the layers from strongest to weakest and parses the first answer, so a value is parsed in one place, whoever gave it,
 * and a default never beats a value that somebody wrote. Durations and sizes are parsed here and nowhere else.
 */
import { GiB, KiB, MiB } from "./bytes.ts";
import { type ErrorCode, WalsyncError } from "./errors.ts";

interface SettingBase {
  /** One sentence for --help, without a full stop. */
  description: string;
  /** Name of the value in --help. Default: by type. */
  placeholder?: string;
  /** Environment variable that gives the value when no flag does. */
  env?: string;
  /** The command cannot run without it. Then the value is never undefined. */
  required?: true;
}

/** One setting. `default` is text as a user would write it, so that --help can show it as it is. */
export type SettingDef =
  | (SettingBase & { type: "string"; default?: string })
  | (SettingBase & { type: "boolean"; default?: boolean })
  /** A whole number, by default 0 or more. */
  | (SettingBase & { type: "integer"; default?: string; min?: number; max?: number })
  /** A length of time; the value is in milliseconds. */
  | (SettingBase & { type: "duration"; default?: string })
  /** Lengths of time with commas between them, ascending, or "none"; the value is a list of milliseconds. */
  | (SettingBase & { type: "durations"; default?: string })
  /**
   * Any number of texts, each given by a flag of its own. As one text they are a JSON array. With `isNeverEmpty`, a list without
   * a text is refused, and it has no value if nobody gives one.
   */
  | (SettingBase & { type: "texts"; default?: undefined; isNeverEmpty?: boolean })
  /** An amount of bytes. */
  | (SettingBase & { type: "size"; default?: string })
  | (SettingBase & { type: "choice"; choices: readonly string[]; default?: string });

/** The type that a setting's text is parsed into. */
export type ParsedValue<D extends SettingDef> = D extends { type: "boolean" }
  ? boolean
  : D extends { type: "integer" | "duration" | "size" }
    ? number
    : D extends { type: "durations" }
      ? number[]
      : D extends { type: "texts" }
        ? string[]
        : D extends { type: "choice"; choices: readonly (infer C)[] }
          ? C
          : string;

/** A setting with a default, a required one, a boolean and a list of texts always have a value. */
export type SettingValue<D extends SettingDef> = D extends
  | { type: "boolean" }
  | { type: "texts"; isNeverEmpty?: false }
  | { default: string }
  | { required: true }
  ? ParsedValue<D>
  : ParsedValue<D> | undefined;

/** "snapshot-interval" -> "snapshotInterval": tables are written as users type them and read as TypeScript. */
export type CamelCase<S extends string> = S extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : S;

export type SettingTable = Record<string, SettingDef>;
export type SettingValues<T extends SettingTable> = { [K in keyof T & string as CamelCase<K>]: SettingValue<T[K]> };

export type Origin = "flag" | "env" | "file" | "default";

/** One source of settings, for example the command line. */
export interface SettingLayer {
  origin: Origin;
  /** What is wrong if a value of this layer is: the command line is usage, everything else is configuration. */
  code: ErrorCode;
  /** The text given for a setting, or undefined if this layer does not say. Booleans are "true" or "false". */
  text(name: string, def: SettingDef): string | undefined;
  /** How a message names the setting in this layer's own words: "--bucket", "AWS_REGION". */
  label(name: string, def: SettingDef): string;
}

export interface Resolved<T extends SettingTable> {
  values: SettingValues<T>;
  /** Where each value came from, by the setting's name as written in the table. Unset ones are "default". */
  origins: Record<string, Origin>;
}

/**
 * Asks `layers`, strongest first, then the table's defaults. Throws `WalsyncError` for text that cannot be parsed and
 * for a required setting that nobody gave.
 */
export function resolveSettings<T extends SettingTable>(table: T, layers: readonly SettingLayer[]): Resolved<T> {
  const values: Record<string, unknown> = {};
  const origins: Record<string, Origin> = {};
  for (const [name, def] of Object.entries(table)) {
    const layer = layers.find((candidate) => candidate.text(name, def) !== undefined);
    const text = layer?.text(name, def) ?? defaultText(def);
    origins[name] = layer?.origin ?? "default";
    if (text === undefined && def.required) throw missingSetting(name, def);
    values[camelCase(name)] =
      text === undefined
        ? undefined
        : parseSetting(def, text, layer?.label(name, def) ?? `default of ${name}`, layer?.code ?? "E_CONFIG");
  }
  return { values: values as SettingValues<T>, origins };
}

/** Settings that the environment gives through each definition's `env`. An empty variable counts as not set. */
export function envLayer(env: Readonly<Record<string, string | undefined>>): SettingLayer {
  return {
    origin: "env",
    code: "E_CONFIG",
    text: (_name, def) => (def.env === undefined ? undefined : env[def.env] || undefined),
    label: (name, def) => def.env ?? name,
  };
}

/**
 * Milliseconds of "500ms", "5s", "1.5m", "1h", "2d", or of a plain number of seconds ("3600").
 * Throws `WalsyncError` for anything else; `label` names the culprit in the message.
 */
export function parseDuration(text: string, label = "duration", code: ErrorCode = "E_CONFIG"): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim());
  const ms = match === null ? Number.NaN : Number(match[1]) * DURATION_UNITS_MS[(match[2] ?? "s") as DurationUnit];
  if (!Number.isSafeInteger(Math.round(ms))) {
    throw invalid(code, label, "a duration such as 500ms, 5s, 5m, 1h, 1d or a number of seconds", text);
  }
  return Math.round(ms);
}

/** Bytes of "64MiB", "1GB", "512k", "4096". Ki, Mi, Gi, Ti count in 1024s; K, M, G, T in 1000s; case does not matter. */
export function parseSize(text: string, label = "size", code: ErrorCode = "E_CONFIG"): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?$/i.exec(text.trim());
  const factor = match === null ? undefined : SIZE_UNITS[match[2]!.toLowerCase()];
  const bytes = factor === undefined ? Number.NaN : Math.round(Number(match![1]) * factor);
  if (!Number.isSafeInteger(bytes)) throw invalid(code, label, "a size such as 64MiB, 1GB or 4096", text);
  return bytes;
}

/** "snapshot-interval" -> "snapshotInterval". */
export function camelCase(name: string): string {
  return name.replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}

// --- internal ---

/** Of a setting that nobody gave, as text; undefined if it has no value then. */
function defaultText(def: SettingDef): string | undefined {
  if (def.type === "texts") return def.isNeverEmpty ? undefined : "[]";
  return def.type === "boolean" ? String(def.default ?? false) : def.default;
}

const DURATION_UNITS_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
type DurationUnit = keyof typeof DURATION_UNITS_MS;

const SIZE_UNITS: Record<string, number> = {
  "": 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: KiB,
  mi: MiB,
  gi: GiB,
  ti: 1024 * GiB,
};

function parseDurations(text: string, label: string, code: ErrorCode): number[] {
  if (text.trim() === "none") return [];
  const list = text.split(",").map((part) => parseDuration(part, label, code));
  if (list.every((ms, i) => ms > (list[i - 1] ?? 0))) return list;
  throw invalid(code, label, "durations like 30s,5m,1h, each longer than the one before", text);
}

function parseSetting(
  def: SettingDef,
  text: string,
  label: string,
  code: ErrorCode,
): string | number | boolean | number[] | string[] {
  switch (def.type) {
    case "string":
      return text;
    case "boolean":
      if (text !== "true" && text !== "false") throw invalid(code, label, "true or false", text);
      return text === "true";
    case "duration":
      return parseDuration(text, label, code);
    case "durations":
      return parseDurations(text, label, code);
    case "texts": {
      const texts = JSON.parse(text) as string[];
      if (texts.some((one) => one.trim() === "")) throw invalid(code, label, "texts with something in them", text);
      if (texts.length === 0 && def.isNeverEmpty) throw invalid(code, label, "at least one text", text);
      return texts;
    }
    case "size":
      return parseSize(text, label, code);
    case "choice":
      if (!def.choices.includes(text)) throw invalid(code, label, `one of ${def.choices.join(", ")}`, text);
      return text;
    case "integer": {
      const min = def.min ?? 0;
      const max = def.max ?? Number.MAX_SAFE_INTEGER;
      const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
      if (!(value >= min && value <= max)) {
        const range = def.max === undefined ? `of at least ${min}` : `from ${min} to ${max}`;
        throw invalid(code, label, `a whole number ${range}`, text);
      }
      return value;
    }
  }
}

function invalid(code: ErrorCode, label: string, expected: string, found: string): WalsyncError {
  return new WalsyncError(code, `${label}: expected ${expected}, found ${JSON.stringify(found)}`);
}

function missingSetting(name: string, def: SettingDef): WalsyncError {
  return new WalsyncError("E_USAGE", `--${name} is missing: ${def.description}`, {
    hint: def.env === undefined ? `Give it with --${name}.` : `Give it with --${name} or in ${def.env}.`,
  });
}
