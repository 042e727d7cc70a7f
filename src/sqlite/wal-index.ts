/**
 * The head of the -shm file, the WAL index that all processes on one database share through memory.
 * It tells which frames are committed and visible, how often the database was committed to, and how far the WAL was
 * copied back. Only its first 136 bytes are read; it is never written. Integers are in the host's byte order, except the
 * salts, which are copied from the WAL header byte by byte.
 * Spec: https://www.sqlite.org/walformat.html#the_wal_index_header
 */
import { readSync } from "node:fs";
import { decodePageSize } from "../page.ts";

export const WAL_INDEX_HEAD_SIZE = 136;

/** Bytes of the -shm file that SQLite locks. Spec: https://www.sqlite.org/walformat.html#wal_locks */
export const WAL_WRITE_LOCK_BYTE = 120;
export const WAL_CHECKPOINT_LOCK_BYTE = 121;
/** Whoever uses the index shares it. The first to open the file, if nobody does, empties it and begins anew. */
export const WAL_INDEX_IN_USE_BYTE = 128;

export interface WalIndexHead {
  changeCount: number; //   offset 8   iChange: grows by one with each committed transaction, wraps at 2^32
  bigEndianChecksums: boolean; // offset 13
  pageSize: number; //      offset 14  u16; 1 means 65536; 0 if the WAL was empty ever since the index was made
  frameCount: number; //    offset 16  mxFrame: committed frames in the WAL
  commit: number; //        offset 20  database size in pages; 0 as above
  checksum1: number; //     offset 24  running checksum of the last committed frame
  checksum2: number; //     offset 28
  salt1: number; //         offset 32  big-endian, as in the WAL header
  salt2: number; //         offset 36
  backfilled: number; //    offset 96  frames copied into the database file so far
}

/**
 * Reads the head of the WAL index. Null if it is not initialised, or is being changed at this moment: SQLite keeps two
 * copies of the header, written one after the other, and only two equal copies are a consistent read.
 */
export function readWalIndexHead(shmFd: number): WalIndexHead | null {
  for (let attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
    if (readSync(shmFd, scratch, 0, WAL_INDEX_HEAD_SIZE, 0) < WAL_INDEX_HEAD_SIZE) return null;
    if (Buffer.compare(firstCopy, secondCopy) !== 0) continue;
    if (scratch[12] === 0) return null; // isInit
    return {
      changeCount: view.getUint32(8, HOST_IS_LITTLE_ENDIAN),
      bigEndianChecksums: scratch[13] !== 0,
      pageSize: decodePageSize(view.getUint16(14, HOST_IS_LITTLE_ENDIAN)),
      frameCount: view.getUint32(16, HOST_IS_LITTLE_ENDIAN),
      commit: view.getUint32(20, HOST_IS_LITTLE_ENDIAN),
      checksum1: view.getUint32(24, HOST_IS_LITTLE_ENDIAN),
      checksum2: view.getUint32(28, HOST_IS_LITTLE_ENDIAN),
      salt1: view.getUint32(32, false),
      salt2: view.getUint32(36, false),
      backfilled: view.getUint32(96, HOST_IS_LITTLE_ENDIAN),
    };
  }
  return null;
}

/** True if both heads describe the same committed content: the same generation, frames and number of commits. */
export function sameContent(a: WalIndexHead, b: WalIndexHead): boolean {
  return a.salt1 === b.salt1 && a.salt2 === b.salt2 && a.frameCount === b.frameCount && a.changeCount === b.changeCount;
}

// --- internal ---

/** A writer needs well under a microsecond between the two copies; a few reads are plenty. */
const READ_ATTEMPTS = 20;
const HEADER_COPY_SIZE = 48;
const HOST_IS_LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;
const scratch = Buffer.alloc(WAL_INDEX_HEAD_SIZE);
const view = new DataView(scratch.buffer, scratch.byteOffset, WAL_INDEX_HEAD_SIZE);
const firstCopy = scratch.subarray(0, HEADER_COPY_SIZE);
const secondCopy = scratch.subarray(HEADER_COPY_SIZE, 2 * HEADER_COPY_SIZE);
