/**
 * The end of a chain, for whoever has seen the rest: a listing from one known file on. It costs one request, however long the
 * chain is.
 */
import type { Destination } from "../destination/destination.ts";
import { compareKeys } from "../destination/keys.ts";
import { formatKey, parseKey } from "../destination/layout.ts";
import type { Txid } from "../ltx/txid.ts";
import { chainFileOf } from "./chain.ts";
import type { ChainFile } from "./plan.ts";

/** What a file is known again by: an object is never replaced, so another size or time is another history. */
export type Anchor = Pick<ChainFile, "key" | "sizeBytes" | "modifiedAt">;

/**
 * The file that ends at `txid` and behind which all later ones are listed; null if there is none. Of several the one that is
 * listed last.
 */
export function anchorAt(files: readonly ChainFile[], txid: Txid): Anchor | null {
  let found: ChainFile | null = null;
  for (const file of files) {
    if (file.maxTxid !== txid || !leadsOn(file.key, txid)) continue;
    if (found === null || compareKeys(file.key, found.key) > 0) found = file;
  }
  return found;
}

/** The anchor and all files behind it; null if it is not there as it was: merged, deleted, or of another history. */
export async function readTail(
  destination: Destination,
  name: string,
  anchor: Anchor,
  signal: AbortSignal,
): Promise<ChainFile[] | null> {
  const folder = folderOfKey(anchor.key);
  const files: ChainFile[] = [];
  // A listing begins behind a key: this one is the last before the anchor.
  for await (const object of destination.list(folder, { startAfter: anchor.key.slice(0, -1), signal })) {
    const parsed = parseKey(object.key);
    if (parsed !== null && parsed.is === "ltx" && parsed.name === name) files.push(chainFileOf(object, parsed));
    // Names below this one come behind all of its files: no request is spent on them.
    else if (object.key[folder.length]! > LAST_OF_FILE_NAMES) break;
    if (files.length === 1 && !isSame(files[0]!, anchor)) return null;
  }
  return files.length === 0 ? null : files;
}

// --- internal ---

/** Names of files begin with a digit of a decimal or hexadecimal number. */
const LAST_OF_FILE_NAMES = "f";

function isSame(file: ChainFile, anchor: Anchor): boolean {
  return (
    file.key === anchor.key &&
    file.sizeBytes === anchor.sizeBytes &&
    file.modifiedAt.getTime() === anchor.modifiedAt.getTime()
  );
}

/**
 * True if the key of the transaction after `txid` comes behind `key`. Not so where a number gets a ninth digit, and not in
 * folders of merged files.
 */
function leadsOn(key: string, txid: Txid): boolean {
  const parsed = parseKey(key);
  if (parsed === null || parsed.is !== "ltx") return false;
  if (parsed.layout === "litestream") return parsed.level === 0;
  const next = { name: parsed.name, layout: parsed.layout, minTxid: txid + 1n, maxTxid: txid + 1n };
  return compareKeys(formatKey(next), key) > 0;
}

function folderOfKey(key: string): string {
  return key.slice(0, key.lastIndexOf("/") + 1);
}
