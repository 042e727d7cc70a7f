/**
 * Files that are encrypted at a destination, as they lie there: what may be told of them to whoever cannot read them.
 */
import type { Destination, WriteResult } from "../destination/destination.ts";
import { hashObject, type NamedFile, vanished } from "./chain.ts";
import type { FileFacts } from "./layout-rules.ts";

/**
 * What a manifest may say of a file. Of an encrypted one the sha256 of its object, and no checksums: whoever reads them could try
 * guesses of the contents on them.
 */
export async function listedFacts<F extends Pick<FileFacts, "sha256" | "checksums">>(
  destination: Destination,
  file: NamedFile,
  facts: F,
  written: WriteResult | null,
  signal?: AbortSignal,
): Promise<F> {
  if (destination.capabilities.encryption === undefined) return facts;
  const known = written?.kind === "written" ? written.storedSha256 : undefined;
  const sha256 = known ?? (await hashStored(destination, file, signal));
  return { ...facts, sha256, checksums: { pre: 0n, post: 0n } };
}

/** Hex sha256 of the object, as the destination tells it; as it is found if it does not. */
export async function hashStored(destination: Destination, file: NamedFile, signal?: AbortSignal): Promise<string> {
  const stored = destination.stored ?? destination;
  const head = await stored.head(file.key, { signal });
  if (head === null) throw vanished(destination, file);
  return head.metadata.sha256 ?? (await hashObject(stored, file, signal));
}
