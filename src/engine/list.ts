/** Which databases there are at a destination, and from when to when each can be restored. */
import { type Chain, readChains, readTimeOf } from "../chain/chain.ts";
import { restorePoints } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import type { Layout } from "../destination/layout.ts";
import type { Txid } from "../ltx/txid.ts";

export interface ListedDatabase {
  name: string;
  layout: Layout;
  /** The newest. */
  txid: Txid;
  snapshots: number;
  increments: number;
  bytes: number;
  /** Wall times of the oldest and the newest restore point; oldest is null if there is no snapshot. */
  oldestMs: number | null;
  newestMs: number;
}

/** Every database, by name. Throws E_UNREACHABLE, E_REFUSED, E_INTEGRITY, LtxError. */
export async function listDatabases(destination: Destination, signal: AbortSignal): Promise<ListedDatabase[]> {
  const chains = await readChains(destination, "", undefined, signal);
  const listed: ListedDatabase[] = [];
  for (let first = 0; first < chains.length; first += AT_ONCE) {
    const part = chains.slice(first, first + AT_ONCE);
    listed.push(...(await Promise.all(part.map((chain) => describe(destination, chain, signal)))));
  }
  return listed;
}

/** `name`, or the names of all databases if there is none given. */
export async function namesAt(
  destination: Destination,
  name: string | undefined,
  signal: AbortSignal,
): Promise<string[]> {
  if (name !== undefined) return [name];
  return (await readChains(destination, "", undefined, signal)).map((chain) => chain.name);
}

// --- internal ---

/** Databases that are looked at side by side: two small requests each. */
const AT_ONCE = 8;

async function describe(destination: Destination, chain: Chain, signal: AbortSignal): Promise<ListedDatabase> {
  const { files } = chain;
  const snapshots = files.filter((file) => file.kind === "snapshot");
  const txid = restorePoints(files).at(-1)!;
  const oldest = restorePoints(snapshots)[0];
  return {
    name: chain.name,
    layout: chain.layout,
    txid,
    snapshots: snapshots.length,
    increments: files.length - snapshots.length,
    bytes: files.reduce((sum, file) => sum + file.sizeBytes, 0),
    oldestMs: oldest === undefined ? null : await readTimeOf(destination, files, oldest, signal),
    newestMs: await readTimeOf(destination, files, txid, signal),
  };
}
