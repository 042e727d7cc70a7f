/**
 * The local state of one database and one destination, in a folder of their own: the outbox, the position and the page
 * table. Opening it repairs what a crash left: the newest files of the outbox may be ahead of the position and the table.
 *
 *   .app.db-walsync/            mode 0700, beside the database or below --state-dir
 *     lock                      held while a process watches the database
 *     <12 hex digits>/          one folder per destination URL, name and layout
 *       position.json  pages.crc  outbox/
 *       tags.key              where files are encrypted
 */
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { assert } from "../assert.ts";
import { KiB } from "../bytes.ts";
import type { LayoutRules } from "../chain/layout-rules.ts";
import { asDiskError, makePrivateFolder, removeFile } from "../durable.ts";
import { errnoOf, WalsyncError } from "../errors.ts";
import { LtxFileReader } from "../ltx/file-reader.ts";
import type { PinnedDatabase } from "../sqlite/database.ts";
import { cursorAt } from "../sqlite/wal-reader.ts";
import { claimsTxid, Outbox, OutboxDamage, type OutboxFile, outboxEndsOf, readOutboxEnds } from "./outbox.ts";
import { type PageChecksums, PageTable, PageTableWriter } from "./page-table.ts";
import { type Captured, continueFromFile, type Position, readPosition, writePosition } from "./position.ts";
import { StateTags } from "./state-tags.ts";

/** Where the state of the database at `databasePath` is kept. */
export function stateFolderOf(databasePath: string, stateDir: string | undefined): string {
  const path = resolve(databasePath);
  if (stateDir === undefined) return join(dirname(path), `.${basename(path)}-walsync`);
  // Two databases of one file name must not meet in one folder.
  return join(resolve(stateDir), `${basename(path)}-${digest(path)}`);
}

/** The name that the database of this state folder has at a destination already, or null. The newest one if it changed. */
export function keptName(stateFolder: string, destinationUrl: string): string | null {
  let kept: { name: string; modifiedMs: number } | null = null;
  for (const folder of foldersIn(stateFolder)) {
    const path = join(stateFolder, folder, POSITION_FILE);
    const modifiedMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
    if (modifiedMs === undefined || (kept !== null && kept.modifiedMs >= modifiedMs)) continue;
    const position = readPosition(path);
    if (position?.destination === destinationUrl) kept = { name: position.name, modifiedMs };
  }
  return kept?.name ?? null;
}

export class LocalState {
  readonly outbox: Outbox;
  /** Null before the first snapshot is staged. Never keep it across an `await`: a scan puts another one in its place. */
  position: Position | null;
  /** Fingerprint of the database file, if it holds everything that is captured now; else null. Recorded with each position. */
  fileProof: () => string | null = () => null;
  /** For files that are encrypted at the destination. */
  readonly tags: StateTags;
  readonly #folder: string;
  #table: PageTable | null = null;
  /** The table is there, and not open. */
  #isResting = false;

  constructor(stateFolder: string, destinationUrl: string, name: string, rules: LayoutRules) {
    this.#folder = join(stateFolder, digest(`${destinationUrl}\n${name}${rules.stateSuffix}`));
    this.tags = new StateTags(join(this.#folder, "tags.key"));
    try {
      makePrivateFolder(this.#folder);
      for (const path of [this.#positionPath, this.#tablePath]) rmSync(`${path}.tmp`, { force: true });
      this.outbox = new Outbox(join(this.#folder, "outbox"), rules);
    } catch (error) {
      throw asDiskError(this.#folder, error);
    }
    this.position = readPosition(this.#positionPath);
    if (this.position === null) this.#forget();
    else this.#table = PageTable.open(this.#tablePath, this.position.captured.pageSize);
  }

  /**
   * Brings position and table up to the newest file of the outbox. The database's WAL gives the checksums that the cursor
   * needs, and its file the proof that nothing happened since a clean stop.
   * Throws LtxError if a file of the outbox is damaged, missing or of another chain: what waits was never acknowledged, and must
   * not be shipped.
   */
  recover(database: PinnedDatabase): void {
    if (this.position === null) return;
    const { walFd } = database;
    const stoppedAt = this.position.captured.txid;
    for (const file of this.outbox.files) {
      if (!claimsTxid(file) || file.maxTxid <= this.position.captured.txid) continue;
      this.position.captured = this.#replay(file, walFd, this.position.captured);
    }
    this.#requireGapless();
    const { captured, file } = this.position;
    const isUntouched = file !== null && captured.txid === stoppedAt && file === database.fingerprint();
    if (isUntouched) continueFromFile(captured, database);
    this.position.file = null;
    this.#requireTableAt(captured);
  }

  /** Null if the checksums of the pages at the position are not known. */
  get table(): PageTable | null {
    if (this.#isResting) {
      this.#isResting = false;
      const { captured } = this.position!;
      this.#table = PageTable.open(this.#tablePath, captured.pageSize);
      this.#requireTableAt(captured);
    }
    return this.#table;
  }

  /** Closes what is needed only while there is something to capture, until then. */
  rest(): void {
    if (this.#table === null) return;
    try {
      this.#table.note(this.position!.captured.txid);
      this.#isResting = true;
    } catch {
      // As `advance`: the next look builds a new one.
    }
    this.#giveUpTable();
  }

  /** True if somebody removed our folder: nothing can be staged any more, and what waited is lost. */
  isGone(): boolean {
    return !existsSync(this.outbox.folder);
  }

  /** Forgets everything: the next contact takes the chain over from where the destination says that it ends. */
  startOver(): void {
    this.#isResting = false;
    this.#giveUpTable();
    this.position = null;
    removeFile(this.#positionPath);
    this.#forget();
  }

  /** Our database checksum after the last acknowledged transaction; null if it cannot be told any more. */
  checksumAtShipped(): bigint | null {
    if (this.position === null) return null;
    const { shippedTxid, captured } = this.position;
    if (shippedTxid === captured.txid) return captured.checksum;
    const next = this.outbox.files.find((file) => file.minTxid === shippedTxid + 1n && claimsTxid(file));
    if (next === undefined) return null;
    // Unknown if what it follows on from was written by another program.
    return readOutboxEnds(next).checksums.pre || null;
  }

  /** Starts a new table; it takes effect with `install`. */
  newTable(pageSize: number): PageTableWriter {
    try {
      return new PageTableWriter(this.#tablePath, pageSize);
    } catch (error) {
      throw asDiskError(this.#tablePath, error);
    }
  }

  /** Makes a position reached by a scan of the whole database, and the table that came with it, the ones that hold. */
  install(table: PageTableWriter, position: Position): void {
    this.#isResting = false;
    this.#giveUpTable();
    try {
      this.#table = table.install(position.captured.commit, position.captured.txid);
    } catch (error) {
      throw asDiskError(this.#tablePath, error);
    }
    this.position = position;
    this.save();
  }

  /**
   * Counts in a staged file. If the table cannot take it, the file stays good and the table is given up: the next look
   * builds a new one.
   */
  advance(change: PageChecksums, captured: Captured): void {
    assert(this.position !== null, "a chain has begun");
    this.position.captured = captured;
    try {
      this.table?.applyChange(change, captured.commit);
    } catch {
      this.#giveUpTable();
    }
  }

  /**
   * Records the position as it is now, and removes what it says to be acknowledged. The table goes first: the position promises
   * what it holds.
   */
  save(): void {
    assert(this.position !== null, "a chain has begun");
    const isResting = this.#isResting;
    try {
      this.table?.stamp(this.position.captured.txid);
      this.position.file = this.fileProof();
      writePosition(this.#positionPath, this.position);
      this.outbox.purge();
    } catch (error) {
      throw asDiskError(this.#folder, error);
    } finally {
      if (isResting) this.rest();
    }
  }

  /** Leaves no folder if nothing was ever staged. */
  close(): void {
    this.#recordRest();
    this.#giveUpTable();
    if (this.position !== null || this.outbox.files.length > 0) return;
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #giveUpTable(): void {
    this.#table?.close();
    this.#table = null;
  }

  /** A table of another state than this is as good as none. */
  #requireTableAt({ checksum, commit }: Captured): void {
    if (this.#table?.checksum !== checksum || this.#table.commit !== commit) this.#giveUpTable();
  }

  get #positionPath(): string {
    return join(this.#folder, POSITION_FILE);
  }

  get #tablePath(): string {
    return join(this.#folder, "pages.crc");
  }

  /** If it cannot be recorded, the next process ships the files again, and finds them there. */
  #recordRest(): void {
    if (this.position === null || this.outbox.releasedFiles === 0) return;
    try {
      this.save();
    } catch (error) {
      if (errnoOf(error) === undefined && !(error instanceof WalsyncError)) throw error;
    }
  }

  /** Without a position nothing here was ever promised to anybody. */
  #forget(): void {
    this.outbox.purge();
    for (const file of [...this.outbox.files]) this.outbox.remove(file);
    rmSync(this.#tablePath, { force: true });
  }

  /** Everything that is captured and not acknowledged must be there to be shipped. */
  #requireGapless(): void {
    const { shippedTxid, captured } = this.position!;
    let reached = shippedTxid;
    for (const file of this.outbox.files) if (claimsTxid(file) && file.minTxid === reached + 1n) reached = file.maxTxid;
    if (reached >= captured.txid) return;
    throw new OutboxDamage(`${this.outbox.folder}: expected a file with txid ${reached + 1n}, found none`);
  }

  /** What `captured` is once a file of the outbox is counted in. */
  #replay(file: OutboxFile, walFd: number, before: Captured): Captured {
    const pgnos: number[] = [];
    const high: number[] = [];
    const low: number[] = [];
    const reader = new LtxFileReader(file.path, READ_SIZE);
    try {
      for (reader.advance(); reader.pgno !== Number.POSITIVE_INFINITY; reader.advance()) {
        const { hi, lo } = reader.pageChecksum;
        pgnos.push(reader.pgno);
        high.push(hi);
        low.push(lo);
      }
    } finally {
      reader.close();
    }
    const { header } = reader;
    const { checksums } = outboxEndsOf(file, reader);
    const follows = header.minTxid === before.txid + 1n && checksums.pre === before.checksum;
    if (header.maxTxid !== file.maxTxid || !follows) {
      throw new OutboxDamage(`${file.path}: expected what follows on from txid ${before.txid}, found another file`);
    }
    const change: PageChecksums = {
      pgnos: Uint32Array.from(pgnos),
      high: Uint32Array.from(high),
      low: Uint32Array.from(low),
    };
    if (header.pageSize === before.pageSize) this.table?.applyChange(change, header.commit);
    const { salt1, salt2 } = header;
    const walOffset = header.walOffset + header.walSize;
    return {
      txid: header.maxTxid,
      checksum: checksums.post,
      commit: header.commit,
      pageSize: header.pageSize,
      timestampMs: header.timestampMs,
      // A full scan has no place in the WAL: the next look compares the database.
      cursor: header.walSize === 0 ? null : cursorAt(walFd, header.pageSize, { salt1, salt2, walOffset }),
      changeCount: null,
    };
  }
}

// --- internal ---

const READ_SIZE = 256 * KiB;
const POSITION_FILE = "position.json";

function foldersIn(stateFolder: string): string[] {
  try {
    return readdirSync(stateFolder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw asDiskError(stateFolder, error);
  }
}

function digest(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, 12);
}
