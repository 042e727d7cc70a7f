/**
 * From all pages of a pinned database to one LTX file: a snapshot, or a resync that ships only pages that differ from
 * the page table. Streams, and lets other databases have their turn between parts.
 */
import { KiB } from "../bytes.ts";
import { WalsyncError } from "../errors.ts";
import { ChecksumAccumulator, pageChecksum, type U64Halves } from "../ltx/checksum.ts";
import type { LtxHeader } from "../ltx/format.ts";
import type { Txid } from "../ltx/txid.ts";
import type { PacedSync } from "../paced-sync.ts";
import type { PinnedDatabase } from "../sqlite/database.ts";
import { readPages, type WalOverlay } from "../sqlite/page-source.ts";
import type { WalIndexHead } from "../sqlite/wal-index.ts";
import { cursorAtStart, readWalHeaderOf, scanWal, type WalCursor } from "../sqlite/wal-reader.ts";
import { nextTurn } from "../turn.ts";
import { claimsTxid, type Outbox, type OutboxFile } from "./outbox.ts";
import type { PageTable, PageTableWriter } from "./page-table.ts";

/** One commit of a database, held by its pin. */
export interface PinnedState {
  head: WalIndexHead;
  overlay: WalOverlay | null;
  /** Where capture goes on from; null while the WAL is empty and has no generation yet. */
  cursor: WalCursor | null;
}

export interface StagedScan {
  file: OutboxFile;
  /** Database checksum of the scanned state. */
  checksum: bigint;
}

export interface ScanOptions {
  /** Give up with `GaveWay` when a checkpoint of another process waits for the pin. */
  givesWay?: boolean;
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** A scan ended early, because its pin was in the way of another process's checkpoint. Nothing was staged. */
export class GaveWay extends Error {}

/**
 * Pins the newest commit and tells exactly which one it is. Throws E_WAL if the WAL cannot be read up to it.
 */
export function pinState(database: PinnedDatabase): PinnedState {
  for (let attempt = 0; attempt < PIN_ATTEMPTS; attempt++) {
    const before = database.walIndex();
    database.repin();
    const head = database.walIndex();
    // The pin is at `head` only if nothing was committed around it.
    if (before.changeCount !== head.changeCount || before.salt1 !== head.salt1) continue;
    const header = readWalHeaderOf(database.walFd, head);
    if (head.frameCount === 0) return { head, overlay: null, cursor: header === null ? null : cursorAtStart(header) };
    if (header === null) continue;
    const scan = scanWal(database.walFd, database.pageSize, cursorAtStart(header), head.frameCount);
    if (scan.frameCount !== head.frameCount) continue;
    // Copied back completely: the file itself is the state, and the next writer may restart the WAL.
    const overlay = head.backfilled >= head.frameCount ? null : { cursor: scan.end, pages: scan.pages };
    return { head, overlay, cursor: scan.end };
  }
  throw new WalsyncError("E_WAL", `${database.path}: expected a WAL that can be read to its last commit, found none`, {
    hint: "Run PRAGMA wal_checkpoint and PRAGMA integrity_check on the database.",
  });
}

/** Stages a snapshot of `state` as 1-`txid`, and fills the page table if one is given. */
export async function stageSnapshot(
  database: PinnedDatabase,
  state: PinnedState,
  outbox: Outbox,
  txid: Txid,
  timestampMs: number,
  table: PageTableWriter | null,
  options: ScanOptions = {},
): Promise<StagedScan> {
  const header = headerOf(database, state, outbox, { minTxid: 1n, maxTxid: txid, preApplyChecksum: 0n, timestampMs });
  const staging = outbox.stage(header, 0);
  try {
    const encodeAll: PageVisitor = (pgno, page, sum) => {
      table?.add(pgno, sum.hi, sum.lo);
      staging.encoder.encodePage(pgno, page, sum);
    };
    const checksum = await scanPages(database, state, encodeAll, options, staging.sync);
    return { file: staging.commit(checksum), checksum };
  } catch (error) {
    staging.abort();
    throw error;
  }
}

/**
 * Stages every page that differs from `known` as increment `txid`; without `known`, every page. `file` is null if nothing
 * differs: there is nothing to ship then.
 */
export async function stageResync(
  database: PinnedDatabase,
  state: PinnedState,
  outbox: Outbox,
  txid: Txid,
  timestampMs: number,
  preApplyChecksum: bigint,
  known: PageTable | null,
  table: PageTableWriter | null,
  options: ScanOptions = {},
): Promise<{ file: OutboxFile | null; checksum: bigint }> {
  const header = headerOf(database, state, outbox, { minTxid: txid, maxTxid: txid, preApplyChecksum, timestampMs });
  const staging = outbox.stage(header, 0);
  try {
    const encodeChanged: PageVisitor = (pgno, page, sum) => {
      table?.add(pgno, sum.hi, sum.lo);
      if (known?.matches(pgno, sum.hi, sum.lo) !== true) staging.encoder.encodePage(pgno, page, sum);
    };
    const checksum = await scanPages(database, state, encodeChanged, options, staging.sync);
    const unchanged = staging.encoder.pageCount === 0 && known?.commit === state.head.commit;
    if (!unchanged) return { file: staging.commit(checksum), checksum };
    staging.abort();
    return { file: null, checksum };
  } catch (error) {
    staging.abort();
    throw error;
  }
}

/** Fills the page table alone, and returns the database checksum. */
export function fillTable(
  database: PinnedDatabase,
  state: PinnedState,
  table: PageTableWriter,
  options: ScanOptions = {},
): Promise<bigint> {
  return scanPages(database, state, (pgno, _page, sum) => table.add(pgno, sum.hi, sum.lo), options);
}

/** The database checksum alone. */
export function scanChecksum(database: PinnedDatabase, state: PinnedState, options: ScanOptions = {}): Promise<bigint> {
  return scanPages(database, state, () => {}, options);
}

// --- internal ---

const PIN_ATTEMPTS = 50;
/**
 * How much is read before others get their turn: a few milliseconds of work. Four times as much, and commits of 200 other
 * databases waited 100 ms instead of 9 (median, `bun run bench fair` with 400 MB).
 */
const TURN_SIZE = 512 * KiB;

/** `page` and `sum` are borrowed: valid during the call. */
type PageVisitor = (pgno: number, page: Uint8Array, sum: U64Halves) => void;

function headerOf(
  database: PinnedDatabase,
  state: PinnedState,
  { rules }: Outbox,
  range: Pick<LtxHeader, "minTxid" | "maxTxid" | "preApplyChecksum" | "timestampMs">,
): LtxHeader {
  return {
    flags: 0,
    pageSize: database.pageSize,
    commit: state.head.commit,
    ...rules.placeOfScan(claimsTxid(range) ? state.cursor : null),
    nodeId: 0n,
    ...range,
  };
}

/** Visits every page with its checksum, and returns the database checksum. `written`: of the file that the visits write. */
async function scanPages(
  database: PinnedDatabase,
  state: PinnedState,
  visit: PageVisitor,
  { givesWay = false, onProgress, signal }: ScanOptions,
  written: PacedSync | null = null,
): Promise<bigint> {
  const { commit } = state.head;
  const total = new ChecksumAccumulator();
  const sum: U64Halves = { hi: 0, lo: 0 };
  const turnPages = Math.max(1, Math.floor(TURN_SIZE / database.pageSize));
  for (let first = 1; first <= commit; first += turnPages) {
    const last = Math.min(commit, first + turnPages - 1);
    readPages(database, state.overlay, first, last, (pgno, page) => {
      pageChecksum(pgno, page, sum);
      total.xorPage(sum.hi, sum.lo);
      visit(pgno, page, sum);
    });
    onProgress?.(last * database.pageSize, commit * database.pageSize);
    await nextTurn();
    await written?.pace();
    signal?.throwIfAborted();
    if (givesWay && last < commit && database.isCheckpointWaiting()) throw new GaveWay();
  }
  await written?.finish();
  return total.value();
}
