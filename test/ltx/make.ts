/** Builds small LTX files for the tests of this folder: contents follow from a seed alone. */
import { ChecksumAccumulator, pageChecksum } from "../../src/ltx/checksum.ts";
import { LtxDecoder, type LtxSummary } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { HEADER_FLAG_NO_CHECKSUM, type LtxHeader } from "../../src/ltx/format.ts";
import { lockPgno } from "../../src/page.ts";

/** A database as the tests see it: its size in pages, and the pages by number. */
export interface ModelDatabase {
  pageSize: number;
  commit: number;
  pages: Map<number, Uint8Array>;
}

export type PageMap = Map<number, Uint8Array>;

/** Bytes of a hex string; white space is ignored. */
export function fromHex(text: string): Uint8Array {
  return Uint8Array.fromHex(text.replaceAll(/\s/g, ""));
}

/** A header that is valid as it stands: a snapshot of nothing in particular, without checksums. */
export function header(changes: Partial<LtxHeader> = {}): LtxHeader {
  return {
    flags: HEADER_FLAG_NO_CHECKSUM,
    pageSize: 512,
    commit: 1,
    minTxid: 1n,
    maxTxid: 1n,
    timestampMs: 1_700_000_000_000,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    salt1: 0,
    salt2: 0,
    nodeId: 0n,
    ...changes,
  };
}

/** The next number of a small generator (mulberry32), 0 to 2^32 - 1. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** A page that is partly noise and partly repetition, as database pages are. */
export function makePage(pageSize: number, seed: number): Uint8Array {
  const random = randomFrom(seed);
  const page = new Uint8Array(pageSize);
  const noise = random() % (pageSize + 1);
  for (let i = 0; i < pageSize; i++) page[i] = i < noise ? random() : i % 7;
  return page;
}

/** The whole file in memory. */
export function encodeFile(head: LtxHeader, pages: PageMap, postApplyChecksum: bigint): Uint8Array {
  const pieces: Uint8Array[] = [];
  const encoder = new LtxEncoder((bytes) => void pieces.push(bytes.slice()), head);
  for (const pgno of [...pages.keys()].sort((a, b) => a - b)) encoder.encodePage(pgno, pages.get(pgno)!);
  encoder.finish(postApplyChecksum);
  return Buffer.concat(pieces);
}

/** Decodes `bytes` in pieces of `chunkSize`; the pages are copies. */
export function decodeFile(bytes: Uint8Array, chunkSize = bytes.length): LtxSummary & { pages: PageMap } {
  const pages: PageMap = new Map();
  const decoder = new LtxDecoder({ onPage: (pgno, page) => void pages.set(pgno, page.slice()) });
  for (let at = 0; at < bytes.length; at += chunkSize) decoder.push(bytes.subarray(at, at + chunkSize));
  return { ...decoder.finish(), pages };
}

/** The database checksum, straight from its definition. */
export function databaseChecksum(database: ModelDatabase): bigint {
  const sum = new ChecksumAccumulator();
  const halves = { hi: 0, lo: 0 };
  for (const [pgno, page] of database.pages) {
    if (pgno > database.commit || pgno === lockPgno(database.pageSize)) continue;
    pageChecksum(pgno, page, halves);
    sum.xorPage(halves.hi, halves.lo);
  }
  return sum.value();
}

/** What applying a file does: write its pages, cut off what lies beyond the new size. */
export function applyFile(database: ModelDatabase, bytes: Uint8Array): ModelDatabase {
  const file = decodeFile(bytes);
  const pages = new Map([...database.pages, ...file.pages]);
  for (const pgno of pages.keys()) if (pgno > file.header.commit) pages.delete(pgno);
  return { pageSize: file.header.pageSize, commit: file.header.commit, pages };
}

/** A snapshot of `commit` pages, with checksums. */
export function snapshotFile(
  pageSize: number,
  commit: number,
  seed: number,
  changes: Partial<LtxHeader> = {},
): Uint8Array {
  const pages: PageMap = new Map();
  for (let pgno = 1; pgno <= commit; pgno++) pages.set(pgno, makePage(pageSize, seed + pgno));
  const head = header({ flags: 0, pageSize, commit, ...changes });
  const checksum = head.flags === 0 ? databaseChecksum({ pageSize, commit, pages }) : 0n;
  return encodeFile(head, pages, checksum);
}
