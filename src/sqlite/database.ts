/**
 * One live SQLite database in WAL mode, and the pin that keeps its WAL readable.
 *
 * The pin is a read transaction. While it is open no checkpoint of any process can reset frames that came after it
 * began, whichever mode it uses (docs/ARCHITECTURE.md, "The pin"). Nothing is ever written: no table, no journal mode
 * change unless asked, and SQLite's own copying back of frames in a checkpoint aside, no byte of the database.
 *
 * Closing any descriptor of a file drops every POSIX lock this process holds on it, SQLite's included. Therefore the
 * descriptors opened here for raw reads live exactly as long as the connection, and are closed after it.
 */
import { constants, Database } from "bun:sqlite";
import { accessSync, constants as fileConstants, fstatSync, readSync, statSync } from "node:fs";
import { assert } from "../assert.ts";
import { monotonicMs } from "../clock.ts";
import { errnoOf, WalsyncError } from "../errors.ts";
import { lockHolder } from "../libc.ts";
import { closeDescriptors, openDescriptor } from "./descriptors.ts";
import { asDatabaseError, isBusy } from "./faults.ts";
import { DATABASE_HEADER_SIZE, decodeFileHeader, hasSqliteMagic, pageSizeOf, SQLITE_MAGIC } from "./file-header.ts";
import { fingerprintOf, walMarkOf } from "./fingerprint.ts";
import { isAt, noteOpenFiles, openFileAt } from "./open-files.ts";
import { walFrameOffset } from "./wal.ts";
import { readWalIndexHead, WAL_CHECKPOINT_LOCK_BYTE, WAL_WRITE_LOCK_BYTE, type WalIndexHead } from "./wal-index.ts";
import { cursorAtStart, readWalHeaderOf, scanWal } from "./wal-reader.ts";

export interface OpenOptions {
  /** Switch a database in another journal mode to WAL instead of refusing it. The only write walsync ever asks for. */
  enableWal?: boolean;
  /** A descriptor of one of its files that is open already, and must not be closed before the others. */
  heldFd?: number | undefined;
}

/** What a PASSIVE checkpoint did: frames in the WAL and frames copied back so far. */
export interface CheckpointResult {
  busy: boolean;
  frameCount: number;
  backfilled: number;
}

export class PinnedDatabase {
  readonly path: string;
  readonly pageSize: number;
  readonly databaseFd: number;
  readonly walFd: number;
  readonly #shmFd: number;
  readonly #heldFd: number | undefined;
  readonly #connection: Database;
  readonly #forgetFiles: () => void;

  /**
   * Opens the database and pins it. Throws E_DATABASE if the file is missing, empty, unreadable, not SQLite, or not in
   * WAL mode.
   */
  static open(path: string, options: OpenOptions = {}): PinnedDatabase {
    for (let attempt = 1; ; attempt++) {
      try {
        return PinnedDatabase.#tryOpen(path, options);
      } catch (error) {
        // Whoever makes a database, or repairs its WAL, has it for itself for a moment.
        if (!isBusy(error) || attempt === PIN_ATTEMPTS) throw asDatabaseError(path, error);
        Bun.sleepSync(1);
      }
    }
  }

  static #tryOpen(path: string, options: OpenOptions): PinnedDatabase {
    const descriptors: number[] = [];
    let connection: Database | undefined;
    try {
      descriptors.push(openDatabaseFile(path));
      connection = new Database(path, { readwrite: true, create: false });
      configure(connection);
      requireWal(connection, path, options.enableWal === true);
      // The first read creates the -wal and -shm files if they are missing; it is also the pin.
      connection.run("BEGIN");
      connection.query("SELECT 1 FROM sqlite_schema LIMIT 1").get();
      for (const suffix of ["-wal", "-shm"]) descriptors.push(openDescriptor(path + suffix));
      return new PinnedDatabase(path, connection, descriptors, options.heldFd);
    } catch (error) {
      connection?.close();
      closeDescriptors(descriptors);
      throw error;
    }
  }

  private constructor(path: string, connection: Database, descriptors: number[], heldFd: number | undefined) {
    const [databaseFd, walFd, shmFd] = descriptors;
    assert(databaseFd !== undefined && walFd !== undefined && shmFd !== undefined, "three files are open");
    this.path = path;
    this.#connection = connection;
    this.databaseFd = databaseFd;
    this.walFd = walFd;
    this.#shmFd = shmFd;
    this.#heldFd = heldFd;
    this.pageSize = this.walIndex().pageSize;
    this.#forgetFiles = noteOpenFiles(path, descriptors, databaseFd);
  }

  /** The WAL index as it is now, or null if a writer is changing it at this moment. */
  tryWalIndex(): WalIndexHead | null {
    const head = readWalIndexHead(this.#shmFd);
    // A WAL index made for an empty WAL knows neither page size nor database size: the file itself is the database.
    return head?.pageSize === 0 ? { ...head, ...fileShape(this.databaseFd) } : head;
  }

  /**
   * The WAL index as it is now. Waits a moment for a writer that lost the processor in the middle of changing it. Throws
   * E_DATABASE if it stays unreadable, which no live connection should allow.
   */
  walIndex(): WalIndexHead {
    for (let attempt = 0; attempt < INDEX_ATTEMPTS; attempt++) {
      const head = this.tryWalIndex();
      if (head !== null) return head;
      Bun.sleepSync(1);
    }
    throw new WalsyncError("E_DATABASE", `${this.path}: expected a WAL index that can be read, found it in change`, {
      hint: "If this persists, another process may have crashed while writing; open the database with sqlite3 once.",
    });
  }

  /**
   * Lets go of the pin and takes it again at the newest commit. In between, for microseconds, the WAL is free: the
   * caller proves from the WAL index that nothing was lost.
   */
  repin(): void {
    this.unpin();
    this.pin();
  }

  /** Lets go of the pin, if it is held. */
  unpin(): void {
    if (this.#connection.inTransaction) this.#connection.run("COMMIT");
  }

  /** Throws E_DATABASE if another process keeps the WAL locked, as one that recovers it does for a moment. */
  pin(): void {
    for (let attempt = 1; ; attempt++) {
      try {
        this.#connection.run("BEGIN");
        this.#connection.query("SELECT 1 FROM sqlite_schema LIMIT 1").get();
        return;
      } catch (error) {
        if (this.#connection.inTransaction) this.#connection.run("ROLLBACK");
        if (!isBusy(error) || attempt === PIN_ATTEMPTS) throw asDatabaseError(this.path, error);
        Bun.sleepSync(1);
      }
    }
  }

  /**
   * True while another process runs a FULL, RESTART or TRUNCATE checkpoint: it holds the checkpoint lock and the write lock
   * together, and may be waiting for our pin. A PASSIVE one never waits and holds the checkpoint lock alone.
   */
  isCheckpointWaiting(): boolean {
    const checkpointer = lockHolder(this.#shmFd, WAL_CHECKPOINT_LOCK_BYTE);
    return checkpointer !== 0 && lockHolder(this.#shmFd, WAL_WRITE_LOCK_BYTE) === checkpointer;
  }

  /** Copies back what the pin allows, on a connection of its own that lives only for this call. Never waits. */
  checkpointPassive(): CheckpointResult {
    const other = new Database(this.path, { readwrite: true, create: false });
    try {
      configure(other);
      return passive(other);
    } finally {
      other.close();
    }
  }

  /**
   * Runs `captureRest` while no other process can write, then moves the pin to read mark 0, so that the next writer
   * restarts the WAL. Writers wait for the time of the call. "held-off": other processes kept their locks, or `captureRest`
   * answered that something is left; the pin was not moved, or moved in vain. "reader": a read transaction of another process
   * needs old frames, and the pin is above mark 0.
   */
  fence(captureRest: () => boolean): "freed" | "held-off" | "reader" {
    const other = new Database(this.path, { readwrite: true, create: false });
    try {
      configure(other);
      if (!trying(FENCE_LOCK_MS, () => beginImmediate(other, this.path)) || !captureRest()) return "held-off";
      this.unpin();
      try {
        // With the pin gone and writers locked out this copies everything back, once no other checkpoint is under way.
        let done = passive(this.#connection);
        if (done.busy) {
          trying(FENCE_CHECKPOINT_MS, () => {
            done = passive(this.#connection);
            return !done.busy;
          });
        }
        if (done.busy) return "held-off";
        return done.backfilled === done.frameCount ? "freed" : "reader";
      } finally {
        this.pin();
      }
    } finally {
      if (other.inTransaction) other.run("ROLLBACK");
      other.close();
    }
  }

  /** True if the path names another file than the one that is open, or none: it was replaced or deleted. */
  isReplaced(): boolean {
    return !isAt(this.path, fstatSync(this.databaseFd));
  }

  /** The same again means that nobody has written to the database file since; null if that cannot be told. */
  fingerprint(): string | null {
    return fingerprintOf(fstatSync(this.databaseFd, { bigint: true }));
  }

  /** The same again means that nothing was committed since; null if that cannot be told. */
  walMark(): string | null {
    return walMarkOf(fstatSync(this.walFd, { bigint: true }));
  }

  /** Size of the WAL file in bytes. It does not shrink when the WAL restarts. */
  walSizeBytes(): number {
    return fstatSync(this.walFd).size;
  }

  /**
   * Ends the pin. A WAL with something in it stays, even if this was the last connection: its salts are proof. Not so if a
   * writer died in the middle of a commit: the next one to open such a WAL would find the transaction committed, although it
   * is visible to nobody now. The last connection to close then removes the WAL, and with it what was never committed. It
   * removes it by its name: if the database file was replaced, that may be the WAL of another database.
   */
  close(): void {
    if (!this.isReplaced() && (this.walSizeBytes() === 0 || this.#hasHiddenCommit())) {
      this.#connection.fileControl(constants.SQLITE_FCNTL_PERSIST_WAL, 0);
    }
    this.closeFiles();
  }

  /** As `close`, and leaves the WAL and its index whatever is in them. */
  closeFiles(): void {
    this.#connection.close();
    const held = this.#heldFd === undefined ? [] : [this.#heldFd];
    closeDescriptors([this.#shmFd, this.walFd, this.databaseFd, ...held]);
    this.#forgetFiles();
  }

  /** True if whole transactions stand behind the last frame that the WAL index knows of. */
  #hasHiddenCommit(): boolean {
    const head = this.tryWalIndex();
    const header = head === null ? null : readWalHeaderOf(this.walFd, head);
    if (head === null || header === null) return false;
    const end = cursorAtStart(header);
    if (head.frameCount > 0) {
      end.walOffset = walFrameOffset(head.frameCount, this.pageSize);
      end.checksum1 = head.checksum1;
      end.checksum2 = head.checksum2;
    }
    return scanWal(this.walFd, this.pageSize, end, Number.POSITIVE_INFINITY).commitCount > 0;
  }
}

/**
 * True for a file that begins as SQLite databases do. A file that this process has open is not opened again, since closing
 * the descriptor would drop its locks: it is a database under the path it was opened with, and under no other.
 */
export function isSqliteFile(path: string): boolean {
  const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (stats?.isFile() !== true) return false;
  const known = openFileAt(path, stats);
  if (known !== null) return known === "database";
  let fd: number;
  try {
    fd = openDescriptor(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
  try {
    const magic = Buffer.alloc(SQLITE_MAGIC.length);
    return readSync(fd, magic, 0, magic.byteLength, 0) === magic.byteLength && hasSqliteMagic(magic);
  } finally {
    closeDescriptors([fd]);
  }
}

// --- internal ---

/** A millisecond apart. Whoever locks a WAL against readers does it for far less time. */
const PIN_ATTEMPTS = 50;
const INDEX_ATTEMPTS = 200;
/** Busy writers hand the lock from one to the next, and leave it free for microseconds only. */
const FENCE_LOCK_MS = 20;
const FENCE_CHECKPOINT_MS = 100;
const TRIES_MAX = 100_000;

function configure(connection: Database): void {
  connection.run("PRAGMA wal_autocheckpoint=0");
  connection.run("PRAGMA cache_size=0");
  connection.run("PRAGMA busy_timeout=0");
  // The last connection to close would delete the WAL, and with it the salts that prove what was captured.
  connection.fileControl(constants.SQLITE_FCNTL_PERSIST_WAL, 1);
}

/** Tries until it succeeds or `limitMs` are over, without a pause: whoever holds the lock lets go of it for moments only. */
function trying(limitMs: number, attempt: () => boolean): boolean {
  const endMs = monotonicMs() + limitMs;
  for (let i = 0; i < TRIES_MAX; i++) {
    if (attempt()) return true;
    if (monotonicMs() >= endMs) break;
  }
  return false;
}

function beginImmediate(connection: Database, path: string): boolean {
  try {
    connection.run("BEGIN IMMEDIATE");
    return true;
  } catch (error) {
    if (isBusy(error)) return false;
    throw asDatabaseError(path, error);
  }
}

function passive(connection: Database): CheckpointResult {
  const row = connection.query("PRAGMA wal_checkpoint(PASSIVE)").values()[0];
  assert(row !== undefined, "a checkpoint answers with one row");
  const [busy, frameCount, backfilled] = row as [number, number, number];
  return { busy: busy !== 0, frameCount, backfilled };
}

/**
 * Page size and size in pages that the database file tells of itself. The size in its header counts if the version that
 * wrote it is the last one that wrote at all. Spec: https://www.sqlite.org/fileformat2.html#in_header_database_size
 */
function fileShape(databaseFd: number): { pageSize: number; commit: number } {
  const header = Buffer.alloc(DATABASE_HEADER_SIZE);
  readSync(databaseFd, header, 0, DATABASE_HEADER_SIZE, 0);
  const pageSize = pageSizeOf(header);
  const filePages = Math.ceil(fstatSync(databaseFd).size / pageSize);
  const headerPages = header.readUInt32BE(24) === header.readUInt32BE(92) ? header.readUInt32BE(28) : 0;
  return { pageSize, commit: headerPages > 0 && headerPages <= filePages ? headerPages : filePages };
}

/** Opens the file and looks at it before SQLite does: an empty file must never be turned into a database. */
function openDatabaseFile(path: string): number {
  if (!statSync(path).isFile()) {
    throw new WalsyncError("E_DATABASE", `${path}: expected a database file, found something else`, {
      hint: "Name the database file itself.",
    });
  }
  // SQLite would open a file that may not be written, and refuse the first checkpoint.
  accessSync(path, fileConstants.W_OK);
  const fd = openDescriptor(path);
  const header = Buffer.alloc(DATABASE_HEADER_SIZE);
  const filled = readSync(fd, header, 0, DATABASE_HEADER_SIZE, 0);
  if (decodeFileHeader(header.subarray(0, filled)) !== null) return fd;
  closeDescriptors([fd]);
  if (filled === 0) {
    throw new WalsyncError("E_DATABASE", `${path}: expected a SQLite database, found an empty file`, {
      hint: "Start walsync once the application has created its tables.",
    });
  }
  const found = filled < DATABASE_HEADER_SIZE ? `${filled} bytes` : "other bytes";
  throw new WalsyncError("E_DATABASE", `${path}: expected a SQLite database, found ${found}`, {
    hint: "Check the path. Encrypted databases are not supported.",
  });
}

function requireWal(connection: Database, path: string, enable: boolean): void {
  const mode = journalMode(connection, "PRAGMA journal_mode");
  if (mode === "wal") return;
  const found = enable ? askForWal(connection, mode) : mode;
  if (found === "wal") return;
  throw new WalsyncError("E_DATABASE", `${path}: expected journal mode WAL, found ${found.toUpperCase()}`, {
    hint: enable
      ? "Another connection is in the way: stop the application while the mode changes."
      : 'Run "PRAGMA journal_mode=WAL" in the application, or pass --enable-wal.',
  });
}

/** The journal mode after asking for WAL: `mode` as before, if another connection is in the way. */
function askForWal(connection: Database, mode: string): string {
  try {
    return journalMode(connection, "PRAGMA journal_mode=WAL");
  } catch (error) {
    if (isBusy(error)) return mode;
    throw error;
  }
}

function journalMode(connection: Database, pragma: string): string {
  return String(connection.query(pragma).values()[0]?.[0] ?? "unknown");
}
