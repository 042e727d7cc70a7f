/** Deletes what retention does not keep: the manifest first, then the files, in an order in which nothing listed breaks. */
import { type Chain, readChain, readFileEnds, readToldTime } from "../chain/chain.ts";
import { editManifest, type Manifest } from "../chain/manifest.ts";
import { type ChainFile, planChain } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { folderOf, type Layout } from "../destination/layout.ts";
import { inParallel } from "../destination/limit.ts";
import {
  type DatedSnapshot,
  deletionOrder,
  planRetention,
  type RetentionPlan,
  type RetentionPolicy,
} from "./retention.ts";
import { upkeepRules } from "./upkeep-rules.ts";

export interface Pruning {
  name: string;
  layout: Layout;
  plan: RetentionPlan;
  /** What the plan deletes, in order. */
  keys: string[];
  sizeBytes: number;
}

/**
 * What would be deleted now. Throws E_NOT_FOUND if there is nothing of `name`; E_CHAIN_GAP if the newest state cannot be
 * restored: nothing is given up then.
 */
export async function planPruning(
  destination: Destination,
  name: string,
  policy: RetentionPolicy,
  nowMs: number,
  signal?: AbortSignal,
): Promise<Pruning> {
  return await planPruningOf(destination, await readChain(destination, name, signal), policy, nowMs, signal);
}

/** As `planPruning`, for what was listed. */
export async function planPruningOf(
  destination: Destination,
  chain: Chain,
  policy: RetentionPolicy,
  nowMs: number,
  signal?: AbortSignal,
): Promise<Pruning> {
  const { name } = chain;
  planChain(name, chain.files, null);
  const staying = upkeepRules(chain.layout).mustStay(chain.files);
  const plan = planRetention(chain.files, await dateSnapshots(destination, chain, signal), policy, nowMs, staying);
  const doomed = deletionOrder(plan);
  return {
    name,
    layout: chain.layout,
    plan,
    keys: doomed.map((file) => file.key),
    sizeBytes: doomed.reduce((sum, file) => sum + file.sizeBytes, 0),
  };
}

/** Deletes what `planPruning` found. A crash at any point leaves files that the next pruning deletes. */
export async function prune(destination: Destination, { name, keys }: Pruning, signal?: AbortSignal): Promise<void> {
  if (keys.length > 0) await removeFiles(destination, name, keys, signal);
}

/** Removes files of one chain in this order, and their entries in the manifest. */
export async function removeFiles(
  destination: Destination,
  name: string,
  keys: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  await forget(destination, name, keys, signal);
  // One batch after the other: a batch that a server leaves half done may hold a hole, the next one must not begin before.
  for (let first = 0; first < keys.length; first += DELETE_BATCH) {
    await destination.remove(keys.slice(first, first + DELETE_BATCH), { signal });
  }
  // A watch that listed the files before they went may have put them back into the manifest, or be about to: its write
  // fails now, and it lists again.
  await forget(destination, name, keys, signal);
}

// --- internal ---

/** Two small requests for each snapshot. */
const SNAPSHOTS_AT_ONCE = 8;
/** S3 removes a thousand keys at once. */
const DELETE_BATCH = 1000;

/** By the ends of every snapshot: one that cannot be read is not what others are given up for. */
async function dateSnapshots(
  destination: Destination,
  { files }: Chain,
  signal: AbortSignal | undefined,
): Promise<DatedSnapshot[]> {
  const snapshots = files.filter((file) => file.kind === "snapshot");
  const dated: DatedSnapshot[] = [];
  await inParallel(SNAPSHOTS_AT_ONCE, snapshots.length, signal, async (i, innerSignal) => {
    const file = snapshots[i]!;
    dated.push({ file, timestampMs: await timeOf(destination, file, innerSignal) });
  });
  return dated;
}

async function timeOf(destination: Destination, file: ChainFile, signal: AbortSignal): Promise<number> {
  if (destination.capabilities.encryption === "sealed") return await readToldTime(destination, file, signal);
  return (await readFileEnds(destination, file, signal)).header.timestampMs;
}

/** Takes the files out of the manifest, and writes it even if they are not in it. */
async function forget(
  destination: Destination,
  name: string,
  keys: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const gone = new Set(keys.map((key) => key.slice(folderOf(name).length)));
  const withoutGone = (manifest: Manifest | null): Manifest | null => {
    if (manifest === null) return null;
    return { ...manifest, files: manifest.files.filter(({ key }) => !gone.has(key)), updatedAtMs: Date.now() };
  };
  await editManifest(destination, name, withoutGone, signal);
}
