/** From the library's options to the settings of the engine: one table, and one set of defaults, for both. */
import { camelCase, envLayer, resolveSettings, type SettingDef, type SettingLayer } from "../config.ts";
import { WATCH_FLAGS, type WatchSettings } from "../engine/watch-settings.ts";
import { WalsyncError } from "../errors.ts";
import { nearest } from "../suggest.ts";

/** Settings of the command `watch` that are no options: they are about a process of its own, or given in another way. */
export const COMMAND_SETTINGS: ReadonlySet<string> = new Set([
  "bucket",
  "max-pinned",
  "exec",
  "metrics-port",
  "metrics-listen",
  "no-metrics",
  "webhook-url",
  "webhook-authorization",
  "webhook-events",
  // A drill is a child of the program.
  "drill-interval",
  "drill-assert",
  "drill-assert-timeout",
  "drill-max-rto",
  "drill-max-rpo",
  "drill-temp-dir",
]);

type Given = Readonly<Record<string, unknown>>;

/**
 * Settings for `url` from objects of options, of which later ones win. Throws E_USAGE for what no option is called, and for a value
 * that an option cannot have. Reads `env` as the command line does.
 */
export function settingsOf(
  url: string,
  options: readonly Given[],
  env: Readonly<Record<string, string | undefined>>,
): WatchSettings {
  const given = Object.assign({}, ...options.map(defined)) as Given;
  const { retention, ...flat } = given;
  const named = { ...flat, ...retentionOf(retention) };
  requireKnown(named, OPTION_NAMES);
  // Nothing sleeps: in the application's process the lock that a sleeping database depends on would go with the last connection
  // of the application's own.
  const all = { ...named, bucket: url, maxPinned: Number.MAX_SAFE_INTEGER };
  return resolveSettings(WATCH_FLAGS, [layerOf(all), envLayer(env)]).values;
}

/** Throws E_USAGE for a mistyped option: dropped, it would quietly do something else. */
export function requireKnown(given: object, known: readonly string[]): void {
  const unknown = Object.keys(given).find((option) => !known.includes(option));
  if (unknown === undefined) return;
  const near = nearest(unknown, known);
  throw new WalsyncError("E_USAGE", `${unknown}: no such option`, {
    hint: near === undefined ? "The options are in docs/LIBRARY.md." : `Did you mean ${near}?`,
  });
}

/** Throws E_USAGE where a program without types hands over something else than a text. */
export function requireTexts(given: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(given)) {
    if (typeof value === "string") continue;
    throw new WalsyncError("E_USAGE", `${name}: expected string, found ${JSON.stringify(value) ?? typeof value}`);
  }
}

/** What the option for a setting is called: "snapshotIntervalMs", "recipients", "retention.hourly". */
export function optionName(name: string, { type }: Pick<SettingDef, "type">): string {
  const units: Partial<Record<SettingDef["type"], string>> = {
    duration: "Ms",
    durations: "Ms",
    size: "Bytes",
    texts: "s",
  };
  const called = name.startsWith(RETENTION) ? `retention.${camelCase(name.slice(RETENTION.length))}` : camelCase(name);
  return `${called}${units[type] ?? ""}`;
}

// --- internal ---

const RETENTION = "retain-";
const OPTION_NAMES: readonly string[] = Object.entries(WATCH_FLAGS as Record<string, SettingDef>)
  .filter(([name]) => !COMMAND_SETTINGS.has(name))
  .map(([name, def]) => optionName(name, def));

function layerOf(given: Given): SettingLayer {
  return {
    origin: "flag",
    code: "E_USAGE",
    text: (name, def) => {
      const option = optionName(name, def);
      return Object.hasOwn(given, option) ? textOf(option, def, given[option]) : undefined;
    },
    label: optionName,
  };
}

/** As a user would write it on the command line, so that it is checked in one place. */
function textOf(option: string, def: SettingDef, value: unknown): string {
  const wanted = TYPES[def.type];
  const isList = def.type === "durations" || def.type === "texts";
  const isOfType = isList ? Array.isArray(value) : typeof value === wanted;
  if (!isOfType) {
    throw new WalsyncError("E_USAGE", `${option}: expected ${wanted}, found ${JSON.stringify(value)}`);
  }
  if (def.type === "duration") return `${value}ms`;
  if (def.type === "texts") return JSON.stringify(value);
  if (def.type !== "durations") return String(value);
  return (value as unknown[]).length === 0 ? "none" : (value as unknown[]).map((ms) => `${ms}ms`).join(",");
}

const TYPES: Record<SettingDef["type"], string> = {
  string: "string",
  boolean: "boolean",
  integer: "number",
  duration: "number",
  durations: "array of numbers",
  texts: "array of strings",
  size: "number",
  choice: "string",
};

/** { hourly } -> { "retention.hourly" } */
function retentionOf(retention: unknown): Given {
  const given = Object.entries(defined((retention ?? {}) as Given));
  return Object.fromEntries(given.map(([key, value]) => [`retention.${key}`, value]));
}

/** An option that is undefined was not given. */
function defined(options: Given): Given {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
