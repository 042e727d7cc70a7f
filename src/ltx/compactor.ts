/**
 * Merges LTX files that follow on from each other into one: applying it does what applying them in order does.
 * Promise: the result is complete only if every input was verified to its last byte; memory depends on the number of
 * inputs, not on their size.
 * Spec: https://github.com/superfly/ltx
 */
import { setImmediate } from "node:timers/promises";
import { assert } from "../assert.ts";
import { hex64, KiB, MiB } from "../bytes.ts";
import { ChainGapError, LtxError } from "../errors.ts";
import { lockPgno } from "../page.ts";
import { ChecksumAccumulator } from "./checksum.ts";
import type { LtxSummary } from "./decoder.ts";
import { LtxEncoder, type LtxEncoderOptions, type LtxSink } from "./encoder.ts";
import { LtxFileReader } from "./file-reader.ts";
import { hasChecksums, isSnapshot, type LtxHeader, nextSnapshotPgno } from "./format.ts";
import { formatTxid } from "./txid.ts";

/** How many files one merge may hold open. Merge more in rounds. */
export const MAX_COMPACT_INPUTS = 256;

export interface CompactResult extends LtxSummary {
  sizeBytes: number;
}

/**
 * Merges the files at `paths` (oldest first) and gives the result's bytes to `sink`. The newest version of a page wins;
 * pages that a later file cut off do not come back. Lets the event loop run between slices of work.
 * Throws ChainGapError if a file does not follow on from the one before, LtxError if one is damaged or they do not fit
 * together. After an error what the sink took is worthless.
 */
export async function compactLtx(
  paths: readonly string[],
  sink: LtxSink,
  options: LtxEncoderOptions = {},
): Promise<CompactResult> {
  assert(paths.length > 0 && paths.length <= MAX_COMPACT_INPUTS, `1 to ${MAX_COMPACT_INPUTS} files are merged at once`);
  const chunkSize = Math.max(8 * KiB, Math.min(128 * KiB, Math.floor((4 * MiB) / paths.length)));
  const readers: LtxFileReader[] = [];
  let encoder: LtxEncoder | null = null;
  try {
    for (const path of paths) readers.push(new LtxFileReader(path, chunkSize));
    for (let i = 1; i < readers.length; i++) checkNeighbours(readers[i - 1]!, readers[i]!);
    encoder = new LtxEncoder(sink, mergedHeader(readers), options);
    return await merge(readers, encoder);
  } catch (error) {
    encoder?.abort();
    throw error;
  } finally {
    for (const reader of readers) reader.close();
  }
}

// --- internal ---

/** How many bytes of pages may pass before the event loop gets a turn: some milliseconds of work. */
const BYTES_PER_TURN = MiB;

function checkNeighbours(before: LtxFileReader, after: LtxFileReader): void {
  const [a, b] = [before.header, after.header];
  if (a.pageSize !== b.pageSize) {
    throw new LtxError(`${after.path}: expected page size ${a.pageSize} as in ${before.path}, found ${b.pageSize}`);
  }
  if (hasChecksums(a) !== hasChecksums(b)) {
    throw new LtxError(`${after.path}: expected ${hasChecksums(a) ? "" : "no "}checksums as in ${before.path}`);
  }
  if (b.minTxid !== a.maxTxid + 1n) {
    throw new ChainGapError(
      `${after.path}: expected txid ${formatTxid(a.maxTxid + 1n)} after ${before.path}, found ${formatTxid(b.minTxid)}`,
    );
  }
  if (b.preApplyChecksum !== before.claimedPostApplyChecksum) {
    throw new ChainGapError(
      `${after.path}: expected to begin at database checksum ${hex64(before.claimedPostApplyChecksum)}, where ${before.path} ends, found ${hex64(b.preApplyChecksum)}`,
    );
  }
}

function mergedHeader(readers: readonly LtxFileReader[]): LtxHeader {
  const first = readers[0]!.header;
  const last = readers.at(-1)!.header;
  return {
    flags: last.flags,
    pageSize: last.pageSize,
    commit: last.commit,
    minTxid: first.minTxid,
    maxTxid: last.maxTxid,
    timestampMs: last.timestampMs,
    preApplyChecksum: first.preApplyChecksum,
    walOffset: 0,
    walSize: 0,
    salt1: 0,
    salt2: 0,
    nodeId: 0n,
  };
}

async function merge(readers: readonly LtxFileReader[], encoder: LtxEncoder): Promise<CompactResult> {
  const { header } = encoder;
  const limits = visibleLimits(readers);
  const sum = isSnapshot(header) && hasChecksums(header) ? new ChecksumAccumulator() : null;
  const coverage = new Coverage(header, Math.min(...readers.map((reader) => reader.header.commit)));

  for (const reader of readers) reader.advance();
  const pagesPerTurn = BYTES_PER_TURN / header.pageSize;
  for (let passed = 1; ; passed++) {
    if (passed % pagesPerTurn === 0) await setImmediate();
    let pgno = Number.POSITIVE_INFINITY;
    for (const reader of readers) if (reader.pgno < pgno) pgno = reader.pgno;
    if (pgno === Number.POSITIVE_INFINITY) break;

    // The newest file that holds the page and from which no later file cut it off.
    let winner: LtxFileReader | null = null;
    for (let i = readers.length - 1; i >= 0 && winner === null; i--) {
      if (readers[i]!.pgno === pgno && pgno <= limits[i]!) winner = readers[i]!;
    }
    if (winner !== null) {
      coverage.check(pgno);
      const { page, pageChecksum } = winner;
      encoder.encodePage(pgno, page, pageChecksum);
      sum?.xorPage(pageChecksum.hi, pageChecksum.lo);
    }
    for (const reader of readers) if (reader.pgno === pgno) reader.advance();
  }
  coverage.checkEnd();

  const { postApplyChecksum } = readers.at(-1)!.trailer;
  if (sum !== null && sum.value() !== postApplyChecksum) {
    throw new LtxError(
      `merge up to ${readers.at(-1)!.path}: expected the database checksum ${hex64(postApplyChecksum)}, found pages that make ${hex64(sum.value())}`,
    );
  }
  const trailer = encoder.finish(postApplyChecksum);
  return { header, trailer, pageCount: encoder.pageCount, sizeBytes: encoder.sizeBytes };
}

/** For each file the last page of it that counts: the smallest database size from it on. Later growth brings nothing back. */
function visibleLimits(readers: readonly LtxFileReader[]): number[] {
  const limits = new Array<number>(readers.length);
  let limit = Number.POSITIVE_INFINITY;
  for (let i = readers.length - 1; i >= 0; i--) {
    limit = Math.min(limit, readers[i]!.header.commit);
    limits[i] = limit;
  }
  return limits;
}

/**
 * Checks that no page is missing where the result must hold every one: all of a snapshot, and in an increment those beyond
 * the smallest size in between, since the base still has older contents there that the inputs had cut off.
 */
class Coverage {
  readonly #commit: number;
  readonly #lockPgno: number;
  #next: number;

  constructor(header: LtxHeader, smallestCommit: number) {
    this.#commit = header.commit;
    this.#lockPgno = lockPgno(header.pageSize);
    this.#next = nextSnapshotPgno(isSnapshot(header) ? 0 : smallestCommit, this.#lockPgno);
  }

  check(pgno: number): void {
    if (pgno < this.#next) return;
    if (pgno > this.#next) this.#missing();
    this.#next = nextSnapshotPgno(pgno, this.#lockPgno);
  }

  checkEnd(): void {
    if (this.#next <= this.#commit) this.#missing();
  }

  #missing(): never {
    throw new LtxError(
      `merge: expected page ${this.#next} of ${this.#commit} in one of the files, found it in none after the database last grew`,
    );
  }
}
