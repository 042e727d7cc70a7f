/**
 * Follows a database at a destination into a local read copy: a whole restore at first, then increments; and a whole restore
 * again, in place, when increments do not lead on. Each state is proven by its database checksum before readers see it.
 */
import { closeSync, fstatSync, lstatSync, openSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { hex64 } from "../bytes.ts";
import { type Chain, readChain, readFileEnds } from "../chain/chain.ts";
import { claimedChecksums } from "../chain/layout-rules.ts";
import { type ChainFile, followOn, restorePoints } from "../chain/plan.ts";
import { type Anchor, anchorAt, readTail } from "../chain/tail.ts";
import { monotonicMs } from "../clock.ts";
import type { Destination } from "../destination/destination.ts";
import { asDiskError, makePrivateFolder, syncFile, writeFully } from "../durable.ts";
import { ChainGapError, errnoOf, LtxError, VanishedError, WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import { lockPgno, pageOffset } from "../page.ts";
import { DATABASE_HEADER_SIZE } from "../sqlite/file-header.ts";
import { readFully } from "../sqlite/wal-reader.ts";
import { decodeCopyHeader, stampFirstPage, takeOwnFields } from "./first-page.ts";
import { type FetchedIncrements, fetchIncrements, splitPath } from "./increments.ts";
import { publishIfAbsent, requireFreeOutput } from "./output.ts";
import { type PageChange, type PreparedChange, prepareChange } from "./prepared-change.ts";
import { foreign, ReplicaFile } from "./replica.ts";
import {
  type CopyState,
  type ReplicaState,
  readReplicaState,
  replicaFolder,
  writeReplicaState,
} from "./replica-state.ts";
import { restoreDatabase } from "./restore.ts";

export interface FollowStep {
  txid: Txid;
  /** How the copy came there; "current" if it was there already. */
  kind: "bootstrap" | "increments" | "current";
  fileCount: number;
  /** When the state was captured at the source. */
  timestampMs: number;
}

export interface FollowOptions {
  /** While everything is fetched. */
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

export class Follower {
  readonly #destination: Destination;
  readonly #name: string;
  readonly #path: string;
  readonly #folder: string;
  readonly #options: FollowOptions;
  #state: ReplicaState | null;
  #file: ReplicaFile | null = null;
  #listAgainAtMs: number;

  /**
   * `local` is the copy; its state is in a folder beside it, and one process at a time may use both. Throws E_OUTPUT_EXISTS if
   * there is a file that is not a copy of this database.
   */
  constructor(destination: Destination, name: string, local: string, options: FollowOptions = {}) {
    this.#destination = destination;
    this.#name = name;
    this.#path = resolve(local);
    this.#folder = replicaFolder(this.#path);
    this.#options = options;
    this.#listAgainAtMs = monotonicMs() + LIST_AGAIN_AFTER_MS;
    this.#state = readReplicaState(this.#folder);
    const kind = kindOf(this.#path);
    if (this.#state === null || kind === "none") {
      requireFreeOutput(this.#path, false);
      this.#state = null;
    } else if (kind === "other") throw foreign(this.#path);
    else if (this.#state.name !== name || this.#state.url !== destination.url) {
      throw ofAnother(this.#path, this.#state);
    }
  }

  /**
   * Brings the copy to the newest state of the destination. Throws E_OUTPUT_EXISTS if the copy is one no longer, E_LOCKED if
   * readers hold it for too long, E_NOT_FOUND if the destination has no such database (yet), what `restoreDatabase` throws, and
   * a DestinationError: the copy is then in one state of the source, and the next step goes on from there.
   */
  async step(signal: AbortSignal): Promise<FollowStep> {
    try {
      this.#settle();
      if (this.#state === null) return await this.#bootstrap(signal);
      return (await this.#stepFromAnchor(signal)) ?? (await this.#stepFromListing(signal));
    } catch (error) {
      throw errnoOf(error) === undefined ? error : asDiskError(this.#path, error);
    }
  }

  close(): void {
    this.#file?.close();
    this.#file = null;
  }

  /** Finds out which state the file is in: a crash may have come before or after the change that was announced. */
  #settle(): void {
    if (this.#state === null) return;
    if (kindOf(this.#path) === "none") {
      // Removed by somebody who wants it anew.
      this.close();
      requireFreeOutput(this.#path, false);
      this.#state = null;
      return;
    }
    if (this.#file?.isInPlace === false) throw foreign(this.#path);
    this.#file ??= new ReplicaFile(this.#path);
    const { changeCounter } = this.#file.read();
    const { current, next } = this.#state;
    if (changeCounter === next?.changeCounter) this.#save({ ...this.#state, current: next, next: null, anchor: null });
    else if (changeCounter !== current.changeCounter) throw foreign(this.#path);
    else if (next !== null) this.#save({ ...this.#state, next: null });
  }

  /** One small request, as long as the chain just grows. Null if all files have to be looked at. */
  async #stepFromAnchor(signal: AbortSignal): Promise<FollowStep | null> {
    const { anchor, current } = this.#state!;
    if (anchor === null || monotonicMs() >= this.#listAgainAtMs) return null;
    const files = await readTail(this.#destination, this.#name, anchor, signal);
    if (files === null) return null;
    const path = followOn(files, current.txid, restorePoints(files).at(-1)!);
    if (path === null) return null;
    try {
      return await this.#advance(path, files, signal);
    } catch (error) {
      // A merge or a retention came in between, or increments do not help.
      if (!isCauseToLookAgain(error)) throw error;
      return null;
    }
  }

  async #stepFromListing(signal: AbortSignal): Promise<FollowStep> {
    const chain = await readChain(this.#destination, this.#name, signal);
    this.#listAgainAtMs = monotonicMs() + LIST_AGAIN_AFTER_MS;
    const newest = restorePoints(chain.files).at(-1)!;
    const { txid } = this.#state!.current;
    const path = newest < txid ? null : followOn(chain.files, txid, newest);
    if (path === null || !(await this.#isOfOneHistory(chain, signal))) return await this.#bootstrap(signal);
    try {
      return await this.#advance(path, chain.files, signal);
    } catch (error) {
      const { txid: reached } = this.#state!.current;
      if (error instanceof ChainGapError || error instanceof PageSizeChanged) return await this.#bootstrap(signal);
      // A snapshot leads around files that are damaged.
      const isDamaged = error instanceof LtxError || (error instanceof WalsyncError && error.code === "E_INTEGRITY");
      if (!isDamaged || !chain.files.some((file) => file.kind === "snapshot" && file.maxTxid > reached)) throw error;
      return await this.#bootstrap(signal);
    }
  }

  /** False if a file that ends where the copy is, or before, shows that the chain was begun anew since. */
  async #isOfOneHistory({ files }: Chain, signal: AbortSignal): Promise<boolean> {
    const { txid, checksum, timestampMs } = this.#state!.current;
    let known: ChainFile | null = null;
    for (const file of files) {
      if (file.maxTxid > txid || (known !== null && file.maxTxid < known.maxTxid)) continue;
      // Of one state the increment comes first: a snapshot of it may be of a later time.
      if (known === null || file.maxTxid > known.maxTxid || known.kind === "snapshot") known = file;
    }
    // Later files are proven by their checksums; without those there is nothing to go by.
    if (known === null) return checksum !== null;
    const ends = await readFileEnds(this.#destination, known, signal);
    const { post } = claimedChecksums(ends);
    if (known.maxTxid === txid && checksum !== null && post !== 0n) return post === checksum;
    return ends.header.timestampMs <= timestampMs;
  }

  async #advance(path: readonly ChainFile[], files: readonly ChainFile[], signal: AbortSignal): Promise<FollowStep> {
    if (path.length === 0) this.#state!.anchor = anchorAt(files, this.#state!.current.txid);
    for (const stretch of splitPath(path)) {
      const anchor = anchorAt(files, stretch.at(-1)!.maxTxid);
      await this.#inTempFolder(async (folder) => {
        const fetched = await fetchIncrements(this.#destination, stretch, folder, signal);
        await this.#applyIncrements(fetched, anchor, folder, signal);
      });
    }
    const { txid, timestampMs } = this.#state!.current;
    return { txid, kind: path.length === 0 ? "current" : "increments", fileCount: path.length, timestampMs };
  }

  async #applyIncrements(
    { header, claimedPost, change }: FetchedIncrements,
    anchor: Anchor | null,
    folder: string,
    signal: AbortSignal,
  ): Promise<void> {
    if (header.pageSize !== this.#file!.read().pageSize) throw new PageSizeChanged();
    const prepared = await this.#prepare(change, folder);
    // Where a checksum was known and none is claimed, another program took the chain over: only a whole restore goes on from there.
    if (prepared.checksum !== null && prepared.checksum !== claimedPost) {
      const expected =
        claimedPost === 0n ? "a claim of the database checksum" : `database checksum ${hex64(claimedPost)}`;
      throw new ChainGapError(
        `${this.#name}: expected ${expected} after txid ${header.maxTxid}, found that the copy would have ${hex64(prepared.checksum)}`,
      );
    }
    const checksum = claimedPost === 0n ? null : claimedPost;
    await this.#apply(prepared, { txid: header.maxTxid, timestampMs: header.timestampMs, checksum }, anchor, signal);
  }

  #prepare(change: PageChange, folder: string): Promise<PreparedChange> {
    const { fd } = this.#file!;
    const { pageSize } = this.#file!.read();
    const { sourceFields, checksum } = this.#state!.current;
    return prepareChange(change, { fd, pageSize, sourceFields, checksum }, join(folder, "journal"));
  }

  /** Announces the change, makes it, and records it. */
  async #apply(prepared: PreparedChange, reached: Reached, anchor: Anchor | null, signal: AbortSignal): Promise<void> {
    const { current } = this.#state!;
    const { sourceFields } = prepared;
    const next = { ...reached, changeCounter: nextCounter(current.changeCounter), sourceFields };
    this.#save({ ...this.#state!, next });
    await this.#file!.apply(prepared, current.changeCounter, next.changeCounter, signal);
    this.#save({ ...this.#state!, current: next, next: null, anchor });
  }

  /** Restores the newest state, and makes the copy that, in place if there is one. */
  #bootstrap(signal: AbortSignal): Promise<FollowStep> {
    return this.#inTempFolder(async (folder) => {
      const whole = join(folder, "whole.db");
      const restored = await restoreDatabase(this.#destination, this.#name, whole, {
        target: { kind: "newest" },
        integrity: "quick",
        force: false,
        signal,
        onProgress: this.#options.onProgress,
      });
      const { txid, timestampMs, postChecksum: checksum, fileCount } = restored;
      const reached = { txid, timestampMs, checksum };
      const fd = openSync(whole, "r+");
      try {
        if (this.#state === null) this.#publish(whole, fd, reached);
        else await this.#apply(await this.#prepare(wholeChange(fd), folder), reached, null, signal);
      } finally {
        closeSync(fd);
      }
      return { txid, kind: "bootstrap", fileCount, timestampMs };
    });
  }

  /** The first one. Readers open it as soon as it has its name. */
  #publish(whole: string, fd: number, reached: Reached): void {
    const { commit } = wholeChange(fd);
    const head = Buffer.alloc(DATABASE_HEADER_SIZE);
    readFully(fd, head, head.length, 0);
    const current = { ...reached, changeCounter: nextCounter(0), sourceFields: takeOwnFields(head) };
    stampFirstPage(head, commit, current.changeCounter);
    writeFully(fd, head, 0);
    syncFile(fd, whole);
    // Before it has its name: a file that is found without a state is never taken for a copy.
    this.#save({ url: this.#destination.url, name: this.#name, current, next: null, anchor: null });
    try {
      publishIfAbsent(whole, this.#path);
    } catch (error) {
      this.#state = null;
      throw error;
    }
  }

  async #inTempFolder<T>(action: (folder: string) => Promise<T>): Promise<T> {
    const folder = join(this.#folder, "temp");
    rmSync(folder, { recursive: true, force: true });
    makePrivateFolder(this.#folder);
    makePrivateFolder(folder);
    try {
      return await action(folder);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  #save(state: ReplicaState): void {
    writeReplicaState(this.#folder, state);
    this.#state = state;
  }
}

// --- internal ---

/** A merge that was interrupted may have removed new files before the anchor: only a whole listing shows the merged one then. */
const LIST_AGAIN_AFTER_MS = 3_600_000;

type Reached = Pick<CopyState, "txid" | "timestampMs" | "checksum">;

class PageSizeChanged extends Error {}

function isCauseToLookAgain(error: unknown): boolean {
  if (error instanceof VanishedError || error instanceof PageSizeChanged) return true;
  return error instanceof WalsyncError && ["E_CHAIN_GAP", "E_LTX", "E_INTEGRITY"].includes(error.code);
}

function kindOf(path: string): "none" | "file" | "other" {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return "none";
  return stats.isFile() ? "file" : "other";
}

function ofAnother(path: string, { name, url }: ReplicaState): WalsyncError {
  return new WalsyncError(
    "E_OUTPUT_EXISTS",
    `${path}: expected no file or a copy of this database, found a copy of ${name} in ${url}`,
    {
      hint: "Choose another --local, or move the copy away.",
    },
  );
}

/** Any other number: SQLite itself would add one, so that a foreign change shows. */
function nextCounter(counter: number): number {
  for (;;) {
    const next = Math.floor(Math.random() * 2 ** 32);
    if (Math.abs(next - counter) > 2 ** 16) return next;
  }
}

/** Every page of a database file. */
function wholeChange(fd: number): PageChange {
  const head = Buffer.alloc(DATABASE_HEADER_SIZE);
  readFully(fd, head, head.length, 0);
  const { pageSize } = decodeCopyHeader(head);
  const commit = fstatSync(fd).size / pageSize;
  function* pages() {
    const page = Buffer.alloc(pageSize);
    for (let pgno = 1; pgno <= commit; pgno++) {
      if (pgno === lockPgno(pageSize)) continue;
      readFully(fd, page, pageSize, pageOffset(pgno, pageSize));
      yield { pgno, page };
    }
  }
  return { pageSize, commit, pages };
}
