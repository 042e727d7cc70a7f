/**
 * Reads the pages of one local LTX file on request, one after the other, for merging.
 * Promise: verified like everything the decoder reads; memory is one chunk and one page frame.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { LtxError, WalsyncError } from "../errors.ts";
import type { U64Halves } from "./checksum.ts";
import {
  decodeHeaderAndTrailer,
  decodingFile,
  HEADER_SIZE,
  type LtxHeader,
  type LtxTrailer,
  MIN_FILE_SIZE,
  TRAILER_SIZE,
} from "./format.ts";
import { LtxParser } from "./parser.ts";

export class LtxFileReader {
  readonly path: string;
  readonly header: LtxHeader;
  /** What the trailer says, read ahead of the pages. True only once `advance` has reached the end. */
  readonly claimedPostApplyChecksum: bigint;
  readonly #parser: LtxParser;
  readonly #chunk: Uint8Array;
  #fd: number | null;
  #offset = 0;
  #pgno = 0;

  /** Opens the file and reads header and trailer. Throws LtxError or, if the disk fails, WalsyncError. */
  constructor(path: string, chunkSize: number) {
    this.path = path;
    this.#chunk = new Uint8Array(chunkSize);
    const fd = onDisk(path, "open", () => openSync(path, "r"));
    this.#fd = fd;
    try {
      const sizeBytes = onDisk(path, "stat", () => fstatSync(fd).size);
      if (sizeBytes < MIN_FILE_SIZE) {
        throw new LtxError(`${path}: expected an LTX file of at least ${MIN_FILE_SIZE} bytes, found ${sizeBytes}`);
      }
      const head = this.#chunk.slice(0, this.#read(HEADER_SIZE, 0));
      const tail = this.#chunk.slice(0, this.#read(TRAILER_SIZE, sizeBytes - TRAILER_SIZE));
      this.#parser = new LtxParser({ name: path, expectedSizeBytes: sizeBytes });
      const ends = decodingFile(path, () => decodeHeaderAndTrailer(head, tail));
      this.header = ends.header;
      this.claimedPostApplyChecksum = ends.trailer.postApplyChecksum;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Number of the current page: 0 before the first `advance`, infinite at the end. */
  get pgno(): number {
    return this.#pgno;
  }

  /** Contents of the current page. Borrowed: valid until the next `advance`. */
  get page(): Uint8Array {
    return this.#parser.page;
  }

  /** Its checksum, as `pageChecksum` gives it; borrowed, too. */
  get pageChecksum(): Readonly<U64Halves> {
    return this.#parser.pageChecksum;
  }

  /** At the end: the verified trailer. */
  get trailer(): LtxTrailer {
    return this.#parser.trailer;
  }

  /** Moves to the next page. At the end the whole file has been verified. */
  advance(): void {
    for (;;) {
      switch (this.#parser.next()) {
        case "page":
          this.#pgno = this.#parser.pgno;
          return;
        case "header":
          break;
        case "more":
        case "end": {
          const size = this.#read(this.#chunk.length, this.#offset);
          this.#offset += size;
          if (size > 0) {
            this.#parser.feed(this.#chunk.subarray(0, size));
            break;
          }
          this.#parser.finish();
          this.#pgno = Number.POSITIVE_INFINITY;
          return;
        }
      }
    }
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #read(size: number, offset: number): number {
    return onDisk(this.path, "read", () => readSync(this.#fd!, this.#chunk, 0, size, offset));
  }
}

// --- internal ---

function onDisk<T>(path: string, action: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw new WalsyncError("E_DISK", `${path}: cannot ${action} the LTX file`, { cause });
  }
}
