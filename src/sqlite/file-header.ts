/**
 * What the first bytes of a database file say, read without SQLite: nothing is locked, made or changed.
 * Spec: https://www.sqlite.org/fileformat2.html#the_database_header
 */
import { closeSync, openSync, readSync } from "node:fs";
import { decodePageSize, isValidPageSize } from "../page.ts";

export interface FileHeader {
  pageSize: number; // offset 16  u16; 1 means 65536
  isWal: boolean; //   offset 18  u8  write version: 2 in WAL mode
}

/** How every SQLite database begins. */
export const SQLITE_MAGIC = "SQLite format 3\0";
export const DATABASE_HEADER_SIZE = 100;

/** `bytes`: the first ones of a file. Null if they are too few, or not of a SQLite database. */
export function decodeFileHeader(bytes: Buffer): FileHeader | null {
  if (bytes.length < DATABASE_HEADER_SIZE || !hasSqliteMagic(bytes)) return null;
  const pageSize = pageSizeOf(bytes);
  return isValidPageSize(pageSize) ? { pageSize, isWal: bytes[18] === WAL_MODE } : null;
}

/** True if a file that begins with `bytes` begins as a SQLite database. */
export function hasSqliteMagic(bytes: Buffer): boolean {
  return bytes.toString("latin1", 0, SQLITE_MAGIC.length) === SQLITE_MAGIC;
}

/** The page size that a header tells of, in bytes: 0 for one of zeros. */
export function pageSizeOf(header: Buffer): number {
  return decodePageSize(header.readUInt16BE(16));
}

/**
 * Null if the file is not a SQLite database, also if it is empty. Throws what the file system throws. Never for a file that
 * this process has open: closing the descriptor would drop its locks.
 */
export function readFileHeader(path: string): FileHeader | null {
  const bytes = Buffer.alloc(DATABASE_HEADER_SIZE);
  const fd = openSync(path, "r");
  try {
    return decodeFileHeader(bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0)));
  } finally {
    closeSync(fd);
  }
}

// --- internal ---

const WAL_MODE = 2;
