/**
 * Files that are captured but not yet acknowledged by the destination, in a folder of the database's state.
 * A file appears under its final name only when all of it, and its name, is on the disk.
 */
import { closeSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { assert } from "../assert.ts";
import { hex64 } from "../bytes.ts";
import type { ChainChecksums, LayoutRules } from "../chain/layout-rules.ts";
import {
  asDiskError,
  makePrivateFolder,
  openTempFile,
  removeFile,
  renameDurably,
  syncFile,
  writeFully,
} from "../durable.ts";
import { LtxError } from "../errors.ts";
import { LtxEncoder } from "../ltx/encoder.ts";
import { LtxFileReader } from "../ltx/file-reader.ts";
import type { LtxHeader } from "../ltx/format.ts";
import { formatTxid, type Txid, type TxidRange } from "../ltx/txid.ts";
import { PacedSync } from "../paced-sync.ts";

export interface OutboxFile extends TxidRange {
  path: string;
  sizeBytes: number;
  /** When it was staged, by the host's clock. */
  stagedAtMs: number;
  /** SQLite transactions in it; 0 for snapshots and resyncs, which are not made of transactions. */
  commits: number;
  /** Database checksums, of a layout that keeps them out of its files; else null. */
  checksums: ChainChecksums | null;
  /** Hex digest of the bytes; null for a file that an earlier process left. */
  sha256: string | null;
  /** What its header and trailer say; null for a file that an earlier process left. */
  ends: OutboxEnds | null;
}

/** True for a file that claims a txid of its own; false for a later snapshot, which only repeats what others hold. */
export function claimsTxid(range: TxidRange): boolean {
  return range.minTxid === range.maxTxid;
}

/** True for a snapshot of the state after `txid`: 1-1 is one, too. */
export function isSnapshotAt(range: TxidRange, txid: Txid): boolean {
  return range.minTxid === 1n && range.maxTxid === txid;
}

/** What header and trailer of a file say, and its name. What this process staged it knows. Throws LtxError. */
export function readOutboxEnds(file: OutboxFile): OutboxEnds {
  if (file.ends !== null) return file.ends;
  const reader = new LtxFileReader(file.path, ENDS_SIZE);
  reader.close();
  return outboxEndsOf(file, reader);
}

/** As `readOutboxEnds`, of a file that is open already. */
export function outboxEndsOf({ checksums }: OutboxFile, reader: LtxFileReader): OutboxEnds {
  const { timestampMs, pageSize, preApplyChecksum } = reader.header;
  const inFile = { pre: preApplyChecksum, post: reader.claimedPostApplyChecksum };
  return { timestampMs, pageSize, checksums: checksums ?? inFile };
}

export interface OutboxEnds {
  timestampMs: number;
  pageSize: number;
  checksums: ChainChecksums;
}

/** A file of the outbox is not what was staged. It was never acknowledged. */
export class OutboxDamage extends LtxError {}

export class Outbox {
  readonly folder: string;
  /** Of the destination that the files are staged for. */
  readonly rules: LayoutRules;
  readonly #files: OutboxFile[];
  readonly #released: OutboxFile[] = [];
  #releasedBytes = 0;
  #sizeBytes = 0;

  /** Opens the folder, and removes what a crash left half written. */
  constructor(folder: string, rules: LayoutRules) {
    this.folder = folder;
    this.rules = rules;
    makePrivateFolder(folder);
    const names = readdirSync(folder);
    for (const name of names) if (name.includes(".tmp")) rmSync(join(folder, name), { force: true });
    this.#files = names.map((name) => describe(folder, name)).filter((file) => file !== null);
    this.#files.sort((a, b) => Number(a.maxTxid - b.maxTxid) || Number(b.minTxid - a.minTxid));
    for (const file of this.#files) this.#sizeBytes += file.sizeBytes;
  }

  /** What is there, oldest first. A snapshot stands behind the increment with the same last txid. */
  get files(): readonly OutboxFile[] {
    return this.#files;
  }

  /** Bytes of all files. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Starts a file. Its header becomes what the layout wants. Nothing is visible before `Staging.commit`. */
  stage(header: LtxHeader, commits: number): Staging {
    return new Staging(this.folder, this.rules, header, commits, (file) => {
      assert(!this.#files.some(({ path }) => path === file.path), "a file is staged once");
      this.#files.push(file);
      this.#sizeBytes += file.sizeBytes;
    });
  }

  remove(file: OutboxFile): void {
    removeFile(file.path);
    this.#drop(file);
  }

  /** A file was acknowledged: it waits no more, and stays on the disk until that is recorded. */
  release(file: OutboxFile): void {
    this.#drop(file);
    this.#released.push(file);
    this.#releasedBytes += file.sizeBytes;
  }

  /** How many files wait to be removed. */
  get releasedFiles(): number {
    return this.#released.length;
  }

  /** Bytes of them. */
  get releasedBytes(): number {
    return this.#releasedBytes;
  }

  /** That the released files were acknowledged is recorded: removes them. */
  purge(): void {
    for (let file = this.#released.at(0); file !== undefined; file = this.#released.at(0)) {
      removeFile(file.path);
      this.#released.shift();
      this.#releasedBytes -= file.sizeBytes;
    }
  }

  #drop(file: OutboxFile): void {
    const at = this.#files.indexOf(file);
    if (at < 0) return;
    this.#files.splice(at, 1);
    this.#sizeBytes -= file.sizeBytes;
  }
}

/** One file on its way into the outbox. */
export class Staging {
  readonly encoder: LtxEncoder;
  readonly #folder: string;
  readonly #rules: LayoutRules;
  readonly #temp: string;
  readonly #fd: number;
  readonly #header: LtxHeader;
  readonly #commits: number;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  readonly #onCommit: (file: OutboxFile) => void;
  /** Its final name; null until that is known. */
  #path: string | null = null;
  /** For who writes much: between parts, and before `commit`. */
  readonly sync: PacedSync;

  constructor(
    folder: string,
    rules: LayoutRules,
    header: LtxHeader,
    commits: number,
    onCommit: (file: OutboxFile) => void,
  ) {
    this.#folder = folder;
    this.#rules = rules;
    this.#temp = join(folder, `${formatTxid(header.minTxid)}-${formatTxid(header.maxTxid)}.ltx.tmp`);
    this.#header = header;
    this.#commits = commits;
    this.#onCommit = onCommit;
    try {
      this.#fd = openTempFile(this.#temp);
    } catch (error) {
      throw asDiskError(this.#temp, error);
    }
    this.sync = new PacedSync(this.#fd, this.#temp);
    this.encoder = new LtxEncoder(
      (bytes) => {
        try {
          this.#hasher.update(bytes);
          writeFully(this.#fd, bytes);
          this.sync.wrote(bytes.byteLength);
        } catch (error) {
          throw asDiskError(this.#temp, error);
        }
      },
      rules.headerInFile(header),
      { spoolPath: `${this.#temp}.index` },
    );
  }

  /** Finishes the file and makes it durable and visible. If it throws, call `abort`. */
  commit(postApplyChecksum: bigint): OutboxFile {
    const { minTxid, maxTxid, timestampMs, pageSize, preApplyChecksum } = this.#header;
    const { checksumsInFiles } = this.#rules;
    const checksums = checksumsInFiles ? null : { pre: preApplyChecksum, post: postApplyChecksum };
    this.encoder.finish(checksumsInFiles ? postApplyChecksum : 0n);
    const named = { minTxid, maxTxid, commits: this.#commits, checksums };
    const path = join(this.#folder, fileName(named));
    this.#path = path;
    try {
      syncFile(this.#fd, this.#temp);
      renameDurably(this.#temp, path);
    } catch (error) {
      throw asDiskError(path, error);
    }
    closeSync(this.#fd);
    const file: OutboxFile = {
      path,
      stagedAtMs: Date.now(),
      ...named,
      sizeBytes: this.encoder.sizeBytes,
      sha256: this.#hasher.digest("hex"),
      ends: { timestampMs, pageSize, checksums: { pre: preApplyChecksum, post: postApplyChecksum } },
    };
    this.#onCommit(file);
    return file;
  }

  /** Drops the file, also one whose name may or may not have become durable. */
  abort(): void {
    this.encoder.abort();
    closeSync(this.#fd);
    rmSync(this.#temp, { force: true });
    if (this.#path !== null) rmSync(this.#path, { force: true });
  }
}

// --- internal ---

const FILE_NAME = /^([0-9a-f]{16})-([0-9a-f]{16})\.(\d+)(?:\.([0-9a-f]{16})-([0-9a-f]{16}))?\.ltx$/;
/** Enough for a header or a trailer. */
const ENDS_SIZE = 128;

/** Checksums that are not part of the file are part of its name: both become durable at once. */
function fileName({ minTxid, maxTxid, commits, checksums }: NamedInOutbox): string {
  const beside = checksums === null ? "" : `.${hex64(checksums.pre)}-${hex64(checksums.post)}`;
  return `${formatTxid(minTxid)}-${formatTxid(maxTxid)}.${commits}${beside}.ltx`;
}

type NamedInOutbox = Pick<OutboxFile, "minTxid" | "maxTxid" | "commits" | "checksums">;

function describe(folder: string, name: string): OutboxFile | null {
  const match = FILE_NAME.exec(name);
  if (match === null) return null;
  const path = join(folder, name);
  const { size, mtimeMs } = statSync(path);
  return {
    path,
    minTxid: BigInt(`0x${match[1]}`),
    maxTxid: BigInt(`0x${match[2]}`),
    commits: Number(match[3]),
    checksums: match[4] === undefined ? null : { pre: BigInt(`0x${match[4]}`), post: BigInt(`0x${match[5]}`) },
    sizeBytes: size,
    stagedAtMs: mtimeMs,
    sha256: null,
    ends: null,
  };
}
