/**
 * A rollback journal as SQLite writes it: the pages of a database file as they were before a change. While it lies beside the
 * file, whoever opens the database next puts those pages back; when it is gone, the change has happened.
 * Spec: https://www.sqlite.org/fileformat2.html#the_rollback_journal
 */
import { closeSync } from "node:fs";
import { dirname } from "node:path";
import { openTempFile, removeFile, syncFile, syncFolder, writeFully } from "../durable.ts";

export class RollbackJournal {
  readonly #path: string;
  readonly #fd: number;
  readonly #pageSize: number;
  readonly #nonce = Math.floor(Math.random() * 2 ** 32);
  readonly #record: Buffer;
  #pageCount = 0;

  /** Begins the journal of the database at `databasePath`, which has `commit` pages now. */
  constructor(databasePath: string, pageSize: number, commit: number) {
    this.#path = `${databasePath}-journal`;
    this.#pageSize = pageSize;
    this.#record = Buffer.alloc(4 + pageSize + 4);
    this.#fd = openTempFile(this.#path);
    // The number of pages is written last: a journal that is not complete holds none.
    writeFully(this.#fd, this.#header(0, commit));
  }

  /** Adds a page as it is. */
  add(pgno: number, page: Uint8Array): void {
    this.#record.writeUInt32BE(pgno, 0);
    this.#record.set(page, 4);
    this.#record.writeUInt32BE(this.#checksum(page), 4 + this.#pageSize);
    writeFully(this.#fd, this.#record);
    this.#pageCount++;
  }

  /** Makes it durable: from here on a crash undoes whatever is written to the database. */
  seal(commit: number): void {
    syncFile(this.#fd, this.#path);
    writeFully(this.#fd, this.#header(this.#pageCount, commit), 0);
    syncFile(this.#fd, this.#path);
    closeSync(this.#fd);
    syncFolder(dirname(this.#path));
  }

  /** The change, which is durable already, has happened. */
  end(): void {
    removeFile(this.#path);
    syncFolder(dirname(this.#path));
  }

  #header(pageCount: number, commit: number): Buffer {
    const header = Buffer.alloc(SECTOR_SIZE);
    MAGIC.copy(header);
    header.writeUInt32BE(pageCount, 8);
    header.writeUInt32BE(this.#nonce, 12);
    header.writeUInt32BE(commit, 16);
    header.writeUInt32BE(SECTOR_SIZE, 20);
    header.writeUInt32BE(this.#pageSize, 24);
    return header;
  }

  /** A sample of the page, every 200th byte from the end: SQLite's own, made to find records that were never written. */
  #checksum(page: Uint8Array): number {
    let sum = this.#nonce;
    for (let i = this.#pageSize - 200; i > 0; i -= 200) sum = (sum + page[i]!) >>> 0;
    return sum;
  }
}

// --- internal ---

const MAGIC = Buffer.from("d9d505f920a163d7", "hex");
const SECTOR_SIZE = 512;
