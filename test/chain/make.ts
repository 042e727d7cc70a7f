/** Chains in real directories, of true LTX files of one page each: no more than what keys, headers and trailers tell. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { ChainFile } from "../../src/chain/plan.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { formatKey } from "../../src/destination/layout.ts";
import { CHECKSUM_FLAG } from "../../src/ltx/checksum.ts";
import { HEADER_FLAG_NO_CHECKSUM } from "../../src/ltx/format.ts";
import { databaseChecksum, encodeFile, header, makePage } from "../ltx/make.ts";

export interface FileParts {
  timestampMs?: number;
  /** Of the page: which state the database is in after the file. */
  seed?: number;
  /** What it follows on from; by default nothing that is true. */
  preApplyChecksum?: bigint;
  /** As Litestream writes it. */
  withoutChecksums?: true;
  /** Of another file, as if this one had its name. */
  inside?: { minTxid: bigint; maxTxid: bigint };
}

export class ChainFolder {
  readonly root: string;
  readonly destination: DirectoryDestination;

  constructor(root: string) {
    this.root = root;
    this.destination = new DirectoryDestination(root);
    mkdirSync(root, { recursive: true });
  }

  /** Puts a file of the walsync layout there; returns its path. */
  add(name: string, minTxid: bigint, maxTxid: bigint, parts: FileParts = {}): string {
    const key = formatKey({ layout: "walsync", name, minTxid, maxTxid });
    return this.put(key, ltxBytes(minTxid, maxTxid, parts));
  }

  put(key: string, bytes: Uint8Array | string): string {
    const path = join(this.root, key);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
    return path;
  }
}

export function ltxBytes(minTxid: bigint, maxTxid: bigint, parts: FileParts = {}): Uint8Array {
  const { timestampMs = Number(maxTxid) * 1000, seed = Number(maxTxid), inside = { minTxid, maxTxid } } = parts;
  const pages = new Map([[1, makePage(512, seed)]]);
  if (parts.withoutChecksums) {
    return encodeFile(
      header({ ...inside, flags: HEADER_FLAG_NO_CHECKSUM, timestampMs, preApplyChecksum: 0n }),
      pages,
      0n,
    );
  }
  const preApplyChecksum = inside.minTxid === 1n ? 0n : (parts.preApplyChecksum ?? CHECKSUM_FLAG | inside.minTxid);
  const head = header({ ...inside, flags: 0, timestampMs, preApplyChecksum });
  return encodeFile(head, pages, stateChecksum(seed));
}

/** Database checksum of the state that `seed` names. */
export function stateChecksum(seed: number): bigint {
  return databaseChecksum({ pageSize: 512, commit: 1, pages: new Map([[1, makePage(512, seed)]]) });
}

/** A listed file, and nothing behind it. */
export function listed(minTxid: bigint, maxTxid: bigint, sizeBytes = 1): ChainFile {
  return {
    key: formatKey({ layout: "walsync", name: "app", minTxid, maxTxid }),
    kind: minTxid === 1n ? "snapshot" : "increment",
    minTxid,
    maxTxid,
    sizeBytes,
    modifiedAt: new Date(0),
    storedAt: new Date(0),
    level: 0,
  };
}

/** The code of what is thrown, or null if nothing is. Anything that is not told by a code is thrown on. */
export function codeOf(action: () => unknown): string | null {
  try {
    action();
    return null;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (typeof code !== "string" || !code.startsWith("E_")) throw error;
    return code;
  }
}
