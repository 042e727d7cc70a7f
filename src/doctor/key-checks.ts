/** What is checked of the keys that files are encrypted with: that they read, and what a watch can do with them. */
import type { AgeKeys, KeyPlaces } from "../destination/age-keys.ts";
import { type Check, ok, skipped, type Verdict, warning } from "./check.ts";

export class KeysToCheck {
  readonly places: KeyPlaces;
  /** Null until they were read, and if they cannot be. */
  keys: AgeKeys | null = null;

  constructor(places: KeyPlaces) {
    this.places = places;
  }
}

export const KEY_CHECKS: readonly Check<KeysToCheck>[] = [
  { check: "keys", run: checkKeys },
  { check: "recipients", needs: ["keys"], run: checkRecipients },
  { check: "identity", needs: ["keys"], run: checkIdentity },
];

// --- internal ---

async function checkKeys(context: KeysToCheck): Promise<Verdict> {
  const { readKeys } = await import("../destination/age-keys.ts");
  context.keys = readKeys(context.places);
  return ok("they read");
}

function checkRecipients({ keys }: KeysToCheck): Verdict {
  const count = keys?.recipients.length ?? 0;
  if (count > 0) return ok(count === 1 ? "files are for 1 recipient" : `files are for ${count} recipients`);
  return warning("none: what is there can be read, and nothing written", "For a watch give --recipient, too.");
}

function checkIdentity({ keys }: KeysToCheck): Verdict {
  if (keys?.decrypter == null) return skipped("none: what is shipped cannot be read here, nor merged");
  return ok("what is shipped can be read here, and merged");
}
