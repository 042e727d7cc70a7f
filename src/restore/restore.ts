/**
 * From a chain of LTX files to a database file: byte for byte a state that the database had, or an error.
 *
 * Files are applied newest first, so each page is written once. Nothing appears under the output's name before every
 * file, the chain, the written file and SQLite's own check agree: temp file, fsync, rename, fsync folder.
 */
import { type Chain, findTxidAt, proveTimeOf, readChain, requireHeaderOfKey } from "../chain/chain.ts";
import { fetchInOrder } from "../chain/fetch.ts";
import { claimedChecksums } from "../chain/layout-rules.ts";
import { readHashes } from "../chain/manifest.ts";
import { type ChainFile, planChain } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { asDiskError } from "../durable.ts";
import { errnoOf, LtxError, VanishedError, WalsyncError } from "../errors.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import type { Txid } from "../ltx/txid.ts";
import { RestoreOutput, requireFreeOutput } from "./output.ts";
import type { RestoreTarget } from "./restore-target.ts";
import { integrityOf } from "./restored-database.ts";
import { type Finished, TargetFile } from "./target-file.ts";

export type IntegrityCheck = "quick" | "full" | "none";

export interface RestoreOptions {
  target: RestoreTarget;
  integrity: IntegrityCheck;
  /** Replace an existing output, at the last moment. */
  force: boolean;
  signal?: AbortSignal | undefined;
  /** Told the size of the database before its first page is written. What it throws ends the restore. */
  onSize?: ((sizeBytes: number) => void) | undefined;
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
  for (let attempt = 1; ; attempt++) {
    try {
      return await restoreOnce(destination, name, output, options);
    } catch (error) {
      // Merged or pruned between the listing and the reading: another listing names what took its place.
      if (!(error instanceof VanishedError) || attempt === ATTEMPTS) throw withHint(error);
    }
  }
}

// --- internal ---

const ATTEMPTS = 5;

async function restoreOnce(
  destination: Destination,
  name: string,
  output: string,
  options: RestoreOptions,
): Promise<RestoreResult> {
  const chain = await readChain(destination, name, options.signal);
  const files = planChain(name, chain.files, await targetTxid(destination, chain, options));
  const file = new RestoreOutput(output, options.force);
  try {
    const built = await buildFile(destination, name, files, file, options);
    const result = { ...built, timestampMs: await timeInTarget(destination, chain, built, options) };
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

async function targetTxid(
  destination: Destination,
  chain: Chain,
  { target, signal }: RestoreOptions,
): Promise<Txid | null> {
  if (target.kind === "time") return findTxidAt(destination, chain, target.atMs, signal);
  return target.kind === "txid" ? target.txid : null;
}

/**
 * When the restored state was captured. The search went by headers that nothing had proven yet; the file that was applied is
 * proven, but if it is a snapshot, it may tell a later time than another file that ends at the same txid.
 */
async function timeInTarget(
  destination: Destination,
  { name, files }: Chain,
  { txid, timestampMs }: RestoreResult,
  { target, signal }: RestoreOptions,
): Promise<number> {
  if (target.kind !== "time" || timestampMs <= target.atMs) return timestampMs;
  const provenMs = await proveTimeOf(destination, files, txid, signal);
  if (provenMs <= target.atMs) return provenMs;
  const [expected, found] = [target.atMs, provenMs].map((ms) => new Date(ms).toISOString());
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
  for await (const { file, chunks, metadata } of fetchInOrder(destination, files.toReversed(), signal)) {
    const sha256 = hashes === null ? metadata.sha256 : hashes.get(file.key);
    const hasher = sha256 === undefined ? null : new Bun.CryptoHasher("sha256");
    const decoder = new LtxDecoder({
      name: file.key,
      expectedSizeBytes: file.sizeBytes,
      onHeader: (header) => {
        requireHeaderOfKey(file, header);
        target.begin(file, header.pageSize, header.commit);
        if (file === files.at(-1)) options.onSize?.(header.commit * header.pageSize);
      },
      onPage: (pgno, page) => target.put(pgno, page),
    });
    for await (const chunk of chunks) {
      hasher?.update(chunk);
      decoder.push(chunk);
      await target.pace();
      fetchedBytes += chunk.byteLength;
      options.onProgress?.(fetchedBytes, totalBytes);
    }
    const ends = decoder.finish();
    requireSha256(file, sha256, hasher?.digest("hex"));
    target.end(file, ends.header, claimedChecksums({ ...ends, metadata }));
  }
  return { ...(await target.finish(signal)), fileCount: files.length, fetchedBytes };
}

function requireSha256(file: ChainFile, expected: string | undefined, found: string | undefined): void {
  if (expected === undefined || expected === found) return;
  throw new WalsyncError("E_INTEGRITY", `${file.key}: expected sha256 ${expected}, found ${found}`, {
    hint: "The object is damaged. Restore to a point before it, or after the next snapshot.",
  });
}

/** Of a damaged file the codec knows what is wrong, and only who restores knows what can be done. */
function withHint(error: unknown): unknown {
  if (!(error instanceof LtxError) || error.hint !== undefined) return error;
  const hint = "The file is damaged. Restore to a point before it, or after the next snapshot.";
  return new LtxError(error.message, { hint, cause: error.cause });
}

/** Lets SQLite look at the finished file. */
function checkWithSqlite(name: string, path: string, check: IntegrityCheck): void {
  if (check === "none") return;
  const pragma = check === "full" ? "integrity_check" : "quick_check";
  const found = integrityOf(path, pragma);
  if (found === "ok") return;
  throw new WalsyncError("E_INTEGRITY", `${name}: expected PRAGMA ${pragma} to say ok, found: ${found}`, {
    hint: "The source was damaged already when it was captured. --integrity none restores it as it was.",
  });
}
