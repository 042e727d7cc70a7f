/**
 * From frames of the WAL to one LTX file: the newest frame of each page, plus pages that a growing transaction added
 * without writing them. Synchronous from end to end, so that nothing of ours moves while it reads.
 */

import { pageChecksum, type U64Halves } from "../ltx/checksum.ts";
import type { LtxHeader } from "../ltx/format.ts";
import type { Txid } from "../ltx/txid.ts";
import { lockPgno, pageOffset } from "../page.ts";
import type { PinnedDatabase } from "../sqlite/database.ts";
import { walFrameCount } from "../sqlite/wal.ts";
import {
  cursorAtStart,
  readFramePage,
  readFully,
  readWalHeaderOf,
  scanWal,
  type WalCursor,
  type WalScan,
} from "../sqlite/wal-reader.ts";
import type { Outbox, OutboxFile } from "./outbox.ts";
import type { PageChecksums, PageTable } from "./page-table.ts";

export interface CapturedSegment {
  file: OutboxFile;
  /** To be applied to the page table. */
  change: PageChecksums;
  /** Database checksum after it. */
  checksum: bigint;
}

/**
 * Stages the transactions of `scan` as increment `txid`. `start` is the cursor the scan began at. Null if the WAL was
 * restarted or cut meanwhile, which a pin at mark 0 does not keep a writer from: nothing is staged then.
 * Throws E_DISK if staging fails: then nothing has changed, and the frames stay in the pinned WAL.
 */
export function captureSegment(
  database: PinnedDatabase,
  table: PageTable,
  outbox: Outbox,
  start: WalCursor,
  scan: WalScan,
  txid: Txid,
  timestampMs: number,
): CapturedSegment | null {
  const { pageSize } = database;
  const pages = plannedPages(scan, table.commit, pageSize);
  const header: LtxHeader = {
    flags: 0,
    pageSize,
    commit: scan.commit,
    minTxid: txid,
    maxTxid: txid,
    timestampMs,
    preApplyChecksum: table.checksum,
    walOffset: start.walOffset,
    walSize: scan.end.walOffset - start.walOffset,
    salt1: scan.end.salt1,
    salt2: scan.end.salt2,
    nodeId: 0n,
  };
  const change: PageChecksums = {
    pgnos: pages.pgnos,
    high: new Uint32Array(pages.pgnos.length),
    low: new Uint32Array(pages.pgnos.length),
  };
  const unwritten = new UnwrittenPages(database, start, scan);
  const read = (i: number, page: Uint8Array): boolean => {
    const frameIndex = pages.frameIndexes[i]!;
    if (frameIndex === NOT_IN_WAL) return unwritten.read(pages.pgnos[i]!, page);
    return readFramePage(database.walFd, scan.end, frameIndex, page);
  };
  const staging = outbox.stage(header, scan.commitCount);
  try {
    const page = new Uint8Array(pageSize);
    const sum: U64Halves = { hi: 0, lo: 0 };
    let isWhole = true;
    for (let i = 0; i < pages.pgnos.length && isWhole; i++) {
      const pgno = pages.pgnos[i]!;
      isWhole = read(i, page);
      pageChecksum(pgno, page, sum);
      staging.encoder.encodePage(pgno, page, sum);
      change.high[i] = sum.hi;
      change.low[i] = sum.lo;
    }
    // A writer that restarts the WAL writes its header first: no frame was overwritten as long as that is the same.
    if (!isWhole || readWalHeaderOf(database.walFd, scan.end) === null) {
      staging.abort();
      return null;
    }
    const checksum = table.checksumAfter(change, scan.commit);
    return { file: staging.commit(checksum), change, checksum };
  } catch (error) {
    staging.abort();
    throw error;
  }
}

// --- internal ---

/** Marks a page that the database grew by and that no frame holds. */
const NOT_IN_WAL = 0xffffffff;

/**
 * The pages of the file, ascending. Frames beyond the final size are dropped (the database shrank again). A transaction
 * that grows the database need not write every new page, for example one that it freed again.
 */
function plannedPages(scan: WalScan, oldCommit: number, pageSize: number): WalScan["pages"] {
  const skipped = lockPgno(pageSize);
  const pgnos: number[] = [];
  const frameIndexes: number[] = [];
  let grown = oldCommit + 1;
  const growTo = (limit: number) => {
    for (; grown < limit; grown++) {
      if (grown === skipped) continue;
      pgnos.push(grown);
      frameIndexes.push(NOT_IN_WAL);
    }
  };
  for (let i = 0; i < scan.pages.pgnos.length; i++) {
    const pgno = scan.pages.pgnos[i]!;
    if (pgno > scan.commit || pgno === skipped) continue;
    growTo(pgno);
    pgnos.push(pgno);
    frameIndexes.push(scan.pages.frameIndexes[i]!);
    grown = Math.max(grown, pgno + 1);
  }
  growTo(scan.commit + 1);
  return { pgnos: Uint32Array.from(pgnos), frameIndexes: Uint32Array.from(frameIndexes) };
}

/**
 * What SQLite itself reads for a page that a growing transaction did not write: an older frame of the same generation, left
 * from before the database shrank, or else the database file, and zeros behind its end.
 */
class UnwrittenPages {
  readonly #database: PinnedDatabase;
  readonly #start: WalCursor;
  readonly #scan: WalScan;
  #older: Map<number, number> | null = null;

  constructor(database: PinnedDatabase, start: WalCursor, scan: WalScan) {
    this.#database = database;
    this.#start = start;
    this.#scan = scan;
  }

  /** False if the WAL is of another generation by now. */
  read(pgno: number, page: Uint8Array): boolean {
    this.#older ??= this.#readOlder();
    const frameIndex = this.#older.get(pgno);
    const { walFd, databaseFd } = this.#database;
    if (frameIndex !== undefined) return readFramePage(walFd, this.#scan.end, frameIndex, page);
    const filled = readFully(databaseFd, page, page.byteLength, pageOffset(pgno, page.byteLength));
    page.fill(0, filled);
    return true;
  }

  /** The newest frame of each page in the generation before the scan began. */
  #readOlder(): Map<number, number> {
    const { walFd, pageSize } = this.#database;
    const older = new Map<number, number>();
    const header = readWalHeaderOf(walFd, this.#start);
    if (header === null) return older;
    const { pages } = scanWal(walFd, pageSize, cursorAtStart(header), walFrameCount(this.#start.walOffset, pageSize));
    for (let i = 0; i < pages.pgnos.length; i++) older.set(pages.pgnos[i]!, pages.frameIndexes[i]!);
    return older;
  }
}
