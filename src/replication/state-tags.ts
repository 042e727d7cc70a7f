/**
 * Names for states by which a writer knows its own encrypted files again: the same file is other bytes each time that it is
 * encrypted. A tag is kept with the file, in the clear, and tells nothing to whoever does not have the key: HMAC-SHA256 of
 * txid and database checksum under 32 random bytes, which never leave this host.
 *
 * The key is as old as the oldest file of the outbox: made, durably, before the first tag is told.
 */
import { createHmac, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { hex64 } from "../bytes.ts";
import { asDiskError, writeFileDurably } from "../durable.ts";
import { errnoOf } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";

export class StateTags {
  readonly #path: string;
  #key: Buffer | null = null;

  /** `path`: of the key. It need not exist. */
  constructor(path: string) {
    this.#path = path;
  }

  /** 32 hex digits. Throws E_DISK. */
  of(txid: Txid, checksum: bigint): string {
    this.#key ??= this.#readKey() ?? this.#makeKey();
    return createHmac("sha256", this.#key)
      .update(`${txid} ${hex64(checksum)}`)
      .digest("hex")
      .slice(0, TAG_DIGITS);
  }

  #readKey(): Buffer | null {
    try {
      const key = readFileSync(this.#path);
      // One of another size is not ours: files that are told apart by it are another writer's then.
      return key.length === KEY_BYTES ? key : null;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return null;
      throw asDiskError(this.#path, error);
    }
  }

  #makeKey(): Buffer {
    const key = randomBytes(KEY_BYTES);
    writeFileDurably(this.#path, key);
    return key;
  }
}

// --- internal ---

const KEY_BYTES = 32;
const TAG_DIGITS = 32;
