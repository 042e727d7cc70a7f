/** Increments on their way into a copy: fetched into a folder, merged into one file, and read page by page. */
import { closeSync, rmSync } from "node:fs";
import { join } from "node:path";
import { hex64, KiB } from "../bytes.ts";
import { requireHeaderOfKey } from "../chain/chain.ts";
import { fetchInOrder } from "../chain/fetch.ts";
import { type ChainChecksums, claimedChecksums } from "../chain/layout-rules.ts";
import type { ChainFile } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { openTempFile, writeFully } from "../durable.ts";
import { ChainGapError, WalsyncError } from "../errors.ts";
import { compactLtx, MAX_COMPACT_INPUTS } from "../ltx/compactor.ts";
import { LtxFileReader } from "../ltx/file-reader.ts";
import type { LtxHeader } from "../ltx/format.ts";
import type { PageChange } from "./prepared-change.ts";

/** Increments that are one local file by now. */
export interface FetchedIncrements {
  header: LtxHeader;
  /** Database checksum after them; 0 if the last of them claims none. */
  claimedPost: bigint;
  change: PageChange;
}

/**
 * A way along a chain in stretches that are applied in one go: files that follow on from each other without overlapping, as
 * many as are merged at once.
 */
export function splitPath(path: readonly ChainFile[]): ChainFile[][] {
  const stretches: ChainFile[][] = [];
  for (const file of path) {
    const last = stretches.at(-1);
    const follows = last?.at(-1)?.maxTxid === file.minTxid - 1n && last.length < MAX_COMPACT_INPUTS;
    if (last !== undefined && follows) last.push(file);
    else stretches.push([file]);
  }
  return stretches;
}

/**
 * Fetches one stretch into `folder`, where the result is read from later. Throws LtxError, ChainGapError if one is of another
 * history, E_INTEGRITY, a DestinationError.
 */
export async function fetchIncrements(
  destination: Destination,
  stretch: readonly ChainFile[],
  folder: string,
  signal: AbortSignal,
): Promise<FetchedIncrements> {
  const paths: string[] = [];
  let claimed: ChainChecksums = { pre: 0n, post: 0n };
  for await (const { file, chunks, metadata } of fetchInOrder(destination, stretch, signal)) {
    const path = join(folder, `${paths.length}.ltx`);
    const found = await writeHashed(path, chunks);
    if (metadata.sha256 !== undefined && metadata.sha256 !== found) {
      throw new WalsyncError("E_INTEGRITY", `${file.key}: expected sha256 ${metadata.sha256}, found ${found}`, {
        hint: "The object is damaged. The copy goes on from the next snapshot.",
      });
    }
    const reader = new LtxFileReader(path, READ_SIZE);
    reader.close();
    const { header, claimedPostApplyChecksum: postApplyChecksum } = reader;
    requireHeaderOfKey(file, header);
    const before = claimed.post;
    claimed = claimedChecksums({ header, trailer: { postApplyChecksum }, metadata });
    requireFollowingOn(file, before, claimed.pre);
    paths.push(path);
  }
  const merged = join(folder, "merged.ltx");
  const fd = openTempFile(merged);
  try {
    // Also a single one: every file is read to its end, and proven, before a page of it is used.
    await compactLtx(paths, (bytes) => writeFully(fd, bytes), { spoolPath: `${merged}.index` });
  } finally {
    closeSync(fd);
  }
  for (const path of paths) rmSync(path);
  const reader = new LtxFileReader(merged, READ_SIZE);
  reader.close();
  const { header } = reader;
  const { pageSize, commit } = header;
  return { header, claimedPost: claimed.post, change: { pageSize, commit, pages: () => pagesOf(merged) } };
}

// --- internal ---

const READ_SIZE = 64 * KiB;

/** By what the files claim; 0 for what nothing tells. */
function requireFollowingOn(file: ChainFile, before: bigint, pre: bigint): void {
  if (before === 0n || pre === 0n || before === pre) return;
  throw new ChainGapError(
    `${file.key}: expected to follow on from database checksum ${hex64(before)}, found ${hex64(pre)}`,
  );
}

/** Hex sha256 of what was written. */
async function writeHashed(path: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  const fd = openTempFile(path);
  try {
    for await (const chunk of chunks) {
      hasher.update(chunk);
      writeFully(fd, chunk);
    }
  } finally {
    closeSync(fd);
  }
  return hasher.digest("hex");
}

function* pagesOf(path: string): Generator<{ pgno: number; page: Uint8Array }> {
  const reader = new LtxFileReader(path, READ_SIZE);
  try {
    for (reader.advance(); Number.isFinite(reader.pgno); reader.advance()) {
      yield { pgno: reader.pgno, page: reader.page };
    }
  } finally {
    reader.close();
  }
}
