/**
 * What the first bytes of a database file say, read without SQLite: nothing is locked, made or changed. Never for a file
 * that this process has open: closing the descriptor would drop its locks.
 * Spec: https://www.sqlite.org/fileformat2.html#the_database_header
 */
import { closeSync, openSync, readSync } from "node:fs";
import { isValidPageSize } from "../page.ts";

export interface FileHeader {
  pageSize: number; // offset 16  u16; 1 means 65536
  isWal: boolean; //   offset 18  u8  write version: 2 in WAL mode
}

/** Null if the file is not a SQLite database, also if it is empty. Throws what the file system throws. */
export function readFileHeader(path: string): FileHeader | null {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const fd = openSync(path, "r");
  try {
    const filled = readSync(fd, bytes, 0, HEADER_BYTES, 0);
    if (filled < HEADER_BYTES || bytes.toString("latin1", 0, MAGIC.length) !== MAGIC) return null;
  } finally {
    closeSync(fd);
  }
  const field = bytes.readUInt16BE(16);
  const pageSize = field === 1 ? 65536 : field;
  return isValidPageSize(pageSize) ? { pageSize, isWal: bytes[18] === WAL_MODE } : null;
}

// --- internal ---

const MAGIC = "SQLite format 3\0";
const HEADER_BYTES = 100;
const WAL_MODE = 2;
