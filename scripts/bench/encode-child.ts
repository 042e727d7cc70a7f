/**
 * `encode-child DATABASE`: reads the WAL of a database and encodes it, several times, and prints the speed of each step as
 * JSON. Counts processor time, not time: other processes do not matter much.
 */
import { MiB } from "../../src/bytes.ts";
import { pageChecksum, type U64Halves } from "../../src/ltx/checksum.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import type { LtxHeader } from "../../src/ltx/format.ts";
import { lockPgno } from "../../src/page.ts";
import { PinnedDatabase } from "../../src/sqlite/database.ts";
import { cursorAtStart, readFramePage, readWalHeader, scanWal, type WalScan } from "../../src/sqlite/wal-reader.ts";

/** MiB of pages for a second of processor time. */
export interface EncodeSpeeds {
  scanSpeed: number;
  encodeSpeed: number;
  captureSpeed: number;
  copySpeed: number;
}

/** The first pass is for the JIT. */
const PASSES = 3;
/** More than the caches of processors hold. */
const COPY_BYTES = 64 * MiB;
const COPIES = 16;

export function measureEncoding(path: string): EncodeSpeeds {
  const database = PinnedDatabase.open(path);
  try {
    const scanned = speedOf(() => {
      const { frameCount } = scanAll(database);
      return frameCount * database.pageSize;
    });
    const scan = scanAll(database);
    const page = new Uint8Array(database.pageSize);
    const held = holdPages(database, scan);
    const encoded = speedOf(() => encode(scan, database.pageSize, (i) => held[i % held.length]!, null));
    const captured = speedOf(() => {
      const again = scanAll(database);
      const read = (i: number): Uint8Array => {
        readFramePage(database.walFd, again.end, again.pages.frameIndexes[i]!, page);
        return page;
      };
      return encode(again, database.pageSize, read, { hi: 0, lo: 0 });
    });
    return { scanSpeed: scanned, encodeSpeed: encoded, captureSpeed: captured, copySpeed: speedOf(copy) };
  } finally {
    database.close();
  }
}

// --- internal ---

const HELD_PAGES = 4096;

/** The best of the passes behind the first: what the machine does meanwhile only ever makes it slower. */
function speedOf(run: () => number): number {
  let best = 0;
  for (let pass = 0; pass < PASSES; pass++) {
    const before = process.cpuUsage();
    const bytes = run();
    const { user, system } = process.cpuUsage(before);
    if (pass > 0) best = Math.max(best, bytes / MiB / ((user + system) / 1e6));
  }
  return best;
}

function scanAll(database: PinnedDatabase): WalScan {
  return scanWal(
    database.walFd,
    database.pageSize,
    cursorAtStart(readWalHeader(database.walFd)!),
    database.walIndex().frameCount,
  );
}

/** Some pages in memory, so that encoding is measured without reading. */
function holdPages(database: PinnedDatabase, scan: WalScan): Uint8Array[] {
  return Array.from({ length: Math.min(HELD_PAGES, scan.pages.pgnos.length) }, (_, i) => {
    const page = new Uint8Array(database.pageSize);
    readFramePage(database.walFd, scan.end, scan.pages.frameIndexes[i]!, page);
    return page;
  });
}

/** Encodes every page of the scan to nowhere; with `sum` the checksum of each page, too, as a capture does. */
function encode(
  { commit, pages }: WalScan,
  pageSize: number,
  read: (index: number) => Uint8Array,
  sum: U64Halves | null,
): number {
  const header: LtxHeader = {
    flags: 0,
    pageSize,
    commit,
    minTxid: 2n,
    maxTxid: 2n,
    timestampMs: 0,
    preApplyChecksum: 1n << 63n,
    walOffset: 0,
    walSize: 0,
    salt1: 0,
    salt2: 0,
    nodeId: 0n,
  };
  const encoder = new LtxEncoder(() => {}, header);
  let bytes = 0;
  for (let i = 0; i < pages.pgnos.length; i++) {
    const pgno = pages.pgnos[i]!;
    if (pgno > commit || pgno === lockPgno(pageSize)) continue;
    const page = read(i);
    if (sum !== null) pageChecksum(pgno, page, sum);
    encoder.encodePage(pgno, page, sum ?? undefined);
    bytes += pageSize;
  }
  encoder.finish(1n << 63n);
  return bytes;
}

const copySource = new Uint8Array(COPY_BYTES).fill(7);
const copyTarget = new Uint8Array(COPY_BYTES);

function copy(): number {
  for (let i = 0; i < COPIES; i++) copyTarget.set(copySource);
  return COPIES * COPY_BYTES;
}

// Last: everything above must be there when it runs.
if (import.meta.main) console.log(JSON.stringify(measureEncoding(process.argv[2]!)));
