/**
 * Reads committed frames of a live WAL, from a position on, checking salts and running checksums.
 *
 * Promise: every frame it reports belongs to the generation of the cursor and continues the cursor's running checksum.
 * It stops at the last commit frame within its bound; a torn or stale tail is the normal end of a WAL, not an error.
 * Whether those frames are all there were is decided elsewhere (replication/plan.ts), from the WAL index.
 */
import { fstatSync, readSync } from "node:fs";
import { MiB } from "../bytes.ts";
import { decodeWalHeader, updateWalChecksum, WAL_FRAME_HEADER_SIZE, WAL_HEADER_SIZE, type WalHeader } from "./wal.ts";

/** A place in one generation of a WAL: behind its header or behind a commit frame. */
export interface WalCursor {
  salt1: number;
  salt2: number;
  /** Bytes; always on a frame boundary. */
  walOffset: number;
  /** Running checksum of everything before `walOffset`. */
  checksum1: number;
  checksum2: number;
  bigEndianChecksums: boolean;
}

/** The frames of whole transactions behind a cursor. */
export interface WalScan {
  /** Where the next scan starts: behind the last commit frame, or the cursor itself if there is none. */
  end: WalCursor;
  /** Commit frames seen: the number of transactions. */
  commitCount: number;
  /** Database size in pages after the last of them; 0 if there is none. */
  commit: number;
  /** Frames of those transactions. */
  frameCount: number;
  /** The newest frame of each page, ascending by page number. */
  pages: FrameList;
}

/** Page numbers and where their frames start in the WAL. Two parallel arrays: eight to twelve bytes a page. */
export interface FrameList {
  pgnos: Uint32Array;
  /** Index of the frame in its generation, from 0. */
  frameIndexes: Uint32Array;
}

/** The header of the WAL as it is now, or null if there is none or it is not valid. */
export function readWalHeader(walFd: number): WalHeader | null {
  const bytes = Buffer.alloc(WAL_HEADER_SIZE);
  return readSync(walFd, bytes, 0, WAL_HEADER_SIZE, 0) < WAL_HEADER_SIZE ? null : decodeWalHeader(bytes);
}

/** As `readWalHeader`, and null as well if the WAL is of another generation than the one with these salts. */
export function readWalHeaderOf(walFd: number, { salt1, salt2 }: { salt1: number; salt2: number }): WalHeader | null {
  const header = readWalHeader(walFd);
  return header !== null && header.salt1 === salt1 && header.salt2 === salt2 ? header : null;
}

/** The cursor at the first frame of the generation that `header` begins. */
export function cursorAtStart(header: WalHeader): WalCursor {
  return {
    salt1: header.salt1,
    salt2: header.salt2,
    walOffset: WAL_HEADER_SIZE,
    checksum1: header.checksum1,
    checksum2: header.checksum2,
    bigEndianChecksums: header.bigEndianChecksums,
  };
}

/**
 * Scans whole transactions behind `cursor`, up to the frame with index `frameLimit`: only frames below it exist for us,
 * since SQLite counts them as committed. Reads the WAL in bounded parts; holds eight bytes per frame, no
 * pages.
 */
export function scanWal(walFd: number, pageSize: number, cursor: WalCursor, frameLimit: number): WalScan {
  const frameSize = WAL_FRAME_HEADER_SIZE + pageSize;
  const firstIndex = (cursor.walOffset - WAL_HEADER_SIZE) / frameSize;
  const sizeBytes = fstatSync(walFd).size;
  const buffer = readBuffer(frameSize);
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  const sum = { checksum1: cursor.checksum1, checksum2: cursor.checksum2 };
  const seen = new FrameLog();
  const scan: WalScan = { end: cursor, commitCount: 0, commit: 0, frameCount: 0, pages: NO_FRAMES };

  let index = firstIndex;
  let offset = cursor.walOffset;
  reading: while (index < frameLimit) {
    const wanted = Math.min(buffer.byteLength, (frameLimit - index) * frameSize, sizeBytes - offset);
    const filled = wanted < frameSize ? 0 : readFully(walFd, buffer, wanted, offset);
    const whole = Math.floor(filled / frameSize);
    if (whole === 0) break;
    for (let i = 0; i < whole; i++) {
      const at = i * frameSize;
      if (view.getUint32(at + 8) !== cursor.salt1 || view.getUint32(at + 12) !== cursor.salt2) break reading;
      updateWalChecksum(sum, buffer, at, at + 8, cursor.bigEndianChecksums);
      updateWalChecksum(sum, buffer, at + WAL_FRAME_HEADER_SIZE, at + frameSize, cursor.bigEndianChecksums);
      if (view.getUint32(at + 16) !== sum.checksum1 || view.getUint32(at + 20) !== sum.checksum2) break reading;
      const pgno = view.getUint32(at);
      if (pgno === 0) break reading;
      seen.push(pgno, index);
      index++;
      offset += frameSize;
      const commit = view.getUint32(at + 4);
      if (commit === 0) continue;
      seen.commit();
      scan.commitCount++;
      scan.commit = commit;
      scan.end = { ...cursor, walOffset: offset, checksum1: sum.checksum1, checksum2: sum.checksum2 };
    }
  }
  scan.frameCount = seen.committed;
  scan.pages = seen.newestPerPage();
  return scan;
}

/**
 * Reads the page of the frame with this index into `page`. The scan that reported the frame has proven its checksum;
 * false if the WAL is shorter by now or the frame is of another generation, which a pin must make impossible.
 */
export function readFramePage(walFd: number, cursor: WalCursor, frameIndex: number, page: Uint8Array): boolean {
  const frameSize = WAL_FRAME_HEADER_SIZE + page.byteLength;
  const buffer = readBuffer(frameSize);
  if (readFully(walFd, buffer, frameSize, WAL_HEADER_SIZE + frameIndex * frameSize) < frameSize) return false;
  if (buffer.readUInt32BE(8) !== cursor.salt1 || buffer.readUInt32BE(12) !== cursor.salt2) return false;
  page.set(buffer.subarray(WAL_FRAME_HEADER_SIZE, frameSize));
  return true;
}

/**
 * The cursor at `walOffset` of the generation with these salts, its running checksum taken from the frame before it. Null
 * if the WAL is of another generation by now or does not reach that far.
 */
export function cursorAt(
  walFd: number,
  pageSize: number,
  place: { salt1: number; salt2: number; walOffset: number },
): WalCursor | null {
  const header = readWalHeaderOf(walFd, place);
  if (header === null) return null;
  const frame = Buffer.alloc(WAL_FRAME_HEADER_SIZE);
  const frameOffset = place.walOffset - WAL_FRAME_HEADER_SIZE - pageSize;
  if (frameOffset < WAL_HEADER_SIZE) return null;
  if (readFully(walFd, frame, WAL_FRAME_HEADER_SIZE, frameOffset) < WAL_FRAME_HEADER_SIZE) return null;
  if (frame.readUInt32BE(8) !== place.salt1 || frame.readUInt32BE(12) !== place.salt2) return null;
  return {
    ...cursorAtStart(header),
    walOffset: place.walOffset,
    checksum1: frame.readUInt32BE(16),
    checksum2: frame.readUInt32BE(20),
  };
}

/** Reads up to `length` bytes at `position`, going on after short reads; returns how many there were. */
export function readFully(fd: number, target: Uint8Array, length: number, position: number): number {
  let filled = 0;
  while (filled < length) {
    const got = readSync(fd, target, filled, length - filled, position + filled);
    if (got === 0) break;
    filled += got;
  }
  return filled;
}

// --- internal ---

const NO_FRAMES: FrameList = { pgnos: new Uint32Array(0), frameIndexes: new Uint32Array(0) };
/** One part of the WAL. All databases share one buffer: scans are synchronous, so no two overlap. */
const PART_SIZE = 1 * MiB;
let sharedBuffer: Buffer | undefined;

/** A shared buffer of whole frames, at least one. Borrowed: valid until the next read. */
function readBuffer(frameSize: number): Buffer {
  sharedBuffer ??= Buffer.alloc(PART_SIZE);
  return sharedBuffer.subarray(0, Math.max(1, Math.floor(PART_SIZE / frameSize)) * frameSize);
}

/** The (page, frame) pairs of a scan: one 64-bit key each, page number above frame index, so that sorting groups pages. */
class FrameLog {
  /** Pairs that belong to whole transactions; the rest is an uncommitted tail. */
  committed = 0;
  #length = 0;
  #words = new Uint32Array(2 * 32);

  push(pgno: number, frameIndex: number): void {
    if (this.#length * 2 === this.#words.length) {
      const grown = new Uint32Array(this.#words.length * 2);
      grown.set(this.#words);
      this.#words = grown;
    }
    this.#words[this.#length * 2 + HIGH_WORD] = pgno;
    this.#words[this.#length * 2 + LOW_WORD] = frameIndex;
    this.#length++;
  }

  commit(): void {
    this.committed = this.#length;
  }

  /** The last frame of each page among the committed pairs, ascending by page. Call once, at the end. */
  newestPerPage(): FrameList {
    if (this.committed === 0) return NO_FRAMES;
    const words = this.#words;
    new BigUint64Array(words.buffer, 0, this.committed).sort();
    let pageCount = 0;
    const isNewest = (i: number) =>
      i + 1 === this.committed || words[2 * i + HIGH_WORD] !== words[2 * (i + 1) + HIGH_WORD];
    for (let i = 0; i < this.committed; i++) if (isNewest(i)) pageCount++;
    const list: FrameList = { pgnos: new Uint32Array(pageCount), frameIndexes: new Uint32Array(pageCount) };
    for (let i = 0, next = 0; i < this.committed; i++) {
      if (!isNewest(i)) continue;
      list.pgnos[next] = words[2 * i + HIGH_WORD]!;
      list.frameIndexes[next++] = words[2 * i + LOW_WORD]!;
    }
    return list;
  }
}

const HOST_IS_LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;
const HIGH_WORD = HOST_IS_LITTLE_ENDIAN ? 1 : 0;
const LOW_WORD = 1 - HIGH_WORD;
