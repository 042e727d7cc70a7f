/** Whom files are encrypted for, and who can read them: recipients and identities of age, as text, as given and in files. */
import { readFileSync } from "node:fs";
import { Decrypter, Encrypter } from "age-encryption";
import { messageOf, WalsyncError } from "../errors.ts";
import { MAX_RECIPIENTS } from "./age-format.ts";

/** What the user gives: recipients themselves, and the names of files. */
export interface KeyPlaces {
  recipients: readonly string[];
  recipientsFile: string | undefined;
  identityFile: string | undefined;
}

export interface AgeKeys {
  /** `age1...`. None for whoever only reads. */
  recipients: readonly string[];
  /** Null: what is encrypted cannot be read. */
  decrypter: Decrypter | null;
}

/** Reads and checks them all. Throws E_CONFIG; no message holds a line of the identity file. */
export function readKeys({ recipients, recipientsFile, identityFile }: KeyPlaces): AgeKeys {
  const inFile = recipientsFile === undefined ? [] : linesOf(recipientsFile, "recipients");
  const all = [...new Set([...recipients, ...inFile])];
  for (const recipient of all) requireRecipient(recipient);
  if (all.length > MAX_RECIPIENTS) {
    throw new WalsyncError(
      "E_CONFIG",
      `encryption: expected at most ${MAX_RECIPIENTS} recipients, found ${all.length}`,
      { hint: "Leave some out, or share one identity among several readers." },
    );
  }
  return { recipients: all, decrypter: identityFile === undefined ? null : readIdentities(identityFile) };
}

// --- internal ---

const X25519_RECIPIENT = /^age1[a-z0-9]{58}$/;

function requireRecipient(recipient: string): void {
  const fault = (cause?: unknown): WalsyncError =>
    new WalsyncError(
      "E_CONFIG",
      `encryption: expected a recipient of age (age1...), found ${JSON.stringify(recipient)}`,
      {
        hint: "Make a pair with age-keygen: the public key is the recipient. Others than X25519 are not supported.",
        cause,
      },
    );
  // A secret key that was given by mistake must not be printed.
  if (/secret/i.test(recipient)) {
    throw new WalsyncError("E_CONFIG", "encryption: expected a recipient of age (age1...), found a secret key", {
      hint: "Give the public key. If the secret one was in a shared place, make a new pair.",
    });
  }
  if (!X25519_RECIPIENT.test(recipient)) throw fault();
  try {
    new Encrypter().addRecipient(recipient);
  } catch (error) {
    throw fault(error);
  }
}

function readIdentities(path: string): Decrypter {
  const decrypter = new Decrypter();
  for (const line of linesOf(path, "identities")) {
    try {
      decrypter.addIdentity(line);
    } catch {
      // Not as the cause either: it may quote the line.
      throw new WalsyncError(
        "E_CONFIG",
        `${path}: expected identities of age (AGE-SECRET-KEY-1...), found another line`,
        {
          hint: "Give the file that age-keygen wrote. One that is protected by a passphrase has to be decrypted first.",
        },
      );
    }
  }
  return decrypter;
}

/** Lines that are neither empty nor a comment. */
function linesOf(path: string, what: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new WalsyncError("E_CONFIG", `${path}: expected a file with ${what} of age, found: ${messageOf(error)}`, {
      hint: "Check the path. age-keygen -o FILE makes an identity.",
      cause: error,
    });
  }
  const lines = text.split("\n").map((line) => line.trim());
  const found = lines.filter((line) => line !== "" && !line.startsWith("#"));
  if (found.length > 0) return found;
  throw new WalsyncError("E_CONFIG", `${path}: expected ${what} of age, found none`, {
    hint: "One a line. age-keygen -o FILE makes an identity, and tells its recipient.",
  });
}
