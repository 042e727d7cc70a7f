/**
 * A database that was shipped a second at a time for hours, made in a minute: real transactions of SQLite, each encoded as
 * an increment of its own, merged by the plan that `watch` merges by, and uploaded as they lie at the end.
 */
import { Database } from "bun:sqlite";
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatKey, type Layout, SNAPSHOT_LEVEL } from "../../src/destination/layout.ts";
import { inParallel } from "../../src/destination/limit.ts";
import { openDestination } from "../../src/destination/open.ts";
import { ChecksumAccumulator, pageChecksum } from "../../src/ltx/checksum.ts";
import { compactLtx } from "../../src/ltx/compactor.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { HEADER_FLAG_NO_CHECKSUM, type LtxHeader } from "../../src/ltx/format.ts";
import { decodeWalFrameHeader, WAL_FRAME_HEADER_SIZE, WAL_HEADER_SIZE } from "../../src/sqlite/wal.ts";
import { readFully } from "../../src/sqlite/wal-reader.ts";
import { type FrontFile, type MergePolicy, planMerge } from "../../src/upkeep/merge-plan.ts";
import type { Bucket } from "./bucket.ts";
import { type BenchDatabase, makeDatabase } from "./databases.ts";

/** Makes `database`, and ships its snapshot and `count` increments, one for each second, the last of them at the end of an hour. */
export async function shipIncrements(
  bucket: Bucket,
  database: BenchDatabase,
  count: number,
  layout: Layout,
): Promise<void> {
  makeDatabase(database.path, DATABASE_BYTES);
  const folder = `${database.path}-increments`;
  mkdirSync(folder);
  const chain = new Chain(folder, database.path, layout);
  // Just before the hour is over as many files as ever wait to be merged.
  const endMs = Math.floor(Date.now() / HOUR_MS) * HOUR_MS - SECOND_MS;
  const startMs = endMs - count * SECOND_MS;
  chain.addSnapshot(startMs);
  const application = new SteadyApplication(database.path);
  try {
    for (let second = 1; second <= count; second++) {
      application.write(second);
      if (second % COMMITS_PER_WAL === 0 || second === count) {
        const firstMs = startMs + (second - application.uncopied + 1) * SECOND_MS;
        await chain.addIncrements(application.walPath, firstMs);
        application.copyBack();
      }
    }
  } finally {
    application.close();
  }
  await upload(bucket, database.name, layout, chain.files(endMs));
  rmSync(folder, { recursive: true, force: true });
}

// --- internal ---

const SECOND_MS = 1000;
const HOUR_MS = 3_600_000;
const PAGE_SIZE = 4096;
const DATABASE_BYTES = 8 * 1024 * 1024;
const COMMITS_PER_WAL = 600;
const MERGE: MergePolicy = { windowsMs: [30_000, 300_000, HOUR_MS], keepFineMs: HOUR_MS };
/** How long each keeps the increments that a merged file holds. */
const FINE_KEPT_MS = { walsync: HOUR_MS, litestream: 300_000 };
const UPLOADS_AT_ONCE = 8;

/** One transaction a second: an insert, and a change of an older row. */
class SteadyApplication {
  readonly walPath: string;
  readonly #database: Database;
  readonly #insert;
  readonly #update;
  /** Transactions in the WAL. */
  uncopied = 0;

  constructor(path: string) {
    this.walPath = `${path}-wal`;
    this.#database = new Database(path, { readwrite: true, create: false });
    for (const pragma of ["wal_autocheckpoint = 0", "synchronous = off"]) this.#database.run(`pragma ${pragma}`);
    this.#insert = this.#database.query("insert into entry (body) values (?)");
    this.#update = this.#database.query("update entry set body = ? where id = ?");
  }

  write(second: number): void {
    this.#database.transaction(() => {
      this.#insert.run(`second ${second}`.padEnd(200, "x"));
      this.#update.run(`changed ${second}`.padEnd(400, "y"), 1 + ((second * 7919) % 5000));
    })();
    this.uncopied++;
  }

  /** The next transaction begins the WAL anew. */
  copyBack(): void {
    this.#database.run("pragma wal_checkpoint(truncate)");
    this.uncopied = 0;
  }

  close(): void {
    this.#database.close();
  }
}

/** The files of one database as they come about, in a local folder; `key` is a path there. */
class Chain {
  readonly #folder: string;
  readonly #databasePath: string;
  readonly #flags: number;
  readonly #sum = new ChecksumAccumulator();
  readonly #page: { hi: number; lo: number } = { hi: 0, lo: 0 };
  /** Checksum of each page by number, as halves. */
  readonly #pages = new Map<number, { hi: number; lo: number }>();
  readonly #fine: FrontFile[] = [];
  /** What no merge will touch again. */
  readonly #settled: FrontFile[] = [];
  #front: FrontFile[] = [];
  #txid = 1n;

  constructor(folder: string, databasePath: string, layout: Layout) {
    this.#folder = folder;
    this.#databasePath = databasePath;
    this.#flags = layout === "litestream" ? HEADER_FLAG_NO_CHECKSUM : 0;
  }

  addSnapshot(timestampMs: number): void {
    const bytes = readFileSync(this.#databasePath);
    const pages = new Map<number, Uint8Array>();
    for (let pgno = 1; pgno <= bytes.length / PAGE_SIZE; pgno++) {
      pages.set(pgno, bytes.subarray((pgno - 1) * PAGE_SIZE, pgno * PAGE_SIZE));
    }
    this.#settled.push(this.#encode(pages, pages.size, timestampMs));
  }

  /** Encodes each transaction of the WAL, a second apart, and merges whatever is over by then. */
  async addIncrements(walPath: string, firstMs: number): Promise<void> {
    const fd = openSync(walPath, "r");
    try {
      const wal = Buffer.alloc(fstatSync(fd).size);
      readFully(fd, wal, wal.length, 0);
      const view = new DataView(wal.buffer, wal.byteOffset, wal.byteLength);
      let pages = new Map<number, Uint8Array>();
      let timestampMs = firstMs;
      for (let at = WAL_HEADER_SIZE; at < wal.length; at += WAL_FRAME_HEADER_SIZE + PAGE_SIZE) {
        const { pgno, commit } = decodeWalFrameHeader(view, at);
        const start = at + WAL_FRAME_HEADER_SIZE;
        pages.set(pgno, wal.subarray(start, start + PAGE_SIZE));
        if (commit === 0) continue;
        this.#txid++;
        const file = this.#encode(pages, commit, timestampMs);
        this.#fine.push(file);
        this.#front.push(file);
        await this.#mergeBefore(timestampMs);
        timestampMs += SECOND_MS;
        pages = new Map();
      }
    } finally {
      closeSync(fd);
    }
  }

  /** What lies at the destination at `nowMs`: the widest files, and the fine ones that are not old enough to go. */
  files(nowMs: number): { fine: readonly FrontFile[]; front: readonly FrontFile[]; nowMs: number } {
    return { fine: this.#fine, front: [...this.#settled, ...this.#front], nowMs };
  }

  #encode(pages: ReadonlyMap<number, Uint8Array>, commit: number, timestampMs: number): FrontFile {
    const txid = this.#txid;
    const hasChecksums = this.#flags === 0;
    const header: LtxHeader = {
      flags: this.#flags,
      pageSize: PAGE_SIZE,
      commit,
      minTxid: txid,
      maxTxid: txid,
      timestampMs,
      preApplyChecksum: txid === 1n || !hasChecksums ? 0n : this.#sum.value(),
      walOffset: 0,
      walSize: 0,
      salt1: 0,
      salt2: 0,
      nodeId: 0n,
    };
    const pieces: Uint8Array[] = [];
    const encoder = new LtxEncoder((bytes) => void pieces.push(bytes.slice()), header);
    for (const [pgno, page] of [...pages].sort(([a], [b]) => a - b)) {
      encoder.encodePage(pgno, page);
      this.#notePage(pgno, page);
    }
    encoder.finish(hasChecksums ? this.#sum.value() : 0n);
    return this.#write({ minTxid: txid, maxTxid: txid, timestampMs }, Buffer.concat(pieces));
  }

  #notePage(pgno: number, page: Uint8Array): void {
    const before = this.#pages.get(pgno);
    if (before !== undefined) this.#sum.xorPage(before.hi, before.lo);
    pageChecksum(pgno, page, this.#page);
    this.#sum.xorPage(this.#page.hi, this.#page.lo);
    this.#pages.set(pgno, { ...this.#page });
  }

  async #mergeBefore(nowMs: number): Promise<void> {
    for (let run = planMerge(this.#front, MERGE, nowMs); run !== null; run = planMerge(this.#front, MERGE, nowMs)) {
      const pieces: Uint8Array[] = [];
      await compactLtx(
        run.map(({ key }) => key),
        (bytes) => void pieces.push(bytes.slice()),
      );
      const { minTxid } = run[0]!;
      const { maxTxid, timestampMs } = run.at(-1)!;
      const merged = this.#write({ minTxid, maxTxid, timestampMs }, Buffer.concat(pieces));
      this.#front.splice(this.#front.indexOf(run[0]!), run.length, merged);
      for (const file of run) if (file.minTxid !== file.maxTxid) rmSync(file.key);
    }
    // Whole hours stand still. Planning over them again and again is what would take long.
    const isOver = ({ timestampMs }: FrontFile) => Math.floor(timestampMs / HOUR_MS) < Math.floor(nowMs / HOUR_MS);
    const isGrace = nowMs % HOUR_MS < 10 * SECOND_MS;
    while (!isGrace && this.#front.length > 0 && isOver(this.#front[0]!)) this.#settled.push(this.#front.shift()!);
    while (this.#fine.length > 0 && this.#fine[0]!.timestampMs < nowMs - 2 * HOUR_MS) rmSync(this.#fine.shift()!.key);
  }

  #write(file: Pick<FrontFile, "minTxid" | "maxTxid" | "timestampMs">, bytes: Uint8Array): FrontFile {
    const path = join(this.#folder, `${file.minTxid}-${file.maxTxid}.ltx`);
    writeFileSync(path, bytes);
    return { ...file, key: path, sizeBytes: bytes.length, level: 0 };
  }
}

async function upload(
  bucket: Bucket,
  name: string,
  layout: Layout,
  { fine, front, nowMs }: ReturnType<Chain["files"]>,
): Promise<void> {
  const destination = await openDestination(`s3://${bucket.name}`, { env: bucket.env });
  const kept = fine.filter(({ timestampMs }) => timestampMs > nowMs - FINE_KEPT_MS[layout]);
  const files = [...new Map([...front, ...kept].map((file) => [file.key, file])).values()];
  try {
    await inParallel(UPLOADS_AT_ONCE, files.length, undefined, async (i) => {
      const file = files[i]!;
      const key =
        layout === "walsync"
          ? formatKey({ layout, name, ...file })
          : formatKey({ layout, name, ...file, level: levelOf(file), folders: "bucket" });
      const metadata: Record<string, string> =
        layout === "walsync"
          ? { sha256: new Bun.CryptoHasher("sha256").update(readFileSync(file.key)).digest("hex") }
          : { "litestream-timestamp": new Date(file.timestampMs).toISOString() };
      await destination.write(key, { kind: "file", path: file.key, sizeBytes: statSync(file.key).size }, { metadata });
    });
  } finally {
    destination.close();
  }
}

/** Litestream merges over the same windows, each into a level of its own. A txid is a second here. */
function levelOf({ minTxid, maxTxid }: FrontFile): number {
  if (minTxid === 1n) return SNAPSHOT_LEVEL;
  const seconds = Number(maxTxid - minTxid) + 1;
  return MERGE.windowsMs.filter((windowMs) => seconds > windowMs / SECOND_MS).length + (seconds > 1 ? 1 : 0);
}
