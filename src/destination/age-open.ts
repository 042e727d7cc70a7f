/**
 * Decrypts any part of an object. The library opens the header; it has no way into the middle of a file, so the chunks are
 * opened here: ChaCha20-Poly1305, whose nonce is the number of the chunk and whether it is the last.
 */
import { hkdfSync } from "node:crypto";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import type { Decrypter } from "age-encryption";
import { HEADER_BYTES, TAG_BYTES } from "./age-format.ts";

/** None of the identities is one that the file was encrypted for. */
export class NoIdentityFits extends Error {}

/** Opens the chunks of one object. */
export class ChunkOpener {
  readonly #key: Uint8Array;

  private constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** `head` is the header and the nonce behind it. Throws `NoIdentityFits`, and an `Error` if the header was changed. */
  static async of(head: Uint8Array, decrypter: Decrypter): Promise<ChunkOpener> {
    const fileKey = await openHeader(head.subarray(0, HEADER_BYTES), decrypter);
    const nonce = head.subarray(HEADER_BYTES);
    return new ChunkOpener(new Uint8Array(hkdfSync("sha256", fileKey, nonce, "payload", 32)));
  }

  /** Decrypts a chunk, its tag included, into `into`, and returns the part that it fills. Throws an `Error` if it was changed. */
  open(index: number, isLast: boolean, chunk: Uint8Array, into: Uint8Array): Uint8Array {
    const nonce = new Uint8Array(12);
    // 11 bytes, big-endian; a safe integer fills 7 of them at most.
    new DataView(nonce.buffer).setBigUint64(3, BigInt(index));
    nonce[11] = isLast ? 1 : 0;
    const cipher = chacha20poly1305(this.#key, nonce);
    return cipher.decrypt(chunk, into.subarray(0, chunk.length - TAG_BYTES));
  }
}

// --- internal ---

async function openHeader(header: Uint8Array, decrypter: Decrypter): Promise<Uint8Array> {
  try {
    return await decrypter.decryptHeader(header);
  } catch (error) {
    // The library has no class for it.
    if (error instanceof Error && error.message.startsWith("no identity matched")) {
      throw new NoIdentityFits(error.message, { cause: error });
    }
    throw error;
  }
}
