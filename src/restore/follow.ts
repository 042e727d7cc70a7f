/**
 * Follows a database at a destination into a local read copy: a whole restore at first, then increments; and a whole restore
 * again, in place, when increments do not lead on.
 */
import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { readChain, readTimeOf } from "../chain/chain.ts";
import { fetchInOrder } from "../chain/fetch.ts";
import { type ChainFile, followOn, restorePoints } from "../chain/plan.ts";
import type { Destination } from "../destination/destination.ts";
import {
  asDiskError,
  makePrivateFolder,
  openTempFile,
  syncFile,
  syncFolder,
  writeFileDurably,
  writeFully,
} from "../durable.ts";
import { ChainGapError, errnoOf, LtxError, messageOf, WalsyncError } from "../errors.ts";
import { compactLtx } from "../ltx/compactor.ts";
import { LtxFileReader } from "../ltx/file-reader.ts";
import { hasChecksums } from "../ltx/format.ts";
import type { Txid } from "../ltx/txid.ts";
import { lockPgno, pageOffset } from "../page.ts";
import { readFully } from "../sqlite/wal-reader.ts";
import { requireFreeOutput } from "./output.ts";
import { type PageChange, ReplicaFile, shapeOf, stamp } from "./replica.ts";
import { restoreDatabase } from "./restore.ts";

export interface FollowStep {
  txid: Txid;
  /** How the copy came there; "current" if it was there already. */
  kind: "bootstrap" | "increments" | "current";
  fileCount: number;
  /** When the state was captured at the source. */
  timestampMs: number;
}

export class Follower {
  readonly #destination: Destination;
  readonly #name: string;
  readonly #path: string;
  readonly #folder: string;
  #state: ReplicaState | null;
  #file: ReplicaFile | null = null;

  /**
   * `local` is the copy; its state is in a folder beside it. Throws E_OUTPUT_EXISTS if there is a file that is not a copy of
   * this database.
   */
  constructor(destination: Destination, name: string, local: string) {
    this.#destination = destination;
    this.#name = name;
    this.#path = resolve(local);
    this.#folder = replicaFolder(this.#path);
    this.#state = readState(join(this.#folder, STATE_FILE));
    const isOurs = this.#state?.name === name && this.#state.url === destination.url;
    if (this.#state !== null && isOurs && existsSync(this.#path)) return;
    // Refuses whatever is there.
    requireFreeOutput(this.#path, false);
    this.#state = null;
  }

  /** Brings the copy to the newest state of the destination. */
  async step(signal: AbortSignal): Promise<FollowStep> {
    const { files } = await readChain(this.#destination, this.#name, signal);
    const newest = restorePoints(files).at(-1)!;
    if (this.#state === null) return await this.#bootstrap(signal);
    this.#settleState();
    const { txid, timestampMs } = this.#state;
    if (newest === txid) return { txid, kind: "current", fileCount: 0, timestampMs };
    const path = newest < txid ? null : followOn(files, txid, newest);
    if (path === null || !(await this.#isSameHistory(files, signal))) return await this.#bootstrap(signal);
    try {
      for (let first = 0; first < path.length; first += FILES_AT_ONCE) {
        await this.#applyIncrements(path.slice(first, first + FILES_AT_ONCE), signal);
      }
    } catch (error) {
      // Another history, or pages of another size: only all of it helps.
      if (!(error instanceof ChainGapError) && !(error instanceof PageSizeChanged)) throw error;
      return await this.#bootstrap(signal);
    }
    return { txid: newest, kind: "increments", fileCount: path.length, timestampMs: this.#state.timestampMs };
  }

  close(): void {
    this.#file?.close();
    this.#file = null;
  }

  /**
   * Without checksums nothing in the increments proves that they belong to the copy: a source that was made anew counts its txids
   * from 1 again. The times of what came before the copy's own state tell.
   */
  async #isSameHistory(files: readonly ChainFile[], signal: AbortSignal): Promise<boolean> {
    const { txid, timestampMs, postChecksum } = this.#state!;
    if (postChecksum !== null) return true;
    const before = restorePoints(files).findLast((point) => point <= txid);
    if (before === undefined) return false;
    const beforeMs = await readTimeOf(this.#destination, files, before, signal);
    return beforeMs <= timestampMs;
  }

  /** A crash may have come before or after the change that was announced. */
  #settleState(): void {
    const state = this.#state!;
    this.#file ??= new ReplicaFile(this.#path);
    const counter = this.#file.changeCounter;
    if (state.next !== null && counter === state.next.changeCounter)
      this.#save({ ...state, ...state.next, next: null });
    else if (state.next !== null) this.#save({ ...state, next: null });
  }

  async #applyIncrements(files: readonly ChainFile[], signal: AbortSignal): Promise<void> {
    const temp = join(this.#folder, "temp");
    try {
      emptyFolder(temp);
      const paths = await fetchFiles(this.#destination, files, temp, signal);
      const merged = join(temp, "merged.ltx");
      await mergeTo(paths, merged);
      this.#applyFile(merged, files.at(-1)!.maxTxid);
    } finally {
      rmSync(temp, { recursive: true, force: true });
    }
  }

  #applyFile(merged: string, txid: Txid): void {
    const { header, claimedPostApplyChecksum: postChecksum } = closed(new LtxFileReader(merged, READ_SIZE));
    const state = this.#state!;
    const isProvable = hasChecksums(header) && state.postChecksum !== null;
    const follows = header.minTxid !== state.txid + 1n || header.preApplyChecksum === state.postChecksum;
    if (isProvable && !follows) {
      throw new ChainGapError(
        `${this.#name}: expected increments that follow on from txid ${state.txid}, found others`,
      );
    }
    if (header.pageSize !== this.#file!.pageSize) throw new PageSizeChanged();
    const { pageSize, commit, timestampMs } = header;
    this.#apply(
      { pageSize, commit, forEach: (onPage) => forEachPage(merged, onPage) },
      { txid, timestampMs, postChecksum: hasChecksums(header) ? postChecksum : null },
    );
  }

  /** Announces the change, makes it, and records it. */
  #apply(change: PageChange, reached: Reached): void {
    const state = this.#state!;
    const changeCounter = nextCounter(state.changeCounter);
    this.#save({ ...state, next: { ...reached, changeCounter } });
    this.#file!.apply(change, state.changeCounter, changeCounter);
    this.#save({ ...state, ...reached, changeCounter, next: null });
  }

  async #bootstrap(signal: AbortSignal): Promise<FollowStep> {
    const temp = join(this.#folder, "temp");
    try {
      emptyFolder(temp);
      const whole = join(temp, "whole.db");
      const options = { target: { kind: "newest" }, integrity: "quick", force: false, signal } as const;
      const restored = await restoreDatabase(this.#destination, this.#name, whole, options);
      const { txid, timestampMs, postChecksum, fileCount } = restored;
      const reached = { txid, timestampMs, postChecksum };
      const fd = openSync(whole, "r+");
      try {
        const { pageSize, commit } = shapeOf(fd);
        if (this.#state !== null && this.#file !== null && this.#file.pageSize === pageSize) {
          this.#apply({ pageSize, commit, forEach: (onPage) => forEachPageOf(fd, pageSize, commit, onPage) }, reached);
        } else this.#publish(whole, fd, commit, reached);
      } finally {
        closeSync(fd);
      }
      return { txid, kind: "bootstrap", fileCount, timestampMs };
    } catch (error) {
      throw errnoOf(error) === undefined ? error : asDiskError(this.#path, error);
    } finally {
      rmSync(temp, { recursive: true, force: true });
    }
  }

  /** Puts a new file in place: the first one, or one with pages of another size, which readers must open anew. */
  #publish(whole: string, fd: number, commit: number, reached: Reached): void {
    const changeCounter = nextCounter(this.#state?.changeCounter ?? 0);
    stamp(fd, commit, changeCounter);
    syncFile(fd, whole);
    this.close();
    const identity = { url: this.#destination.url, name: this.#name };
    const before = this.#state ?? { ...identity, ...reached, changeCounter: 0, next: null };
    this.#save({ ...before, next: { ...reached, changeCounter } });
    if (this.#state === null || !existsSync(this.#path)) requireFreeOutput(this.#path, false);
    renameSync(whole, this.#path);
    syncFolder(dirname(this.#path));
    this.#save({ ...identity, ...reached, changeCounter, next: null });
    this.#file = new ReplicaFile(this.#path);
  }

  #save(state: ReplicaState): void {
    writeFileDurably(join(this.#folder, STATE_FILE), Buffer.from(formatState(state)));
    this.#state = state;
  }
}

/** Where the state of a copy is kept. */
export function replicaFolder(local: string): string {
  const path = resolve(local);
  return join(dirname(path), `.${basename(path)}-walsync-replica`);
}

// --- internal ---

const STATE_FILE = "replica.json";
const VERSION = 1;
/** As many as the compactor holds open at once. */
const FILES_AT_ONCE = 256;
const READ_SIZE = 64 * 1024;

class PageSizeChanged extends Error {}

interface Reached {
  txid: Txid;
  timestampMs: number;
  /** Database checksum of the source after it; null if the layout keeps none. */
  postChecksum: bigint | null;
}

interface ReplicaState extends Reached {
  url: string;
  name: string;
  changeCounter: number;
  /** What the file may be already, if a crash came before this was recorded. */
  next: (Reached & { changeCounter: number }) | null;
}

function formatState(state: ReplicaState): string {
  const text = (_key: string, value: unknown) => (typeof value === "bigint" ? `0x${value.toString(16)}` : value);
  return `${JSON.stringify({ version: VERSION, ...state }, text, 2)}\n`;
}

/** Null if there is none. Throws E_INTEGRITY if it is none. */
function readState(path: string): ReplicaState | null {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return null;
    throw asDiskError(path, error);
  }
  try {
    const revive = (key: string, value: unknown) =>
      (key === "txid" || key === "postChecksum") && typeof value === "string" ? BigInt(value) : value;
    const { version, ...state } = JSON.parse(text, revive);
    if (version !== VERSION) throw new RangeError(`expected version ${VERSION}, found ${version}`);
    return state;
  } catch (error) {
    throw new WalsyncError("E_INTEGRITY", `${path}: expected the state of a copy, found: ${messageOf(error)}`, {
      hint: "Remove the folder it is in and the copy: the next run makes them anew.",
      cause: error,
    });
  }
}

/** Any other number: SQLite itself would add one, so that a foreign change shows. */
function nextCounter(counter: number): number {
  for (;;) {
    const next = Math.floor(Math.random() * 2 ** 32);
    if (Math.abs(next - counter) > 2 ** 16) return next;
  }
}

function emptyFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  try {
    makePrivateFolder(dirname(folder));
    makePrivateFolder(folder);
  } catch (error) {
    throw asDiskError(folder, error);
  }
}

function closed(reader: LtxFileReader): LtxFileReader {
  reader.close();
  return reader;
}

async function fetchFiles(
  destination: Destination,
  files: readonly ChainFile[],
  folder: string,
  signal: AbortSignal,
): Promise<string[]> {
  const paths: string[] = [];
  for await (const { chunks } of fetchInOrder(destination, files, signal)) {
    const path = join(folder, `${paths.length}.ltx`);
    const fd = openTempFile(path);
    try {
      for await (const chunk of chunks) writeFully(fd, chunk);
    } finally {
      closeSync(fd);
    }
    paths.push(path);
  }
  return paths;
}

/** Verifies every part to its end. Overlapping parts, as merging leaves them, are applied as they are. */
async function mergeTo(paths: readonly string[], merged: string): Promise<void> {
  const fd = openTempFile(merged);
  try {
    await compactLtx(paths, (bytes) => writeFully(fd, bytes), { spoolPath: `${merged}.index` });
  } catch (error) {
    if (error instanceof LtxError && /page size/.test(error.message)) throw new PageSizeChanged();
    throw error;
  } finally {
    closeSync(fd);
  }
}

function forEachPage(path: string, onPage: (pgno: number, page: Uint8Array) => void): void {
  const reader = new LtxFileReader(path, READ_SIZE);
  try {
    for (reader.advance(); Number.isFinite(reader.pgno); reader.advance()) onPage(reader.pgno, reader.page);
  } finally {
    reader.close();
  }
}

/** Every page of a database file. */
function forEachPageOf(
  fd: number,
  pageSize: number,
  commit: number,
  onPage: (pgno: number, page: Uint8Array) => void,
): void {
  const page = Buffer.alloc(pageSize);
  for (let pgno = 1; pgno <= commit; pgno++) {
    if (pgno === lockPgno(pageSize)) continue;
    readFully(fd, page, pageSize, pageOffset(pgno, pageSize));
    onPage(pgno, page);
  }
}
