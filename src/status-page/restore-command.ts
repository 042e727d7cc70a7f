/** The command that restores a database to a moment, as it is typed into a shell. Pure. */
import { quoteWord } from "../words.ts";

export type Moment = { kind: "newest" } | { kind: "txid"; txid: number } | { kind: "time"; atMs: number };

/**
 * `place`: -b and what goes with it. The output is a new file in the working directory, named after database and moment. A txid
 * is exact; a time means the last restore point before it.
 */
export function restoreCommand(name: string, place: readonly string[], moment: Moment): string {
  const words = ["walsync", "restore", "-o", outputOf(name, moment), ...place];
  if (moment.kind === "txid") words.push("--point-in-time", `txid:${moment.txid}`);
  if (moment.kind === "time") words.push("--point-in-time", isoOf(moment.atMs));
  return [...words, ...positional(name)].map(wordOf).join(" ");
}

/** The command that tells what is wrong with a chain. */
export function verifyCommand(name: string, place: readonly string[]): string {
  return ["walsync", "verify", ...place, ...positional(name)].map(wordOf).join(" ");
}

// --- internal ---

/** What no shell replaces, splits or acts upon. A "~" or "=" is left out: zsh expands both at the beginning of a word. */
const PLAIN_WORD = /^[A-Za-z0-9_./:@%+,-]+$/;

function wordOf(text: string): string {
  return PLAIN_WORD.test(text) ? text : quoteWord(text);
}

/** A name that looks like a flag is none behind "--". */
function positional(name: string): string[] {
  return /^[-\u2012-\u2015]/.test(name) ? ["--", name] : [name];
}

function outputOf(name: string, moment: Moment): string {
  const stem = name.slice(name.lastIndexOf("/") + 1);
  // The name of all names that have none.
  const base = stem === "." ? "database" : stem;
  const file = `${base}-${suffixOf(moment)}.db`;
  return /^[-\u2012-\u2015]/.test(file) ? `./${file}` : file;
}

function suffixOf(moment: Moment): string {
  if (moment.kind === "newest") return "restored";
  return moment.kind === "txid" ? `txid${moment.txid}` : isoOf(moment.atMs).replaceAll(":", "");
}

/** To the millisecond only where there is one. */
function isoOf(atMs: number): string {
  return new Date(atMs).toISOString().replace(".000Z", "Z");
}
