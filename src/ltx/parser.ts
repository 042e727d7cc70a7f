/**
 * The one reader of LTX v3 bytes: the push decoder and the file reader are thin shells around it.
 * Promise: every rule of the format is checked as the bytes pass; what is buffered is bounded by one page frame, however
 * large the file or whatever it claims; every fault is an LtxError with its byte offset.
 * Spec: https://github.com/superfly/ltx
 */
import { assert } from "../assert.ts";
import { hex64, KiB, putUvarint } from "../bytes.ts";
import { LtxError } from "../errors.ts";
import { lockPgno } from "../page.ts";
import { CHECKSUM_FLAG, ChecksumAccumulator, Crc64, pageChecksum, type U64Halves } from "./checksum.ts";
import {
  BLOCK_SIZE_SIZE,
  decodeHeader,
  decodePageHeader,
  decodeTrailer,
  decodingFile,
  faultOfPageHeader,
  HEADER_SIZE,
  hasChecksums,
  INDEX_LENGTH_SIZE,
  isSnapshot,
  type LtxHeader,
  type LtxPageHeader,
  type LtxTrailer,
  nextSnapshotPgno,
  PAGE_HEADER_SIZE,
  readU32,
  TRAILER_SIZE,
} from "./format.ts";
import { compressBound, decompressBlock } from "./lz4.ts";

/** What `next` came upon. "more": feed the next chunk. "end": the trailer is read and everything fits. */
export type LtxEvent = "more" | "header" | "page" | "end";

export interface LtxParserOptions {
  /** What messages call the file: a path or a key. */
  name?: string | undefined;
  /** The size that the file must have, in bytes, where it is known. */
  expectedSizeBytes?: number | undefined;
}

export class LtxParser {
  readonly #name: string;
  readonly #expectedSizeBytes: number | undefined;

  #state: "header" | "page" | "block-size" | "block" | "index" | "index-length" | "trailer" | "end" = "header";
  #failed = false;

  // The input: the rest of the chunk, and the front part of a record that began in an earlier chunk.
  #chunk: Uint8Array = EMPTY;
  #at = 0; // next byte of #chunk
  #carry: Uint8Array = EMPTY;
  #carried = 0; // bytes in #carry
  #consumed = 0; // offset in the file of the byte behind the last record
  #fed = 0; // bytes of the file that were fed
  #record: Uint8Array = EMPTY; // where the last record lies ...
  #recordAt = 0; // ... and from which byte

  #header: LtxHeader | null = null;
  #trailer: LtxTrailer | null = null;
  #pageHeader: LtxPageHeader = { pgno: 0, flags: 0 };
  #page: Uint8Array = EMPTY;
  #blockSize = 0;
  #frameOffset = 0;
  #lastPgno = 0;
  #lockPgno = 0;
  #pageCount = 0;
  #tracksDatabase = false; // the database checksum can be computed: a snapshot with checksums
  readonly #fileCrc = new Crc64();
  readonly #database = new ChecksumAccumulator();
  readonly #pageSum: U64Halves = { hi: 0, lo: 0 };
  readonly #index = new ExpectedIndex();
  readonly #foundIndex = new Crc64();
  #indexLeft = 0; // bytes of the index not read yet
  #indexOffset = 0;

  constructor(options: LtxParserOptions = {}) {
    this.#name = options.name ?? "LTX file";
    this.#expectedSizeBytes = options.expectedSizeBytes;
  }

  /** From "header" on. */
  get header(): LtxHeader {
    assert(this.#header !== null, "the header has been read");
    return this.#header;
  }

  /** From "end" on. */
  get trailer(): LtxTrailer {
    assert(this.#trailer !== null, "the trailer has been read");
    return this.#trailer;
  }

  /** At "page": its number. */
  get pgno(): number {
    return this.#lastPgno;
  }

  /** At "page": its contents. Borrowed: valid until the next call of `next`. */
  get page(): Uint8Array {
    return this.#page;
  }

  get pageCount(): number {
    return this.#pageCount;
  }

  /** At "page": its checksum, as `pageChecksum` gives it. Borrowed, too. */
  get pageChecksum(): Readonly<U64Halves> {
    return this.#pageSum;
  }

  /** Gives the next bytes of the file. They must stay as they are until `next` has answered "more" or "end". */
  feed(chunk: Uint8Array): void {
    assert(!this.#failed, "the LTX decoder is not used after an error");
    assert(this.#at === this.#chunk.length, "the last chunk was read to its end");
    this.#chunk = chunk;
    this.#at = 0;
    this.#fed += chunk.length;
    const limit = this.#expectedSizeBytes;
    if (limit !== undefined && this.#fed > limit) this.#fail(`expected ${limit} bytes, found more`, limit);
  }

  /** Reads up to the next event. */
  next(): LtxEvent {
    assert(!this.#failed, "the LTX decoder is not used after an error");
    for (;;) {
      const event = this.#step();
      if (event !== null) return event;
    }
  }

  /** Says that no bytes follow. Throws LtxError unless the file is complete. */
  finish(): void {
    assert(!this.#failed, "the LTX decoder is not used after an error");
    const limit = this.#expectedSizeBytes;
    if (this.#state !== "end") {
      this.#fail(`expected ${PLACES[this.#state]}, found the end of the file`, this.#fed);
    }
    if (limit !== undefined && this.#fed !== limit) {
      this.#fail(`expected ${limit} bytes, found a complete file of ${this.#fed}`, this.#fed);
    }
  }

  /** Reads one record; null if it makes no event. */
  #step(): LtxEvent | null {
    switch (this.#state) {
      case "header":
        return this.#take(HEADER_SIZE) ? this.#readHeader() : "more";
      case "page":
        return this.#take(PAGE_HEADER_SIZE) ? this.#readPageHeader() : "more";
      case "block-size":
        return this.#take(BLOCK_SIZE_SIZE) ? this.#readBlockSize() : "more";
      case "block":
        return this.#take(this.#blockSize) ? this.#readBlock() : "more";
      case "index":
        return this.#readIndex();
      case "index-length":
        return this.#take(INDEX_LENGTH_SIZE) ? this.#readIndexLength() : "more";
      case "trailer":
        return this.#take(TRAILER_SIZE) ? this.#readTrailer() : "more";
      case "end":
        if (this.#at < this.#chunk.length) this.#fail("expected the end of the file, found more bytes", this.#consumed);
        return "end";
    }
  }

  #readHeader(): LtxEvent {
    const bytes = this.#record.subarray(this.#recordAt, this.#recordAt + HEADER_SIZE);
    this.#header = this.#attempt(() => decodeHeader(bytes));
    this.#fileCrc.update(bytes);
    this.#page = new Uint8Array(this.#header.pageSize);
    this.#lockPgno = lockPgno(this.#header.pageSize);
    this.#tracksDatabase = isSnapshot(this.#header) && hasChecksums(this.#header);
    this.#state = "page";
    return "header";
  }

  #readPageHeader(): null {
    const offset = this.#consumed - PAGE_HEADER_SIZE;
    this.#fileCrc.update(this.#record, this.#recordAt, this.#recordAt + PAGE_HEADER_SIZE);
    decodePageHeader(this.#record, this.#recordAt, this.#pageHeader);
    const { pgno, flags } = this.#pageHeader;
    if (pgno === 0 && flags === 0) return this.#endPages(offset);
    const fault = faultOfPageHeader(this.#pageHeader) ?? this.#faultOfOrder(pgno);
    if (fault !== null) this.#fail(fault, offset);
    this.#frameOffset = offset;
    this.#lastPgno = pgno;
    this.#state = "block-size";
    return null;
  }

  #faultOfOrder(pgno: number): string | null {
    const { commit } = this.header;
    if (pgno > commit) return `expected a page of a database of ${commit} pages, found page ${pgno}`;
    if (pgno === this.#lockPgno) return `expected no lock page, found it (page ${pgno})`;
    if (pgno <= this.#lastPgno) return `expected a page after page ${this.#lastPgno}, found page ${pgno}`;
    if (isSnapshot(this.header) && pgno !== this.#nextPgno()) {
      return `expected page ${this.#nextPgno()} of a snapshot, found page ${pgno}`;
    }
    return null;
  }

  /** The page a snapshot must hold next; beyond `commit` when it is complete. */
  #nextPgno(): number {
    return nextSnapshotPgno(this.#lastPgno, this.#lockPgno);
  }

  #readBlockSize(): null {
    const size = readU32(this.#record, this.#recordAt);
    const bound = compressBound(this.header.pageSize);
    // Before a byte of it is buffered: the size is only a claim.
    if (size === 0 || size > bound) {
      this.#fail(
        `expected a block of 1 to ${bound} bytes for page ${this.#lastPgno}, found ${size}`,
        this.#consumed - 4,
      );
    }
    this.#fileCrc.update(this.#record, this.#recordAt, this.#recordAt + BLOCK_SIZE_SIZE);
    this.#blockSize = size;
    this.#state = "block";
    return null;
  }

  #readBlock(): LtxEvent {
    try {
      decompressBlock(this.#record, this.#page, this.#recordAt, this.#recordAt + this.#blockSize);
    } catch (error) {
      this.#failed = true;
      if (!(error instanceof LtxError)) throw error;
      const at = this.#consumed - this.#blockSize;
      throw new LtxError(`${this.#name}: page ${this.#lastPgno}: ${error.message} (at byte ${at})`, { cause: error });
    }
    pageChecksum(this.#lastPgno, this.#page, this.#pageSum);
    this.#fileCrc.updatePage(this.#lastPgno, this.#pageSum, this.#page.length);
    if (this.#tracksDatabase) this.#database.xorPage(this.#pageSum.hi, this.#pageSum.lo);
    this.#index.add(this.#lastPgno, this.#frameOffset, this.#consumed - this.#frameOffset);
    this.#pageCount++;
    this.#state = "page";
    return "page";
  }

  #endPages(offset: number): null {
    if (isSnapshot(this.header) && this.#nextPgno() <= this.header.commit) {
      this.#fail(
        `expected page ${this.#nextPgno()} of a snapshot of ${this.header.commit} pages, found the end of the pages`,
        offset,
      );
    }
    this.#index.addEnd();
    this.#indexLeft = this.#index.sizeBytes;
    this.#indexOffset = this.#consumed;
    this.#state = "index";
    return null;
  }

  /** The index is compared by size and CRC with the one that the frames call for: it is never held. */
  #readIndex(): LtxEvent | null {
    const take = Math.min(this.#indexLeft, this.#chunk.length - this.#at);
    if (take === 0) return "more";
    this.#fileCrc.update(this.#chunk, this.#at, this.#at + take);
    this.#foundIndex.update(this.#chunk, this.#at, this.#at + take);
    this.#at += take;
    this.#consumed += take;
    this.#indexLeft -= take;
    if (this.#indexLeft > 0) return null;
    if (this.#foundIndex.digest() !== this.#index.digest()) {
      this.#fail(
        `expected a page index of ${this.#index.sizeBytes} bytes for the ${this.#pageCount} page frames, found another one`,
        this.#indexOffset,
      );
    }
    this.#state = "index-length";
    return null;
  }

  #readIndexLength(): null {
    const high = readU32(this.#record, this.#recordAt);
    const low = readU32(this.#record, this.#recordAt + 4);
    const found = high * 2 ** 32 + low;
    if (found !== this.#index.sizeBytes) {
      this.#fail(
        `expected the page index length ${this.#index.sizeBytes}, found ${found}`,
        this.#consumed - INDEX_LENGTH_SIZE,
      );
    }
    this.#fileCrc.update(this.#record, this.#recordAt, this.#recordAt + INDEX_LENGTH_SIZE);
    this.#state = "trailer";
    return null;
  }

  #readTrailer(): null {
    const bytes = this.#record.subarray(this.#recordAt, this.#recordAt + TRAILER_SIZE);
    this.#fileCrc.update(bytes, 0, 8);
    const trailer = this.#attempt(() => decodeTrailer(bytes, this.header));
    const fileChecksum = this.#fileCrc.digest() | CHECKSUM_FLAG;
    if (trailer.fileChecksum !== fileChecksum) {
      this.#fail(
        `expected the file checksum ${hex64(trailer.fileChecksum)}, found bytes that make ${hex64(fileChecksum)}`,
        this.#consumed - 8,
      );
    }
    if (this.#tracksDatabase && trailer.postApplyChecksum !== this.#database.value()) {
      this.#fail(
        `expected the database checksum ${hex64(trailer.postApplyChecksum)}, found pages that make ${hex64(this.#database.value())}`,
        this.#consumed - TRAILER_SIZE,
      );
    }
    this.#trailer = trailer;
    this.#state = "end";
    return null;
  }

  /** Makes the next `size` bytes one piece: in the chunk where they lie, or in the carry. False if some are missing. */
  #take(size: number): boolean {
    const available = this.#chunk.length - this.#at;
    if (this.#carried === 0 && available >= size) {
      this.#record = this.#chunk;
      this.#recordAt = this.#at;
      this.#at += size;
      this.#consumed += size;
      return true;
    }
    const take = Math.min(available, size - this.#carried);
    if (take > 0) {
      if (this.#carry.length < size) {
        const larger = new Uint8Array(size);
        larger.set(this.#carry.subarray(0, this.#carried));
        this.#carry = larger;
      }
      this.#carry.set(this.#chunk.subarray(this.#at, this.#at + take), this.#carried);
      this.#at += take;
      this.#carried += take;
    }
    if (this.#carried < size) return false;
    this.#record = this.#carry;
    this.#recordAt = 0;
    this.#carried = 0;
    this.#consumed += size;
    return true;
  }

  /** Runs a pure decoder and puts our name before its error. */
  #attempt<T>(decode: () => T): T {
    try {
      return decodingFile(this.#name, decode);
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }

  #fail(message: string, offset: number): never {
    this.#failed = true;
    throw new LtxError(`${this.#name}: ${message} (at byte ${offset})`);
  }
}

// --- internal ---

const EMPTY = new Uint8Array(0);

/** What is missing when the bytes end. */
const PLACES = {
  header: "the rest of the header",
  page: "a page header or the end of the pages",
  "block-size": "the size of a page's block",
  block: "the rest of a page's block",
  index: "the rest of the page index",
  "index-length": "the length of the page index",
  trailer: "the rest of the trailer",
} as const;

/** The page index that the frames call for, as size and CRC of its bytes. Uvarints are canonical, so there is only one. */
class ExpectedIndex {
  readonly #crc = new Crc64();
  readonly #pending = new Uint8Array(1 * KiB); // entries that are not in the CRC yet: it is faster on long pieces
  #used = 0;
  #sizeBytes = 0;

  get sizeBytes(): number {
    return this.#sizeBytes + this.#used;
  }

  add(pgno: number, offset: number, size: number): void {
    if (this.#used + 16 > this.#pending.length) this.#settle();
    this.#used = putUvarint(this.#pending, this.#used, pgno);
    this.#used = putUvarint(this.#pending, this.#used, offset);
    this.#used = putUvarint(this.#pending, this.#used, size);
  }

  addEnd(): void {
    if (this.#used === this.#pending.length) this.#settle();
    this.#pending[this.#used++] = 0;
  }

  digest(): bigint {
    this.#settle();
    return this.#crc.digest();
  }

  #settle(): void {
    this.#crc.update(this.#pending, 0, this.#used);
    this.#sizeBytes += this.#used;
    this.#used = 0;
  }
}
