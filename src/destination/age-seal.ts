/** Encrypts: the library makes the header, the file key and the chunks; the header gets our stanza. */
import { Encrypter, Stanza } from "age-encryption";
import { KiB } from "../bytes.ts";
import { stanzaArguments } from "./age-format.ts";
import { SourceFile } from "./source.ts";

/** A new file key for each call: the same bytes give other ones each time. */
export async function sealBytes(
  bytes: Uint8Array,
  recipients: readonly string[],
  metadata: Readonly<Record<string, string>>,
): Promise<Uint8Array> {
  return await encrypterFor(recipients, metadata).encrypt(bytes);
}

/**
 * As `sealBytes`, for a file of exactly `sizeBytes`, read and encrypted in small parts: others get their turn between them.
 * Throws E_DISK for the file.
 */
export async function* sealFile(
  path: string,
  sizeBytes: number,
  recipients: readonly string[],
  metadata: Readonly<Record<string, string>>,
): AsyncGenerator<Uint8Array> {
  const source = await SourceFile.open(path, sizeBytes);
  try {
    let position = 0;
    const parts = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          if (position === sizeBytes) return controller.close();
          const part = Buffer.allocUnsafeSlow(Math.min(PART_BYTES, sizeBytes - position));
          await source.read(part, position);
          position += part.length;
          controller.enqueue(part);
        },
      },
      { highWaterMark: 0 },
    );
    yield* await encrypterFor(recipients, metadata).encrypt(parts);
  } finally {
    await source.close();
  }
}

// --- internal ---

const PART_BYTES = 256 * KiB;

function encrypterFor(recipients: readonly string[], metadata: Readonly<Record<string, string>>): Encrypter {
  const encrypter = new Encrypter();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  // Last, where the line of the MAC follows. It wraps nothing.
  encrypter.addRecipient({
    wrapFileKey: () => [new Stanza(stanzaArguments(metadata, recipients.length), new Uint8Array())],
  });
  return encrypter;
}
