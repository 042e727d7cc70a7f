/**
 * Merges increments at a destination: fetches them, makes one file of them, and puts it beside them. What it replaces is
 * removed later, once that file is seen to be there and to begin and end where they do.
 */
import { closeSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { hashObject, readFileEnds, vanished, verifyFile } from "../chain/chain.ts";
import type { ChainChecksums, LayoutRules } from "../chain/layout-rules.ts";
import { type ManifestEntry, manifestEntry } from "../chain/manifest.ts";
import type { ChainFile } from "../chain/plan.ts";
import { listedFacts } from "../chain/stored.ts";
import type { Destination, WriteSource } from "../destination/destination.ts";
import { inParallel } from "../destination/limit.ts";
import { asDiskError, makePrivateFolder, openTempFile, writeFully } from "../durable.ts";
import { DestinationError, WalsyncError } from "../errors.ts";
import { compactLtx } from "../ltx/compactor.ts";
import { LtxFileReader } from "../ltx/file-reader.ts";
import { HEADER_SIZE } from "../ltx/format.ts";
import type { FrontFile, Superseded } from "./merge-plan.ts";

export interface Merged {
  /** What was merged: as many of the files, from the first on, as have one page size. */
  files: readonly FrontFile[];
  /** Null if that is a single one, which the layout leaves as it is. */
  entry: ManifestEntry | null;
}

/**
 * Puts the merged file there. `folder` is for temporary files, and emptied. Throws LtxError or E_CHAIN_GAP if the files do not
 * fit together, E_INTEGRITY if another file has the key, E_DISK, DestinationError.
 */
export async function mergeIncrements(
  destination: Destination,
  rules: LayoutRules,
  name: string,
  planned: { files: readonly FrontFile[]; level: number },
  folder: string,
  signal: AbortSignal,
): Promise<Merged> {
  try {
    emptyFolder(folder);
    const fetched = planned.files.map((_, i) => join(folder, `${i}.ltx`));
    const metadata = await fetchAll(destination, planned.files, fetched, signal);
    const parts = ofOnePageSize(fetched);
    const files = planned.files.slice(0, parts.length);
    metadata.length = parts.length;
    const { minTxid } = files[0]!;
    const { maxTxid } = files.at(-1)!;
    const key = rules.mergedKey(name, { minTxid, maxTxid }, planned.level);
    if (key === files[0]!.key) return { files, entry: null };
    const path = join(folder, "merged.ltx");
    const { header, trailer, sizeBytes, sha256 } = await writeMerged(parts, path);
    signal.throwIfAborted();
    const checksums = {
      pre: rules.checksumsOf({ header, trailer, metadata: metadata[0]! })?.pre ?? 0n,
      post: rules.checksumsOf({ header, trailer, metadata: metadata.at(-1)! })?.post ?? 0n,
    };
    const commits = metadata.reduce((sum, part) => sum + Number(part.commits ?? 0), 0);
    const { timestampMs } = header;
    const attributes = rules.attributesOf({ sha256, commits, checksums, timestampMs });
    const source: WriteSource = { kind: "file", path, sizeBytes };
    const result = await destination.write(key, source, { condition: "absent", ...attributes, signal });
    // A crash, or a lost answer: the same parts give the same bytes.
    if (result.kind === "refused") await requireSame(destination, key, { minTxid, maxTxid, sha256 }, signal);
    const range = { minTxid, maxTxid };
    const facts = await listedFacts(destination, { key, ...range }, { sha256, checksums }, result, signal);
    return { files, entry: manifestEntry(name, key, range, { sizeBytes, timestampMs, ...facts }) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Throws E_INTEGRITY unless `wide` is there and begins and ends where `parts`, which are in order, do: reads the ends of
 * three files, and all of `wide` where their checksums are not told.
 */
export async function requireReplacement(
  destination: Destination,
  rules: LayoutRules,
  { wide, parts }: Superseded,
  signal: AbortSignal,
): Promise<void> {
  const checksums = async (file: ChainFile | undefined): Promise<ChainChecksums | null> =>
    file === undefined ? null : rules.checksumsOf(await readFileEnds(destination, file, signal));
  const found = await checksums(wide);
  const begins = await checksums(parts.find((file) => file.minTxid === wide.minTxid));
  const finishes = await checksums(parts.find((file) => file.maxTxid === wide.maxTxid));
  if (found === null || found.post === 0n) await verifyFile(destination, wide, signal);
  const isSame =
    found === null ||
    ((begins === null || begins.pre === found.pre) && (finishes === null || finishes.post === found.post));
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

/** Fetches the files to `paths`; returns their metadata. */
async function fetchAll(
  destination: Destination,
  files: readonly FrontFile[],
  paths: readonly string[],
  signal: AbortSignal,
): Promise<Record<string, string>[]> {
  const metadata: Record<string, string>[] = [];
  await inParallel(FETCHED_AT_ONCE, files.length, signal, async (i, innerSignal) => {
    const file = files[i]!;
    const body = await destination.read(file.key, { signal: innerSignal });
    if (body === null) throw vanished(destination, file);
    metadata[i] = body.metadata;
    const fd = openPart(paths[i]!);
    try {
      for await (const chunk of body.chunks) writeFully(fd, chunk);
    } catch (error) {
      throw error instanceof DestinationError ? error : asDiskError(paths[i]!, error);
    } finally {
      closeSync(fd);
    }
  });
  return metadata;
}

/** The first of the files, up to where a VACUUM gave the database pages of another size. */
function ofOnePageSize(paths: readonly string[]): readonly string[] {
  const sizes = paths.map((path) => {
    const reader = new LtxFileReader(path, HEADER_SIZE);
    reader.close();
    return reader.header.pageSize;
  });
  const end = sizes.findIndex((size) => size !== sizes[0]);
  return end < 0 ? paths : paths.slice(0, end);
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
