/**
 * Reads a command line against one table, strictly: whatever the table does not name is refused before the command
 * runs. A mistyped flag must never be dropped, and its value must never pass for an argument, because both would
 * quietly replicate the wrong thing to the wrong place.
 *
 * Understood: `--flag value`, `--flag=value`, `-f value`, `--switch`, `--no-switch` where declared, and `--`, after
 * which everything is an argument. A value that starts with "-" has to be written as `--flag=-value`.
 */
import { assert } from "../assert.ts";
import type { SettingDef, SettingLayer } from "../config.ts";
import { WalsyncError } from "../errors.ts";
import { nearest } from "../suggest.ts";

/** One flag. Its key in the table is its long name, as users type it: "snapshot-interval". */
export type FlagDef = SettingDef & {
  /** One letter: "b" for -b. */
  short?: string;
  /** Booleans only: `--no-<name>` is a flag, too. */
  negatable?: true;
};
export type FlagTable = Record<string, FlagDef>;

/** One argument. Its key in the table names it in --help and in the result; the order of the keys counts. */
export interface PositionalDef {
  description: string;
  required?: true;
  /** Takes all that are left, so only the last one may be. */
  variadic?: true;
  /** It is a local path: shells complete it as one. */
  isPath?: true;
  /** Nothing else is accepted. */
  choices?: readonly string[];
}
export type PositionalTable = Record<string, PositionalDef>;

export type PositionalValues<P extends PositionalTable> = {
  [K in keyof P]: P[K] extends { variadic: true }
    ? string[]
    : P[K] extends { required: true }
      ? string
      : string | undefined;
};

export interface ArgsDef<F extends FlagTable = FlagTable, P extends PositionalTable = PositionalTable> {
  flags: F;
  positionals: P;
}

export interface ParsedArgs<P extends PositionalTable> {
  /** Text of each flag that was given, by long name; "true" or "false" for booleans. Not yet checked by type. */
  flags: ReadonlyMap<string, string>;
  positionals: PositionalValues<P>;
}

/** Throws `WalsyncError` E_USAGE for anything that `def` does not describe. */
export function parseStrict<F extends FlagTable, P extends PositionalTable>(
  def: ArgsDef<F, P>,
  rawArgs: readonly string[],
): ParsedArgs<P> {
  const flags = new Map<string, string>();
  const loose: string[] = [];
  for (let i = 0; i < rawArgs.length; i++) {
    const arg = rawArgs[i]!;
    if (arg === "--") {
      loose.push(...rawArgs.slice(i + 1));
      break;
    }
    if (/^[\u2012-\u2015]/.test(arg)) {
      throw usage(
        `${arg} starts with a dash that is not "-"`,
        "Type the flag anew: a text program changed its hyphens.",
      );
    }
    if (!looksLikeFlag(arg)) {
      loose.push(arg);
      continue;
    }
    const flag = matchFlag(def.flags, arg);
    if (flags.has(flag.name) && flag.def.type !== "texts")
      throw usage(`--${flag.name} is given twice`, "Give it once.");
    if (flag.def.type === "boolean") {
      if (flag.inline !== undefined)
        throw usage(`${flag.written} takes no value, found ${JSON.stringify(flag.inline)}`);
      flags.set(flag.name, flag.negated ? "false" : "true");
      continue;
    }
    const value = flag.inline ?? rawArgs[++i];
    if (value === undefined || value === "" || (flag.inline === undefined && looksLikeFlag(value))) {
      const needs = `${flag.written} needs a value: ${flag.def.description}`;
      if (value === undefined || value === "") throw usage(needs);
      throw usage(
        `${needs}; found the flag ${value}`,
        `A value that starts with "-" is written --${flag.name}=${value}`,
      );
    }
    flags.set(flag.name, flag.def.type === "texts" ? withText(flags.get(flag.name), value) : value);
  }
  return { flags, positionals: assignPositionals(def.positionals, loose) };
}

/** The command line as the strongest layer of settings. */
export function flagLayer(given: ReadonlyMap<string, string>): SettingLayer {
  return { origin: "flag", code: "E_USAGE", text: (name) => given.get(name), label: (name) => `--${name}` };
}

/** True if --help or -h is among the flags, whatever else is wrong with them. */
export function asksForHelp(rawArgs: readonly string[]): boolean {
  return beforeArguments(rawArgs).some((arg) => arg === "--help" || arg === "-h");
}

/** What stands before "--": behind it no flag is one. */
export function beforeArguments(rawArgs: readonly string[]): readonly string[] {
  const end = rawArgs.indexOf("--");
  return end === -1 ? rawArgs : rawArgs.slice(0, end);
}

// --- internal ---

/** The texts that were `given` by now, as settings take them, and one more. */
function withText(given: string | undefined, value: string): string {
  return JSON.stringify([...(JSON.parse(given ?? "[]") as string[]), value]);
}

interface MatchedFlag {
  name: string;
  def: FlagDef;
  /** As the user wrote it, without a value: "-b". */
  written: string;
  negated: boolean;
  /** The text behind "=", if there is an "=". */
  inline: string | undefined;
}

/** "-" alone is an argument by custom (standard input or output). */
function looksLikeFlag(arg: string): boolean {
  return arg.length > 1 && arg.startsWith("-");
}

function matchFlag(table: FlagTable, arg: string): MatchedFlag {
  const equals = arg.indexOf("=");
  const written = equals === -1 ? arg : arg.slice(0, equals);
  const inline = equals === -1 ? undefined : arg.slice(equals + 1);
  if (written.startsWith("--")) {
    const name = written.slice(2);
    if (Object.hasOwn(table, name)) return { name, def: table[name]!, written, negated: false, inline };
    const positive = name.startsWith("no-") ? name.slice(3) : undefined;
    if (positive !== undefined && Object.hasOwn(table, positive) && table[positive]!.negatable) {
      return { name: positive, def: table[positive]!, written, negated: true, inline };
    }
    throw unknownFlag(table, written);
  }
  const entry = Object.entries(table).find(([, def]) => def.short === written.slice(1));
  if (entry === undefined) throw unknownFlag(table, written);
  if (inline !== undefined) throw usage(`${written} is a short flag and takes no "="`, `Write ${written} VALUE.`);
  return { name: entry[0], def: entry[1], written, negated: false, inline };
}

function unknownFlag(table: FlagTable, written: string): WalsyncError {
  const names = Object.entries(table).flatMap(([name, def]) => [
    `--${name}`,
    ...(def.negatable ? [`--no-${name}`] : []),
  ]);
  const [, bundled] = /^-([a-zA-Z]).+/.exec(written) ?? [];
  const short = Object.values(table).find((def) => bundled !== undefined && def.short === bundled);
  const near = nearest(written.startsWith("--") ? written : `-${written}`, names);
  if (near !== undefined) return usage(`${written}: no such flag`, `Did you mean ${near}?`);
  if (short !== undefined) return usage(`${written}: no such flag`, `Short flags stand alone: -${bundled} …`);
  return usage(`${written}: no such flag`, "--help lists the flags of a command.");
}

function assignPositionals<P extends PositionalTable>(table: P, loose: readonly string[]): PositionalValues<P> {
  const values: Record<string, string | string[] | undefined> = {};
  const names = Object.keys(table);
  const rest = [...loose];
  for (const [index, name] of names.entries()) {
    const def = table[name]!;
    assert(!def.variadic || index === names.length - 1, `only the last argument is variadic, ${name} is not the last`);
    if (def.required && rest.length === 0) throw usage(`${name.toUpperCase()} is missing: ${def.description}`);
    values[name] = def.variadic ? rest.splice(0) : requireChoice(name, def, rest.shift());
  }
  if (rest.length > 0) {
    const expected = names.length === 0 ? "no arguments" : `no argument behind ${names.at(-1)!.toUpperCase()}`;
    throw usage(`expected ${expected}, found ${rest.map((arg) => JSON.stringify(arg)).join(" ")}`);
  }
  return values as PositionalValues<P>;
}

function requireChoice(name: string, { choices }: PositionalDef, given: string | undefined): string | undefined {
  if (given === undefined || choices === undefined || choices.includes(given)) return given;
  throw usage(`${name.toUpperCase()}: expected one of ${choices.join(", ")}, found ${JSON.stringify(given)}`);
}

function usage(message: string, hint?: string): WalsyncError {
  return new WalsyncError("E_USAGE", message, { hint });
}
