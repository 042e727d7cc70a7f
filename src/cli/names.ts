/** Names of databases in a message. */

/** With commas between them; of very many the first ones. */
export function someNames(names: readonly string[]): string {
  return `${names.slice(0, NAMES_SHOWN).join(", ")}${names.length > NAMES_SHOWN ? " ..." : ""}`;
}

// --- internal ---

const NAMES_SHOWN = 10;
