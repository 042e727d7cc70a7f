/**
 * A wrapper that keeps the `Destination` contract and encrypts LTX files on their way: what lies there are age files, with what
 * is kept with each in its header. Outermost, so that what is encrypted in memory is encrypted once, however often it is tried.
 * Import this module dynamically: nobody else pays for the cryptography.
 *
 * Keys, times and the manifest stay as they are. Sizes are those of the files, not of the objects.
 */
import { MiB } from "../bytes.ts";
import { DestinationError, messageOf, WalsyncError } from "../errors.ts";
import {
  CHUNK_BYTES,
  chunkCount,
  chunkOffset,
  HEADER_BYTES,
  PAYLOAD_OFFSET,
  parseHeader,
  plainSize,
  storedSize,
  TAG_BYTES,
} from "./age-format.ts";
import { type AgeKeys, type KeyPlaces, readKeys } from "./age-keys.ts";
import { ChunkOpener, NoIdentityFits } from "./age-open.ts";
import { SealedStream, sealBytes } from "./age-seal.ts";
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
  SourceStream,
  WriteOptions,
  WriteResult,
  WriteSource,
} from "./destination.ts";
import { parseKey } from "./layout.ts";
import { Gate } from "./limit.ts";
import { openSource } from "./source.ts";

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

  /** `metadata` is kept in the header, in the clear. A bucket keeps the sha256 of the object beside it, if that is small. */
  async write(key: string, source: WriteSource, options: WriteOptions = {}): Promise<WriteResult> {
    if (!this.#isEncrypted(key)) return await this.stored.write(key, source, options);
    if (source.kind !== "bytes" && source.sizeBytes > IN_MEMORY_BYTES) {
      return await this.#writeStream(key, source, options);
    }
    // Before anything is read: what waits for its turn, or is tried again, must not grow with the number of databases.
    return await this.#inMemory.run(() => this.#writeBytes(key, source, options), options.signal);
  }

  remove(keys: readonly string[], options: Parameters<Destination["remove"]>[1] = {}) {
    return this.stored.remove(keys, options);
  }

  close(): void {
    this.stored.close();
  }

  // --- internal ---

  async #writeBytes(key: string, source: WriteSource, options: WriteOptions): Promise<WriteResult> {
    const bytes = await this.#seal(source, options);
    const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    const metadata = this.stored.capabilities.metadata ? { metadata: { sha256 } } : {};
    const result = await this.stored.write(key, { kind: "bytes", bytes }, { ...storedOptions(options), ...metadata });
    return withStoredSha256(result, sha256);
  }

  /** On its own, so that the bytes of a file are let go of before they are sent. */
  async #seal(source: WriteSource, { metadata = {} }: WriteOptions): Promise<Uint8Array> {
    const recipients = this.#requireRecipients();
    if (source.kind === "bytes") return await sealBytes(source.bytes, recipients, metadata);
    const file = await openSource(source);
    const bytes = Buffer.allocUnsafeSlow(source.sizeBytes);
    try {
      await file.read(bytes);
    } finally {
      await file.close();
    }
    return await sealBytes(bytes, recipients, metadata);
  }

  /**
   * Encrypted as it is sent, and anew for each try: needs neither room on the disk nor memory for the whole. The sha256 is known
   * only in the end, too late to be kept beside the object.
   */
  async #writeStream(key: string, source: StreamedSource, options: WriteOptions): Promise<WriteResult> {
    const recipients = this.#requireRecipients();
    let hasher = new Bun.CryptoHasher("sha256");
    const open = async (): Promise<SourceStream> => {
      const plain = await openSource(source);
      hasher = new Bun.CryptoHasher("sha256");
      return new SealedStream(plain, recipients, options.metadata ?? {}, hasher);
    };
    const sealed = { kind: "stream", sizeBytes: storedSize(source.sizeBytes), open } as const;
    const result = await this.stored.write(key, sealed, storedOptions(options));
    return withStoredSha256(result, hasher.digest("hex"));
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

/** Larger files are encrypted as they are sent. */
const IN_MEMORY_BYTES = MiB;

/** Writes at once of files that are encrypted in memory. */
const MAX_IN_MEMORY = 4;

type StreamedSource = Exclude<WriteSource, { kind: "bytes" }>;

/** What the destination is told: nothing of the metadata, which is in the header, and how much of the object was sent. */
function storedOptions({ metadata: _, onProgress, ...others }: WriteOptions): WriteOptions {
  return { ...others, ...(onProgress && { onProgress: (sent) => onProgress(plainSize(sent)) }) };
}

function withStoredSha256(result: WriteResult, storedSha256: string): WriteResult {
  return result.kind === "written" ? { ...result, storedSha256 } : result;
}

function withPlainSize<T extends ObjectInfo>(info: T): T {
  return { ...info, sizeBytes: plainSize(info.sizeBytes) };
}

/** The last byte of the chunk that holds the file's byte `last`. */
function lastStoredByte(last: number | undefined): number | undefined {
  if (last === undefined) return undefined;
  return chunkOffset(Math.floor(last / CHUNK_BYTES) + 1) - 1;
}
