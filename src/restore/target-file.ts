/**
 * The database that a restore puts together, newest file first: which pages are there already, whether each file follows on
 * from the older one, and at the end the proof that the bytes on the disk are the state that was asked for.
 */
import { ftruncateSync } from "node:fs";
import { hex64, MiB } from "../bytes.ts";
import type { ChainChecksums } from "../chain/layout-rules.ts";
import type { ChainFile } from "../chain/plan.ts";
import { syncFile } from "../durable.ts";
import { WalsyncError } from "../errors.ts";
import { ChecksumAccumulator, pageChecksum, type U64Halves } from "../ltx/checksum.ts";
import { type LtxHeader, PAGE_HEADER_SIZE } from "../ltx/format.ts";
import type { Txid } from "../ltx/txid.ts";
import { lockPgno, pageCountWithoutLock, pageOffset } from "../page.ts";
import { readFully } from "../sqlite/wal-reader.ts";
import { nextTurn } from "../turn.ts";
import type { RestoreOutput } from "./output.ts";
import { PageSet } from "./page-set.ts";
import { PageWriter } from "./page-writer.ts";

/** What was put together. */
export interface Finished {
  txid: Txid;
  /** When the restored state was captured. */
  timestampMs: number;
  /** Size of the database. */
  sizeBytes: number;
  pageCount: number;
  /** Database checksum of the restored state; null if its newest file claims none. */
  postChecksum: bigint | null;
}

export class TargetFile {
  readonly #fd: number;
  readonly #path: string;
  readonly #name: string;
  readonly #totalBytes: number;
  #pageSize = 0;
  #commit = 0;
  #newest: Applied | null = null;
  /** The file applied before, which is the next newer one. */
  #newer: Applied | null = null;
  #written = new PageSet(0);
  #pages: PageWriter | null = null;
  #missingPages = 0;
  /** Smallest database size among newer files: what an older file holds behind it was cut off since. */
  #reach = 0;

  /** `totalBytes`: of all files that it is made of. */
  constructor({ fd, tempPath }: RestoreOutput, name: string, totalBytes: number) {
    this.#fd = fd;
    this.#path = tempPath;
    this.#name = name;
    this.#totalBytes = totalBytes;
  }

  begin(file: ChainFile, pageSize: number, commit: number): void {
    if (this.#newest === null && this.#pageSize === 0) {
      this.#requirePossible(file, pageSize, commit);
      this.#pageSize = pageSize;
      this.#commit = commit;
      this.#reach = commit;
      this.#written = new PageSet(commit);
      this.#pages = new PageWriter(this.#fd, this.#path, pageSize);
      this.#missingPages = pageCountWithoutLock(commit, pageSize);
      ftruncateSync(this.#fd, commit * pageSize);
    }
    // A resync that holds every page may follow on from pages of another size.
    if (pageSize !== this.#pageSize && this.#missingPages > 0) {
      throw new WalsyncError(
        "E_INTEGRITY",
        `${file.key}: expected page size ${this.#pageSize} as in newer files, found ${pageSize}`,
        { hint: "The database changed its page size here. Restore to a point before it, or after the next snapshot." },
      );
    }
  }

  /** A header alone must not claim memory and disk for more pages than could be in the files. */
  #requirePossible(file: ChainFile, pageSize: number, commit: number): void {
    const pagesMax = Math.floor(this.#totalBytes / (PAGE_HEADER_SIZE + pageSize / LZ4_RATIO_MAX)) + 1;
    if (commit <= pagesMax) return;
    throw new WalsyncError(
      "E_INTEGRITY",
      `${file.key}: expected at most ${pagesMax} pages in ${this.#totalBytes} bytes of files, found a header that says ${commit}`,
      { hint: "The file is damaged. Restore to a point before it, or after the next snapshot." },
    );
  }

  put(pgno: number, page: Uint8Array): void {
    if (this.#missingPages === 0 || pgno > this.#reach || this.#written.has(pgno)) return;
    this.#written.add(pgno);
    this.#missingPages--;
    this.#pages!.put(pgno, page);
  }

  /** Between parts of a file: keeps what is not on the disk yet bounded. Rejects with E_DISK. */
  async pace(): Promise<void> {
    await this.#pages?.sync.pace();
  }

  /** Checks that the newer file follows on from this one. `claimed`: 0 for what nothing tells. */
  end(file: ChainFile, header: LtxHeader, claimed: ChainChecksums): void {
    const newer = this.#newer;
    const pre = newer?.claimed.pre ?? 0n;
    const isProvable = pre !== 0n && claimed.post !== 0n;
    // A merged file that begins before this one ends has its pre-apply checksum from an earlier state.
    if (isProvable && newer!.header.minTxid === header.maxTxid + 1n && pre !== claimed.post) {
      throw new WalsyncError(
        "E_INTEGRITY",
        `${file.key}: expected database checksum ${hex64(pre)} after it, found ${hex64(claimed.post)}`,
        { hint: "Two histories are mixed here. Restore to a point before this file, or after the next snapshot." },
      );
    }
    this.#reach = Math.min(this.#reach, header.commit);
    this.#newer = { header, claimed };
    this.#newest ??= this.#newer;
  }

  /** Reads the whole file back: what counts is what the disk gives. Throws the reason of `signal`. */
  async finish(signal: AbortSignal | undefined): Promise<Finished> {
    const { header, claimed } = this.#newest!;
    const skipped = lockPgno(this.#pageSize);
    for (let pgno = 1; pgno <= this.#commit; pgno++) {
      if (pgno === skipped || this.#written.has(pgno)) continue;
      throw new WalsyncError(
        "E_INTEGRITY",
        `${this.#name}: expected page ${pgno} in some file of the chain, found none`,
      );
    }
    this.#pages?.flush();
    await this.#pages?.sync.finish();
    syncFile(this.#fd, this.#path);
    const found = await checksumOfFile(this.#fd, this.#pageSize, this.#commit, signal);
    if (claimed.post !== 0n && found !== claimed.post) {
      throw new WalsyncError(
        "E_INTEGRITY",
        `${this.#name}: expected database checksum ${hex64(claimed.post)}, found ${hex64(found)}`,
        { hint: "The chain or the disk is damaged. Restore to an earlier point." },
      );
    }
    return {
      txid: header.maxTxid,
      timestampMs: header.timestampMs,
      sizeBytes: this.#commit * this.#pageSize,
      pageCount: this.#commit,
      postChecksum: claimed.post === 0n ? null : claimed.post,
    };
  }
}

// --- internal ---

/** A file that was applied, and what it claims. */
interface Applied {
  header: LtxHeader;
  claimed: ChainChecksums;
}

/** No LZ4 block holds more bytes for one of its own. */
const LZ4_RATIO_MAX = 255;

/** Gives everybody else a turn after each part: a signal that ends a restore must not wait for the whole file. */
async function checksumOfFile(
  fd: number,
  pageSize: number,
  commit: number,
  signal: AbortSignal | undefined,
): Promise<bigint> {
  const part = new Uint8Array(Math.max(pageSize, MiB));
  const sum: U64Halves = { hi: 0, lo: 0 };
  const total = new ChecksumAccumulator();
  const skipped = lockPgno(pageSize);
  const pagesPerPart = part.byteLength / pageSize;
  for (let first = 1; first <= commit; first += pagesPerPart) {
    const count = Math.min(pagesPerPart, commit - first + 1);
    const filled = readFully(fd, part, count * pageSize, pageOffset(first, pageSize));
    part.fill(0, filled); // A file cut short behind our back must not reuse the part before.
    for (let i = 0; i < count; i++) {
      if (first + i === skipped) continue;
      pageChecksum(first + i, part.subarray(i * pageSize, (i + 1) * pageSize), sum);
      total.xorPage(sum.hi, sum.lo);
    }
    await nextTurn();
    signal?.throwIfAborted();
  }
  return total.value();
}
