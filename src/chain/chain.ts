/** What a destination holds of one database, or of all of them: listings turned into chains. */
import type { Destination, ObjectInfo } from "../destination/destination.ts";
import { type Layout, type LtxKey, parseKey } from "../destination/layout.ts";
import { DestinationError, LtxError, WalsyncError } from "../errors.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import {
  decodeHeader,
  decodeHeaderAndTrailer,
  decodingFile,
  HEADER_SIZE,
  type LtxHeader,
  type LtxTrailer,
  TRAILER_SIZE,
} from "../ltx/format.ts";
import type { Txid } from "../ltx/txid.ts";
import { type ChainFile, restorePoints } from "./plan.ts";

/** As much of a file as its key tells. */
export type NamedFile = Pick<ChainFile, "key" | "minTxid" | "maxTxid">;

export interface Chain {
  name: string;
  layout: Layout;
  /** In no particular order. */
  files: ChainFile[];
}

/** All files of `name`. Throws E_NOT_FOUND if there are none, naming what is there instead. */
export async function readChain(destination: Destination, name: string, signal?: AbortSignal): Promise<Chain> {
  const [chain] = await readChains(destination, `${name}/`, name, signal);
  if (chain !== undefined) return chain;
  const others: string[] = [];
  for await (const folder of destination.listFolders("", { signal })) {
    if (others.push(folder) === SUGGESTED_NAMES) break;
  }
  throw new WalsyncError("E_NOT_FOUND", `${name}: expected a database of this name in ${destination.url}, found none`, {
    hint: others.length === 0 ? "There is nothing at all; check bucket and prefix." : `There is: ${others.join(", ")}`,
  });
}

/** The chains of every database below `prefix`, by name; of `only` if given. */
export async function readChains(
  destination: Destination,
  prefix: string,
  only?: string,
  signal?: AbortSignal,
): Promise<Chain[]> {
  const chains = new Map<string, Chain>();
  for await (const object of destination.list(prefix, { signal })) {
    const parsed = parseKey(object.key);
    if (parsed === null || parsed.is !== "ltx" || (only !== undefined && parsed.name !== only)) continue;
    let chain = chains.get(parsed.name);
    if (chain === undefined) chains.set(parsed.name, (chain = { name: parsed.name, layout: parsed.layout, files: [] }));
    if (chain.layout !== parsed.layout) throw mixedLayouts(destination, parsed.name);
    chain.files.push(chainFileOf(object, parsed));
  }
  return [...chains.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A listed object whose key is that of an LTX file. */
export function chainFileOf({ key, sizeBytes, modifiedAt }: ObjectInfo, { minTxid, maxTxid }: LtxKey): ChainFile {
  // A file from txid 1 on holds every page, in whichever level folder it lies.
  return { key, kind: minTxid === 1n ? "snapshot" : "increment", minTxid, maxTxid, sizeBytes, modifiedAt };
}

/** The header of one file, read with one small ranged request and checked against its key. */
export async function readFileHeader(
  destination: Destination,
  file: ChainFile,
  signal?: AbortSignal,
): Promise<LtxHeader> {
  const head = await readRange(destination, file, { first: 0, last: HEADER_SIZE - 1 }, signal);
  const header = decodingFile(file.key, () => decodeHeader(head.bytes));
  requireHeaderOfKey(file, header);
  return header;
}

/** Header, trailer and metadata of one file, read with two small ranged requests. Says nothing about its pages. */
export async function readFileEnds(
  destination: Destination,
  file: NamedFile,
  signal?: AbortSignal,
): Promise<{ header: LtxHeader; trailer: LtxTrailer; metadata: Record<string, string> }> {
  const head = await readRange(destination, file, { first: 0, last: HEADER_SIZE - 1 }, signal);
  const tail = await readRange(destination, file, { first: -TRAILER_SIZE }, signal);
  const ends = decodingFile(file.key, () => decodeHeaderAndTrailer(head.bytes, tail.bytes));
  requireHeaderOfKey(file, ends.header);
  return { ...ends, metadata: head.metadata };
}

/** Throws LtxError if the header is of other transactions than the key says. */
export function requireHeaderOfKey(file: NamedFile, header: LtxHeader): void {
  if (header.minTxid === file.minTxid && header.maxTxid === file.maxTxid) return;
  throw new LtxError(
    `${file.key}: expected txids ${file.minTxid}-${file.maxTxid} in its header, found ${header.minTxid}-${header.maxTxid}`,
    { hint: "The file was renamed or swapped. Restore to a point before it, or take a new snapshot." },
  );
}

/**
 * The newest restore point whose LTX timestamp is at or before `atMs`. Timestamps never decrease along a chain, so a
 * binary search needs a handful of small reads. Nothing proves a header but the checksum of its whole file: the file
 * that sets the upper limit is read to its end; the one that is found will be when it is restored. No header between
 * them can have misled the search then. Throws E_NOT_FOUND if the chain begins later, LtxError.
 */
export async function findTxidAt(
  destination: Destination,
  chain: Chain,
  atMs: number,
  signal?: AbortSignal,
): Promise<Txid> {
  const points = restorePoints(chain.files);
  const fileOf = (i: number): ChainFile => smallestEndingAt(chain.files, points[i]!);
  const timestampOf = async (i: number): Promise<number> =>
    (await readFileHeader(destination, fileOf(i), signal)).timestampMs;
  const oldestSnapshot = restorePoints(chain.files.filter((file) => file.kind === "snapshot"))[0];
  let low = oldestSnapshot === undefined ? -1 : points.indexOf(oldestSnapshot);
  let high = points.length - 1;
  if (low < 0) return points[high]!; // No snapshot at all: the planner tells.
  const firstMs = await timestampOf(low);
  if (firstMs > atMs) {
    await verifyFile(destination, fileOf(low), signal);
    throw new WalsyncError(
      "E_NOT_FOUND",
      `${chain.name}: expected a restore point at or before ${new Date(atMs).toISOString()}, found the first at ${new Date(firstMs).toISOString()}`,
      { hint: `The oldest point is --point-in-time ${new Date(firstMs).toISOString()}` },
    );
  }
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((await timestampOf(middle)) <= atMs) low = middle;
    else high = middle - 1;
  }
  if (low + 1 < points.length) await verifyFile(destination, fileOf(low + 1), signal);
  return points[low]!;
}

/** Reads a whole file and checks everything that can be checked about it alone. Throws LtxError. */
export async function verifyFile(destination: Destination, file: ChainFile, signal?: AbortSignal): Promise<void> {
  const body = await destination.read(file.key, { signal });
  if (body === null) throw vanished(destination, file);
  const decoder = new LtxDecoder({ name: file.key, expectedSizeBytes: file.sizeBytes });
  for await (const chunk of body.chunks) decoder.push(chunk);
  requireHeaderOfKey(file, decoder.finish().header);
}

/** Hex sha256 of an object's bytes, for where it is not kept as metadata. */
export async function hashObject(destination: Destination, file: NamedFile, signal?: AbortSignal): Promise<string> {
  const body = await destination.read(file.key, { signal });
  if (body === null) throw vanished(destination, file);
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of body.chunks) hasher.update(chunk);
  return hasher.digest("hex");
}

/** A listed file that is gone when it is read: pruned or merged meanwhile. */
export class VanishedError extends DestinationError {
  override readonly name = "VanishedError";
}

export function vanished(destination: Destination, file: NamedFile): VanishedError {
  return new VanishedError(`${destination.url}: expected ${file.key} as listed, found it gone`, {
    retryable: true,
    hint: "Files were merged or pruned at this moment. Run the command again.",
  });
}

// --- internal ---

function smallestEndingAt(files: readonly ChainFile[], txid: Txid): ChainFile {
  return files.filter((file) => file.maxTxid === txid).reduce((a, b) => (b.sizeBytes < a.sizeBytes ? b : a));
}

const SUGGESTED_NAMES = 10;

/** For a few bytes: all of them at once. */
async function readRange(
  destination: Destination,
  file: NamedFile,
  range: { first: number; last?: number },
  signal: AbortSignal | undefined,
): Promise<{ bytes: Buffer; metadata: Record<string, string> }> {
  const body = await destination.read(file.key, { range, signal });
  if (body === null) throw vanished(destination, file);
  const parts: Buffer[] = [];
  for await (const chunk of body.chunks) parts.push(Buffer.from(chunk));
  return { bytes: Buffer.concat(parts), metadata: body.metadata };
}

function mixedLayouts(destination: Destination, name: string): WalsyncError {
  return new WalsyncError("E_INTEGRITY", `${destination.url}: expected one layout below ${name}, found two`, {
    hint: "Another tool writes to the same name. Move one of them to another prefix.",
  });
}
