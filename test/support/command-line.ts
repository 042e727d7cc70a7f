/** Command lines that documents give, held against the program's own parser, without running them. */
import { COMMON_FLAGS } from "../../src/cli/command.ts";
import { flagLayer, parseStrict } from "../../src/cli/flags.ts";
import { resolveSettings } from "../../src/config.ts";
import { app } from "../../src/main.ts";
import { splitWords } from "../../src/words.ts";

/**
 * What follows `walsync` in a shell script, up to the end of each command: at the beginning of a line whatever it is, behind
 * another program (sudo, docker, a pair of quotes) only if it is a command. Variables are replaced by a word.
 */
export function commandLinesIn(script: string): string[] {
  const lines = script.replaceAll("\\\n", " ").split("\n");
  return lines
    .map((line) => line.replace(/(^|\s)#.*$/, "").replaceAll(/\$\w+/g, "value"))
    .flatMap((line) =>
      [...line.matchAll(INVOCATION)].map(({ index, 0: { length } }) => untilEnd(line.slice(index + length))),
    );
}

/** Throws unless the program accepts the command, its flags and their values. What is required may come from walsync.toml. */
export async function requireAccepted(line: string): Promise<void> {
  const split = splitWords(line);
  if (split.kind === "fault") throw new Error(`walsync ${line}: expected words, found ${split.found}`);
  await requireAcceptedWords(split.words);
}

/** The same of a command that is split into words already. */
export async function requireAcceptedWords(words: readonly string[]): Promise<void> {
  const [name, ...args] = words;
  const entry = app.commands[name!];
  if (entry === undefined) throw new Error(`walsync ${words.join(" ")}: expected a command, found ${name}`);
  const { table } = await entry.load();
  const given = parseStrict({ flags: { ...table.flags, ...COMMON_FLAGS }, positionals: table.positionals }, args);
  const optional = Object.fromEntries(
    Object.entries(table.flags).map(([flag, { required: _, ...def }]) => [flag, def]),
  ) as typeof table.flags;
  resolveSettings({ ...optional, ...COMMON_FLAGS }, [flagLayer(given.flags)]);
}

/** The flags of every command, as typed: `--point-in-time`. */
export async function knownFlags(): Promise<Set<string>> {
  const known = new Set(Object.keys(COMMON_FLAGS));
  for (const { load } of Object.values(app.commands)) {
    for (const flag of Object.keys((await load()).table.flags)) known.add(flag);
  }
  return new Set([...known, "version"].map((flag) => `--${flag}`));
}

// --- internal ---

const COMMANDS = Object.keys(app.commands).join("|");
const INVOCATION = new RegExp(`(?:^\\s*walsync (?!-)|(?<=[\\s"'(/])walsync (?=(?:${COMMANDS})\\b))`, "g");

/** Up to what ends a command in a shell (`2>` is no argument), or the quote that the whole command is in. */
function untilEnd(text: string): string {
  let quotedFrom = -1;
  for (let i = 0; i < text.length; i++) {
    const sign = text[i]!;
    if (quotedFrom >= 0) quotedFrom = sign === text[quotedFrom] ? -1 : quotedFrom;
    else if (sign === '"' || sign === "'") quotedFrom = i;
    else if ("|&;>)".includes(sign)) return text.slice(0, i).replace(/ \d$/, "").trim();
  }
  return text.slice(0, quotedFrom < 0 ? undefined : quotedFrom).trim();
}
