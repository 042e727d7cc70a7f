/** Writes --help: usage, arguments, every flag with its default and environment variable, examples. Pure. */
import { table } from "../log.ts";
import type { FlagDef, FlagTable, PositionalTable } from "./flags.ts";

/** A command line and what it does. */
export type Example = readonly [command: string, meaning: string];

export interface CommandHelp {
  name: string;
  description: string;
  flags: FlagTable;
  /** Flags that every command has: listed last, under a heading of their own. */
  commonFlags: FlagTable;
  positionals: PositionalTable;
  examples: readonly Example[];
}

export function formatCommandHelp(help: CommandHelp): string {
  const positionals = Object.entries(help.positionals);
  return sections([
    [`${help.description}.`],
    ["Usage:", `  ${usageOf(help)}`],
    ["Arguments:", rows(positionals.map(([name, def]) => [name.toUpperCase(), def.description]))],
    ["Flags:", rows(flagRows(help.flags))],
    ["Common flags:", rows(flagRows(help.commonFlags))],
    ["Examples:", ...help.examples.map(([command, meaning]) => `  # ${meaning}\n  ${command}`)],
  ]);
}

export function formatRootHelp(
  description: string,
  commands: readonly (readonly [name: string, summary: string])[],
): string {
  return sections([
    [`${description}.`],
    ["Usage:", `  ${PROGRAM} COMMAND [arguments] [flags]`],
    ["Commands:", rows(commands)],
    [
      "Flags:",
      rows([
        ["-h, --help", "help for walsync, or for a command written before it"],
        ["-V, --version", "versions of walsync, Bun and SQLite"],
      ]),
    ],
    [`${PROGRAM} COMMAND --help lists a command's flags, defaults and examples.`],
  ]);
}

/** How a command is written: "walsync restore NAME -o FILE -b URL [flags]". */
export function usageOf({ name, flags, positionals }: Pick<CommandHelp, "name" | "flags" | "positionals">): string {
  const required = Object.entries(flags).filter(([, def]) => def.required);
  return [
    PROGRAM,
    name,
    ...Object.entries(positionals).map(([positional, def]) => {
      const word = `${positional.toUpperCase()}${def.variadic ? "…" : ""}`;
      return def.required ? word : `[${word}]`;
    }),
    ...required.map(([flag, def]) => `${def.short === undefined ? `--${flag}` : `-${def.short}`} ${placeholder(def)}`),
    "[flags]",
  ].join(" ");
}

/** "-b, --bucket URL", the short form with room for it where there is none. */
export function flagLabel(name: string, def: FlagDef): string {
  const long = def.negatable ? `--[no-]${name}` : `--${name}`;
  const value = def.type === "boolean" ? "" : ` ${placeholder(def)}`;
  return `${def.short === undefined ? "    " : `-${def.short}, `}${long}${value}`;
}

/** What a flag means, with whether it is required, its default and its environment variable. */
export function describeFlag(def: FlagDef): string {
  const notes = [
    def.required ? "required" : "",
    def.type === "texts" ? "may be repeated" : "",
    def.default === undefined
      ? ""
      : def.type === "boolean"
        ? `default ${def.default ? "on" : "off"}`
        : `default ${def.default}`,
    def.env === undefined ? "" : `env ${def.env}`,
  ].filter((note) => note !== "");
  return notes.length === 0 ? def.description : `${def.description} (${notes.join(", ")})`;
}

/** How a flag is written: "--wait", and "--no-wait" if that is one, too. */
export function flagNames(name: string, def: FlagDef): string[] {
  return [`--${name}`, ...(def.negatable ? [`--no-${name}`] : [])];
}

// --- internal ---

const PROGRAM = "walsync";

/** Sections that have nothing below their heading are left out. */
function sections(parts: readonly (readonly string[])[]): string {
  return parts
    .filter((part) => part[0]!.endsWith(":") === false || part.slice(1).some((text) => text !== ""))
    .map((part) => part.join("\n"))
    .join("\n\n");
}

function rows(cells: readonly (readonly string[])[]): string {
  return cells.length === 0 ? "" : table(cells).replaceAll(/^/gm, "  ");
}

function flagRows(flags: FlagTable): string[][] {
  return Object.entries(flags).map(([name, def]) => [flagLabel(name, def), describeFlag(def)]);
}

function placeholder(def: FlagDef): string {
  if (def.placeholder !== undefined) return def.placeholder;
  switch (def.type) {
    case "boolean":
      return "";
    case "string":
      return "TEXT";
    case "integer":
      return "N";
    case "duration":
      return "TIME";
    case "durations":
      return "LIST";
    case "texts":
      return "TEXT";
    case "size":
      return "SIZE";
    case "choice":
      return def.choices.join("|");
  }
}
