/** What the tests of encryption share: pairs of keys, and destinations that encrypt whatever is written to them. */
import { writeFileSync } from "node:fs";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { readKeys } from "../../src/destination/age-keys.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { EncryptedDestination } from "../../src/destination/encrypted.ts";

export interface KeyPair {
  identity: string;
  recipient: string;
  /** The identity, in a file as age-keygen writes it. */
  identityFile: string;
}

export async function makeKeys(path: string): Promise<KeyPair> {
  const identity = await generateX25519Identity();
  const recipient = await identityToRecipient(identity);
  writeFileSync(path, `# created: 2026-01-01T00:00:00Z\n# public key: ${recipient}\n${identity}\n`, { mode: 0o600 });
  return { identity, recipient, identityFile: path };
}

/** Every object of `inner`, whatever its key. Without an identity what is there cannot be read. */
export function encryptedWith(
  inner: Destination,
  { recipients, identityFile }: { recipients: string[]; identityFile?: string },
): Destination {
  return new EncryptedDestination(inner, readKeys({ recipients, recipientsFile: undefined, identityFile }), () => true);
}
