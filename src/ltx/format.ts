/**
 * The fixed-size records of an LTX v3 file: header, page header, trailer. Pure: bytes to records and back, and their rules.
 * Spec: https://github.com/superfly/ltx. All integers are big-endian.
 *
 *   header (100) | page frames | 6 zero bytes | page index | index length u64 | trailer (16)
 *   page frame:   page header (6) | block size u32 | LZ4 block
 *   page index:   per page uvarint pgno, frame offset, frame size; then one 0 byte. The length counts that 0 byte too.
 */
import { assert } from "../assert.ts";
import { hex64, u64ToNumber } from "../bytes.ts";
import { LtxError, WalsyncError } from "../errors.ts";
import { isValidPageSize, MAX_PGNO } from "../page.ts";
import { CHECKSUM_FLAG, EMPTY_DATABASE_CHECKSUM } from "./checksum.ts";
import { formatTxid, type Txid } from "./txid.ts";

export const HEADER_SIZE = 100;
export const PAGE_HEADER_SIZE = 6;
/** The u32 between a page header and its LZ4 block. */
export const BLOCK_SIZE_SIZE = 4;
/** The u64 behind the page index. */
export const INDEX_LENGTH_SIZE = 8;
export const TRAILER_SIZE = 16;
/** A file without pages: header, zeros, the index's 0 byte and its length, trailer. */
export const MIN_FILE_SIZE = HEADER_SIZE + PAGE_HEADER_SIZE + 1 + INDEX_LENGTH_SIZE + TRAILER_SIZE;

/** The file does not track database checksums: pre- and post-apply are 0. */
export const HEADER_FLAG_NO_CHECKSUM = 0x2;

/** A block size and an LZ4 block follow the page header. The only kind of frame we write or read. */
export const PAGE_FLAG_SIZE = 0x1;

export interface LtxHeader {
  //                           offset 0   magic, "LTX1"
  flags: number; //            offset 4   u32   HEADER_FLAG_NO_CHECKSUM or 0
  pageSize: number; //         offset 8   u32   bytes, a power of two from 512 to 65536
  commit: number; //           offset 12  u32   database size after applying, in pages
  minTxid: Txid; //            offset 16  u64   first transaction; 1 makes the file a snapshot
  maxTxid: Txid; //            offset 24  u64   last transaction
  timestampMs: number; //      offset 32  i64   milliseconds since 1970 UTC
  preApplyChecksum: bigint; // offset 40  u64   database checksum before; 0 for snapshots and without checksums
  walOffset: number; //        offset 48  i64   bytes, where the frames began in the WAL; 0 if not from one WAL
  walSize: number; //          offset 56  i64   bytes, how much of the WAL; 0 if not from one WAL
  salt1: number; //            offset 64  u32   the WAL's salts; 0 if not from one WAL
  salt2: number; //            offset 68  u32
  nodeId: bigint; //           offset 72  u64   who wrote it; 0 if nobody said
  //                           offset 80  20 reserved bytes: written as 0, not looked at
}

export interface LtxPageHeader {
  pgno: number; //  offset 0  u32  from 1; 0 (with flags 0) ends the page frames
  flags: number; // offset 4  u16  PAGE_FLAG_SIZE
}

export interface LtxTrailer {
  postApplyChecksum: bigint; // offset 0  u64  database checksum after; 0 without checksums
  fileChecksum: bigint; //      offset 8  u64  over the file with its pages uncompressed, up to here; bit 63 set
}

/** A snapshot holds every page of the database (but the lock page). It begins at transaction 1. */
export function isSnapshot(header: LtxHeader): boolean {
  return header.minTxid === 1n;
}

/** True if the file carries database checksums. */
export function hasChecksums(header: LtxHeader): boolean {
  return (header.flags & HEADER_FLAG_NO_CHECKSUM) === 0;
}

/** The page that follows `pgno` in a snapshot: the next one, or the one behind the lock page. */
export function nextSnapshotPgno(pgno: number, lockPage: number): number {
  return pgno + 1 === lockPage ? pgno + 2 : pgno + 1;
}

/** The header in its 100 bytes. A header that breaks a rule is a bug of ours. */
export function encodeHeader(header: LtxHeader): Uint8Array {
  const fault = faultOfHeader(header);
  assert(fault === null, `LTX header to write is valid: ${fault}`);
  const bytes = new Uint8Array(HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.flags);
  view.setUint32(8, header.pageSize);
  view.setUint32(12, header.commit);
  view.setBigUint64(16, header.minTxid);
  view.setBigUint64(24, header.maxTxid);
  view.setBigInt64(32, BigInt(header.timestampMs));
  view.setBigUint64(40, header.preApplyChecksum);
  view.setBigUint64(48, BigInt(header.walOffset));
  view.setBigUint64(56, BigInt(header.walSize));
  view.setUint32(64, header.salt1);
  view.setUint32(68, header.salt2);
  view.setBigUint64(72, header.nodeId);
  return bytes;
}

/** Decodes and checks the first 100 bytes of a file. Throws LtxError. */
export function decodeHeader(bytes: Uint8Array): LtxHeader {
  if (bytes.length < HEADER_SIZE) {
    throw new LtxError(`LTX header: expected ${HEADER_SIZE} bytes, found ${bytes.length}`);
  }
  const view = viewOf(bytes);
  const magic = view.getUint32(0);
  if (magic !== MAGIC) {
    if (Buffer.from(bytes.subarray(0, AGE_INTRO.length)).toString("latin1") === AGE_INTRO) throw encrypted();
    throw new LtxError(`LTX header at byte 0: expected the magic "LTX1" (${hex32(MAGIC)}), found ${hex32(magic)}`);
  }
  const header: LtxHeader = {
    flags: view.getUint32(4),
    pageSize: view.getUint32(8),
    commit: view.getUint32(12),
    minTxid: view.getBigUint64(16),
    maxTxid: view.getBigUint64(24),
    timestampMs: decodeTimestamp(view.getBigInt64(32)),
    preApplyChecksum: view.getBigUint64(40),
    walOffset: decodeSize(view, 48, "WAL offset"),
    walSize: decodeSize(view, 56, "WAL size"),
    salt1: view.getUint32(64),
    salt2: view.getUint32(68),
    nodeId: view.getBigUint64(72),
  };
  const fault = faultOfHeader(header);
  if (fault !== null) throw new LtxError(`LTX header: ${fault}`);
  return header;
}

/** What is wrong with a header, or null. */
export function faultOfHeader(header: LtxHeader): string | null {
  if ((header.flags & ~HEADER_FLAG_NO_CHECKSUM) !== 0) {
    return `flags at byte 4: expected 0 or ${HEADER_FLAG_NO_CHECKSUM}, found 0x${hex32(header.flags)}`;
  }
  if (!isValidPageSize(header.pageSize)) {
    return `page size at byte 8: expected a power of two from 512 to 65536, found ${header.pageSize}`;
  }
  if (!isU32(header.commit) || header.commit > MAX_PGNO) {
    return `database size at byte 12: expected at most ${MAX_PGNO} pages, found ${header.commit}`;
  }
  if (!isU64(header.minTxid) || header.minTxid === 0n) {
    return `minimum txid at byte 16: expected at least 1, found ${header.minTxid}`;
  }
  if (!isU64(header.maxTxid) || header.maxTxid < header.minTxid) {
    return `maximum txid at byte 24: expected at least ${formatTxid(header.minTxid)}, found ${formatTxid(header.maxTxid)}`;
  }
  if (!Number.isInteger(header.timestampMs) || Math.abs(header.timestampMs) > MAX_TIMESTAMP_MS) {
    return `timestamp at byte 32: expected milliseconds that make a date, found ${header.timestampMs}`;
  }
  if (!isFileSize(header.walOffset)) return `WAL offset at byte 48: expected a size, found ${header.walOffset}`;
  if (!isFileSize(header.walSize)) return `WAL size at byte 56: expected a size, found ${header.walSize}`;
  if (!isU32(header.salt1) || !isU32(header.salt2)) return "WAL salts at byte 64: expected two u32";
  if (header.walOffset === 0 && (header.salt1 !== 0 || header.salt2 !== 0 || header.walSize !== 0)) {
    return "WAL offset at byte 48: expected one beside a WAL size or salts, found 0";
  }
  if (!isU64(header.nodeId)) return "node id at byte 72: expected a u64";
  if (header.commit === 0 && !hasChecksums(header)) {
    // The public encoder cannot write one: it asks for the empty checksum and forbids it at once.
    return "database size at byte 12: expected at least 1 page in a file without checksums, found 0";
  }
  return faultOfPreApplyChecksum(header);
}

/** Writes the six bytes of a page header at `offset`. */
export function encodePageHeader(target: Uint8Array, offset: number, pgno: number, flags: number): void {
  target[offset] = pgno >>> 24;
  target[offset + 1] = pgno >>> 16;
  target[offset + 2] = pgno >>> 8;
  target[offset + 3] = pgno;
  target[offset + 4] = flags >>> 8;
  target[offset + 5] = flags;
}

/** Decodes the six bytes at `offset` into `into`, which is reused: there is one for every page. */
export function decodePageHeader(bytes: Uint8Array, offset: number, into: LtxPageHeader): void {
  into.pgno = readU32(bytes, offset);
  into.flags = (bytes[offset + 4]! << 8) | bytes[offset + 5]!;
}

/** Big-endian u32, without a DataView: there is one for every page. */
export function readU32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0;
}

/** What is wrong with a page header that is not the end mark, or null. Order and bounds are the decoder's to check. */
export function faultOfPageHeader(header: LtxPageHeader): string | null {
  if (header.pgno === 0)
    return "expected a page number, or six zero bytes at the end of the pages, found page number 0";
  if (header.flags === 0) {
    return "expected page flags 1 (LZ4 block), found 0: the older LZ4-frame payload, which is not supported";
  }
  if (header.flags !== PAGE_FLAG_SIZE) return `expected page flags 1 (LZ4 block), found ${header.flags}`;
  return null;
}

/** The trailer in its 16 bytes. A trailer that breaks a rule is a bug of ours. */
export function encodeTrailer(header: LtxHeader, trailer: LtxTrailer): Uint8Array {
  const fault = faultOfTrailer(header, trailer);
  assert(fault === null, `LTX trailer to write is valid: ${fault}`);
  const bytes = new Uint8Array(TRAILER_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, trailer.postApplyChecksum);
  view.setBigUint64(8, trailer.fileChecksum);
  return bytes;
}

/** Decodes the last 16 bytes of a file and checks them against its header. Throws LtxError. */
export function decodeTrailer(bytes: Uint8Array, header: LtxHeader): LtxTrailer {
  if (bytes.length < TRAILER_SIZE) {
    throw new LtxError(`LTX trailer: expected ${TRAILER_SIZE} bytes, found ${bytes.length}`);
  }
  const view = viewOf(bytes);
  const trailer: LtxTrailer = {
    postApplyChecksum: view.getBigUint64(0),
    fileChecksum: view.getBigUint64(8),
  };
  const fault = faultOfTrailer(header, trailer);
  if (fault !== null) throw new LtxError(`LTX trailer: ${fault}`);
  return trailer;
}

/** What is wrong with a trailer, or null. Whether the checksums are right only the decoder knows. */
export function faultOfTrailer(header: LtxHeader, trailer: LtxTrailer): string | null {
  const { postApplyChecksum, fileChecksum } = trailer;
  if (!hasChecksums(header)) {
    if (postApplyChecksum !== 0n) {
      return `post-apply checksum: expected 0 in a file without checksums, found ${hex64(postApplyChecksum)}`;
    }
  } else if (header.commit === 0) {
    if (postApplyChecksum !== EMPTY_DATABASE_CHECKSUM) {
      return `post-apply checksum: expected ${hex64(EMPTY_DATABASE_CHECKSUM)} for an empty database, found ${hex64(postApplyChecksum)}`;
    }
  } else if (!isStoredChecksum(postApplyChecksum)) {
    return `post-apply checksum: expected one with bit 63 set, found ${hex64(postApplyChecksum)}`;
  }
  if (!isStoredChecksum(fileChecksum)) {
    return `file checksum: expected one with bit 63 set, found ${hex64(fileChecksum)}`;
  }
  return null;
}

/**
 * Decodes what two ranged reads bring: the first 100 bytes of a file and its last 16. Throws LtxError.
 * Proves nothing about the bytes between.
 */
export function decodeHeaderAndTrailer(head: Uint8Array, tail: Uint8Array): { header: LtxHeader; trailer: LtxTrailer } {
  const header = decodeHeader(head);
  return { header, trailer: decodeTrailer(tail.subarray(Math.max(0, tail.length - TRAILER_SIZE)), header) };
}

/** Runs one of the decoders above, and puts the name of the file before its error. */
export function decodingFile<T>(name: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof WalsyncError)) throw error;
    const message = `${name}: ${error.message}`;
    if (error instanceof LtxError) throw new LtxError(message, { cause: error });
    throw new WalsyncError(error.code, message, { hint: error.hint, cause: error });
  }
}

// --- internal ---

/** "LTX1": the name of version 3 too. */
const MAGIC = 0x4c545831;

/** How a file begins that is encrypted with age: https://age-encryption.org/v1 */
const AGE_INTRO = "age-encryption.org/";

function encrypted(): WalsyncError {
  return new WalsyncError("E_IDENTITY", 'LTX header at byte 0: expected the magic "LTX1", found an encrypted file', {
    hint: "Read it with --identity FILE, or go on with the chain with --recipient; see docs/ENCRYPTION.md.",
  });
}

/** The range of a JavaScript Date. */
const MAX_TIMESTAMP_MS = 8.64e15;

function faultOfPreApplyChecksum(header: LtxHeader): string | null {
  const found = hex64(header.preApplyChecksum);
  if (isSnapshot(header)) {
    return header.preApplyChecksum === 0n
      ? null
      : `pre-apply checksum at byte 40: expected 0 in a snapshot, found ${found}`;
  }
  if (!hasChecksums(header)) {
    return header.preApplyChecksum === 0n
      ? null
      : `pre-apply checksum at byte 40: expected 0 in a file without checksums, found ${found}`;
  }
  return isStoredChecksum(header.preApplyChecksum)
    ? null
    : `pre-apply checksum at byte 40: expected one with bit 63 set, found ${found}`;
}

function decodeTimestamp(value: bigint): number {
  if (value > BigInt(MAX_TIMESTAMP_MS) || value < -BigInt(MAX_TIMESTAMP_MS)) {
    throw new LtxError(`LTX header: timestamp at byte 32: expected milliseconds that make a date, found ${value}`);
  }
  return Number(value);
}

/** A stored i64 that must not be negative. A negative one reads as more than 2^63 and is refused as too large. */
function decodeSize(view: DataView, offset: number, name: string): number {
  const stored = view.getBigUint64(offset);
  const value = u64ToNumber(stored);
  if (value === null) {
    throw new LtxError(
      `LTX header: ${name} at byte ${offset}: expected 0 to 2^53 - 1, found ${BigInt.asIntN(64, stored)}`,
    );
  }
  return value;
}

function isStoredChecksum(value: bigint): boolean {
  return isU64(value) && (value & CHECKSUM_FLAG) !== 0n;
}

function isU64(value: bigint): boolean {
  return value >= 0n && value < 1n << 64n;
}

function isU32(value: number): boolean {
  return value >>> 0 === value;
}

function isFileSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function hex32(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
