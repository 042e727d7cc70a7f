/** What a destination holds of one database, or of all of them: listings turned into chains. */
import type { Destination, ObjectInfo } from "../destination/destination.ts";
import { folderOf, type Layout, type LtxKey, manifestKey, parseKey, UNNAMED } from "../destination/layout.ts";
import { LtxError, VanishedError, WalsyncError } from "../errors.ts";
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
import { type ChainFile, pointsOf, restorePoints } from "./plan.ts";

/** As much of a file as its key tells. */
export type NamedFile = Pick<ChainFile, "key" | "minTxid" | "maxTxid">;

export interface Chain {
  name: string;
  layout: Layout;
  /** In no particular order. */
  files: ChainFile[];
}

/** As it is listed, whether that can be a chain or not. */
export interface FoundChain extends Chain {
  /** Why not: E_INTEGRITY. `layout` is that of the first file then. */
  fault: WalsyncError | null;
}

/**
 * All files of `name`. Throws E_NOT_FOUND if there are none, telling what is there instead, and E_REFUSED for more than `maxFiles`.
 */
export async function readChain(
  destination: Destination,
  name: string,
  signal?: AbortSignal,
  maxFiles = Number.POSITIVE_INFINITY,
): Promise<Chain> {
  const [chain] = await readChains(destination, folderOf(name), name, signal, maxFiles);
  if (chain !== undefined) return chain;
  throw await notFound(destination, name, signal);
}

/**
 * The chains of every database below `prefix`, by name; of `only` if given. Throws E_INTEGRITY if one of them cannot be one, and
 * E_REFUSED for one of more than `maxFiles`.
 */
export async function readChains(
  destination: Destination,
  prefix: string,
  only?: string,
  signal?: AbortSignal,
  maxFiles = Number.POSITIVE_INFINITY,
): Promise<Chain[]> {
  const found = await findChains(destination, prefix, only, signal, maxFiles);
  for (const { fault } of found) if (fault !== null) throw fault;
  return found;
}

/** As `readChains`, but what is wrong with one chain is told beside it, and keeps nobody from the others. */
export async function findChains(
  destination: Destination,
  prefix: string,
  only?: string,
  signal?: AbortSignal,
  maxFiles = Number.POSITIVE_INFINITY,
): Promise<FoundChain[]> {
  const chains = new Map<string, FoundChain>();
  for await (const object of destination.list(prefix, { signal })) {
    const parsed = parseKey(object.key);
    if (parsed === null || parsed.is !== "ltx" || (only !== undefined && parsed.name !== only)) continue;
    let chain = chains.get(parsed.name);
    if (chain === undefined) {
      chain = { name: parsed.name, layout: parsed.layout, files: [], fault: null };
      chains.set(parsed.name, chain);
    }
    if (chain.layout !== parsed.layout) chain.fault ??= mixedLayouts(destination, parsed.name);
    if (chain.files.push(chainFileOf(object, parsed)) > maxFiles) throw tooMany(destination, parsed.name, maxFiles);
  }
  return [...chains.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A listed object whose key is that of an LTX file. */
export function chainFileOf({ key, sizeBytes, modifiedAt, storedAt }: ObjectInfo, parsed: LtxKey): ChainFile {
  const { minTxid, maxTxid } = parsed;
  return {
    key,
    // A file from txid 1 on holds every page, in whichever level folder it lies.
    kind: minTxid === 1n ? "snapshot" : "increment",
    minTxid,
    maxTxid,
    sizeBytes,
    modifiedAt,
    storedAt,
    level: parsed.layout === "litestream" ? parsed.level : 0,
  };
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
  const { restorable, lost } = pointsOf(chain.files);
  // Those with a gap before them stay: to pass over them would hide it.
  const points = [...restorable, ...lost].sort((a, b) => (a < b ? -1 : 1));
  const fileOf = (i: number): ChainFile => firstEndingAt(chain.files, points[i]!);
  const timestampOf = (i: number): Promise<number> => readTimeOf(destination, chain.files, points[i]!, signal);
  if (points.length === 0) return restorePoints(chain.files).at(-1)!; // No snapshot at all: the planner tells.
  let low = 0;
  let high = points.length - 1;
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

/** When the state after `txid`, the end of a file, was captured. Nothing proves what tells it. */
export async function readTimeOf(
  destination: Destination,
  files: readonly ChainFile[],
  txid: Txid,
  signal?: AbortSignal,
): Promise<number> {
  const file = firstEndingAt(files, txid);
  if (destination.capabilities.encryption === "sealed") return await readToldTime(destination, file, signal);
  return (await readFileHeader(destination, file, signal)).timestampMs;
}

/** When the last state in an encrypted file was captured, as is told beside it in the clear. Throws LtxError, VanishedError. */
export async function readToldTime(destination: Destination, file: NamedFile, signal?: AbortSignal): Promise<number> {
  const head = await destination.head(file.key, { signal });
  if (head === null) throw vanished(destination, file);
  const timestampMs = Date.parse(head.metadata.timestamp ?? "");
  if (Number.isFinite(timestampMs)) return timestampMs;
  throw new LtxError(`${file.key}: expected the time of its state beside it, found none`);
}

/** As `readTimeOf`, proven by the checksum of the whole file. Throws LtxError. */
export async function proveTimeOf(
  destination: Destination,
  files: readonly ChainFile[],
  txid: Txid,
  signal?: AbortSignal,
): Promise<number> {
  return (await verifyFile(destination, firstEndingAt(files, txid), signal)).timestampMs;
}

/** Reads a whole file and checks everything that can be checked about it alone. Returns its header. Throws LtxError. */
export async function verifyFile(destination: Destination, file: ChainFile, signal?: AbortSignal): Promise<LtxHeader> {
  const body = await destination.read(file.key, { signal });
  if (body === null) throw vanished(destination, file);
  const decoder = new LtxDecoder({ name: file.key, expectedSizeBytes: file.sizeBytes });
  for await (const chunk of body.chunks) decoder.push(chunk);
  const { header } = decoder.finish();
  requireHeaderOfKey(file, header);
  return header;
}

/** Hex sha256 of an object's bytes, for where it is not kept as metadata. */
export async function hashObject(destination: Destination, file: NamedFile, signal?: AbortSignal): Promise<string> {
  const body = await destination.read(file.key, { signal });
  if (body === null) throw vanished(destination, file);
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of body.chunks) hasher.update(chunk);
  return hasher.digest("hex");
}

export function vanished(destination: Destination, file: NamedFile): VanishedError {
  return new VanishedError(`${destination.url}: expected ${file.key} as listed, found it gone`, {
    retryable: true,
    hint: "Files were merged or pruned at this moment. Run the command again.",
  });
}

// --- internal ---

const SUGGESTED_NAMES = 10;
/** What Litestream 0.3 keeps: https://litestream.io/how-it-works/ */
const LITESTREAM_03_FOLDER = "generations";

/** Why there is nothing of this name, as far as a short look tells. */
async function notFound(
  destination: Destination,
  name: string,
  signal: AbortSignal | undefined,
): Promise<WalsyncError> {
  const { url } = destination;
  if ((await foldersIn(destination, folderOf(name), signal)).includes(LITESTREAM_03_FOLDER)) {
    const found = `a Litestream 0.3 replica: ${folderOf(name)}${LITESTREAM_03_FOLDER}/`;
    return new WalsyncError("E_NOT_FOUND", `${name}: expected LTX files in ${url}, found ${found}`, {
      hint: "walsync reads what Litestream 0.5 writes. Restore this one with litestream 0.3.",
    });
  }
  const message = `${name}: expected a database of this name in ${url}, found none`;
  const others = await foldersIn(destination, "", signal);
  if (name !== UNNAMED && (await isDatabaseFolder(destination, others, signal))) {
    return new WalsyncError("E_NOT_FOUND", message, {
      hint: `The files of one database lie right here. Leave out the last part of the destination, or write "${UNNAMED}" for the name.`,
    });
  }
  return new WalsyncError("E_NOT_FOUND", message, {
    hint: others.length === 0 ? "There is nothing at all; check bucket and prefix." : `There is: ${others.join(", ")}`,
  });
}

async function foldersIn(destination: Destination, prefix: string, signal: AbortSignal | undefined): Promise<string[]> {
  const folders: string[] = [];
  for await (const folder of destination.listFolders(prefix, { signal })) {
    if (folders.push(folder) === SUGGESTED_NAMES) break;
  }
  return folders;
}

/** True if the destination is the folder of one database, where one would expect the folders of several. */
async function isDatabaseFolder(
  destination: Destination,
  folders: readonly string[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if (folders.some((folder) => /^000[0-9]$/.test(folder))) return true;
  const levels = folders.includes("ltx") ? await foldersIn(destination, "ltx/", signal) : [];
  if (levels.some((level) => /^[0-9]$/.test(level))) return true;
  return (await destination.head(manifestKey(UNNAMED), { signal })) !== null;
}

/**
 * The file that tells when this state was reached. A snapshot that Litestream takes has the time at which it was taken, which is
 * later; and the smallest is the cheapest to verify.
 */
function firstEndingAt(files: readonly ChainFile[], txid: Txid): ChainFile {
  const [first] = files
    .filter((file) => file.maxTxid === txid)
    .sort((a, b) => a.level - b.level || a.sizeBytes - b.sizeBytes);
  return first!;
}

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

function tooMany(destination: Destination, name: string, maxFiles: number): WalsyncError {
  return new WalsyncError(
    "E_REFUSED",
    `${destination.url}: expected at most ${maxFiles} files of ${name}, found more`,
    {
      hint: "walsync list and verify read chains of any length; merging and compaction keep them short.",
    },
  );
}
