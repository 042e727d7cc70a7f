/**
 * The vocabulary that SQLite and LTX share: page sizes, page numbers and the lock page.
 * Spec: https://www.sqlite.org/fileformat2.html#pages
 */
import { GiB } from "./bytes.ts";

/** Highest page number SQLite uses (SQLITE_MAX_PAGE_COUNT). */
export const MAX_PGNO = 0xfffffffe;

/** The byte SQLite locks. The page that holds it is never written and never shipped. */
export const PENDING_BYTE = GiB;

/** A power of two from 512 to 65536. */
export function isValidPageSize(pageSize: number): boolean {
  return pageSize >= MIN_PAGE_SIZE && pageSize <= MAX_PAGE_SIZE && (pageSize & (pageSize - 1)) === 0;
}

/** What the 16 bits that SQLite keeps a page size in mean: 65536 does not fit, and is written as 1. */
export function decodePageSize(field: number): number {
  return field === 1 ? MAX_PAGE_SIZE : field;
}

/** Number of the page that holds the lock byte at 1 GiB. Databases that do not reach it do not have one. */
export function lockPgno(pageSize: number): number {
  return PENDING_BYTE / pageSize + 1;
}

/** Offset of a page in the database file, in bytes. `pgno` counts from 1. */
export function pageOffset(pgno: number, pageSize: number): number {
  return (pgno - 1) * pageSize;
}

/** Pages that a full copy of a database of `commit` pages holds: all of them but the lock page. */
export function pageCountWithoutLock(commit: number, pageSize: number): number {
  return commit >= lockPgno(pageSize) ? commit - 1 : commit;
}

// --- internal ---

const MIN_PAGE_SIZE = 512;
const MAX_PAGE_SIZE = 65536;
