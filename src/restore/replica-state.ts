/** What is known of a read copy, in replica.json beside it: which state it is, and what it is about to become. */
import { readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { Anchor } from "../chain/tail.ts";
import { asDiskError, writeFileDurably } from "../durable.ts";
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import { OWN_FIELDS_SIZE } from "./first-page.ts";

/** One state of the source, as the copy holds it. */
export interface CopyState {
  txid: Txid;
  /** When it was captured at the source. */
  timestampMs: number;
  /** Database checksum of the source; null if nothing tells it. */
  checksum: bigint | null;
  /** The mark in the copy: by it a file tells which state it is. */
  changeCounter: number;
  /** The source's bytes of what page 1 of a copy has of its own. */
  sourceFields: Buffer;
}

export interface ReplicaState {
  url: string;
  name: string;
  current: CopyState;
  /** What the file may be already: a crash came before that was recorded. */
  next: CopyState | null;
  /** The file at the destination that ends at `current`, if it is known. */
  anchor: Anchor | null;
}

/** The folder of a copy's state. */
export function replicaFolder(local: string): string {
  const path = resolve(local);
  return join(dirname(path), `.${basename(path)}-walsync-replica`);
}

/** Null if there is none. Throws E_INTEGRITY if it is damaged, E_DISK. */
export function readReplicaState(folder: string): ReplicaState | null {
  const path = join(folder, STATE_FILE);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return null;
    throw asDiskError(path, error);
  }
  try {
    return parseState(text);
  } catch (error) {
    throw new WalsyncError("E_INTEGRITY", `${path}: expected the state of a copy, found: ${messageOf(error)}`, {
      hint: "Move the copy away and remove the folder: the next run makes both anew.",
      cause: error,
    });
  }
}

export function writeReplicaState(folder: string, state: ReplicaState): void {
  writeFileDurably(join(folder, STATE_FILE), Buffer.from(formatState(state)));
}

// --- internal ---

const STATE_FILE = "replica.json";
const VERSION = 1;

function formatState({ url, name, current, next, anchor }: ReplicaState): string {
  const fields = {
    version: VERSION,
    url,
    name,
    current: formatCopyState(current),
    next: next === null ? null : formatCopyState(next),
    anchor: anchor && { key: anchor.key, sizeBytes: anchor.sizeBytes, modifiedAtMs: anchor.modifiedAt.getTime() },
  };
  return `${JSON.stringify(fields, null, 2)}\n`;
}

function formatCopyState({ txid, timestampMs, checksum, changeCounter, sourceFields }: CopyState) {
  return {
    txid: `0x${txid.toString(16)}`,
    timestampMs,
    checksum: checksum === null ? null : `0x${checksum.toString(16)}`,
    changeCounter,
    sourceFields: sourceFields.toString("hex"),
  };
}

function parseState(text: string): ReplicaState {
  const { version, url, name, current, next, anchor } = JSON.parse(text);
  if (version !== VERSION) throw new RangeError(`version ${version} instead of ${VERSION}`);
  if (typeof url !== "string" || typeof name !== "string") throw new RangeError("no source");
  return {
    url,
    name,
    current: parseCopyState(current),
    next: next === null ? null : parseCopyState(next),
    anchor: anchor && { key: anchor.key, sizeBytes: anchor.sizeBytes, modifiedAt: new Date(anchor.modifiedAtMs) },
  };
}

function parseCopyState(found: Record<string, unknown>): CopyState {
  const { txid, timestampMs, checksum, changeCounter, sourceFields } = found;
  const fields = Buffer.from(String(sourceFields), "hex");
  if (fields.length !== OWN_FIELDS_SIZE) throw new RangeError("sourceFields of another length");
  if (!Number.isSafeInteger(timestampMs) || !Number.isSafeInteger(changeCounter)) throw new RangeError("no numbers");
  return {
    txid: BigInt(String(txid)),
    timestampMs: timestampMs as number,
    checksum: checksum === null ? null : BigInt(String(checksum)),
    changeCounter: changeCounter as number,
    sourceFields: fields,
  };
}
