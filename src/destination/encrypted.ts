/**
 * A wrapper that keeps the `Destination` contract and encrypts LTX files on their way: what lies there are age files, with what
 * is kept with each in its header. Outermost, so that whatever is tried again is the same bytes. Import this module
 * dynamically: nobody else pays for the cryptography.
 *
 * Keys, times and the manifest stay as they are. Sizes are those of the files, not of the objects.
 */
import { closeSync, rmSync } from "node:fs";
import { MiB } from "../bytes.ts";
import { asDiskError, openTempFile, writeFully } from "../durable.ts";
import { DestinationError, messageOf, WalsyncError } from "../errors.ts";
import {
  CHUNK_BYTES,
  chunkCount,
  chunkOffset,
  HEADER_BYTES,
  PAYLOAD_OFFSET,
  parseHeader,
  plainSize,
  TAG_BYTES,
} from "./age-format.ts";
import { type AgeKeys, type KeyPlaces, readKeys } from "./age-keys.ts";
import { ChunkOpener, NoIdentityFits } from "./age-open.ts";
import { sealBytes, sealFile } from "./age-seal.ts";
import { ChunkReader } from "./chunk-reader.ts";
import { readOnce, resolveRange } from "./chunks.ts";
import type {
  Capabilities,
  Destination,
  ListOptions,
  ObjectBody,
  ObjectHead,
  ObjectInfo,
  ReadOptions,
  WriteOptions,
  WriteResult,
  WriteSource,
} from "./destination.ts";
import { parseKey } from "./layout.ts";
import { Gate } from "./limit.ts";
import { SourceFile } from "./source.ts";

/** The same destination with its LTX files encrypted. Throws E_CONFIG for keys that are none. */
export function encrypted(destination: Destination, places: KeyPlaces): Destination {
  return new EncryptedDestination(destination, readKeys(places), (key) => parseKey(key)?.is === "ltx");
}

/** The same for who has no keys at all: can be listed and compared, not read or written. */
export function sealed(destination: Destination): Destination {
  return encrypted(destination, { recipients: [], recipientsFile: undefined, identityFile: undefined });
}

export class EncryptedDestination implements Destination {
  readonly stored: Destination;
  readonly capabilities: Capabilities;
  readonly #keys: AgeKeys;
  readonly #isEncrypted: (key: string) => boolean;
  readonly #inMemory = new Gate(MAX_IN_MEMORY);
  readonly #onDisk = new Gate(MAX_ON_DISK);

  constructor(stored: Destination, keys: AgeKeys, isEncrypted: (key: string) => boolean) {
    this.stored = stored;
    this.#keys = keys;
    this.#isEncrypted = isEncrypted;
    const encryption = keys.decrypter === null ? "sealed" : "open";
    this.capabilities = { ...stored.capabilities, metadata: true, encryption };
  }

  get url() {
    return this.stored.url;
  }

  prepare(options: Parameters<Destination["prepare"]>[0] = {}) {
    return this.stored.prepare(options);
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    for await (const info of this.stored.list(prefix, options)) {
      yield this.#isEncrypted(info.key) ? withPlainSize(info) : info;
    }
  }

  listFolders(prefix: string, options: { signal?: AbortSignal | undefined } = {}) {
    return this.stored.listFolders(prefix, options);
  }

  async head(key: string, options: { signal?: AbortSignal | undefined } = {}): Promise<ObjectHead | null> {
    if (!this.#isEncrypted(key)) return await this.stored.head(key, options);
    const opened = await this.#openHead(key, { first: 0, last: HEADER_BYTES - 1 }, HEADER_BYTES, options.signal);
    await opened?.reader.close();
    return opened?.head ?? null;
  }

  async read(key: string, options: ReadOptions = {}): Promise<ObjectBody | null> {
    if (!this.#isEncrypted(key)) return await this.stored.read(key, options);
    const { range, signal } = options;
    const isFromFirstChunk = range === undefined || (range.first >= 0 && range.first < CHUNK_BYTES);
    const last = isFromFirstChunk ? lastStoredByte(range?.last) : PAYLOAD_OFFSET - 1;
    const opened = await this.#openHead(
      key,
      { first: 0, ...(last === undefined ? {} : { last }) },
      PAYLOAD_OFFSET,
      signal,
    );
    if (opened === null) return null;
    const { head, bytes, reader } = opened;
    try {
      const opener = await this.#opener(key, bytes);
      const wanted = resolveRange(range, head.sizeBytes);
      if (isFromFirstChunk) return { ...head, chunks: this.#plainChunks(key, head, opener, reader, 0, wanted) };
      await reader.close();
      if (wanted.first === wanted.end) return { ...head, chunks: readOnce(async () => null) };
      const first = Math.floor(wanted.first / CHUNK_BYTES);
      const rest = { first: chunkOffset(first), last: chunkOffset(Math.ceil(wanted.end / CHUNK_BYTES)) - 1 };
      const body = await this.stored.read(key, { range: rest, signal });
      if (body === null || body.etag !== head.etag) {
        await body?.chunks[Symbol.asyncIterator]().return?.();
        throw this.#replaced(key);
      }
      return { ...head, chunks: this.#plainChunks(key, head, opener, new ChunkReader(body.chunks), first, wanted) };
    } catch (error) {
      await reader.close();
      throw error;
    }
  }

  /** `metadata` is kept in the header, in the clear. A bucket keeps the sha256 of the object beside it. */
  async write(key: string, source: WriteSource, options: WriteOptions = {}): Promise<WriteResult> {
    if (!this.#isEncrypted(key)) return await this.stored.write(key, source, options);
    const isInMemory = source.kind === "bytes" || source.sizeBytes <= IN_MEMORY_BYTES;
    // Before anything is read: what waits for its turn, or is tried again, must not grow with the number of databases.
    return isInMemory
      ? await this.#inMemory.run(() => this.#writeBytes(key, source, options), options.signal)
      : await this.#onDisk.run(() => this.#writeFile(key, source, options), options.signal);
  }

  remove(keys: readonly string[], options: Parameters<Destination["remove"]>[1] = {}) {
    return this.stored.remove(keys, options);
  }

  close(): void {
    this.stored.close();
  }

  // --- internal ---

  async #writeBytes(key: string, source: WriteSource, options: WriteOptions): Promise<WriteResult> {
    const sealedBytes = await this.#seal(source, options);
    const sha256 = new Bun.CryptoHasher("sha256").update(sealedBytes).digest("hex");
    const plainBytes = source.kind === "bytes" ? source.bytes.length : source.sizeBytes;
    return await this.#writeSealed(key, { kind: "bytes", bytes: sealedBytes }, plainBytes, sha256, options);
  }

  /** On its own, so that the bytes of a file are let go of before they are sent. */
  async #seal(source: WriteSource, { metadata = {} }: WriteOptions): Promise<Uint8Array> {
    const recipients = this.#requireRecipients();
    if (source.kind === "bytes") return await sealBytes(source.bytes, recipients, metadata);
    const file = await SourceFile.open(source.path, source.sizeBytes);
    const bytes = Buffer.allocUnsafeSlow(source.sizeBytes);
    try {
      await file.read(bytes, 0);
    } finally {
      await file.close();
    }
    return await sealBytes(bytes, recipients, metadata);
  }

  /**
   * By way of a file beside the source: parts of an upload are sent again, and must be the same bytes then. A crash leaves it to
   * whoever owns the folder, as a temporary file.
   */
  async #writeFile(
    key: string,
    { path, sizeBytes }: WriteSource & { kind: "file" },
    options: WriteOptions,
  ): Promise<WriteResult> {
    const temp = `${path}.tmp.age`;
    try {
      const hasher = new Bun.CryptoHasher("sha256");
      let sealedBytes = 0;
      const fd = openTempFile(temp);
      try {
        for await (const chunk of sealFile(path, sizeBytes, this.#requireRecipients(), options.metadata ?? {})) {
          options.signal?.throwIfAborted();
          hasher.update(chunk);
          writeFully(fd, chunk);
          sealedBytes += chunk.length;
        }
      } catch (error) {
        throw options.signal?.aborted ? error : asDiskError(temp, error);
      } finally {
        closeSync(fd);
      }
      const sealedSource = { kind: "file", path: temp, sizeBytes: sealedBytes } as const;
      return await this.#writeSealed(key, sealedSource, sizeBytes, hasher.digest("hex"), options);
    } finally {
      rmSync(temp, { force: true });
    }
  }

  async #writeSealed(
    key: string,
    source: WriteSource,
    plainBytes: number,
    sha256: string,
    options: WriteOptions,
  ): Promise<WriteResult> {
    const { metadata: _, onProgress, ...others } = options;
    const sealedBytes = source.kind === "bytes" ? source.bytes.length : source.sizeBytes;
    const result = await this.stored.write(key, source, {
      ...others,
      ...(this.stored.capabilities.metadata && { metadata: { sha256 } }),
      ...(onProgress && { onProgress: (sent) => onProgress(Math.floor((plainBytes * sent) / sealedBytes)) }),
    });
    return result.kind === "written" ? { ...result, storedSha256: sha256 } : result;
  }

  #requireRecipients(): readonly string[] {
    const { recipients } = this.#keys;
    if (recipients.length > 0) return recipients;
    throw new WalsyncError("E_CONFIG", `${this.url}: expected a recipient to encrypt for, found none`, {
      hint: "Give --recipient, or recipients in [encryption] of walsync.toml.",
    });
  }

  /** Reads the first bytes of an object, and more if the range says so. Throws E_INTEGRITY if it is not one of ours. */
  async #openHead(
    key: string,
    range: { first: number; last?: number },
    headBytes: number,
    signal: AbortSignal | undefined,
  ): Promise<{ head: ObjectHead; bytes: Uint8Array; reader: ChunkReader } | null> {
    const body = await this.stored.read(key, { range, signal });
    if (body === null) return null;
    const { chunks, ...info } = body;
    const reader = new ChunkReader(chunks);
    try {
      const bytes = new Uint8Array(headBytes);
      const got = await reader.fill(bytes);
      const header = parseHeader(bytes.subarray(0, Math.min(got, HEADER_BYTES)));
      if (header.kind !== "ours") throw this.#notOurs(key, header.kind);
      if (got < headBytes) throw this.#changed(key, "the object ends in its header");
      return { head: { ...withPlainSize(info), metadata: header.metadata }, bytes, reader };
    } catch (error) {
      await reader.close();
      throw error;
    }
  }

  async #opener(key: string, head: Uint8Array): Promise<ChunkOpener> {
    const { decrypter } = this.#keys;
    if (decrypter === null) {
      throw new WalsyncError(
        "E_IDENTITY",
        `${this.url}/${key}: expected an identity to read it with, found none given`,
        {
          hint: "It is encrypted. Give --identity FILE, or set WALSYNC_IDENTITY_FILE.",
        },
      );
    }
    try {
      return await ChunkOpener.of(head, decrypter);
    } catch (error) {
      if (!(error instanceof NoIdentityFits)) throw this.#changed(key, messageOf(error), error);
      throw new WalsyncError(
        "E_IDENTITY",
        `${this.url}/${key}: expected an identity that it was encrypted for, found none of those given to be one`,
        { hint: "Check --identity. The file may hold several, those of recipients of earlier times among them." },
      );
    }
  }

  /** The bytes `wanted` of the file, from the chunks of `reader`, the first of which is number `index`. */
  #plainChunks(
    key: string,
    { sizeBytes }: ObjectHead,
    opener: ChunkOpener,
    reader: ChunkReader,
    index: number,
    wanted: { first: number; end: number },
  ): AsyncIterable<Uint8Array> {
    const chunks = chunkCount(sizeBytes);
    // At least one is opened, and proven, also of an empty file.
    const endIndex = Math.max(index + 1, Math.ceil(wanted.end / CHUNK_BYTES));
    const sealedChunk = new Uint8Array(Math.min(CHUNK_BYTES, sizeBytes) + TAG_BYTES);
    const plain = new Uint8Array(sealedChunk.length - TAG_BYTES);
    return readOnce(
      async () => {
        if (index === endIndex) return null;
        const start = index * CHUNK_BYTES;
        const chunk = sealedChunk.subarray(0, Math.min(CHUNK_BYTES, sizeBytes - start) + TAG_BYTES);
        if ((await reader.fill(chunk)) < chunk.length) throw this.#changed(key, `chunk ${index} is cut short`);
        let opened: Uint8Array;
        try {
          opened = opener.open(index, index === chunks - 1, chunk, plain);
        } catch (error) {
          throw this.#changed(key, `chunk ${index} is not what was encrypted`, error);
        }
        index++;
        return opened.subarray(Math.max(0, wanted.first - start), Math.max(0, wanted.end - start));
      },
      () => reader.close(),
    );
  }

  #notOurs(key: string, kind: "plain" | "foreign"): WalsyncError {
    const found = kind === "plain" ? "one that is not encrypted" : "an age file that walsync did not write";
    return new WalsyncError("E_INTEGRITY", `${this.url}/${key}: expected an encrypted file, found ${found}`, {
      hint:
        "Files of one destination are either all encrypted or none. Begin another one for encrypted files, with a prefix of " +
        "its own; read this one without --recipient, --identity, WALSYNC_IDENTITY_FILE and [encryption].",
    });
  }

  #changed(key: string, found: string, cause?: unknown): WalsyncError {
    return new WalsyncError(
      "E_INTEGRITY",
      `${this.url}/${key}: expected the encrypted file that was uploaded, found: ${found}`,
      {
        hint: "The object was changed or damaged. Restore to a point before it, or after the next snapshot.",
        cause,
      },
    );
  }

  #replaced(key: string): DestinationError {
    return new DestinationError(
      `${this.url}/${key}: expected the object that began to be read, found another or none`,
      {
        retryable: false,
        hint: "Another process changed the object while it was read; start again.",
      },
    );
  }
}

/** Larger files are encrypted by way of a temporary one. */
const IN_MEMORY_BYTES = MiB;

/** Writes at once of files that are encrypted in memory, and of larger ones, each of which has a copy on disk meanwhile. */
const MAX_IN_MEMORY = 4;
const MAX_ON_DISK = 2;

function withPlainSize<T extends ObjectInfo>(info: T): T {
  return { ...info, sizeBytes: plainSize(info.sizeBytes) };
}

/** The last byte of the chunk that holds the file's byte `last`. */
function lastStoredByte(last: number | undefined): number | undefined {
  if (last === undefined) return undefined;
  return chunkOffset(Math.floor(last / CHUNK_BYTES) + 1) - 1;
}
