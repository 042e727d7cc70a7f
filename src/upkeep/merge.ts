/**
 * Merges increments at a destination: fetches them, makes one file of them, and puts it beside them. What it replaces is
 * removed later, once that file is seen to be there and to begin and end where they do.
 */
import { closeSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { hashObject, readFileEnds, vanished } from "../chain/chain.ts";
import type { ManifestEntry } from "../chain/manifest.ts";
import type { ChainFile } from "../chain/plan.ts";
import type { Destination, WriteSource } from "../destination/destination.ts";
import { formatKey } from "../destination/layout.ts";
import { inParallel } from "../destination/limit.ts";
import { asDiskError, makePrivateFolder, openTempFile, writeFully } from "../durable.ts";
import { DestinationError, WalsyncError } from "../errors.ts";
import { compactLtx } from "../ltx/compactor.ts";
import type { FrontFile } from "./merge-plan.ts";

/**
 * Puts the merged file there. `folder` is for temporary files, and emptied. Throws LtxError or E_CHAIN_GAP if the files do not
 * fit together, E_INTEGRITY if another file has the key, E_DISK, DestinationError.
 */
export async function mergeIncrements(
  destination: Destination,
  name: string,
  files: readonly FrontFile[],
  folder: string,
  signal: AbortSignal,
): Promise<ManifestEntry> {
  const { minTxid } = files[0]!;
  const { maxTxid } = files.at(-1)!;
  const key = formatKey({ layout: "walsync", name, minTxid, maxTxid });
  try {
    emptyFolder(folder);
    const parts = files.map((_, i) => join(folder, `${i}.ltx`));
    const commits = await fetchAll(destination, files, parts, signal);
    const path = join(folder, "merged.ltx");
    const { header, trailer, sizeBytes, sha256 } = await writeMerged(parts, path);
    signal.throwIfAborted();
    const metadata: Record<string, string> = commits > 0 ? { sha256, commits: String(commits) } : { sha256 };
    const source: WriteSource = { kind: "file", path, sizeBytes };
    const result = await destination.write(key, source, { condition: "absent", metadata, signal });
    // A crash, or a lost answer: the same parts give the same bytes.
    if (result.kind === "refused") await requireSame(destination, key, { minTxid, maxTxid, sha256 }, signal);
    return {
      key: key.slice(name.length + 1),
      kind: "increment",
      minTxid,
      maxTxid,
      sizeBytes,
      createdAtMs: header.timestampMs,
      sha256,
      preChecksum: header.preApplyChecksum,
      postChecksum: trailer.postApplyChecksum,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Throws E_INTEGRITY unless `wide` is there and begins and ends where `parts`, which are in order, do: reads the ends of
 * three files.
 */
export async function requireReplacement(
  destination: Destination,
  wide: ChainFile,
  parts: readonly ChainFile[],
  signal: AbortSignal,
): Promise<void> {
  const first = parts.find((file) => file.minTxid === wide.minTxid);
  const last = parts.find((file) => file.maxTxid === wide.maxTxid);
  const ends = await readFileEnds(destination, wide, signal);
  const begins = first === undefined ? null : await readFileEnds(destination, first, signal);
  const finishes = last === undefined ? null : await readFileEnds(destination, last, signal);
  const isSame =
    (begins === null || begins.header.preApplyChecksum === ends.header.preApplyChecksum) &&
    (finishes === null || finishes.trailer.postApplyChecksum === ends.trailer.postApplyChecksum);
  if (isSame) return;
  throw new WalsyncError(
    "E_INTEGRITY",
    `${wide.key}: expected to begin and end as the files that it replaces, found not`,
    {
      hint: "Nothing was removed. Run: walsync verify",
    },
  );
}

// --- internal ---

const FETCHED_AT_ONCE = 4;

function emptyFolder(folder: string): void {
  try {
    makePrivateFolder(folder);
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true, force: true });
  } catch (error) {
    throw asDiskError(folder, error);
  }
}

/** Fetches the files to `paths`; returns how many SQLite transactions they say that they hold. */
async function fetchAll(
  destination: Destination,
  files: readonly FrontFile[],
  paths: readonly string[],
  signal: AbortSignal,
): Promise<number> {
  let commits = 0;
  await inParallel(FETCHED_AT_ONCE, files.length, signal, async (i, innerSignal) => {
    const file = files[i]!;
    const body = await destination.read(file.key, { signal: innerSignal });
    if (body === null) throw vanished(destination, file);
    commits += Number(body.metadata.commits ?? 0);
    const fd = openPart(paths[i]!);
    try {
      for await (const chunk of body.chunks) writeFully(fd, chunk);
    } catch (error) {
      throw error instanceof DestinationError ? error : asDiskError(paths[i]!, error);
    } finally {
      closeSync(fd);
    }
  });
  return commits;
}

async function writeMerged(parts: readonly string[], path: string) {
  const hasher = new Bun.CryptoHasher("sha256");
  const fd = openPart(path);
  try {
    const merged = await compactLtx(
      parts,
      (bytes) => {
        hasher.update(bytes);
        try {
          writeFully(fd, bytes);
        } catch (error) {
          throw asDiskError(path, error);
        }
      },
      { spoolPath: `${path}.index` },
    );
    return { ...merged, sha256: hasher.digest("hex") };
  } finally {
    closeSync(fd);
  }
}

function openPart(path: string): number {
  try {
    return openTempFile(path);
  } catch (error) {
    throw asDiskError(path, error);
  }
}

async function requireSame(
  destination: Destination,
  key: string,
  { minTxid, maxTxid, sha256 }: Pick<ManifestEntry, "minTxid" | "maxTxid" | "sha256">,
  signal: AbortSignal,
): Promise<void> {
  const head = await destination.head(key, { signal });
  const found = head?.metadata.sha256 ?? (await hashObject(destination, { key, minTxid, maxTxid }, signal));
  if (found === sha256) return;
  throw new WalsyncError("E_INTEGRITY", `${destination.url}/${key}: expected our merged file, found another one`, {
    hint: "Another process merges the same increments. Nothing was removed.",
  });
}
