/** Names of databases: on a command line and in messages. */
import { WalsyncError } from "../errors.ts";

/** For commands that take `what`, or --all for every database. Throws E_USAGE unless it is one of them. */
export function requireNamesOrAll(command: string, what: "a name" | "names", areNamed: boolean, all: boolean): void {
  if (areNamed !== all) return;
  throw new WalsyncError("E_USAGE", `${command}: expected ${what} or --all, found ${all ? "both" : "neither"}`);
}

/** With commas between them; of very many the first ones. */
export function someNames(names: readonly string[]): string {
  return `${names.slice(0, NAMES_SHOWN).join(", ")}${names.length > NAMES_SHOWN ? " ..." : ""}`;
}

// --- internal ---

const NAMES_SHOWN = 10;
