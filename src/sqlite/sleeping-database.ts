/**
 * A database that nobody writes to, without a connection and without a pin: one descriptor of its WAL index is all that is
 * held. It tells whether anything was committed since, and how many times. Where descriptors are scarce not even that is: then
 * the times of the last writes to database and WAL tell whether, and not how many times.
 *
 * The count of commits in a WAL index is proof only while the index is the same. The first process that opens the file, if
 * nobody uses it, empties it; therefore it is in use here, by the lock that says so. The last connection to close removes
 * the file, and the next one makes another: its inode tells. Spec: https://www.sqlite.org/walformat.html#wal_locks
 */
import { fstatSync, type Stats, statSync } from "node:fs";
import { readDescriptorLimit } from "../descriptor-limit.ts";
import { tryShareLock } from "../libc.ts";
import { PinnedDatabase } from "./database.ts";
import { closeDescriptors, openDescriptor } from "./descriptors.ts";
import { fingerprintOf, walMarkOf } from "./fingerprint.ts";
import { isAt, noteOpenFiles } from "./open-files.ts";
import { readWalIndexHead, sameContent, WAL_INDEX_IN_USE_BYTE, type WalIndexHead } from "./wal-index.ts";

export interface Woken {
  database: PinnedDatabase;
  /** What the count of commits has to be moved by to go on with that of before; null if it does not go on. */
  countShift: number | null;
  /** Nobody has written to the database file: what was committed since is in the WAL. */
  isUntouched: boolean;
}

export class SleepingDatabase {
  /** False where this process cannot say that it uses an index: one that sleeps would be found stirred all the time. */
  static readonly isPossible: boolean = process.platform === "linux";

  readonly path: string;
  readonly #file: { dev: number; ino: number };
  readonly #fingerprint: string | null;
  /** The WAL index when everything was captured; null if nothing is captured yet. */
  readonly #head: WalIndexHead | null;
  readonly #walMark: string | null;
  /** Null if it is not kept, or is another one by now. */
  #index: KeptIndex | null;

  /**
   * Lets go of a database whose WAL is copied back whole. `captured`: its index when everything was captured; whatever it does not
   * tell of is found to have happened since. Null for a database that is yet to be read. Nothing else may use `database` from then on.
   */
  static from(database: PinnedDatabase, captured: WalIndexHead | null): SleepingDatabase {
    const { path } = database;
    const file = fstatSync(database.databaseFd);
    const fingerprint = database.fingerprint();
    const walMark = database.walMark();
    const isMarked = fingerprint !== null && walMark !== null;
    const needsIndex = captured !== null && !(isMarked && SleepingDatabase.isScarce(database.walFd));
    // After the marks: what was committed before they were taken would not be noticed by them.
    const isCaptured = captured === null || sameContent(captured, database.walIndex());
    database.closeFiles();
    return new SleepingDatabase(path, file, fingerprint, isCaptured ? walMark : null, captured, needsIndex);
  }

  /** Whether a new descriptor with this number says that half of them are in use: the lowest that is free is taken. */
  static isScarce(descriptor: number): boolean {
    descriptorLimit ??= readDescriptorLimit() ?? Number.POSITIVE_INFINITY;
    return descriptor > descriptorLimit / 2;
  }

  private constructor(
    path: string,
    file: Stats,
    fingerprint: string | null,
    walMark: string | null,
    head: WalIndexHead | null,
    needsIndex: boolean,
  ) {
    this.path = path;
    this.#file = { dev: file.dev, ino: file.ino };
    this.#fingerprint = fingerprint;
    this.#walMark = needsIndex ? null : walMark;
    this.#head = head;
    this.#index = needsIndex ? keepIndex(path) : null;
    // For a moment nobody may have used it, and somebody began it anew.
    if (this.#index !== null && this.isStirred()) this.#dropIndex();
  }

  /** True if something may have been committed since everything was captured. */
  isStirred(): boolean {
    if (this.#index === null) {
      if (this.#walMark === null || this.#fingerprint === null) return true;
      return this.walMark() !== this.#walMark || this.fingerprint() !== this.#fingerprint;
    }
    if (!this.#index.isNamed()) return true;
    const head = readWalIndexHead(this.#index.fd);
    return head === null || this.#head === null || !sameContent(head, this.#head);
  }

  /** As of `PinnedDatabase`. */
  isReplaced(): boolean {
    return !isAt(this.path, this.#file);
  }

  /** As of `PinnedDatabase`; null as well if there is no file. */
  fingerprint(): string | null {
    const stats = statSync(this.path, { bigint: true, throwIfNoEntry: false });
    return stats === undefined ? null : fingerprintOf(stats);
  }

  /** The fingerprint with which it fell asleep, if the file has it still; else null. */
  keptFingerprint(): string | null {
    const fingerprint = this.fingerprint();
    return fingerprint === this.#fingerprint ? fingerprint : null;
  }

  /** As of `PinnedDatabase`. */
  walMark(): string | null {
    return walMarkOf(statSync(`${this.path}-wal`, { bigint: true, throwIfNoEntry: false }));
  }

  walSizeBytes(): number {
    return statSync(`${this.path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Opens and pins it again. Throws E_DATABASE: then it sleeps on, and every look finds it stirred. */
  wake(): Woken {
    const index = this.#index;
    const before = index === null ? null : readWalIndexHead(index.fd);
    let database: PinnedDatabase;
    try {
      database = PinnedDatabase.open(this.path, { heldFd: index?.fd });
    } catch (error) {
      // What was opened and closed again took the lock along.
      this.#dropIndex();
      throw error;
    }
    index?.forget();
    this.#index = null;
    // Now that it is pinned: what comes after this stays in the WAL.
    const isUntouched = this.#fingerprint !== null && this.#fingerprint === database.fingerprint();
    const countShift = before !== null && index?.isNamed() === true ? shiftBetween(before, database.walIndex()) : null;
    return { database, countShift, isUntouched };
  }

  /** Lets go of it for good. */
  close(): void {
    this.#dropIndex();
  }

  #dropIndex(): void {
    if (this.#index === null) return;
    this.#index.forget();
    closeDescriptors([this.#index.fd]);
    this.#index = null;
  }
}

// --- internal ---

/** How many may be open in this process; it does not change. */
let descriptorLimit: number | undefined;

/** More commits than there can be while a database is opened; what counts from zero again seems to have had more. */
const GROWN_MAX = 2 ** 31;

function shiftBetween(before: WalIndexHead, after: WalIndexHead): number | null {
  const grown = (after.changeCount - before.changeCount) >>> 0;
  if (grown < GROWN_MAX) return 0;
  // Nobody else used it: SQLite made the index anew as it was opened, and counts from zero.
  const isSame = sameContent({ ...after, changeCount: before.changeCount }, before);
  return isSame ? after.changeCount - before.changeCount : null;
}

interface KeptIndex {
  fd: number;
  /** The path still leads to this file. */
  isNamed(): boolean;
  /** The descriptor is about to be closed, or belongs to somebody else now. */
  forget(): void;
}

function keepIndex(path: string): KeptIndex | null {
  let fd: number;
  try {
    fd = openDescriptor(`${path}-shm`);
  } catch {
    return null; // Removed already, or no descriptor is left.
  }
  if (!tryShareLock(fd, WAL_INDEX_IN_USE_BYTE)) {
    closeDescriptors([fd]);
    return null;
  }
  const file = fstatSync(fd);
  return { fd, isNamed: () => isAt(`${path}-shm`, file), forget: noteOpenFiles(path, [fd], null) };
}
