/**
 * What walsync asks of a place that files go to. `s3.ts` and `directory.ts` implement it; `retry.ts` and `encrypted.ts` wrap it.
 *
 * Keys are relative to the destination's own prefix, use "/" and never start with it. A missing key is an answer
 * (`null`), a missing bucket or directory is an error: a mistyped bucket must not read as "no snapshots".
 * Every method throws `DestinationError` and nothing else for a fault of the destination, and the signal's reason
 * when it was aborted.
 */

import type { LevelFolders } from "./layout.ts";

export interface ObjectInfo {
  key: string;
  sizeBytes: number;
  modifiedAt: Date;
  /** When the destination took it. As `modifiedAt`, but for a directory, where that one may have been chosen. */
  storedAt: Date;
  /** Opaque version of the content, for `ifMatch`. */
  etag: string;
}

export interface ObjectHead extends ObjectInfo {
  /** User metadata, names in lower case without the x-amz-meta- prefix. Empty where the destination keeps none. */
  metadata: Record<string, string>;
}

/** `sizeBytes` is the size of the whole object, also when only a range of it was asked for. */
export interface ObjectBody extends ObjectHead {
  /**
   * The bytes, once. Chunks are borrowed: valid until the next one is asked for. A body holds a connection or an open
   * file: iterate it to the end, or give it up with `return()` (leaving a `for await` does that).
   */
  chunks: AsyncIterable<Uint8Array>;
}

/**
 * What to upload. A file is read in bounded parts; one that has not exactly `sizeBytes` is a `WalsyncError` E_DISK, and nothing
 * is written.
 */
export type WriteSource =
  | { kind: "bytes"; bytes: Uint8Array }
  | { kind: "file"; path: string; sizeBytes: number }
  /** Bytes that are made as they are sent. `open` begins anew, for another try of the whole, and may give other bytes then. */
  | { kind: "stream"; sizeBytes: number; open(): Promise<SourceStream> };

/** The bytes of a source, from the first to the last, once. */
export interface SourceStream {
  readonly sizeBytes: number;
  /** Fills all of `buffer` with the bytes that come next. One call at a time, and no more than there are. */
  read(buffer: Buffer): Promise<void>;
  close(): Promise<void>;
}

export interface WriteOptions {
  metadata?: Record<string, string>;
  /** The file's own time, in a directory. A bucket keeps the time of the upload. Not for a key that is written again. */
  modifiedAt?: Date;
  /** "absent": only if the key does not exist yet. `{ etag }`: only if it still has this content. Else: replace. */
  condition?: "absent" | { etag: string };
  signal?: AbortSignal | undefined;
  onProgress?: (sentBytes: number) => void;
}

/** "refused": the condition did not hold, and nothing was written. */
export type WriteResult =
  | {
      kind: "written";
      etag: string;
      /** Hex sha256 of the object, where that is not made of the source's bytes: it was encrypted. */
      storedSha256?: string;
    }
  | { kind: "refused" };

export interface ListOptions {
  /** Only keys behind this one, in byte order. */
  startAfter?: string;
  signal?: AbortSignal | undefined;
}

export interface ReadOptions {
  /**
   * First and last byte, both included, as in HTTP. A negative `first` counts from the end and has no `last`.
   * The range is cut to the object; one that begins behind the end holds no bytes.
   */
  range?: { first: number; last?: number };
  signal?: AbortSignal | undefined;
}

/** What a destination can keep, as data, so that callers need not know its kind. */
export interface Capabilities {
  /** User metadata is stored with each object. */
  metadata: boolean;
  /** Which of its two ways to name level folders Litestream has for a place of this kind. */
  levelFolders: LevelFolders;
  /**
   * LTX files are encrypted there. "sealed": without an identity, so that their bytes cannot be read, only what is kept with
   * them. Absent: they are as they were written.
   */
  encryption?: "open" | "sealed";
}

export interface Destination {
  /** For messages and state: never holds secrets. */
  readonly url: string;
  readonly capabilities: Capabilities;
  /** The objects as they are stored, where that is not what `read` gives. Absent: it is. */
  readonly stored?: Destination;
  /**
   * Proves that the destination is there and answers to these credentials, and makes what may be made (a directory,
   * never a bucket). For writers, once before the first write: whoever only reads must not make a mistyped directory,
   * and learns from the first list or read that it is missing.
   */
  prepare(options?: { signal?: AbortSignal | undefined }): Promise<void>;
  /** All keys below `prefix`, in byte order, page by page. `prefix` is "" or ends with "/". */
  list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo>;
  /** Names of the folders directly below `prefix`, in byte order, without slashes. */
  listFolders(prefix: string, options?: { signal?: AbortSignal | undefined }): AsyncIterable<string>;
  head(key: string, options?: { signal?: AbortSignal | undefined }): Promise<ObjectHead | null>;
  read(key: string, options?: ReadOptions): Promise<ObjectBody | null>;
  write(key: string, source: WriteSource, options?: WriteOptions): Promise<WriteResult>;
  /** Removes keys; one that is missing already counts as removed. */
  remove(keys: readonly string[], options?: { signal?: AbortSignal | undefined }): Promise<void>;
  close(): void;
}
