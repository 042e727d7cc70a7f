/** The settings of whoever writes or reads files that may be encrypted, and the destination they make of one. */
import type { AgeKeys, KeyPlaces } from "../destination/age-keys.ts";
import type { Destination } from "../destination/destination.ts";
import { WalsyncError } from "../errors.ts";

export const ENCRYPTION_FLAGS = {
  recipient: {
    type: "texts",
    isNeverEmpty: true,
    placeholder: "AGE1...",
    description: "encrypt files for this recipient of age, or expect them to be encrypted",
  },
  "recipients-file": { type: "string", placeholder: "FILE", description: "and for those in this file, one a line" },
  identity: {
    type: "string",
    env: "WALSYNC_IDENTITY_FILE",
    placeholder: "FILE",
    description: "identities of age that read encrypted files: a file as age-keygen writes it",
  },
} as const;

export interface EncryptionFlags {
  recipient: string[] | undefined;
  recipientsFile: string | undefined;
  identity: string | undefined;
}

/** `destination`, or one whose files are encrypted, if anything is said of keys. Throws E_CONFIG for keys that are none. */
export async function withEncryption(destination: Destination, flags: Partial<EncryptionFlags>): Promise<Destination> {
  const places = keyPlacesOf(flags);
  if (places === null) return destination;
  const { encrypted } = await import("../destination/encrypted.ts");
  return encrypted(destination, places);
}

/** The keys themselves; null if nothing is said of any. Throws E_CONFIG for keys that are none. */
export async function keysOf(flags: Partial<EncryptionFlags>): Promise<AgeKeys | null> {
  const places = keyPlacesOf(flags);
  if (places === null) return null;
  const { readKeys } = await import("../destination/age-keys.ts");
  return readKeys(places);
}

/** Where keys are said to be; null if nothing is said of any. */
export function keyPlacesOf(flags: Partial<EncryptionFlags>): KeyPlaces | null {
  if (!isEncrypted(flags)) return null;
  const { recipient, recipientsFile, identity } = flags;
  return { recipients: recipient ?? [], recipientsFile, identityFile: identity };
}

/** True if anything is said of keys. */
export function isEncrypted({ recipient, recipientsFile, identity }: Partial<EncryptionFlags>): boolean {
  return recipient !== undefined || recipientsFile !== undefined || identity !== undefined;
}

/** For whoever writes. Throws E_USAGE if there is an identity, and nobody to encrypt for. */
export function requireRecipients({ recipient, recipientsFile, identity }: EncryptionFlags): void {
  if (identity === undefined || recipient !== undefined || recipientsFile !== undefined) return;
  throw new WalsyncError("E_USAGE", "--identity: expected recipients to encrypt for, too, found none", {
    hint: "Give --recipient, or recipients in [encryption] of walsync.toml; or leave out --identity and WALSYNC_IDENTITY_FILE.",
  });
}

/** True if what is written cannot be read again: nothing can be merged then. */
export function isSealed({ recipient, recipientsFile, identity }: EncryptionFlags): boolean {
  return (recipient !== undefined || recipientsFile !== undefined) && identity === undefined;
}
