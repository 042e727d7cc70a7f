/** Encrypts: the library makes the header, the file key and the chunks; the header gets our stanza. */
import { Encrypter, Stanza } from "age-encryption";
import { assert } from "../assert.ts";
import { KiB } from "../bytes.ts";
import { stanzaArguments, storedSize } from "./age-format.ts";
import { ChunkReader } from "./chunk-reader.ts";
import type { SourceStream } from "./destination.ts";

/** A new file key for each call: the same bytes give other ones each time. */
export async function sealBytes(
  bytes: Uint8Array,
  recipients: readonly string[],
  metadata: Readonly<Record<string, string>>,
): Promise<Uint8Array> {
  return await encrypterFor(recipients, metadata).encrypt(bytes);
}

/**
 * As `sealBytes`, of a stream: encrypted as it is read, in small parts, so that others get their turn between them.
 *
 * A key never meets two versions of a chunk, also if a file changes while it is sent: nothing is read twice from here. What has to be
 * sent again is kept by whoever sends it, or is read from another stream like this, which has another key.
 */
export class SealedStream implements SourceStream {
  readonly sizeBytes: number;
  readonly #plain: SourceStream;
  readonly #sealed: ChunkReader;
  readonly #hasher: Bun.CryptoHasher;

  /** Closes `plain` in the end. `hasher` is told all that is read. */
  constructor(
    plain: SourceStream,
    recipients: readonly string[],
    metadata: Readonly<Record<string, string>>,
    hasher: Bun.CryptoHasher,
  ) {
    this.sizeBytes = storedSize(plain.sizeBytes);
    this.#plain = plain;
    this.#sealed = new ChunkReader(sealedChunks(plain, encrypterFor(recipients, metadata)));
    this.#hasher = hasher;
  }

  /** Throws what reading the plain bytes throws. */
  async read(buffer: Buffer): Promise<void> {
    const filled = await this.#sealed.fill(buffer);
    assert(filled === buffer.length, "an object has the size that follows from that of its file");
    this.#hasher.update(buffer);
  }

  async close(): Promise<void> {
    await this.#sealed.close();
    await this.#plain.close();
  }
}

// --- internal ---

const PART_BYTES = 256 * KiB;

async function* sealedChunks(plain: SourceStream, encrypter: Encrypter): AsyncGenerator<Uint8Array> {
  let left = plain.sizeBytes;
  const parts = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (left === 0) return controller.close();
        const part = Buffer.allocUnsafeSlow(Math.min(PART_BYTES, left));
        await plain.read(part);
        left -= part.length;
        controller.enqueue(part);
      },
    },
    { highWaterMark: 0 },
  );
  yield* await encrypter.encrypt(parts);
}

function encrypterFor(recipients: readonly string[], metadata: Readonly<Record<string, string>>): Encrypter {
  const encrypter = new Encrypter();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  // Last, where the line of the MAC follows. It wraps nothing.
  encrypter.addRecipient({
    wrapFileKey: () => [new Stanza(stanzaArguments(metadata, recipients.length), new Uint8Array())],
  });
  return encrypter;
}
