/**
 * Writes an LTX v3 file: header, pages in ascending order, page index, trailer.
 * Promise: given the right post-apply checksum, what it wrote is valid by every rule the decoder checks; memory does not
 * depend on the number of pages.
 * Spec: https://github.com/superfly/ltx
 *
 * All misuse (wrong order, the lock page, a snapshot with holes) is a bug of the caller and fails an assertion.
 */
import { closeSync, readSync, unlinkSync, writeSync } from "node:fs";
import { assert } from "../assert.ts";
import { KiB, MiB, putUvarint } from "../bytes.ts";
import { openTempFile } from "../durable.ts";
import { WalsyncError } from "../errors.ts";
import { lockPgno } from "../page.ts";
import { CHECKSUM_FLAG, Crc64, type U64Halves } from "./checksum.ts";
import {
  BLOCK_SIZE_SIZE,
  encodeHeader,
  encodePageHeader,
  encodeTrailer,
  INDEX_LENGTH_SIZE,
  isSnapshot,
  type LtxHeader,
  type LtxTrailer,
  nextSnapshotPgno,
  PAGE_FLAG_SIZE,
  PAGE_HEADER_SIZE,
} from "./format.ts";
import { compressBlock, compressBound } from "./lz4.ts";

/** Takes the next bytes of the file. They are borrowed: it must write or copy them before it returns. */
export type LtxSink = (bytes: Uint8Array) => void;

export interface LtxEncoderOptions {
  /**
   * Where the page index may overflow to: a file of ours alone, removed from the directory as soon as it is open.
   * Without it the index stays in memory, up to 16 bytes a page.
   */
  spoolPath?: string | undefined;
}

export class LtxEncoder {
  readonly header: LtxHeader;
  readonly #sink: LtxSink;
  readonly #index: IndexSpool;
  readonly #crc = new Crc64();
  #buffer = takeBuffer();
  readonly #lockPgno: number;
  readonly #frameBound: number;
  #used = 0; // bytes in #buffer
  #flushed = 0; // bytes the sink has taken
  #lastPgno = 0;
  #pageCount = 0;
  #done = false;

  /** Checks the header and buffers it. The sink is first called when the buffer is full or the file complete. */
  constructor(sink: LtxSink, header: LtxHeader, options: LtxEncoderOptions = {}) {
    this.header = header;
    this.#sink = sink;
    this.#index = new IndexSpool(options.spoolPath);
    this.#lockPgno = lockPgno(header.pageSize);
    this.#frameBound = PAGE_HEADER_SIZE + BLOCK_SIZE_SIZE + compressBound(header.pageSize);
    this.#write(encodeHeader(header));
  }

  /** Size of the file so far, in bytes; after `finish` the size of the whole file. */
  get sizeBytes(): number {
    return this.#flushed + this.#used;
  }

  /** Pages written so far. */
  get pageCount(): number {
    return this.#pageCount;
  }

  /**
   * Adds a page. `pgno` ascends; a snapshot leaves out the lock page and no other. `page` is not kept. Pass the page's
   * checksum if it is known: what is given is believed.
   */
  encodePage(pgno: number, page: Uint8Array, checksum?: Readonly<U64Halves>): void {
    const { header } = this;
    assert(!this.#done, "the LTX file is not finished when a page is added");
    assert(page.length === header.pageSize, "the page has the page size of the header");
    assert(pgno > this.#lastPgno, "page numbers ascend");
    assert(pgno <= header.commit, "the page is within the database");
    assert(pgno !== this.#lockPgno, "the lock page is not written");
    if (isSnapshot(header)) assert(pgno === this.#nextPgno(), "a snapshot leaves no page out");

    if (this.#used + this.#frameBound > BUFFER_SIZE) this.#flush();
    const frame = this.#used;
    const block = frame + PAGE_HEADER_SIZE + BLOCK_SIZE_SIZE;
    const frameOffset = this.sizeBytes;
    const blockSize = compressBlock(page, this.#buffer, block);
    encodePageHeader(this.#buffer, frame, pgno, PAGE_FLAG_SIZE);
    this.#buffer[block - 4] = blockSize >>> 24;
    this.#buffer[block - 3] = blockSize >>> 16;
    this.#buffer[block - 2] = blockSize >>> 8;
    this.#buffer[block - 1] = blockSize;
    this.#crc.update(this.#buffer, frame, block);
    // The checksum covers what the block stands for, so it survives recompression.
    if (checksum === undefined) this.#crc.update(page);
    else this.#crc.updatePage(pgno, checksum, page.length);
    this.#used = block + blockSize;

    this.#index.add(pgno, frameOffset, block - frame + blockSize);
    this.#lastPgno = pgno;
    this.#pageCount++;
  }

  /**
   * Writes index and trailer, and hands the last bytes to the sink.
   * `postApplyChecksum` is the database checksum afterwards; 0 in a file without checksums.
   */
  finish(postApplyChecksum: bigint): LtxTrailer {
    const { header } = this;
    assert(!this.#done, "the LTX file is finished once");
    if (isSnapshot(header)) assert(this.#nextPgno() > header.commit, "a snapshot reaches the last page");
    this.#done = true;

    this.#write(new Uint8Array(PAGE_HEADER_SIZE));
    this.#index.add0();
    this.#index.drain((bytes) => this.#write(bytes));
    const tail = new Uint8Array(INDEX_LENGTH_SIZE + 8);
    const view = new DataView(tail.buffer);
    view.setBigUint64(0, BigInt(this.#index.sizeBytes));
    view.setBigUint64(INDEX_LENGTH_SIZE, BigInt.asUintN(64, postApplyChecksum));
    this.#crc.update(tail);

    const trailer: LtxTrailer = { postApplyChecksum, fileChecksum: this.#crc.digest() | CHECKSUM_FLAG };
    this.#append(tail.subarray(0, INDEX_LENGTH_SIZE));
    this.#append(encodeTrailer(header, trailer));
    this.#flush();
    this.#release();
    return trailer;
  }

  /** Gives up an unfinished file: frees the spool. What the sink took is for the caller to remove. */
  abort(): void {
    this.#done = true;
    this.#index.close();
    this.#release();
  }

  #release(): void {
    returnBuffer(this.#buffer);
    this.#buffer = EMPTY;
  }

  /** The page a snapshot must hold next; beyond `commit` when it is complete. */
  #nextPgno(): number {
    return nextSnapshotPgno(this.#lastPgno, this.#lockPgno);
  }

  #write(bytes: Uint8Array): void {
    this.#crc.update(bytes);
    this.#append(bytes);
  }

  #append(bytes: Uint8Array): void {
    if (this.#used + bytes.length > BUFFER_SIZE) this.#flush();
    this.#buffer.set(bytes, this.#used);
    this.#used += bytes.length;
  }

  #flush(): void {
    if (this.#used === 0) return;
    this.#sink(this.#buffer.subarray(0, this.#used));
    this.#flushed += this.#used;
    this.#used = 0;
  }
}

// --- internal ---

const BUFFER_SIZE = 256 * KiB;
const EMPTY = new Uint8Array(0);

/** One buffer outlives its encoder: most files are small, and a busy process writes many. */
let spareBuffer: Uint8Array<ArrayBuffer> | null = null;

function takeBuffer(): Uint8Array<ArrayBuffer> {
  const buffer = spareBuffer ?? new Uint8Array(BUFFER_SIZE);
  spareBuffer = null;
  return buffer;
}

function returnBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  if (buffer.length === BUFFER_SIZE) spareBuffer = buffer;
}

/** How much of the page index stays in memory: about 100,000 pages. */
const SPOOL_BOUND = MiB;
/** pgno below 2^32 takes five bytes, an offset below 2^53 eight, a frame size three. */
const MAX_ENTRY_SIZE = 16;

/** The page index until the pages are written: in memory first, then in a file. */
class IndexSpool {
  readonly #path: string | undefined;
  #memory = new Uint8Array(4 * KiB);
  #used = 0; // bytes in #memory
  #fd: number | null = null;
  #spilled = 0; // bytes in the file

  constructor(path: string | undefined) {
    this.#path = path;
  }

  get sizeBytes(): number {
    return this.#spilled + this.#used;
  }

  add(pgno: number, offset: number, size: number): void {
    if (this.#used + MAX_ENTRY_SIZE > this.#memory.length) this.#makeRoom();
    this.#used = putUvarint(this.#memory, this.#used, pgno);
    this.#used = putUvarint(this.#memory, this.#used, offset);
    this.#used = putUvarint(this.#memory, this.#used, size);
  }

  /** The end mark. */
  add0(): void {
    if (this.#used === this.#memory.length) this.#makeRoom();
    this.#memory[this.#used++] = 0;
  }

  /** Passes on everything that was added, in pieces that fit the encoder's buffer, and closes the file. */
  drain(write: LtxSink): void {
    const fd = this.#fd;
    if (fd !== null) {
      const piece = new Uint8Array(64 * KiB);
      for (let at = 0; at < this.#spilled; ) {
        const want = Math.min(piece.length, this.#spilled - at);
        const read = onDisk(this.#path, "read", () => readSync(fd, piece, 0, want, at));
        if (read === 0) throw new WalsyncError("E_DISK", `${this.#path}: the page index lost its end at byte ${at}`);
        write(piece.subarray(0, read));
        at += read;
      }
    }
    for (let at = 0; at < this.#used; at += 64 * KiB) {
      write(this.#memory.subarray(at, Math.min(this.#used, at + 64 * KiB)));
    }
    this.close();
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #makeRoom(): void {
    if (this.#memory.length < SPOOL_BOUND || this.#path === undefined) {
      const larger = new Uint8Array(2 * this.#memory.length);
      larger.set(this.#memory);
      this.#memory = larger;
      return;
    }
    const path = this.#path;
    if (this.#fd === null) {
      this.#fd = onDisk(path, "create", () => openTempFile(path));
      onDisk(path, "unlink", () => unlinkSync(path)); // nothing to clean up, however this process ends
    }
    const fd = this.#fd;
    for (let at = 0; at < this.#used; ) {
      at += onDisk(path, "write", () => writeSync(fd, this.#memory, at, this.#used - at, this.#spilled + at));
    }
    this.#spilled += this.#used;
    this.#used = 0;
  }
}

function onDisk<T>(path: string | undefined, action: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw new WalsyncError("E_DISK", `${path}: cannot ${action} the page index spool`, { cause });
  }
}
