/** Increments on their way into a copy: fetched into a folder, merged into one file, and read page by page. */
import { closeSync, rmSync } from "node:fs";
import { join } from "node:path";
import { KiB } from "../bytes.ts";
import { requireHeaderOfKey } from "../chain/chain.ts";
import { fetchInOrder } from "../chain/fetch.ts";
import type { ChainFile } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { openTempFile, writeFully } from "../durable.ts";
import { WalsyncError } from "../errors.ts";
import { compactLtx, MAX_COMPACT_INPUTS } from "../ltx/compactor.ts";
import { LtxFileReader } from "../ltx/file-reader.ts";
import type { LtxHeader } from "../ltx/format.ts";
import type { PageChange } from "./prepared-change.ts";

/** Increments that are one local file by now. */
export interface FetchedIncrements {
  header: LtxHeader;
  postApplyChecksum: bigint;
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
    requireHeaderOfKey(file, reader.header);
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
  const { header, claimedPostApplyChecksum: postApplyChecksum } = reader;
  const { pageSize, commit } = header;
  return { header, postApplyChecksum, change: { pageSize, commit, pages: () => pagesOf(merged) } };
}

// --- internal ---

const READ_SIZE = 64 * KiB;

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
