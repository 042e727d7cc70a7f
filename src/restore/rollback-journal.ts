/**
 * A rollback journal as SQLite writes it: the pages of a database file as they were before a change. While it lies beside the
 * file, whoever opens the database next puts those pages back; when it is gone, the change has happened.
 * Spec: https://www.sqlite.org/fileformat2.html#the_rollback_journal
 */
import { closeSync, fchmodSync, fchownSync, rmSync, type Stats } from "node:fs";
import { dirname } from "node:path";
import { openTempFile, removeFile, renameDurably, syncFile, syncFolder, writeFully } from "../durable.ts";

export class RollbackJournal {
  #path: string;
  #fd: number | null;
  readonly #pageSize: number;
  readonly #commit: number;
  readonly #nonce = Math.floor(Math.random() * 2 ** 32);
  readonly #record: Buffer;
  #pageCount = 0;

  /** Begins a journal under the name `path`, where nobody looks for it yet, of a database of `commit` pages now. */
  constructor(path: string, pageSize: number, commit: number) {
    this.#path = path;
    this.#pageSize = pageSize;
    this.#commit = commit;
    this.#record = Buffer.alloc(4 + pageSize + 4);
    this.#fd = openTempFile(path);
    writeFully(this.#fd, Buffer.alloc(SECTOR_SIZE));
  }

  /** Adds a page as it is. Each one once, in any order. */
  add(pgno: number, page: Uint8Array): void {
    this.#record.writeUInt32BE(pgno, 0);
    this.#record.set(page, 4);
    this.#record.writeUInt32BE(this.#checksum(page), 4 + this.#pageSize);
    writeFully(this.#fd!, this.#record);
    this.#pageCount++;
  }

  /** Makes it complete and durable, for whoever may use the database, whose `stats` these are. */
  seal({ mode, uid, gid }: Stats): void {
    const fd = this.#fd!;
    writeFully(fd, this.#header(), 0);
    fchmodSync(fd, mode & PERMISSIONS);
    try {
      fchownSync(fd, uid, gid);
    } catch {
      // As SQLite does: only root may give files away.
    }
    syncFile(fd, this.#path);
    this.#close();
  }

  /** Puts it beside the database, which is locked: from here on a crash undoes whatever is written to it. */
  publish(databasePath: string): void {
    const path = `${databasePath}-journal`;
    renameDurably(this.#path, path);
    this.#path = path;
  }

  /** The change, which is durable already, has happened. */
  end(): void {
    removeFile(this.#path);
    syncFolder(dirname(this.#path));
  }

  /** Removes one that was never published. */
  discard(): void {
    this.#close();
    rmSync(this.#path, { force: true });
  }

  #close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #header(): Buffer {
    const header = Buffer.alloc(HEADER_SIZE);
    MAGIC.copy(header); //                          offset 0
    header.writeUInt32BE(this.#pageCount, 8); //    records that follow
    header.writeUInt32BE(this.#nonce, 12); //       where checksums begin
    header.writeUInt32BE(this.#commit, 16); //      pages of the database before the change: it is cut to that
    header.writeUInt32BE(SECTOR_SIZE, 20); //       the first record begins there
    header.writeUInt32BE(this.#pageSize, 24); //    of the database before the change
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
const HEADER_SIZE = 28;
/** What a reader goes by is what the header says, not what its disk has; nothing is ever appended behind this header. */
const SECTOR_SIZE = 512;
const PERMISSIONS = 0o777;
