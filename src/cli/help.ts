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

/** In lines of at most `width` columns, as far as words and examples allow. */
export function formatCommandHelp(help: CommandHelp, width: number): string {
  const positionals = Object.entries(help.positionals);
  return sections([
    [`${help.description}.`],
    ["Usage:", `  ${usageOf(help)}`],
    [
      "Arguments:",
      rows(
        positionals.map(([name, def]) => [name.toUpperCase(), def.description]),
        width,
      ),
    ],
    ["Flags:", rows(flagRows(help.flags), width)],
    ["Common flags:", rows(flagRows(help.commonFlags), width)],
    ["Examples:", ...help.examples.map(([command, meaning]) => `  # ${meaning}\n  ${command}`)],
  ]);
}

export function formatRootHelp(
  description: string,
  commands: readonly (readonly [name: string, summary: string])[],
  width: number,
): string {
  return sections([
    [`${description}.`],
    ["Usage:", `  ${PROGRAM} COMMAND [arguments] [flags]`],
    ["Commands:", rows(commands, width)],
    [
      "Flags:",
      rows(
        [
          ["-h, --help", "help for walsync, or for a command written before it"],
          ["-V, --version", "versions of walsync, Bun and SQLite"],
        ],
        width,
      ),
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
/** Before a row, and between its columns. */
const INDENT = 2;
/** Text in narrower columns is harder to read than a line that the terminal breaks. */
const TEXT_MIN = 30;

/** Sections that have nothing below their heading are left out. */
function sections(parts: readonly (readonly string[])[]): string {
  return parts
    .filter((part) => part[0]!.endsWith(":") === false || part.slice(1).some((text) => text !== ""))
    .map((part) => part.join("\n"))
    .join("\n\n");
}

/** Two columns; what does not fit into the width goes on below, in the second one. */
function rows(cells: readonly (readonly [label: string, text: string])[], width: number): string {
  const left = Math.max(...cells.map(([label]) => label.length)) + 2 * INDENT;
  const room = Math.max(width - left, TEXT_MIN);
  const lines = cells.flatMap(([label, text]) => wrap(text, room).map((line, i) => [i === 0 ? label : "", line]));
  return lines.length === 0 ? "" : table(lines).replaceAll(/^/gm, " ".repeat(INDENT));
}

/** Lines of at most `room` columns, broken between words. */
function wrap(text: string, room: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > room) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

function flagRows(flags: FlagTable): [label: string, text: string][] {
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
