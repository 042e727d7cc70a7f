/**
 * A read copy of a database that is kept current in place: pages are written to the file under SQLite's own exclusive lock and
 * a rollback journal, so a reader sees one state or the next, and a crash leaves the one before. The copy is in journal mode
 * DELETE, whatever the source is in.
 */
import { Database } from "bun:sqlite";
import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";
import { asDiskError, syncFile, writeFully } from "../durable.ts";
import { errnoOf, WalsyncError } from "../errors.ts";
import { lockPgno, pageOffset } from "../page.ts";
import { readFully } from "../sqlite/wal-reader.ts";
import { RollbackJournal } from "./rollback-journal.ts";

/** The next state: how large it is, and the pages that differ, ascending. Walked through twice. */
export interface PageChange {
  pageSize: number;
  commit: number;
  forEach(onPage: (pgno: number, page: Uint8Array) => void): void;
}

export class ReplicaFile {
  readonly path: string;
  readonly #fd: number;
  readonly #connection: Database;

  /** Opens the copy. A change that a crash interrupted is undone by SQLite. Throws E_DATABASE, E_DISK. */
  constructor(path: string) {
    this.path = path;
    let fd: number;
    try {
      // Closing it would drop the locks of the connection: it lives longer.
      fd = openSync(path, "r+");
    } catch (error) {
      throw asDiskError(path, error);
    }
    this.#fd = fd;
    try {
      this.#connection = new Database(path, { readwrite: true, create: false });
      this.#connection.run(`PRAGMA busy_timeout=${LOCK_WITHIN_MS}`);
      this.#connection.run("PRAGMA cache_size=0");
      this.#connection.query("SELECT 1 FROM sqlite_schema LIMIT 1").get();
    } catch (error) {
      closeSync(fd);
      throw new WalsyncError("E_DATABASE", `${path}: expected the local copy, found what SQLite cannot open`, {
        hint: "Remove it: the next run makes it anew.",
        cause: error,
      });
    }
  }

  /** The mark that the last change left: other writers change it. */
  get changeCounter(): number {
    return readHeader(this.#fd).readUInt32BE(CHANGE_COUNTER);
  }

  get pageSize(): number {
    return pageSizeOf(readHeader(this.#fd));
  }

  /**
   * Makes `change` the content of the file, marked `changeCounter`. `expectedCounter`: what the last change left. Throws
   * E_OUTPUT_EXISTS if somebody else wrote to the file, E_LOCKED if readers hold it for too long: nothing is changed then.
   */
  apply(change: PageChange, expectedCounter: number, changeCounter: number): void {
    const { pageSize, commit } = change;
    this.#lock();
    try {
      if (this.changeCounter !== expectedCounter) throw foreign(this.path);
      const before = Math.ceil(fstatSync(this.#fd).size / pageSize);
      const journal = new RollbackJournal(this.path, pageSize, before);
      const current = Buffer.alloc(pageSize);
      const differs = (pgno: number, content: Uint8Array): boolean => {
        if (pgno > before) return true;
        readFully(this.#fd, current, pageSize, pageOffset(pgno, pageSize));
        return !current.equals(content);
      };
      const keep = (pgno: number): void => {
        if (pgno > before || pgno === lockPgno(pageSize)) return;
        readFully(this.#fd, current, pageSize, pageOffset(pgno, pageSize));
        journal.add(pgno, current);
      };
      keep(1);
      change.forEach((pgno, content) => {
        if (pgno > 1 && differs(pgno, content)) keep(pgno);
      });
      // What is cut off comes back with the change undone.
      for (let pgno = commit + 1; pgno <= before; pgno++) keep(pgno);
      journal.seal(before);
      change.forEach((pgno, content) => {
        if (differs(pgno, content)) writeFully(this.#fd, content, pageOffset(pgno, pageSize));
      });
      ftruncateSync(this.#fd, commit * pageSize);
      stamp(this.#fd, commit, changeCounter);
      syncFile(this.#fd, this.path);
      journal.end();
    } catch (error) {
      throw errnoOf(error) === undefined ? error : asDiskError(this.path, error);
    } finally {
      this.#connection.run("ROLLBACK");
    }
  }

  close(): void {
    this.#connection.close();
    closeSync(this.#fd);
  }

  #lock(): void {
    try {
      this.#connection.run("BEGIN EXCLUSIVE");
    } catch (error) {
      throw new WalsyncError("E_LOCKED", `${this.path}: expected to write within ${LOCK_WITHIN_MS} ms, found readers`, {
        hint: "A reader keeps a transaction open. The copy is brought up to date when it ends.",
        cause: error,
      });
    }
  }
}

/**
 * Makes a restored file one that readers can use while it is replaced page by page: journal mode DELETE, and the mark of its
 * state. The caller syncs it.
 */
export function stamp(fd: number, commit: number, changeCounter: number): void {
  const header = readHeader(fd);
  header[WRITE_VERSION] = DELETE_MODE;
  header[READ_VERSION] = DELETE_MODE;
  header.writeUInt32BE(changeCounter, CHANGE_COUNTER);
  header.writeUInt32BE(commit, DATABASE_SIZE);
  header.writeUInt32BE(changeCounter, VERSION_VALID_FOR);
  writeFully(fd, header, 0);
}

/** Page size and size in pages of a database file. */
export function shapeOf(fd: number): { pageSize: number; commit: number } {
  const pageSize = pageSizeOf(readHeader(fd));
  return { pageSize, commit: fstatSync(fd).size / pageSize };
}

// --- internal ---

const LOCK_WITHIN_MS = 5000;
/** https://www.sqlite.org/fileformat2.html#the_database_header */
const HEADER_SIZE = 100;
const PAGE_SIZE = 16;
const WRITE_VERSION = 18;
const READ_VERSION = 19;
const CHANGE_COUNTER = 24;
const DATABASE_SIZE = 28;
const VERSION_VALID_FOR = 92;
const DELETE_MODE = 1;

function readHeader(fd: number): Buffer {
  const header = Buffer.alloc(HEADER_SIZE);
  readSync(fd, header, 0, HEADER_SIZE, 0);
  return header;
}

function pageSizeOf(header: Buffer): number {
  const size = header.readUInt16BE(PAGE_SIZE);
  return size === 1 ? 65536 : size;
}

function foreign(path: string): WalsyncError {
  return new WalsyncError(
    "E_OUTPUT_EXISTS",
    `${path}: expected the copy as it was left, found that somebody wrote to it`,
    {
      hint: "A copy is for reading. Remove it, and the next run makes it anew.",
    },
  );
}
