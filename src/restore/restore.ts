/**
 * From a chain of LTX files to a database file: byte for byte a state that the database had, or an error.
 *
 * Files are applied newest first, so each page is written once. Nothing appears under the output's name before every
 * file, the chain, the written file and SQLite's own check agree: temp file, fsync, rename, fsync folder.
 */
import { constants, Database } from "bun:sqlite";
import { MiB } from "../bytes.ts";
import { findTxidAt, readChain, requireHeaderOfKey, vanished } from "../chain/chain.ts";
import { readHashes } from "../chain/manifest.ts";
import { type ChainFile, planChain } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { asDiskError } from "../durable.ts";
import { DestinationError, errnoOf, messageOf, WalsyncError } from "../errors.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import type { Txid } from "../ltx/txid.ts";
import { RestoreOutput, requireFreeOutput } from "./output.ts";
import { type Finished, TargetFile } from "./target-file.ts";

export type RestoreTarget = { kind: "newest" } | { kind: "txid"; txid: Txid } | { kind: "time"; atMs: number };
export type IntegrityCheck = "quick" | "full" | "none";

export interface RestoreOptions {
  target: RestoreTarget;
  integrity: IntegrityCheck;
  /** Replace an existing output, at the last moment. */
  force: boolean;
  signal?: AbortSignal | undefined;
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

export interface RestoreResult extends Finished {
  fileCount: number;
  /** Bytes fetched. */
  fetchedBytes: number;
}

/**
 * Restores database `name` into the file `output`. Throws E_OUTPUT_EXISTS, E_LOCKED, E_NOT_FOUND, E_CHAIN_GAP, E_LTX,
 * E_INTEGRITY, E_DISK or a DestinationError; the output is then as it was before.
 */
export async function restoreDatabase(
  destination: Destination,
  name: string,
  output: string,
  options: RestoreOptions,
): Promise<RestoreResult> {
  requireFreeOutput(output, options.force);
  const chain = await readChain(destination, name, options.signal);
  const files = planChain(name, chain.files, await targetTxid(destination, chain, options));
  const file = new RestoreOutput(output, options.force);
  try {
    const result = await buildFile(destination, name, files, file, options);
    requireInTime(name, result, options.target);
    checkWithSqlite(name, file.tempPath, options.integrity);
    options.signal?.throwIfAborted();
    file.publish();
    return result;
  } catch (error) {
    throw errnoOf(error) === undefined ? error : asDiskError(output, error);
  } finally {
    file.close();
  }
}

// --- internal ---

/** Files up to this size are fetched ahead, whole; larger ones are streamed when it is their turn. */
const SMALL_FILE = 1 * MiB;
/** Requests under way for files ahead: at most this many megabytes in memory. */
const FETCH_AHEAD = 8;

async function targetTxid(
  destination: Destination,
  chain: Awaited<ReturnType<typeof readChain>>,
  { target, signal }: RestoreOptions,
): Promise<Txid | null> {
  if (target.kind === "time") return findTxidAt(destination, chain, target.atMs, signal);
  return target.kind === "txid" ? target.txid : null;
}

/** The search went by headers that nothing had proven yet; the file that was applied is proven. */
function requireInTime(name: string, result: RestoreResult, target: RestoreTarget): void {
  if (target.kind !== "time" || result.timestampMs <= target.atMs) return;
  const [expected, found] = [target.atMs, result.timestampMs].map((ms) => new Date(ms).toISOString());
  throw new WalsyncError("E_INTEGRITY", `${name}: expected a state of ${expected} or before, found one of ${found}`, {
    hint: `A file's header is damaged. Restore the txid you mean: --point-in-time txid:N`,
  });
}

async function buildFile(
  destination: Destination,
  name: string,
  files: readonly ChainFile[],
  output: RestoreOutput,
  options: RestoreOptions,
): Promise<RestoreResult> {
  const { signal } = options;
  const hashes = destination.capabilities.metadata ? null : await readHashes(destination, name, signal);
  const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  let fetchedBytes = 0;
  const target = new TargetFile(output, name, totalBytes);
  for await (const { file, chunks, metadata } of fetchNewestFirst(destination, files, signal)) {
    const sha256 = hashes === null ? metadata.sha256 : hashes.get(file.key);
    const hasher = sha256 === undefined ? null : new Bun.CryptoHasher("sha256");
    const decoder = new LtxDecoder({
      name: file.key,
      expectedSizeBytes: file.sizeBytes,
      onHeader: (header) => {
        requireHeaderOfKey(file, header);
        target.begin(file, header.pageSize, header.commit);
      },
      onPage: (pgno, page) => target.put(pgno, page),
    });
    for await (const chunk of chunks) {
      hasher?.update(chunk);
      decoder.push(chunk);
      fetchedBytes += chunk.byteLength;
      options.onProgress?.(fetchedBytes, totalBytes);
    }
    const summary = decoder.finish();
    requireSha256(file, sha256, hasher?.digest("hex"));
    target.end(file, summary);
  }
  return { ...target.finish(), fileCount: files.length, fetchedBytes };
}

interface Fetched {
  file: ChainFile;
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  metadata: Record<string, string>;
}

/** Bodies newest first; the next few small ones are under way already. Memory is bounded by FETCH_AHEAD * SMALL_FILE. */
async function* fetchNewestFirst(
  destination: Destination,
  files: readonly ChainFile[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Fetched> {
  const order = files.toReversed();
  const ahead: Promise<Fetched>[] = [];
  const start = (file: ChainFile): Promise<Fetched> => {
    const fetched =
      file.sizeBytes <= SMALL_FILE ? fetchWhole(destination, file, signal) : open(destination, file, signal);
    fetched.catch(() => {}); // Looked at when its turn comes; until then a failure must not count as unhandled.
    return fetched;
  };
  for (let next = 0, turn = 0; turn < order.length; turn++) {
    // A large file is opened only when its turn comes: a body that waits is a connection that times out.
    while (next < order.length && next < turn + FETCH_AHEAD) {
      if (order[next]!.sizeBytes > SMALL_FILE && next !== turn) break;
      ahead.push(start(order[next++]!));
    }
    yield await ahead.shift()!;
  }
}

async function open(destination: Destination, file: ChainFile, signal: AbortSignal | undefined): Promise<Fetched> {
  const body = await destination.read(file.key, { signal });
  if (body === null) throw vanished(destination, file);
  return { file, chunks: body.chunks, metadata: body.metadata };
}

async function fetchWhole(
  destination: Destination,
  file: ChainFile,
  signal: AbortSignal | undefined,
): Promise<Fetched> {
  const fetched = await open(destination, file, signal);
  const bytes = new Uint8Array(file.sizeBytes);
  let filled = 0;
  for await (const chunk of fetched.chunks) {
    if (filled + chunk.byteLength > bytes.byteLength) throw changedSize(destination, file);
    bytes.set(chunk, filled);
    filled += chunk.byteLength;
  }
  if (filled !== bytes.byteLength) throw changedSize(destination, file);
  return { ...fetched, chunks: [bytes] };
}

function changedSize(destination: Destination, file: ChainFile): DestinationError {
  return new DestinationError(
    `${destination.url}: expected ${file.sizeBytes} bytes in ${file.key}, found another size`,
    {
      retryable: true,
      hint: "The object was replaced while it was read. Run the command again.",
    },
  );
}

function requireSha256(file: ChainFile, expected: string | undefined, found: string | undefined): void {
  if (expected === undefined || expected === found) return;
  throw new WalsyncError("E_INTEGRITY", `${file.key}: expected sha256 ${expected}, found ${found}`, {
    hint: "The object is damaged. Restore to a point before it, or after the next snapshot.",
  });
}

/** Lets SQLite look at the finished file, without locks and without files beside it. */
function checkWithSqlite(name: string, path: string, check: IntegrityCheck): void {
  if (check === "none") return;
  const uri = `file:${encodeURI(path).replaceAll("?", "%3f").replaceAll("#", "%23")}?immutable=1`;
  const pragma = check === "full" ? "integrity_check" : "quick_check";
  const found = runCheck(uri, pragma);
  if (found === "ok") return;
  throw new WalsyncError("E_INTEGRITY", `${name}: expected PRAGMA ${pragma} to say ok, found: ${found}`, {
    hint: "The source was damaged already when it was captured. --integrity none restores it as it was.",
  });
}

/** What the check says. A database that is damaged too badly to be checked fails in other ways: that is an answer too. */
function runCheck(uri: string, pragma: string): string {
  try {
    const connection = new Database(uri, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI);
    try {
      const rows = connection.query(`PRAGMA ${pragma}(10)`).values();
      return rows.map((row) => String(row[0])).join("; ");
    } finally {
      connection.close();
    }
  } catch (error) {
    return messageOf(error);
  }
}
