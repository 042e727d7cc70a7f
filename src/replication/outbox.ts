/**
 * Files that are captured but not yet acknowledged by the destination, in a folder of the database's state.
 * A file appears under its final name only when all of it, and its name, is on the disk.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "../bytes.ts";
import { asDiskError, renameDurably, writeFully } from "../durable.ts";
import { LtxEncoder } from "../ltx/encoder.ts";
import type { LtxHeader } from "../ltx/format.ts";
import { formatTxid, type TxidRange } from "../ltx/txid.ts";

export interface OutboxFile extends TxidRange {
  path: string;
  sizeBytes: number;
  /** SQLite transactions in it; 0 for snapshots and resyncs, which are not made of transactions. */
  commits: number;
}

export class Outbox {
  readonly #folder: string;

  /** Opens the folder, and removes what a crash left half written. */
  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(folder)) if (name.includes(".tmp-")) rmSync(join(folder, name), { force: true });
  }

  /** All files, oldest first. A snapshot sorts behind the increment with the same last txid. */
  list(): OutboxFile[] {
    const files: OutboxFile[] = [];
    for (const name of readdirSync(this.#folder)) {
      const match = FILE_NAME.exec(name);
      if (match === null) continue;
      const path = join(this.#folder, name);
      files.push({
        path,
        minTxid: BigInt(`0x${match[1]}`),
        maxTxid: BigInt(`0x${match[2]}`),
        commits: Number(match[3]),
        sizeBytes: statSync(path).size,
      });
    }
    return files.sort((a, b) => Number(a.maxTxid - b.maxTxid) || Number(b.minTxid - a.minTxid));
  }

  /** Starts a file. Nothing is visible before `Staging.commit`. */
  stage(header: LtxHeader, commits: number): Staging {
    const name = `${formatTxid(header.minTxid)}-${formatTxid(header.maxTxid)}.${commits}.ltx`;
    return new Staging(join(this.#folder, name), header, commits);
  }

  remove(file: OutboxFile): void {
    rmSync(file.path, { force: true });
  }
}

/** One file on its way into the outbox. */
export class Staging {
  readonly encoder: LtxEncoder;
  readonly #path: string;
  readonly #temp: string;
  readonly #fd: number;
  readonly #header: LtxHeader;
  readonly #commits: number;

  constructor(path: string, header: LtxHeader, commits: number) {
    this.#path = path;
    this.#temp = `${path}.tmp-${process.pid}`;
    this.#header = header;
    this.#commits = commits;
    try {
      this.#fd = openSync(this.#temp, "w", 0o600);
    } catch (error) {
      throw asDiskError(path, error);
    }
    let unsynced = 0;
    this.encoder = new LtxEncoder(
      (bytes) => {
        try {
          writeFully(this.#fd, bytes);
          // Spreads the writing of a large snapshot over time, so that the fsync at the end does not stall the host.
          unsynced += bytes.byteLength;
          if (unsynced >= SYNC_EVERY) {
            fsyncSync(this.#fd);
            unsynced = 0;
          }
        } catch (error) {
          throw asDiskError(path, error);
        }
      },
      header,
      { spoolPath: `${this.#temp}.index` },
    );
  }

  /** Finishes the file and makes it durable and visible. */
  commit(postApplyChecksum: bigint): OutboxFile {
    this.encoder.finish(postApplyChecksum);
    try {
      fsyncSync(this.#fd);
      closeSync(this.#fd);
      renameDurably(this.#temp, this.#path);
    } catch (error) {
      throw asDiskError(this.#path, error);
    }
    const { minTxid, maxTxid } = this.#header;
    return { path: this.#path, minTxid, maxTxid, commits: this.#commits, sizeBytes: this.encoder.sizeBytes };
  }

  /** Drops the file. */
  abort(): void {
    closeSync(this.#fd);
    rmSync(this.#temp, { force: true });
  }
}

// --- internal ---

const FILE_NAME = /^([0-9a-f]{16})-([0-9a-f]{16})\.(\d+)\.ltx$/;
const SYNC_EVERY = 64 * MiB;
