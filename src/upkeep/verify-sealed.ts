/**
 * Encrypted files, looked at without an identity: whether each object is an encrypted file, and the one that was uploaded.
 * That they follow on is told by their txids alone.
 */
import { vanished } from "../chain/chain.ts";
import type { ChainFile } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import type { ChainWalk } from "./chain-walk.ts";
import type { VerifyOptions } from "./verify.ts";

/** The sha256 that a file, or its object, must have, as far as is told. */
export type ExpectedSha256 = (file: ChainFile, metadata: Record<string, string>) => string | undefined;

/** Reads every object; with `quick` its first bytes. */
export async function walkSealed(
  destination: Destination,
  walk: ChainWalk,
  expected: ExpectedSha256,
  { quick, signal, onProgress }: VerifyOptions,
): Promise<void> {
  const { files } = walk;
  const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  let doneBytes = 0;
  for (const [i, file] of files.entries()) {
    try {
      // Fails if it is not an encrypted file.
      if ((await destination.head(file.key, { signal })) === null) throw vanished(destination, file);
      const { sha256, metadata } = await readStored(destination.stored ?? destination, file, quick, signal);
      const compared = { expectedSha256: expected(file, metadata), foundSha256: sha256 };
      walk.see(file, { claimed: { pre: 0n, post: 0n }, ...compared, fault: null, proven: null });
    } catch (error) {
      signal?.throwIfAborted();
      walk.fail(file, error);
    }
    doneBytes += file.sizeBytes;
    if (quick) onProgress?.(i + 1, files.length);
    else onProgress?.(doneBytes, totalBytes);
  }
}

// --- internal ---

/** `sha256` is null if not all of it was read. */
async function readStored(
  stored: Destination,
  file: ChainFile,
  quick: boolean,
  signal: AbortSignal | undefined,
): Promise<{ sha256: string | null; metadata: Record<string, string> }> {
  if (quick) {
    const head = await stored.head(file.key, { signal });
    if (head === null) throw vanished(stored, file);
    return { sha256: null, metadata: head.metadata };
  }
  const body = await stored.read(file.key, { signal });
  if (body === null) throw vanished(stored, file);
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of body.chunks) hasher.update(chunk);
  return { sha256: hasher.digest("hex"), metadata: body.metadata };
}
