/** Completion scripts for shells, from the tables of the commands. They never run walsync. Pure. */

import { quoteWord } from "../words.ts";
import type { FlagDef, FlagTable, PositionalDef, PositionalTable } from "./flags.ts";
import { flagNames } from "./help.ts";

export interface CompletedCommand {
  name: string;
  summary: string;
  /** The common ones included. */
  flags: FlagTable;
  positionals: PositionalTable;
}

/** Writes the script of each shell that there is one for. */
export const SHELLS: Readonly<Record<string, (commands: readonly CompletedCommand[]) => string>> = {
  bash: formatBash,
  zsh: formatZsh,
  fish: formatFish,
};

// --- internal ---

/** What may stand in the place of a value. "none": nothing that a shell could know. */
type Values =
  | { kind: "files" }
  | { kind: "folders" }
  | { kind: "choices"; choices: readonly string[] }
  | { kind: "none" };

const ROOT_FLAGS = ["--help", "--version"];

function valuesOfFlag(name: string, def: FlagDef): Values {
  if (def.type === "choice") return { kind: "choices", choices: def.choices };
  if (def.placeholder === "DIR") return { kind: "folders" };
  // A destination may be a directory.
  return def.placeholder === "FILE" || name === "bucket" ? { kind: "files" } : { kind: "none" };
}

function valuesOfPositional(def: PositionalDef | undefined): Values {
  if (def?.choices !== undefined) return { kind: "choices", choices: def.choices };
  return def?.isPath === true ? { kind: "files" } : { kind: "none" };
}

/** Written so that bash 3.2, which macOS has, reads it, too. */
function formatBash(commands: readonly CompletedCommand[]): string {
  const names = [...commands.map(({ name }) => name), "help"].join(" ");
  return `# bash completion for walsync. Written by: walsync completion bash
_walsync_words() {
  local word
  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$1" -- "$2")
}
_walsync_paths() {
  local path
  compopt -o filenames 2>/dev/null
  while IFS= read -r path; do COMPREPLY+=("$path"); done < <(compgen "$1" -- "$2")
}
_walsync() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    case $current in
      -*) _walsync_words "${ROOT_FLAGS.join(" ")}" "$current" ;;
      *) _walsync_words "${names}" "$current" ;;
    esac
    return
  fi
  # --flag=value arrives as three words.
  if [ "$current" = "=" ]; then
    current=
  elif [ "$previous" = "=" ]; then
    previous=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  case \${COMP_WORDS[1]} in
    help) [ "$COMP_CWORD" -eq 2 ] && _walsync_words "${names}" "$current" ;;
${commands.map(bashCommand).join("\n")}
  esac
}
complete -F _walsync walsync
`;
}

function bashCommand({ name, flags, positionals }: CompletedCommand): string {
  const withValue = Object.entries(flags).filter(([, def]) => def.type !== "boolean");
  const cases = withValue.map(([flag, def]) => {
    const action = bashAction(valuesOfFlag(flag, def));
    return `        ${spellings(flag, def).join("|")}) ${action === "" ? "" : `${action}; `}return ;;`;
  });
  const words = Object.entries(flags).flatMap(([flag, def]) => flagNames(flag, def));
  const loose = bashAction(valuesOfPositional(Object.values(positionals)[0]));
  return `    ${name})
      case $previous in
${cases.join("\n")}
      esac
      case $current in
        -*) _walsync_words "${words.join(" ")}" "$current" ;;
        *) ${loose === "" ? ":" : loose} ;;
      esac ;;`;
}

function bashAction(values: Values): string {
  switch (values.kind) {
    case "files":
      return '_walsync_paths -f "$current"';
    case "folders":
      return '_walsync_paths -d "$current"';
    case "choices":
      return `_walsync_words "${values.choices.join(" ")}" "$current"`;
    case "none":
      return "";
  }
}

function formatZsh(commands: readonly CompletedCommand[]): string {
  const described = commands.map(({ name, summary }) => `    ${quoteWord(`${name}:${summary}`)}`);
  return `#compdef walsync
# zsh completion for walsync. Written by: walsync completion zsh
_walsync() {
  local -a commands
  commands=(
${described.join("\n")}
    'help:help for a command'
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    [[ $PREFIX == -* ]] && compadd -- ${ROOT_FLAGS.join(" ")}
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
    help) (( CURRENT == 2 )) && _describe command commands ;;
${commands.map(zshCommand).join("\n")}
  esac
}
if [[ $funcstack[1] == _walsync ]]; then _walsync "$@"; else compdef _walsync walsync; fi
`;
}

function zshCommand({ name, flags, positionals }: CompletedCommand): string {
  const lines = Object.entries(flags).flatMap(([flag, def]) => {
    const text = `[${def.description.replaceAll(/[[\]:\\]/g, "\\$&")}]`;
    const value = def.type === "boolean" ? "" : `:${flag}:${zshAction(valuesOfFlag(flag, def))}`;
    const others = spellings(flag, def);
    // "=" behind a long flag: its value is the next word, or stands behind "=".
    const joint = (spelling: string) => (value !== "" && spelling.startsWith("--") ? "=" : "");
    const excluded = def.type === "texts" ? "*" : `(${others.join(" ")})`;
    return others.map((spelling) => quoteWord(`${excluded}${spelling}${joint(spelling)}${text}${value}`));
  });
  const arguments_ = Object.entries(positionals).map(([argument, def]) =>
    quoteWord(`${def.variadic ? "*" : ""}:${argument}:${zshAction(valuesOfPositional(def))}`),
  );
  const all = [...lines, ...arguments_].map((line) => `        ${line}`).join(" \\\n");
  return `    ${name})\n      _arguments \\\n${all} ;;`;
}

function zshAction(values: Values): string {
  switch (values.kind) {
    case "files":
      return "_files";
    case "folders":
      return "_files -/";
    case "choices":
      return `(${values.choices.join(" ")})`;
    case "none":
      return " ";
  }
}

function formatFish(commands: readonly CompletedCommand[]): string {
  const lines = commands.map(
    ({ name, summary }) => `complete -c walsync -n __fish_use_subcommand -a ${name} -d ${quoteWord(summary)}`,
  );
  return `# fish completion for walsync. Written by: walsync completion fish
complete -c walsync -f
${lines.join("\n")}
complete -c walsync -n __fish_use_subcommand -l help -s h -d 'help'
complete -c walsync -n __fish_use_subcommand -l version -s V -d 'versions'
${commands.flatMap(fishCommand).join("\n")}
`;
}

function fishCommand({ name, flags, positionals }: CompletedCommand): string[] {
  const start = `complete -c walsync -n '__fish_seen_subcommand_from ${name}'`;
  const lines = Object.entries(flags).map(([flag, def]) => {
    const short = def.short === undefined ? "" : ` -s ${def.short}`;
    const value = def.type === "boolean" ? "" : fishValue(valuesOfFlag(flag, def));
    return `${start} -l ${flag}${short}${value} -d ${quoteWord(def.description)}`;
  });
  const values = valuesOfPositional(Object.values(positionals)[0]);
  if (values.kind === "files") lines.push(`${start} -F`);
  if (values.kind === "choices") lines.push(`${start} -a ${quoteWord(values.choices.join(" "))}`);
  return lines;
}

function fishValue(values: Values): string {
  switch (values.kind) {
    case "files":
      return " -r -F";
    case "folders":
      return " -x -a '(__fish_complete_directories)'";
    case "choices":
      return ` -x -a ${quoteWord(values.choices.join(" "))}`;
    case "none":
      return " -x";
  }
}

function spellings(flag: string, def: FlagDef): string[] {
  return [...flagNames(flag, def), ...(def.short === undefined ? [] : [`-${def.short}`])];
}
