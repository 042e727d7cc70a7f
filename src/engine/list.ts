/** Which databases there are at a destination, and from when to when each can be restored. */
import { type FoundChain, findChains, readTimeOf } from "../chain/chain.ts";
import { restorePoints } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import type { Layout } from "../destination/layout.ts";
import { inParallel } from "../destination/limit.ts";
import { WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";

export interface ListedDatabase {
  name: string;
  layout: Layout;
  /** The newest. */
  txid: Txid;
  snapshots: number;
  increments: number;
  bytes: number;
  /** Wall times of the oldest and the newest restore point. Null if damage hides them; oldest also if there is no snapshot. */
  oldestMs: number | null;
  newestMs: number | null;
  /** E_INTEGRITY or E_LTX, for as much as was looked at; null if that is in order. */
  fault: WalsyncError | null;
}

/**
 * Every database, by name. What is damaged of one is its `fault`, and keeps nobody from the others. Throws E_UNREACHABLE,
 * E_REFUSED, and E_IDENTITY for encrypted files that cannot be read.
 */
export async function listDatabases(destination: Destination, signal: AbortSignal): Promise<ListedDatabase[]> {
  const chains = await findChains(destination, "", undefined, signal);
  const listed: ListedDatabase[] = [];
  await inParallel(AT_ONCE, chains.length, signal, async (i, either) => {
    listed[i] = await describe(destination, chains[i]!, either);
  });
  return listed;
}

/** `name`, or the names of all databases if there is none given. */
export async function namesAt(
  destination: Destination,
  name: string | undefined,
  signal: AbortSignal,
): Promise<string[]> {
  if (name !== undefined) return [name];
  return (await findChains(destination, "", undefined, signal)).map((chain) => chain.name);
}

// --- internal ---

/** Databases that are looked at side by side: two small requests each. */
const AT_ONCE = 8;
const DAMAGE: ReadonlySet<string> = new Set(["E_INTEGRITY", "E_LTX"]);

async function describe(destination: Destination, chain: FoundChain, signal: AbortSignal): Promise<ListedDatabase> {
  const { name, layout, files } = chain;
  let { fault } = chain;
  const timeOf = async (txid: Txid | undefined): Promise<number | null> => {
    if (txid === undefined || chain.fault !== null) return null;
    try {
      return await readTimeOf(destination, files, txid, signal);
    } catch (error) {
      if (!(error instanceof WalsyncError) || !DAMAGE.has(error.code)) throw error;
      fault ??= error;
      return null;
    }
  };
  const snapshots = files.filter((file) => file.kind === "snapshot");
  const txid = restorePoints(files).at(-1)!;
  const oldestMs = await timeOf(restorePoints(snapshots)[0]);
  const newestMs = await timeOf(txid);
  return {
    name,
    layout,
    txid,
    snapshots: snapshots.length,
    increments: files.length - snapshots.length,
    bytes: files.reduce((sum, file) => sum + file.sizeBytes, 0),
    oldestMs,
    newestMs,
    fault,
  };
}
