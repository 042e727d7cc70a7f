/**
 * A walk through the files of a chain in the order of their last txids: whether each follows on from what came before, and
 * whether it agrees with all others and with the manifest. Pure: it is told what was read.
 */
import { hex64 } from "../bytes.ts";
import type { Chain } from "../chain/chain.ts";
import type { ChainChecksums } from "../chain/layout-rules.ts";
import type { ManifestEntry } from "../chain/manifest.ts";
import { type ChainFile, type Points, pointsOf } from "../chain/plan.ts";
import type { Capabilities } from "../destination/destination.ts";
import { LtxError, messageOf, VanishedError, WalsyncError } from "../errors.ts";
import { compareTxids, type Txid } from "../ltx/txid.ts";
import { type Finding, type FindingCode, finding } from "./findings.ts";

/** What was read of one file. */
export interface Seen {
  /** Database checksums before and after it, as it or its metadata says; 0 for what nothing tells. */
  claimed: ChainChecksums;
  /** Which bytes were uploaded, as the destination tells; undefined if it does not. */
  expectedSha256: string | undefined;
  /** Which bytes were read; null if only a part of them was. */
  foundSha256: string | null;
  /** What is wrong with the state that it gives; null if nothing is, or nobody looked. */
  fault: string | null;
  /** Checksum of the state after it, if that was made from the files up to it and is what they claim; else null. */
  proven: bigint | null;
}

export class ChainWalk {
  /** By last txid; among those of one, the narrowest first. */
  readonly files: readonly ChainFile[];
  readonly findings: Finding[] = [];
  /** Files that were listed, and were gone when they were to be read. */
  readonly gone: ChainFile[] = [];
  readonly #chain: Chain;
  readonly #entries: ReadonlyMap<string, ManifestEntry>;
  /** Database checksum after each txid, as the first file that ends there claims; as it was found if none claims any. */
  readonly #states = new Map<Txid, bigint>();
  readonly #proven = new Set<Txid>();
  /** A file was damaged that a restore of what follows may use: nothing is proven before the next whole snapshot. */
  #isTainted = false;
  #reached: Txid | null = null;
  /**
   * Last txids at which a gap is one. Null: all are, walsync leaves no hole between files that stay. Litestream removes files by
   * age, whatever order that leaves.
   */
  readonly #lost: ReadonlySet<Txid> | null;
  readonly #points: Points;
  #isBehindGap = false;
  #stranded = 0;
  #withoutSha256 = 0;
  #withoutChecksums = 0;
  readonly #encryption: Capabilities["encryption"];

  /** `entries`: of the manifest, by key of the object. `encryption`: as the destination has it. */
  constructor(chain: Chain, entries: ReadonlyMap<string, ManifestEntry>, encryption?: Capabilities["encryption"]) {
    this.#chain = chain;
    this.#encryption = encryption;
    this.#entries = entries;
    this.files = chain.files.toSorted(
      (a, b) => compareTxids(a.maxTxid, b.maxTxid) || compareTxids(b.minTxid, a.minTxid),
    );
    this.#points = pointsOf(this.files);
    this.#lost = this.#isOfLitestream ? new Set(this.#points.lost) : null;
  }

  /** Restore points that are listed. Litestream leaves some that merged files have taken the place of: they are none. */
  get points(): number {
    const { restorable, merged, lost, stranded } = this.#points;
    const listed = restorable.length + lost.length + stranded.length;
    return this.#isOfLitestream ? listed : listed + merged.length;
  }

  get #isOfLitestream(): boolean {
    return this.#chain.layout === "litestream";
  }

  /** Those of them whose state was made from the files and is what they claim. */
  get proven(): number {
    return this.#proven.size;
  }

  add(key: string, code: FindingCode, message: string): void {
    this.findings.push(finding(key, code, message));
  }

  see(file: ChainFile, { claimed, expectedSha256, foundSha256, fault, proven }: Seen): void {
    const before = this.findings.length;
    if (fault !== null) this.add(file.key, "checksum-differs", fault);
    if (expectedSha256 === undefined) this.#withoutSha256++;
    else if (foundSha256 !== null && foundSha256 !== expectedSha256) {
      this.add(file.key, "sha256-differs", `expected sha256 ${expectedSha256}, found ${foundSha256}`);
    }
    if (claimed.post === 0n) this.#withoutChecksums++;
    this.#compareStates(file, claimed.pre, claimed.post || (proven ?? 0n));
    if (this.findings.length > before) this.#taint(file);
    else if (file.kind === "snapshot") this.#isTainted = false;
    if (proven !== null && !this.#isTainted) this.#proven.add(file.maxTxid);
    this.#compareEntry(file, claimed, expectedSha256);
    this.#reach(file);
  }

  /** Reading the file failed. Throws what is no fault of the file. */
  fail(file: ChainFile, error: unknown): void {
    this.#taint(file);
    if (error instanceof VanishedError) this.gone.push(file);
    else if (isDamage(error)) this.add(file.key, "file-damaged", messageOf(error));
    else throw error;
  }

  /** What can be said only when all files were seen. */
  finish(): void {
    const { name } = this.#chain;
    const count = (files: number) => (files === 1 ? "1 file" : `${files} files`);
    if (!this.files.some((file) => file.kind === "snapshot")) {
      this.add(name, "no-snapshot", `expected a snapshot, found ${count(this.files.length)} without one`);
    } else if (this.#stranded > 0) {
      const message = `${count(this.#stranded)} before the first snapshot serve no restore point`;
      const told = finding(name, "unreachable", message);
      // Litestream's retention removes snapshots before it removes what followed on from them.
      this.findings.push(this.#isOfLitestream ? { ...told, severity: "note" } : told);
    }
    if (this.#encryption === "sealed") {
      const message = `${count(this.files.length)} cannot be read without an identity: what is in them is not proven`;
      this.add(name, "encrypted", message);
    }
    // Whoever decrypts has proven every byte.
    if (this.#withoutSha256 > 0 && this.#chain.layout === "walsync" && this.#encryption !== "open") {
      this.add(name, "sha256-missing", `${count(this.#withoutSha256)} without a sha256 to compare with`);
    }
    if (this.#withoutChecksums > 0 && this.#encryption !== "sealed") {
      this.add(
        name,
        "no-checksums",
        `${count(this.#withoutChecksums)} of the layout ${this.#chain.layout} without checksums of the database: each is whole, ` +
          "that they follow on is told by their txids alone",
      );
    }
  }

  #taint(file: ChainFile): void {
    this.#isTainted = true;
    this.#proven.delete(file.maxTxid);
  }

  #reach(file: ChainFile): void {
    const reached = this.#reached;
    if (file.kind === "snapshot" || (reached !== null && file.minTxid <= reached + 1n)) {
      this.#isBehindGap = false;
      this.#reached = file.maxTxid;
    } else if (reached === null) this.#stranded++;
    else if (!this.#isBehindGap && (this.#lost?.has(file.maxTxid) ?? true)) {
      this.#isBehindGap = true;
      const message = `expected txid ${reached + 1n} before it, found nothing between: no point from here on can be restored`;
      this.add(file.key, "chain-gap", `${message}, up to the next snapshot`);
    }
  }

  /** 0 for what is not known. */
  #compareStates(file: ChainFile, pre: bigint, post: bigint): void {
    const before = file.minTxid === 1n ? undefined : this.#states.get(file.minTxid - 1n);
    if (before !== undefined && pre !== 0n && before !== pre) {
      const message = `expected to follow on from database checksum ${hex64(before)}, found ${hex64(pre)}`;
      this.add(file.key, "checksum-differs", message);
    }
    if (post === 0n) return;
    const known = this.#states.get(file.maxTxid);
    if (known === undefined) this.#states.set(file.maxTxid, post);
    else if (known !== post) {
      const message = `expected database checksum ${hex64(known)} after it, as in the other file that ends at txid ${file.maxTxid}, found ${hex64(post)}`;
      this.add(file.key, "checksum-differs", message);
    }
  }

  #compareEntry(file: ChainFile, { pre, post }: ChainChecksums, sha256: string | undefined): void {
    const entry = this.#entries.get(file.key);
    if (entry === undefined) return;
    // An entry of an encrypted file tells none.
    const checksums =
      this.#encryption === undefined
        ? [
            ["pre_checksum", hex64(entry.preChecksum), hex64(pre)],
            ["post_checksum", hex64(entry.postChecksum), hex64(post)],
          ]
        : [];
    const differing = [
      ["size", entry.sizeBytes, file.sizeBytes],
      ["min_txid", entry.minTxid, file.minTxid],
      ["max_txid", entry.maxTxid, file.maxTxid],
      ["kind", entry.kind, file.kind],
      ...checksums,
      ["sha256", entry.sha256, sha256 ?? entry.sha256],
    ].find(([, said, found]) => said !== found);
    if (differing === undefined) return;
    const [field, said, found] = differing;
    this.add(file.key, "manifest-differs", `expected ${field} ${said} as in the manifest, found ${found}`);
  }
}

// --- internal ---

/** A file that is not one of ours, or no more; not one that cannot be read now. */
function isDamage(error: unknown): boolean {
  return error instanceof LtxError || (error instanceof WalsyncError && error.code === "E_INTEGRITY");
}
