/** The command that restores a database to a moment, as it is typed into a shell. Pure. */
import { quoteWord } from "../words.ts";

export type Moment = { kind: "newest" } | { kind: "txid"; txid: number } | { kind: "time"; atMs: number };

/**
 * Its words, each quoted where a shell asks for it: with spaces between them they are the command. `place`: -b and what goes
 * with it. The output is a new file in the working directory, named after database and moment. A txid
 * is exact; a time means the last restore point before it.
 */
export function restoreCommand(name: string, place: readonly string[], moment: Moment): string[] {
  const flags = ["-o", outputOf(name, moment), ...place];
  if (moment.kind === "txid") flags.push("--point-in-time", `txid:${moment.txid}`);
  if (moment.kind === "time") flags.push("--point-in-time", isoOf(moment.atMs));
  return commandOf("restore", name, flags);
}

/** The command that tells what is wrong with a chain. */
export function verifyCommand(name: string, place: readonly string[]): string[] {
  return commandOf("verify", name, place);
}

// --- internal ---

/** What no shell replaces, splits or acts upon. A "~" or "=" is left out: zsh expands both at the beginning of a word. */
const PLAIN_WORD = /^[A-Za-z0-9_./:@%+,-]+$/;

/** The program takes dashes that a text program put there for hyphens, too. */
const LIKE_A_FLAG = /^[-\u2012-\u2015]/;

function wordOf(text: string): string {
  return PLAIN_WORD.test(text) ? text : quoteWord(text);
}

/** A name that looks like a flag is none behind "--". */
function commandOf(command: string, name: string, flags: readonly string[]): string[] {
  const words = LIKE_A_FLAG.test(name) ? [...flags, "--", name] : [name, ...flags];
  return ["walsync", command, ...words].map(wordOf);
}

function outputOf(name: string, moment: Moment): string {
  const stem = name.slice(name.lastIndexOf("/") + 1);
  // The name of all names that have none.
  const base = stem === "." ? "database" : stem;
  const file = `${base}-${suffixOf(moment)}.db`;
  return LIKE_A_FLAG.test(file) ? `./${file}` : file;
}

function suffixOf(moment: Moment): string {
  if (moment.kind === "newest") return "restored";
  return moment.kind === "txid" ? `txid${moment.txid}` : isoOf(moment.atMs).replaceAll(":", "");
}

/** To the millisecond only where there is one. */
function isoOf(atMs: number): string {
  return new Date(atMs).toISOString().replace(".000Z", "Z");
}
