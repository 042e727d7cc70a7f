/**
 * What the layouts differ in, for whoever writes files: their keys, what stands in them and what beside them, and whether
 * there is a manifest. Nothing else in the program asks which layout it writes.
 *
 * The litestream layout is what Litestream 0.5 writes and reads: files without database checksums, in folders by level.
 * The checksums that a chain is proven by are kept as metadata there, where the destination keeps any. Whoever reads takes them
 * from wherever they are.
 */
import { hex64 } from "../bytes.ts";
import type { Capabilities, WriteOptions } from "../destination/destination.ts";
import { formatKey, type Layout, SNAPSHOT_LEVEL } from "../destination/layout.ts";
import { WalsyncError } from "../errors.ts";
import { HEADER_FLAG_NO_CHECKSUM, hasChecksums, type LtxHeader, type LtxTrailer } from "../ltx/format.ts";
import type { TxidRange } from "../ltx/txid.ts";

/** A stretch of a WAL, as the header of an LTX file tells it; all 0 if there is none. */
export type WalPlace = Pick<LtxHeader, "walOffset" | "walSize" | "salt1" | "salt2">;

/** Database checksums before and after a file. */
export interface ChainChecksums {
  /** 0 before a snapshot, and where the file is not one of ours and has none. */
  pre: bigint;
  post: bigint;
}

/** What is told about a file that is put at a destination. */
export interface FileFacts {
  sha256: string;
  /** SQLite transactions in it; 0 if that is not known, or it is not made of transactions. */
  commits: number;
  checksums: ChainChecksums;
  timestampMs: number;
}

export interface LayoutRules {
  readonly layout: Layout;
  /** Tells local states apart that are about the same name in different layouts. */
  readonly stateSuffix: string;
  /** An index of the files is kept beside them. */
  readonly hasManifest: boolean;
  /** Database checksums are part of the files. */
  readonly checksumsInFiles: boolean;
  /**
   * Where a captured file is put. The first key is the one that claims its txid, if it claims one; a snapshot that does
   * has a second place.
   */
  shippedKeys(name: string, range: TxidRange): readonly [string, ...string[]];
  /** The key of a merged file. `level` counts from 1: how often its pages were merged. */
  mergedKey(name: string, range: TxidRange, level: number): string;
  /** The header that is written for a file whose full one is `header`. */
  headerInFile(header: LtxHeader): LtxHeader;
  /** What a file made of a whole database says about the WAL, which continues at `next`; null while it is empty. */
  placeOfScan(next: WalEnd | null): WalPlace;
  /** What is kept with an object. */
  attributesOf(facts: FileFacts): Pick<WriteOptions, "metadata" | "modifiedAt">;
  /** What the ends of a file and its metadata say; null if the destination cannot tell, not even of files of ours. */
  checksumsOf(ends: FileEnds): ChainChecksums | null;
}

/** What the ends of a file say, and what is kept with it. */
export interface FileEnds {
  header: LtxHeader;
  trailer: Pick<LtxTrailer, "postApplyChecksum">;
  metadata: Record<string, string>;
}

/** Where the next frame of a WAL will be. */
type WalEnd = Pick<LtxHeader, "walOffset" | "salt1" | "salt2">;

/**
 * What a file claims about the database before and after it: in itself, or beside it where it has no room for that. 0 for what
 * nothing tells, as with files that Litestream wrote. Which layout it is does not matter.
 */
export function claimedChecksums({ header, trailer, metadata }: FileEnds): ChainChecksums {
  if (hasChecksums(header)) return { pre: header.preApplyChecksum, post: trailer.postApplyChecksum };
  return { pre: told(metadata["pre-checksum"]), post: told(metadata["post-checksum"]) };
}

/** Throws E_CONFIG for the litestream layout where files are encrypted. */
export function layoutRules(layout: Layout, capabilities: Capabilities): LayoutRules {
  if (capabilities.encryption !== undefined) {
    requireEncryptable(layout);
    return ENCRYPTED_RULES;
  }
  return layout === "walsync" ? WALSYNC_RULES : litestreamRules(capabilities);
}

/** Throws E_CONFIG for a layout that files cannot be encrypted in. `label` says whose it is. */
export function requireEncryptable(layout: Layout, label = "layout"): void {
  if (layout === "walsync") return;
  throw new WalsyncError("E_CONFIG", `${label}: expected walsync for encrypted files, found ${layout}`, {
    hint: "Litestream cannot read encrypted files. Leave out the layout, or the recipients.",
  });
}

export const WALSYNC_RULES: LayoutRules = {
  layout: "walsync",
  stateSuffix: "",
  hasManifest: true,
  checksumsInFiles: true,
  shippedKeys: (name, range) => [keyOf(name, range)],
  mergedKey: keyOf,
  headerInFile: (header) => header,
  placeOfScan: () => ({ walOffset: 0, walSize: 0, salt1: 0, salt2: 0 }),
  attributesOf: (facts) => ({ metadata: ownMetadata(facts) }),
  checksumsOf: ({ header, trailer }) => ({ pre: header.preApplyChecksum, post: trailer.postApplyChecksum }),
};

// --- internal ---

/** What is kept with an encrypted file can be read by anybody: nothing by which its contents could be guessed. */
const ENCRYPTED_RULES: LayoutRules = {
  ...WALSYNC_RULES,
  attributesOf: ({ commits, timestampMs }) => {
    const timestamp = new Date(timestampMs).toISOString();
    return { metadata: commits > 0 ? { timestamp, commits: String(commits) } : { timestamp } };
  },
};

const WAL_HEADER_SIZE = 32;
const HEX_16 = /^[0-9a-f]{16}$/;

function litestreamRules({ metadata: keepsMetadata, levelFolders }: Capabilities): LayoutRules {
  const inLevel = (name: string, { minTxid, maxTxid }: TxidRange, level: number): string =>
    formatKey({ layout: "litestream", name, minTxid, maxTxid, level, folders: levelFolders });
  return {
    layout: "litestream",
    stateSuffix: "\nlitestream",
    hasManifest: false,
    checksumsInFiles: false,
    shippedKeys: (name, range) => {
      const claimed = inLevel(name, range, 0);
      const snapshot = inLevel(name, range, SNAPSHOT_LEVEL);
      if (range.minTxid !== range.maxTxid) return [snapshot];
      return range.minTxid === 1n ? [claimed, snapshot] : [claimed];
    },
    mergedKey: inLevel,
    headerInFile: (header) => ({ ...header, flags: HEADER_FLAG_NO_CHECKSUM, preApplyChecksum: 0n }),
    // Litestream goes on from there if it takes the database over, and refuses an offset before the first frame.
    placeOfScan: (next) => {
      if (next === null) return { walOffset: WAL_HEADER_SIZE, walSize: 0, salt1: 0, salt2: 0 };
      const { walOffset, salt1, salt2 } = next;
      return { walOffset: WAL_HEADER_SIZE, walSize: walOffset - WAL_HEADER_SIZE, salt1, salt2 };
    },
    attributesOf: (facts) => {
      const at = new Date(facts.timestampMs);
      const { pre, post } = facts.checksums;
      const metadata = { ...ownMetadata(facts), "litestream-timestamp": at.toISOString() };
      const checksums = {
        ...(pre > 0n && { "pre-checksum": hex64(pre) }),
        ...(post > 0n && { "post-checksum": hex64(post) }),
      };
      // Litestream takes the time of a file in a directory for the time of the state in it.
      return { metadata: { ...metadata, ...checksums }, modifiedAt: at };
    },
    checksumsOf: (ends) => (keepsMetadata ? claimedChecksums(ends) : null),
  };
}

function keyOf(name: string, { minTxid, maxTxid }: TxidRange): string {
  return formatKey({ layout: "walsync", name, minTxid, maxTxid });
}

function ownMetadata({ sha256, commits }: FileFacts): Record<string, string> {
  return commits > 0 ? { sha256, commits: String(commits) } : { sha256 };
}

function told(checksum: string | undefined): bigint {
  return checksum !== undefined && HEX_16.test(checksum) ? BigInt(`0x${checksum}`) : 0n;
}
