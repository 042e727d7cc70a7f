/**
 * What page 1 of a read copy has of its own: the journal mode, and the mark of its state. Everything else in a copy is as in
 * the source. The source's bytes of these fields are kept beside the copy, since checksums need them.
 * Spec: https://www.sqlite.org/fileformat2.html#the_database_header
 */
import { assert } from "../assert.ts";
import { pageSizeOf } from "../sqlite/file-header.ts";

/** The head of a copy's page 1. */
export interface CopyHeader {
  /** Bytes; 0 in a file that is no database. */
  pageSize: number;
  /** In journal mode DELETE: a copy always is, whatever its source is in. */
  isRollbackMode: boolean;
  /** The mark that the last change left. */
  changeCounter: number;
}

export function decodeCopyHeader(page: Buffer): CopyHeader {
  return {
    pageSize: pageSizeOf(page),
    isRollbackMode: page[WRITE_VERSION] === ROLLBACK_MODE && page[READ_VERSION] === ROLLBACK_MODE,
    changeCounter: page.readUInt32BE(CHANGE_COUNTER),
  };
}

/** The fields that a copy has of its own, one behind the other, as they are in `page`. */
export function takeOwnFields(page: Uint8Array): Buffer {
  return Buffer.concat(OWN_FIELDS.map(([start, end]) => page.subarray(start, end)));
}

/** Puts what `takeOwnFields` took into `page`. */
export function putOwnFields(page: Uint8Array, fields: Uint8Array): void {
  assert(fields.length === OWN_FIELDS_SIZE, "the fields of a page 1 are complete");
  let taken = 0;
  for (const [start, end] of OWN_FIELDS) {
    page.set(fields.subarray(taken, taken + end - start), start);
    taken += end - start;
  }
}

/**
 * Makes page 1 of the source one of a copy: readers can use it while it is replaced page by page, and see by
 * `changeCounter` that what they remember is old. `commit`: size of the database in pages.
 */
export function stampFirstPage(page: Buffer, commit: number, changeCounter: number): void {
  page[WRITE_VERSION] = ROLLBACK_MODE;
  page[READ_VERSION] = ROLLBACK_MODE;
  page.writeUInt32BE(changeCounter, CHANGE_COUNTER);
  // Counts from now on, since the next field makes it valid: a very old SQLite may have left another number.
  page.writeUInt32BE(commit, DATABASE_SIZE);
  page.writeUInt32BE(changeCounter, VERSION_VALID_FOR);
}

// --- internal ---

const WRITE_VERSION = 18;
const READ_VERSION = 19;
const CHANGE_COUNTER = 24;
const DATABASE_SIZE = 28;
const VERSION_VALID_FOR = 92;
const ROLLBACK_MODE = 1;

/** What `stampFirstPage` changes: start and end. */
const OWN_FIELDS = [
  [WRITE_VERSION, READ_VERSION + 1],
  [CHANGE_COUNTER, DATABASE_SIZE + 4],
  [VERSION_VALID_FOR, VERSION_VALID_FOR + 4],
] as const;
export const OWN_FIELDS_SIZE = OWN_FIELDS.reduce((sum, [start, end]) => sum + end - start, 0);
