/**
 * manifest.json: an index of one database's files at a destination. The listing is the truth; the manifest makes it
 * readable by people and scripts, and in a directory it is the only place of the sha256.
 * Format: docs/FORMATS.md, "Manifest".
 */
import { randomBytes } from "node:crypto";
import { hex64, MiB } from "../bytes.ts";
import type { Destination } from "../destination/destination.ts";
import { folderOf, manifestKey } from "../destination/layout.ts";
import { jitteredMs, sleep } from "../destination/retry.ts";
import { DestinationError, messageOf, WalsyncError } from "../errors.ts";
import { compareTxids, type TxidRange } from "../ltx/txid.ts";
import type { ChainChecksums } from "./layout-rules.ts";

export interface ManifestEntry extends TxidRange {
  /** File name, without the folder. */
  key: string;
  kind: "snapshot" | "increment";
  sizeBytes: number;
  createdAtMs: number;
  /** 64 hex digits. */
  sha256: string;
  preChecksum: bigint;
  postChecksum: bigint;
}

export interface Manifest {
  name: string;
  /** 16 hex digits: names the chain, so that a bucket that was emptied and filled again can be told apart. */
  lineage: string;
  pageSize: number;
  updatedAtMs: number;
  /** By last txid, then by first. */
  files: ManifestEntry[];
}

/** The entry of the file with this key, folder and all. `timestampMs`: when the state after it was captured. */
export function manifestEntry(
  name: string,
  key: string,
  { minTxid, maxTxid }: TxidRange,
  facts: { sizeBytes: number; timestampMs: number; sha256: string; checksums: ChainChecksums },
): ManifestEntry {
  const { sizeBytes, timestampMs, sha256, checksums } = facts;
  return {
    key: key.slice(folderOf(name).length),
    kind: minTxid === 1n ? "snapshot" : "increment",
    minTxid,
    maxTxid,
    sizeBytes,
    createdAtMs: timestampMs,
    sha256,
    preChecksum: checksums.pre,
    postChecksum: checksums.post,
  };
}

/** A manifest without files. */
export function emptyManifest({ name, lineage, pageSize }: Pick<Manifest, "name" | "lineage" | "pageSize">): Manifest {
  return { name, lineage, pageSize, updatedAtMs: 0, files: [] };
}

/** A name for a chain that begins: 16 hex digits, at random. */
export function newLineage(): string {
  return randomBytes(8).toString("hex");
}

/** The manifest as it is at the destination, or null. */
export async function readManifest(
  destination: Destination,
  name: string,
  signal?: AbortSignal,
): Promise<{ manifest: Manifest; etag: string } | null> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await readManifestOnce(destination, name, signal);
    } catch (error) {
      // The one object that is written more than once: it may be replaced while it is read.
      if (!(error instanceof DestinationError) || !error.retryable || attempt === READ_ATTEMPTS) throw error;
    }
  }
}

/** Hex sha256 by key, for a destination that keeps no metadata with its objects. Files newer than the manifest have none. */
export async function readHashes(
  destination: Destination,
  name: string,
  signal?: AbortSignal,
): Promise<Map<string, string>> {
  const found = await readManifest(destination, name, signal);
  return new Map(found?.manifest.files.map((entry) => [`${folderOf(name)}${entry.key}`, entry.sha256]));
}

/**
 * Changes the manifest at the destination; false if `edit` returns null. `edit` gets null where there is none, and runs again
 * whenever somebody else wrote in between. Throws DestinationError if that happens over and over.
 */
export async function editManifest(
  destination: Destination,
  name: string,
  edit: (manifest: Manifest | null) => Promise<Manifest | null> | Manifest | null,
  signal?: AbortSignal,
): Promise<boolean> {
  for (let attempt = 1; ; attempt++) {
    const found = await readManifest(destination, name, signal);
    const edited = await edit(found?.manifest ?? null);
    if (edited === null) return false;
    const source = { kind: "bytes", bytes: Buffer.from(formatManifest(edited)) } as const;
    const condition = found === null ? "absent" : { etag: found.etag };
    const result = await destination.write(manifestKey(name), source, { condition, signal });
    if (result.kind === "written") return true;
    if (attempt === EDIT_ATTEMPTS) {
      throw new DestinationError(`${destination.url}/${manifestKey(name)}: expected to write it, found it changed`, {
        retryable: true,
        hint: "Other processes write the same manifest all the time.",
      });
    }
    // Two that lost against each other must not meet again: the pause is random, and grows.
    await sleep(jitteredMs(attempt, EDIT_PAUSE_MS, EDIT_PAUSE_MAX_MS), signal);
  }
}

/** `manifest` with `entries` added, or put in place of those with the same key. */
export function withEntries(manifest: Manifest, entries: readonly ManifestEntry[], nowMs: number): Manifest {
  const byKey = new Map(manifest.files.map((entry) => [entry.key, entry]));
  for (const entry of entries) byKey.set(entry.key, entry);
  const files = [...byKey.values()].sort(
    (a, b) => compareTxids(a.maxTxid, b.maxTxid) || compareTxids(a.minTxid, b.minTxid),
  );
  return { ...manifest, updatedAtMs: nowMs, files };
}

export function formatManifest(manifest: Manifest): string {
  const values = {
    version: VERSION,
    name: manifest.name,
    lineage: manifest.lineage,
    page_size: manifest.pageSize,
    updated_at: new Date(manifest.updatedAtMs).toISOString(),
    files: manifest.files.map((entry) => ({
      key: entry.key,
      kind: entry.kind,
      min_txid: Number(entry.minTxid),
      max_txid: Number(entry.maxTxid),
      size: entry.sizeBytes,
      created_at: new Date(entry.createdAtMs).toISOString(),
      sha256: entry.sha256,
      pre_checksum: hex64(entry.preChecksum),
      post_checksum: hex64(entry.postChecksum),
    })),
  };
  // One file a line: a manifest of thousands of files stays readable, and small.
  const { files, ...head } = values;
  const lines = files.map((file) => `    ${JSON.stringify(file)}`).join(",\n");
  const opening = JSON.stringify(head, null, 2).slice(0, -2);
  return `${opening},\n  "files": [${lines === "" ? "" : `\n${lines}\n  `}]\n}\n`;
}

/** Throws E_INTEGRITY, naming the field, if `text` is not a manifest. Entries are checked one by one. */
export function parseManifest(text: string, name: string): Manifest {
  try {
    const values = requireObject(JSON.parse(text), "the manifest");
    if (values.version !== VERSION)
      throw new RangeError(`expected version ${VERSION}, found ${String(values.version)}`);
    if (!Array.isArray(values.files)) throw new RangeError("files: expected a list");
    return {
      name: requireText(values, "name", /./),
      lineage: requireText(values, "lineage", HEX_16),
      pageSize: requireInteger(values, "page_size"),
      updatedAtMs: requireTime(values, "updated_at"),
      files: values.files.map((file: unknown, i) => parseEntry(requireObject(file, `files[${i}]`))),
    };
  } catch (error) {
    throw new WalsyncError("E_INTEGRITY", `${manifestKey(name)}: expected a manifest, found: ${messageOf(error)}`, {
      hint: "The manifest is only an index. Move it away and run the command again; watch writes a new one.",
      cause: error,
    });
  }
}

// --- internal ---

const VERSION = 1;
const EDIT_ATTEMPTS = 10;
const EDIT_PAUSE_MS = 10;
const EDIT_PAUSE_MAX_MS = 1000;
const READ_ATTEMPTS = 3;
/** A chain of a million files. */
const MANIFEST_SIZE_MAX = 512 * MiB;
const ISO_TIME = /^([+-]\d\d)?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const HEX_16 = /^[0-9a-f]{16}$/;
const HEX_64 = /^[0-9a-f]{64}$/;
const FILE_NAME = /^[0-9]{8,20}-[0-9]{8,20}\.ltx$/;

async function readManifestOnce(
  destination: Destination,
  name: string,
  signal: AbortSignal | undefined,
): Promise<{ manifest: Manifest; etag: string } | null> {
  const body = await destination.read(manifestKey(name), { signal });
  if (body === null) return null;
  const parts: Buffer[] = [];
  if (body.sizeBytes > MANIFEST_SIZE_MAX) {
    await body.chunks[Symbol.asyncIterator]().return?.();
    throw tooLarge(name);
  }
  for await (const chunk of body.chunks) parts.push(Buffer.from(chunk));
  return { manifest: parseManifest(Buffer.concat(parts).toString(), name), etag: body.etag };
}

type Values = Record<string, unknown>;

function parseEntry(values: Values): ManifestEntry {
  const kind = requireText(values, "kind", /^(snapshot|increment)$/);
  return {
    key: requireText(values, "key", FILE_NAME),
    kind: kind === "snapshot" ? "snapshot" : "increment",
    minTxid: BigInt(requireInteger(values, "min_txid")),
    maxTxid: BigInt(requireInteger(values, "max_txid")),
    sizeBytes: requireInteger(values, "size"),
    createdAtMs: requireTime(values, "created_at"),
    sha256: requireText(values, "sha256", HEX_64),
    preChecksum: BigInt(`0x${requireText(values, "pre_checksum", HEX_16)}`),
    postChecksum: BigInt(`0x${requireText(values, "post_checksum", HEX_16)}`),
  };
}

function requireObject(value: unknown, what: string): Values {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Values;
  throw new RangeError(`${what}: expected an object`);
}

function requireText(values: Values, field: string, pattern: RegExp): string {
  const value = values[field];
  if (typeof value === "string" && pattern.test(value)) return value;
  throw new RangeError(`${field}: expected text like ${pattern.source}, found ${JSON.stringify(value)}`);
}

function requireInteger(values: Values, field: string): number {
  const value = values[field];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`${field}: expected a whole number, found ${JSON.stringify(value)}`);
}

function requireTime(values: Values, field: string): number {
  const value = values[field];
  const ms = typeof value === "string" && ISO_TIME.test(value) ? Date.parse(value) : Number.NaN;
  if (Number.isFinite(ms)) return ms;
  throw new RangeError(`${field}: expected a time in ISO 8601, found ${JSON.stringify(value)}`);
}

function tooLarge(name: string): WalsyncError {
  return new WalsyncError(
    "E_INTEGRITY",
    `${manifestKey(name)}: expected at most ${MANIFEST_SIZE_MAX} bytes, found more`,
  );
}
