/**
 * The write-ahead log as SQLite writes it: header, frame headers and the running checksum. Pure: no I/O.
 * Spec: https://www.sqlite.org/fileformat2.html#walformat
 */
import { assert } from "../assert.ts";
import { isValidPageSize } from "../page.ts";

export const WAL_HEADER_SIZE = 32;
export const WAL_FRAME_HEADER_SIZE = 24;

/** Lowest bit set: checksums read the content as big-endian words. The file's own integers are always big-endian. */
const WAL_MAGIC = 0x377f0682;
const WAL_FORMAT_VERSION = 3007000;
/** A checksum is over whole pairs of u32 words. */
const CHECKSUM_UNIT = 8;

/** WAL header: eight big-endian u32 fields. */
export interface WalHeader {
  /** True if frame checksums read content as big-endian words (magic 0x377f0683), false for little-endian (…82). */
  bigEndianChecksums: boolean; // offset 0   magic
  //                              offset 4   file format version, 3007000
  pageSize: number; //            offset 8   bytes
  checkpointSequence: number; //  offset 12
  salt1: number; //               offset 16  grows by one each time the WAL restarts
  salt2: number; //               offset 20  random in each generation
  checksum1: number; //           offset 24  over the first 24 bytes; the seed of the frames' running checksum
  checksum2: number; //           offset 28
}

/** WAL frame header: six big-endian u32 fields. The page follows it. */
export interface WalFrameHeader {
  pgno: number; //      offset 0   page number, 1-based
  commit: number; //    offset 4   database size after commit, in pages; 0 if not a commit frame
  salt1: number; //     offset 8   must equal the WAL header's salt1
  salt2: number; //     offset 12
  checksum1: number; // offset 16  running from the start of the WAL
  checksum2: number; // offset 20
}

/** The running checksum: two u32 halves. Mutated in place, since it is updated once per frame. */
export interface WalChecksum {
  checksum1: number;
  checksum2: number;
}

/**
 * The header of a WAL, or null if `bytes` do not start with a valid one: too short, foreign magic or version, impossible
 * page size, wrong checksum. SQLite treats such a WAL as empty, so null is an answer, not an error.
 */
export function decodeWalHeader(bytes: Uint8Array): WalHeader | null {
  if (bytes.byteLength < WAL_HEADER_SIZE) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, WAL_HEADER_SIZE);
  const magic = view.getUint32(0);
  if ((magic & ~1) >>> 0 !== WAL_MAGIC || view.getUint32(4) !== WAL_FORMAT_VERSION) return null;
  const header: WalHeader = {
    bigEndianChecksums: (magic & 1) === 1,
    pageSize: view.getUint32(8),
    checkpointSequence: view.getUint32(12),
    salt1: view.getUint32(16),
    salt2: view.getUint32(20),
    checksum1: view.getUint32(24),
    checksum2: view.getUint32(28),
  };
  if (!isValidPageSize(header.pageSize)) return null;
  const sum: WalChecksum = { checksum1: 0, checksum2: 0 };
  updateWalChecksum(sum, bytes, 0, 24, header.bigEndianChecksums);
  return sum.checksum1 === header.checksum1 && sum.checksum2 === header.checksum2 ? header : null;
}

/** Decodes the frame header at `frameOffset` of `view`. */
export function decodeWalFrameHeader(view: DataView, frameOffset: number): WalFrameHeader {
  assert(frameOffset + WAL_FRAME_HEADER_SIZE <= view.byteLength, "frame header is inside the buffer");
  return {
    pgno: view.getUint32(frameOffset + 0),
    commit: view.getUint32(frameOffset + 4),
    salt1: view.getUint32(frameOffset + 8),
    salt2: view.getUint32(frameOffset + 12),
    checksum1: view.getUint32(frameOffset + 16),
    checksum2: view.getUint32(frameOffset + 20),
  };
}

/** Continues `sum` over `bytes[start, end)`. The length is a multiple of 8. Spec: section 4.2, "Checksum Algorithm". */
export function updateWalChecksum(
  sum: WalChecksum,
  bytes: Uint8Array,
  start: number,
  end: number,
  bigEndian: boolean,
): void {
  assert((end - start) % CHECKSUM_UNIT === 0, "a WAL checksum covers whole pairs of words");
  let s0 = sum.checksum1 | 0;
  let s1 = sum.checksum2 | 0;
  if (bigEndian === HOST_IS_LITTLE_ENDIAN || (bytes.byteOffset + start) % 4 !== 0) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + start, end - start);
    for (let at = 0; at < view.byteLength; at += CHECKSUM_UNIT) {
      s0 = (s0 + view.getUint32(at, !bigEndian) + s1) | 0;
      s1 = (s1 + view.getUint32(at + 4, !bigEndian) + s0) | 0;
    }
  } else {
    // The content's word order is the host's: plain array reads are several times faster than a DataView.
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + start, (end - start) / 4);
    for (let at = 0; at < words.length; at += 2) {
      s0 = (s0 + words[at]! + s1) | 0;
      s1 = (s1 + words[at + 1]! + s0) | 0;
    }
  }
  sum.checksum1 = s0 >>> 0;
  sum.checksum2 = s1 >>> 0;
}

/** Offset in the WAL of the frame with this index; `frameIndex` counts from 0. */
export function walFrameOffset(frameIndex: number, pageSize: number): number {
  return WAL_HEADER_SIZE + frameIndex * (WAL_FRAME_HEADER_SIZE + pageSize);
}

/** How many whole frames lie before `walOffset` (bytes). */
export function walFrameCount(walOffset: number, pageSize: number): number {
  return Math.max(0, Math.floor((walOffset - WAL_HEADER_SIZE) / (WAL_FRAME_HEADER_SIZE + pageSize)));
}

// --- internal ---

const HOST_IS_LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;
