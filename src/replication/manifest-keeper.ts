/**
 * Keeps manifest.json up with what one database ships: read, add, write with If-Match. Called at snapshots, at shutdown
 * and at most once a minute, never once per file.
 */
import { hashObject, readChains, readFileEnds, readToldTime } from "../chain/chain.ts";
import {
  editManifest,
  emptyManifest,
  type Manifest,
  type ManifestEntry,
  manifestEntry,
  withEntries,
} from "../chain/manifest.ts";
import type { ChainFile } from "../chain/plan.ts";
import { hashStored } from "../chain/stored.ts";
import type { Destination } from "../destination/destination.ts";
import { folderOf } from "../destination/layout.ts";
import type { Txid } from "../ltx/txid.ts";

export interface ManifestIdentity {
  name: string;
  lineage: string;
  pageSize: number;
}

/**
 * Adds `entries` to the manifest at the destination. `complete`: they are everything that was shipped since the manifest
 * was last written; if not, files that it does not know are looked up first. What is taken out of `entries` meanwhile is left
 * out.
 */
export async function updateManifest(
  destination: Destination,
  identity: ManifestIdentity,
  entries: readonly ManifestEntry[],
  complete: boolean,
  nowMs: number,
  signal?: AbortSignal,
): Promise<void> {
  const edit = async (found: Manifest | null): Promise<Manifest> => {
    const known = found ?? emptyManifest(identity);
    const missed =
      complete && found !== null
        ? []
        : await readMissed(destination, identity.name, [...known.files, ...entries], signal);
    return withEntries({ ...known, pageSize: identity.pageSize }, [...missed, ...entries], nowMs);
  };
  await editManifest(destination, identity.name, edit, signal);
}

/** How far the manifest reaches once `entries` are in it. Null if something between is missing. */
export function reachedBy(manifestTxid: Txid, entries: readonly ManifestEntry[]): Txid | null {
  let reached = manifestTxid;
  for (const entry of entries) {
    if (entry.minTxid > reached + 1n) return null;
    if (entry.maxTxid > reached) reached = entry.maxTxid;
  }
  return reached;
}

// --- internal ---

/** Entries for listed files that are not in `known`: what a crash kept out of the manifest. */
async function readMissed(
  destination: Destination,
  name: string,
  known: readonly ManifestEntry[],
  signal: AbortSignal | undefined,
): Promise<ManifestEntry[]> {
  const keys = new Set(known.map((entry) => entry.key));
  const [chain] = await readChains(destination, `${name}/`, name, signal);
  const missed: ManifestEntry[] = [];
  for (const file of chain?.files ?? []) {
    if (keys.has(file.key.slice(folderOf(name).length))) continue;
    const { sizeBytes } = file;
    missed.push(manifestEntry(name, file.key, file, { sizeBytes, ...(await readFacts(destination, file, signal)) }));
  }
  return missed;
}

async function readFacts(destination: Destination, file: ChainFile, signal: AbortSignal | undefined) {
  if (destination.capabilities.encryption !== undefined) {
    const timestampMs = await readToldTime(destination, file, signal);
    const sha256 = await hashStored(destination, file, signal);
    return { timestampMs, sha256, checksums: { pre: 0n, post: 0n } };
  }
  const { header, trailer, metadata } = await readFileEnds(destination, file, signal);
  const checksums = { pre: header.preApplyChecksum, post: trailer.postApplyChecksum };
  const sha256 = metadata.sha256 ?? (await hashObject(destination, file, signal));
  return { timestampMs: header.timestampMs, sha256, checksums };
}
