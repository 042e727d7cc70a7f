/**
 * Proves everything that a destination says about one database: every file, the chain that they form, the state after each of
 * them, and the manifest. What is wrong becomes a finding; only a destination that does not answer is thrown.
 */
import { type Chain, readChain, readFileEnds, requireHeaderOfKey } from "../chain/chain.ts";
import { fetchInOrder } from "../chain/fetch.ts";
import { claimedChecksums } from "../chain/layout-rules.ts";
import { type Manifest, readManifest } from "../chain/manifest.ts";
import type { ChainFile } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import { folderOf, type Layout, manifestKey } from "../destination/layout.ts";
import { messageOf, WalsyncError } from "../errors.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import { ChainWalk } from "./chain-walk.ts";
import { type Finding, finding } from "./findings.ts";
import { manifestFindings } from "./manifest-check.ts";
import { StateProof } from "./state-proof.ts";
import { type ExpectedSha256, walkSealed } from "./verify-sealed.ts";

export interface VerifyOptions {
  /** Reads headers, trailers and metadata only. */
  quick: boolean;
  signal?: AbortSignal | undefined;
  /** Bytes of all files; with `quick` the number of files. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface VerifyReport {
  name: string;
  layout: Layout;
  files: number;
  bytes: number;
  /** Restore points that are listed, and those of them whose state was made from the files and is what they claim. */
  points: number;
  proven: number;
  findings: Finding[];
}

/** Throws E_NOT_FOUND if there is nothing of `name`, E_UNREACHABLE, E_REFUSED. */
export async function verifyDatabase(
  destination: Destination,
  name: string,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const { signal } = options;
  for (let attempt = 1; ; attempt++) {
    // Before the listing: whatever it names was there by then, unless it was pruned meanwhile.
    const { manifest, damage } = await readManifestIfWhole(destination, name, signal);
    const chain = await readChain(destination, name, signal);
    const walk = await walkChain(destination, chain, manifest, options);
    // Merging and pruning remove files while we read: what a new listing does not hold is not missing.
    const { gone } = walk;
    if (gone.length > 0 && attempt < ATTEMPTS && !(await isAnyListed(destination, name, gone, signal))) continue;
    for (const file of gone) walk.add(file.key, "file-missing", "expected it as listed, found it gone");
    const { points, proven, findings } = walk;
    if (damage !== null) findings.push(damage);
    else if (chain.layout === "walsync")
      findings.push(...(await manifestFindings(destination, chain, manifest, signal)));
    const bytes = chain.files.reduce((sum, file) => sum + file.sizeBytes, 0);
    return { name, layout: chain.layout, files: chain.files.length, bytes, points, proven, findings };
  }
}

// --- internal ---

const ATTEMPTS = 3;
/** With two small requests for each file. */
const QUICK_AT_ONCE = 8;

async function readManifestIfWhole(
  destination: Destination,
  name: string,
  signal: AbortSignal | undefined,
): Promise<{ manifest: Manifest | null; damage: Finding | null }> {
  try {
    return { manifest: (await readManifest(destination, name, signal))?.manifest ?? null, damage: null };
  } catch (error) {
    if (!(error instanceof WalsyncError) || error.code !== "E_INTEGRITY") throw error;
    return { manifest: null, damage: finding(manifestKey(name), "manifest-damaged", messageOf(error)) };
  }
}

async function isAnyListed(
  destination: Destination,
  name: string,
  files: readonly ChainFile[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const chain = await readChain(destination, name, signal);
  const listed = new Set(chain.files.map((file) => file.key));
  return files.some((file) => listed.has(file.key));
}

async function walkChain(
  destination: Destination,
  chain: Chain,
  manifest: Manifest | null,
  options: VerifyOptions,
): Promise<ChainWalk> {
  const entries = new Map(manifest?.files.map((entry) => [`${folderOf(chain.name)}${entry.key}`, entry]));
  const { encryption } = destination.capabilities;
  const walk = new ChainWalk(chain, entries, encryption);
  const expected: ExpectedSha256 = (file, metadata) => metadata.sha256 ?? entries.get(file.key)?.sha256;
  if (encryption === "sealed") await walkSealed(destination, walk, expected, options);
  else {
    // Of an encrypted file what is compared is the object, which nobody sees who reads the file.
    const ofFiles = encryption === undefined ? expected : () => undefined;
    await (options.quick ? walkQuickly : walkWhole)(destination, walk, ofFiles, options);
  }
  walk.finish();
  return walk;
}

/** Reads every byte, and proves the state after each file. */
async function walkWhole(
  destination: Destination,
  walk: ChainWalk,
  expected: ExpectedSha256,
  { signal, onProgress }: VerifyOptions,
): Promise<void> {
  const { files } = walk;
  const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const state = new StateProof();
  let doneBytes = 0;
  let next = 0;
  while (next < files.length) {
    try {
      for await (const { file, chunks, metadata } of fetchInOrder(destination, files.slice(next), signal)) {
        const hasher = new Bun.CryptoHasher("sha256");
        const decoder = new LtxDecoder({
          name: file.key,
          expectedSizeBytes: file.sizeBytes,
          onHeader: (header) => {
            requireHeaderOfKey(file, header);
            state.begin(header);
          },
          onPage: (pgno, _page, checksum) => state.page(pgno, checksum),
        });
        for await (const chunk of chunks) {
          signal?.throwIfAborted();
          hasher.update(chunk);
          decoder.push(chunk);
          doneBytes += chunk.byteLength;
          onProgress?.(doneBytes, totalBytes);
        }
        const ends = decoder.finish();
        const claimed = claimedChecksums({ ...ends, metadata });
        const fault = state.end(ends.header, claimed.post);
        const sha256 = { expectedSha256: expected(file, metadata), foundSha256: hasher.digest("hex") };
        const proven = fault === null && state.txid === file.maxTxid ? state.checksum : null;
        walk.see(file, { claimed, ...sha256, fault, proven });
        next++;
      }
    } catch (error) {
      signal?.throwIfAborted();
      state.abandon();
      walk.fail(files[next]!, error);
      next++;
    }
  }
}

/** Reads the ends of every file: they tell whether the files follow on, and nothing about their pages. */
async function walkQuickly(
  destination: Destination,
  walk: ChainWalk,
  expected: ExpectedSha256,
  { signal, onProgress }: VerifyOptions,
): Promise<void> {
  const { files } = walk;
  for (let first = 0; first < files.length; first += QUICK_AT_ONCE) {
    const part = files.slice(first, first + QUICK_AT_ONCE);
    const outcomes = await Promise.allSettled(part.map((file) => readFileEnds(destination, file, signal)));
    signal?.throwIfAborted();
    for (const [i, outcome] of outcomes.entries()) {
      const file = part[i]!;
      if (outcome.status === "rejected") walk.fail(file, outcome.reason);
      else {
        const claimed = claimedChecksums(outcome.value);
        const sha256 = { expectedSha256: expected(file, outcome.value.metadata), foundSha256: null };
        walk.see(file, { claimed, ...sha256, fault: null, proven: null });
      }
    }
    onProgress?.(first + part.length, files.length);
  }
}
