/**
 * The page checksum table (pages.crc): the CRC-64 of every page at the captured position. It makes the pre- and
 * post-apply checksums of each LTX file exact and lets a resync ship only what changed.
 *
 * File: a 32-byte header, then 8 bytes a page (low word, high word; little-endian), page 1 first. The lock page's entry
 * is zero. Changes reach the file only after the LTX file that carries those pages is staged; the stamp says up to
 * which txid they are durable, and `applyChange` may be repeated for any later file of the outbox.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, rmSync } from "node:fs";
import { assert } from "../assert.ts";
import { announceWrite, asDiskError, openTempFile, renameDurably, syncFile, writeFully } from "../durable.ts";
import { ChecksumAccumulator } from "../ltx/checksum.ts";
import type { Txid } from "../ltx/txid.ts";
import { lockPgno } from "../page.ts";
import { readFully } from "../sqlite/wal-reader.ts";

/** Checksums of pages, ascending by page number. Three parallel arrays: twelve bytes a page. */
export interface PageChecksums {
  pgnos: Uint32Array;
  high: Uint32Array;
  low: Uint32Array;
}

export class PageTable {
  readonly pageSize: number;
  /** Database size in pages at the captured position. */
  commit: number;
  readonly #path: string;
  readonly #fd: number;
  readonly #blocks: BlockCache;
  readonly #checksum = new ChecksumAccumulator();

  /** Opens the table, or null if there is none that is whole: the caller then knows no page. */
  static open(path: string, pageSize: number): PageTable | null {
    let fd: number;
    try {
      fd = openSync(path, "r+");
    } catch {
      return null; // Missing or unreadable are the same here: nothing is known, and the next resync rebuilds it.
    }
    const header = Buffer.alloc(HEADER_SIZE);
    const filled = readFully(fd, header, HEADER_SIZE, 0);
    if (filled < HEADER_SIZE || header.readUInt32LE(0) !== MAGIC || header.readUInt32LE(4) !== pageSize) {
      closeSync(fd);
      return null;
    }
    const table = new PageTable(path, fd, pageSize, header.readUInt32LE(8));
    table.#xorRange(table.#checksum, 1, table.commit);
    return table;
  }

  private constructor(path: string, fd: number, pageSize: number, commit: number) {
    this.#path = path;
    this.#fd = fd;
    this.pageSize = pageSize;
    this.commit = commit;
    this.#blocks = new BlockCache(fd);
  }

  /** Database checksum at the captured position. */
  get checksum(): bigint {
    return this.#checksum.value();
  }

  /** True if the table holds this checksum for the page. */
  matches(pgno: number, high: number, low: number): boolean {
    if (pgno > this.commit) return false;
    const at = this.#blocks.load(pgno);
    return this.#blocks.words[at] === low && this.#blocks.words[at + 1] === high;
  }

  /** Database checksum once `change` is applied and the database has `commit` pages. Changes nothing. */
  checksumAfter(change: PageChecksums, commit: number): bigint {
    const sum = new ChecksumAccumulator();
    sum.set(this.#checksum.value());
    this.#xorChange(sum, change, commit);
    return sum.value();
  }

  /** Applies a change that is staged. Repeating one that was applied already changes nothing. */
  applyChange(change: PageChecksums, commit: number): void {
    this.#xorChange(this.#checksum, change, commit);
    announceWrite(this.#path);
    for (let i = 0; i < change.pgnos.length; i++) {
      this.#blocks.store(change.pgnos[i]!, change.high[i]!, change.low[i]!);
    }
    this.#blocks.flush();
    announceWrite(this.#path);
    this.commit = commit;
    ftruncateSync(this.#fd, HEADER_SIZE + commit * ENTRY_SIZE);
  }

  /** Makes everything applied so far durable, as the state after `txid`. */
  stamp(txid: Txid): void {
    this.note(txid);
    syncFile(this.#fd, this.#path);
  }

  /** Lets `open` find everything applied so far, as the state after `txid`; not durably. */
  note(txid: Txid): void {
    writeHeader(this.#fd, this.pageSize, this.commit, txid);
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** XORs out what the table holds for changed and vanished pages, and XORs in the new checksums. */
  #xorChange(sum: ChecksumAccumulator, change: PageChecksums, commit: number): void {
    for (let i = 0; i < change.pgnos.length; i++) {
      const pgno = change.pgnos[i]!;
      if (pgno <= this.commit) {
        const at = this.#blocks.load(pgno);
        sum.xorPage(this.#blocks.words[at + 1]!, this.#blocks.words[at]!);
      }
      sum.xorPage(change.high[i]!, change.low[i]!);
    }
    if (commit < this.commit) {
      this.#xorRange(sum, commit + 1, this.commit);
    }
  }

  /** Entries that the file does not have are zero: the size in a damaged header must not keep us busy. */
  #xorRange(sum: ChecksumAccumulator, firstPgno: number, lastPgno: number): void {
    const last = Math.min(lastPgno, Math.ceil((fstatSync(this.#fd).size - HEADER_SIZE) / ENTRY_SIZE));
    for (let pgno = firstPgno; pgno <= last; pgno++) {
      const at = this.#blocks.load(pgno);
      sum.xorPage(this.#blocks.words[at + 1]!, this.#blocks.words[at]!);
    }
  }
}

/** Writes a new table page by page, beside the old one; `install` puts it in place. Memory does not grow with it. */
export class PageTableWriter {
  readonly #path: string;
  readonly #temp: string;
  readonly #fd: number;
  readonly #pageSize: number;
  readonly #buffer = new Uint32Array(BLOCK_ENTRIES * 2);
  readonly #sum = new ChecksumAccumulator();
  #nextPgno = 1;
  #filled = 0;

  constructor(path: string, pageSize: number) {
    this.#path = path;
    this.#temp = `${path}.tmp`;
    this.#pageSize = pageSize;
    this.#fd = openTempFile(this.#temp);
    writeFully(this.#fd, new Uint8Array(HEADER_SIZE));
  }

  get checksum(): bigint {
    return this.#sum.value();
  }

  /** Adds the next page; the lock page is skipped by the caller and filled in here. */
  add(pgno: number, high: number, low: number): void {
    if (this.#nextPgno === lockPgno(this.#pageSize)) this.#push(0, 0);
    assert(pgno === this.#nextPgno, "pages come in order");
    this.#sum.xorPage(high, low);
    this.#push(high, low);
  }

  /** Replaces the table durably. */
  install(commit: number, txid: Txid): PageTable {
    if (this.#nextPgno === commit && commit === lockPgno(this.#pageSize)) this.#push(0, 0);
    assert(this.#nextPgno === commit + 1, "the table holds every page");
    try {
      this.#flush();
      writeHeader(this.#fd, this.#pageSize, commit, txid);
      syncFile(this.#fd, this.#temp);
    } finally {
      closeSync(this.#fd);
    }
    renameDurably(this.#temp, this.#path);
    const table = PageTable.open(this.#path, this.#pageSize);
    assert(table !== null, "a table just written can be opened");
    return table;
  }

  /** Drops what was written; the old table stays. */
  abort(): void {
    closeSync(this.#fd);
    rmSync(this.#temp, { force: true });
  }

  #push(high: number, low: number): void {
    this.#buffer[this.#filled++] = low;
    this.#buffer[this.#filled++] = high;
    this.#nextPgno++;
    if (this.#filled === this.#buffer.length) this.#flush();
  }

  #flush(): void {
    try {
      if (this.#filled > 0) writeFully(this.#fd, new Uint8Array(this.#buffer.buffer, 0, this.#filled * 4));
    } catch (error) {
      throw asDiskError(this.#temp, error);
    }
    this.#filled = 0;
  }
}

// --- internal ---

const MAGIC = 0x43505357; // "WSPC"
const HEADER_SIZE = 32;
const ENTRY_SIZE = 8;
const BLOCK_ENTRIES = 512;

/** Header: magic u32, page size u32, commit u32, 0, txid u64, 8 zero bytes; little-endian. */
function writeHeader(fd: number, pageSize: number, commit: number, txid: Txid): void {
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt32LE(MAGIC, 0);
  header.writeUInt32LE(pageSize, 4);
  header.writeUInt32LE(commit, 8);
  header.writeBigUInt64LE(txid, 16);
  writeFully(fd, header, 0);
}

/**
 * One block of entries in memory, shared by all tables: each call of a table uses it from beginning to end, and leaves nothing
 * in it that is not in its file. Access ascends by page number, so each block is read and written once.
 */
class BlockCache {
  static readonly #words = new Uint32Array(BLOCK_ENTRIES * 2);
  static readonly #bytes = new Uint8Array(BlockCache.#words.buffer);
  /** Whose block it is. */
  static #owner: BlockCache | null = null;
  readonly #fd: number;
  #block = -1;
  #dirty = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  get words(): Uint32Array {
    return BlockCache.#words;
  }

  /** Index in `words` of the low word of the page's entry; the high word follows. Missing entries read as zero. */
  load(pgno: number): number {
    const block = Math.floor((pgno - 1) / BLOCK_ENTRIES);
    if (block !== this.#block || BlockCache.#owner !== this) {
      this.flush();
      assert(BlockCache.#owner === null || !BlockCache.#owner.#dirty, "what another table changed is in its file");
      BlockCache.#owner = this;
      const bytes = BlockCache.#bytes;
      BlockCache.#words.fill(0);
      readFully(this.#fd, bytes, bytes.byteLength, HEADER_SIZE + block * bytes.byteLength);
      this.#block = block;
    }
    return ((pgno - 1) % BLOCK_ENTRIES) * 2;
  }

  store(pgno: number, high: number, low: number): void {
    const at = this.load(pgno);
    BlockCache.#words[at] = low;
    BlockCache.#words[at + 1] = high;
    this.#dirty = true;
  }

  flush(): void {
    if (!this.#dirty) return;
    // If that fails the table is given up: the block is free for others.
    this.#dirty = false;
    writeFully(this.#fd, BlockCache.#bytes, HEADER_SIZE + this.#block * BlockCache.#bytes.byteLength);
  }
}
