/**
 * A read copy of a database that is kept current in place: pages are written to the file under SQLite's own exclusive lock and
 * a rollback journal, so a reader sees one state or the next, and a crash leaves the one before. The copy is in journal mode
 * DELETE, whatever the source is in.
 */
import { Database } from "bun:sqlite";
import { closeSync, constants, existsSync, openSync } from "node:fs";
import { sleep } from "../destination/retry.ts";
import { asDiskError, isNameOf, syncFile } from "../durable.ts";
import { errnoOf, WalsyncError } from "../errors.ts";
import { isBusy } from "../sqlite/faults.ts";
import { DATABASE_HEADER_SIZE } from "../sqlite/file-header.ts";
import { readFully } from "../sqlite/wal-reader.ts";
import { type CopyHeader, decodeCopyHeader } from "./first-page.ts";
import type { PreparedChange } from "./prepared-change.ts";

export class ReplicaFile {
  readonly path: string;
  /** For raw reads and writes. Closing it would drop the locks of the connection: it lives longer. */
  readonly fd: number;
  readonly #connection: Database;

  /** Opens the copy. Throws E_DATABASE, E_DISK. */
  constructor(path: string) {
    this.path = path;
    try {
      // Through a link SQLite would look for the journal elsewhere.
      this.fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
    } catch (error) {
      throw asDiskError(path, error);
    }
    try {
      this.#connection = new Database(path, { readwrite: true, create: false });
      // Not even the schema yet: others may hold the lock.
      this.#connection.run(`PRAGMA busy_timeout=${READ_WITHIN_MS}`);
    } catch (error) {
      closeSync(this.fd);
      throw unusable(path, error);
    }
  }

  /** True while `path` is the name of this file: nobody removed or replaced it. */
  get isInPlace(): boolean {
    return isNameOf(this.path, this.fd);
  }

  /**
   * What the file is, once SQLite has undone a change that was interrupted. Throws E_LOCKED if readers hinder that, E_DATABASE,
   * and E_OUTPUT_EXISTS if it is no copy (any longer).
   */
  read(): CopyHeader {
    try {
      this.#connection.run(`PRAGMA busy_timeout=${READ_WITHIN_MS}`);
      this.#connection.run("PRAGMA cache_size=0");
      this.#connection.run("BEGIN");
      this.#connection.query("SELECT 1 FROM sqlite_schema LIMIT 1").get();
      return this.#header();
    } catch (error) {
      if (error instanceof WalsyncError) throw error;
      throw isBusy(error) ? locked(this.path, READ_WITHIN_MS, error) : unusable(this.path, error);
    } finally {
      this.#rollback();
    }
  }

  /**
   * Makes the change the content of the file, marked `to`. `from`: the mark that it must have before. Throws E_OUTPUT_EXISTS if
   * somebody else wrote to the file, E_LOCKED if readers hold it for too long, E_DISK: the file is as it was then.
   */
  async apply(change: PreparedChange, from: number, to: number, signal: AbortSignal): Promise<void> {
    await this.#lock(signal);
    try {
      if (!this.isInPlace || this.#header().changeCounter !== from) throw foreign(this.path);
      change.journal.publish(this.path);
      change.write(this.fd, this.path, to);
      syncFile(this.fd, this.path);
      change.journal.end();
    } catch (error) {
      throw errnoOf(error) === undefined ? error : asDiskError(this.path, error);
    } finally {
      this.#rollback();
      this.#undoIfInterrupted();
    }
  }

  close(): void {
    this.#connection.close();
    closeSync(this.fd);
  }

  #header(): CopyHeader {
    const bytes = Buffer.alloc(DATABASE_HEADER_SIZE);
    readFully(this.fd, bytes, bytes.length, 0);
    const header = decodeCopyHeader(bytes);
    // A WAL is read whatever the header says.
    if (!header.isRollbackMode || existsSync(`${this.path}-wal`)) throw foreign(this.path);
    return header;
  }

  /**
   * Whoever waits for an exclusive lock keeps new readers out. So it waits for a moment, lets them in, and then for a longer
   * moment, in which readers that begin before others end, over and over, come to an end.
   */
  async #lock(signal: AbortSignal): Promise<void> {
    for (const waitMs of LOCK_WAITS_MS) {
      try {
        this.#connection.run(`PRAGMA busy_timeout=${waitMs}`);
        this.#connection.run("BEGIN EXCLUSIVE");
        return;
      } catch (error) {
        if (!isBusy(error)) throw unusable(this.path, error);
        if (waitMs === LOCK_WAITS_MS.at(-1)) throw locked(this.path, waitMs, error);
        await sleep(waitMs, signal);
      }
    }
  }

  #rollback(): void {
    if (this.#connection.inTransaction) this.#connection.run("ROLLBACK");
  }

  /** Readers that may not write could not do that. What fails now is done by the next one who can. */
  #undoIfInterrupted(): void {
    if (!existsSync(`${this.path}-journal`)) return;
    try {
      this.read();
    } catch {}
  }
}

/** E_OUTPUT_EXISTS: the file at `path` is not what was left there. */
export function foreign(path: string): WalsyncError {
  return new WalsyncError(
    "E_OUTPUT_EXISTS",
    `${path}: expected the copy as it was left, found that somebody wrote to it or replaced it`,
    { hint: "A copy is for reading. Move it away, and the next run makes it anew." },
  );
}

// --- internal ---

/** No reader is kept out for longer than the longest of these. */
const LOCK_WAITS_MS = [50, 100, 200, 400, 800, 1600];
/** Only another writer, or somebody who undoes an interrupted change, can hinder a reader. */
const READ_WITHIN_MS = 5000;

function locked(path: string, waitMs: number, cause: unknown): WalsyncError {
  return new WalsyncError("E_LOCKED", `${path}: expected to write to it within ${waitMs} ms, found it locked`, {
    hint: "A reader keeps a transaction open. The copy is brought up to date when that has ended.",
    cause,
  });
}

/** What no retry heals, or E_DISK: a disk that is full or fails may be whole again at the next look. */
function unusable(path: string, cause: unknown): WalsyncError {
  if (!/^SQLITE_(NOTADB|CORRUPT)/.test(errnoOf(cause) ?? "")) return asDiskError(path, cause);
  return new WalsyncError("E_DATABASE", `${path}: expected the local copy, found what SQLite cannot use`, {
    hint: "Move it away: the next run makes it anew.",
    cause,
  });
}
