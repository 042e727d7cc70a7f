// Goal: what a segment holds for a page is what SQLite itself reads there, wherever that page lies: in the newest frame, in
// an older one, in the file, or nowhere. Whole images and checksums by bitwise CRC are the judge.
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { WALSYNC_RULES } from "../../src/chain/layout-rules.ts";
import { fillTable, pinState } from "../../src/replication/full-scan.ts";
import { Outbox } from "../../src/replication/outbox.ts";
import { type PageTable, PageTableWriter } from "../../src/replication/page-table.ts";
import { captureSegment } from "../../src/replication/segment.ts";
import { PinnedDatabase } from "../../src/sqlite/database.ts";
import { cursorAtStart, readWalHeader, scanWal, type WalCursor } from "../../src/sqlite/wal-reader.ts";
import { decodeFile, makePage } from "../ltx/make.ts";
import { framesOf, resealed } from "../support/sqlite-wal.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const POLYNOMIAL = 0xd800000000000000n;

/** CRC-64/ISO of a page number and a page, a nibble at a time, in arithmetic that cannot overflow unnoticed. */
const NIBBLES = Array.from({ length: 16 }, (_, nibble) => {
  let crc = BigInt(nibble);
  for (let bit = 0; bit < 4; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ POLYNOMIAL : crc >> 1n;
  return crc;
});

function pageSum(pgno: number, page: Uint8Array): bigint {
  let crc = 2n ** 64n - 1n;
  for (const byte of [pgno >>> 24, (pgno >>> 16) & 255, (pgno >>> 8) & 255, pgno & 255, ...page]) {
    crc ^= BigInt(byte);
    crc = (crc >> 4n) ^ NIBBLES[Number(crc & 15n)]!;
    crc = (crc >> 4n) ^ NIBBLES[Number(crc & 15n)]!;
  }
  return crc ^ (2n ** 64n - 1n);
}

const flagged = (sum: bigint) => sum | (1n << 63n);
const pageOf = (image: Uint8Array, pgno: number, pageSize: number) =>
  image.subarray((pgno - 1) * pageSize, pgno * pageSize);

/**
 * An application, and what capture is made of, driven by hand. The SQLite of this machine writes every
 * page that it allocates; frames of one that does not are appended here, behind what the application knows of.
 */
class Bench {
  readonly app: Database;
  readonly database: PinnedDatabase;
  readonly outbox: Outbox;
  readonly folder: string;
  readonly path: string;
  readonly walFd: number;
  table!: PageTable;
  cursor!: WalCursor;
  txid = 1n;
  /** Frames that the WAL index does not count. */
  appended = 0;

  constructor(name: string, pageSize: number, setUp: (app: Database) => void = () => {}) {
    this.folder = join(dir, name);
    mkdirSync(this.folder);
    this.path = join(this.folder, "app.db");
    this.app = new Database(this.path, { create: true, readwrite: true });
    this.app.run(`pragma page_size = ${pageSize}`);
    this.app.run("pragma journal_mode = wal");
    this.app.run("pragma wal_autocheckpoint = 0");
    this.app.run("create table item (id integer primary key, body)");
    setUp(this.app);
    this.insert(10);
    this.database = PinnedDatabase.open(this.path);
    this.outbox = new Outbox(join(this.folder, "outbox"), WALSYNC_RULES);
    this.walFd = openSync(`${this.path}-wal`, "r+");
  }

  get pageSize(): number {
    return this.database.pageSize;
  }

  /** All that is committed counts as captured now. */
  async begin(): Promise<void> {
    const state = pinState(this.database);
    const writer = new PageTableWriter(join(this.folder, "pages.crc"), this.pageSize);
    await fillTable(this.database, state, writer);
    this.table = writer.install(state.head.commit, this.txid);
    this.cursor = state.cursor ?? this.newGeneration();
  }

  newGeneration(): WalCursor {
    return cursorAtStart(readWalHeader(this.database.walFd)!);
  }

  insert(bytes: number): void {
    this.app.run("insert into item (body) values (randomblob(?))", [bytes]);
  }

  /** What the WAL holds up to the last frame that counts. */
  wal(): Buffer {
    const { frameCount } = this.database.walIndex();
    const wal = Buffer.alloc(32 + (frameCount + this.appended) * (24 + this.pageSize));
    readSync(this.walFd, wal, 0, wal.length, 0);
    return wal;
  }

  /** Appends one transaction of these pages, each of them noise, after which the database has `commit` pages. */
  appendFrames(pgnos: readonly number[], commit: number): void {
    const wal = this.wal();
    const frames = pgnos.map((pgno, i) => {
      const frame = Buffer.alloc(24 + this.pageSize);
      frame.writeUInt32BE(pgno, 0);
      frame.writeUInt32BE(i === pgnos.length - 1 ? commit : 0, 4);
      wal.copy(frame, 8, 16, 24);
      frame.set(makePage(this.pageSize, pgno + wal.length), 24);
      return frame;
    });
    const sealed = resealed(Buffer.concat([wal, ...frames]), this.pageSize, wal[3] === 0x83);
    writeSync(this.walFd, sealed, 0, sealed.length, 0);
    this.appended += pgnos.length;
  }

  /** The whole database: of each page the newest frame, or else the file, or else zeros. */
  image(): Buffer {
    const { pageSize } = this;
    const wal = this.wal();
    const frames = framesOf(wal, pageSize);
    const image = Buffer.alloc((frames.at(-1)?.commit ?? this.database.walIndex().commit) * pageSize);
    readSync(this.database.databaseFd, image, 0, image.length, 0);
    for (const { pgno, offset } of frames)
      if (pgno * pageSize <= image.length) wal.copy(image, (pgno - 1) * pageSize, offset + 24, offset + 24 + pageSize);
    if (this.appended === 0) expect(Buffer.compare(image, this.app.serialize())).toBe(0);
    return image;
  }

  scan() {
    const limit = this.database.walIndex().frameCount + this.appended;
    return scanWal(this.database.walFd, this.pageSize, this.cursor, limit);
  }

  capture() {
    const scan = this.scan();
    const start = this.cursor;
    this.txid++;
    const captured = captureSegment(this.database, this.table, this.outbox, start, scan, this.txid, 1234)!;
    const content = decodeFile(readFileSync(captured.file.path));
    this.table.applyChange(captured.change, scan.commit);
    this.cursor = scan.end;
    return { ...captured, ...content, scan, start };
  }

  /** Captures, and judges the file by the whole images before and after. */
  expectExact(before: Uint8Array): { unwritten: number[]; after: Buffer } {
    const { pageSize } = this;
    const after = this.image();
    const { header, trailer, pages, scan, start, checksum, file } = this.capture();
    const sumOf = (image: Uint8Array) => {
      let sum = 0n;
      for (let pgno = 1; pgno <= image.length / pageSize; pgno++) sum ^= pageSum(pgno, pageOf(image, pgno, pageSize));
      return flagged(sum);
    };
    expect(header).toEqual({
      flags: 0,
      pageSize,
      commit: after.length / pageSize,
      minTxid: this.txid,
      maxTxid: this.txid,
      timestampMs: 1234,
      preApplyChecksum: sumOf(before),
      walOffset: start.walOffset,
      walSize: scan.frameCount * (pageSize + 24),
      salt1: start.salt1,
      salt2: start.salt2,
      nodeId: 0n,
    });
    expect([trailer.postApplyChecksum, checksum, this.table.checksum]).toEqual(Array(3).fill(sumOf(after)));
    expect(file.commits).toBe(scan.commitCount);
    const frames = new Set(scan.pages.pgnos);
    const unwritten: number[] = [];
    for (let pgno = 1; pgno <= header.commit; pgno++) {
      const page = pages.get(pgno);
      expect(page !== undefined).toBe(frames.has(pgno) || pgno > before.length / pageSize);
      const content = page ?? pageOf(before, pgno, pageSize);
      expect(Buffer.compare(content, pageOf(after, pgno, pageSize))).toBe(0);
      if (!frames.has(pgno) && page !== undefined) unwritten.push(pgno);
    }
    expect(Math.max(0, ...pages.keys())).toBeLessThanOrEqual(header.commit);
    return { unwritten, after };
  }

  end(): void {
    this.database.close();
    this.app.close();
    closeSync(this.walFd);
  }
}

const isZero = (page: Uint8Array) => page.every((byte) => byte === 0);

test.each(PAGE_SIZES)(
  "what a growing transaction did not write is an older frame, the file, or zeros, page size %p",
  async (pageSize) => {
    const bench = new Bench(`unwritten-${pageSize}`, pageSize, (app) => {
      // Pages 1 to 8 or so get into the file; the frames below are of a generation of their own.
      app.run("insert into item (body) values (randomblob(?))", [pageSize * 6]);
      app.run("pragma wal_checkpoint(truncate)");
      app.run("delete from item");
      app.run("vacuum");
    });
    await bench.begin();
    let image = bench.image();
    const small = image.length / pageSize;
    bench.insert(pageSize * 3);
    image = bench.expectExact(image).after;
    bench.app.run("delete from item where length(body) > 100");
    bench.app.run("vacuum");
    image = bench.expectExact(image).after;
    expect(image.length / pageSize).toBe(small);
    bench.appendFrames([1, small + 2, small + 12], small + 14);
    const { unwritten, after } = bench.expectExact(image);
    const expected = Array.from({ length: 14 }, (_, i) => small + 1 + i).filter(
      (pgno) => ![2, 12].includes(pgno - small),
    );
    expect(unwritten).toEqual(expected);
    // All three kinds are there: only zeros could be told by the size of the file alone.
    const fileSize = fstatSync(bench.database.databaseFd).size;
    const older = new Set(framesOf(bench.wal(), pageSize).map(({ pgno }) => pgno));
    const kinds = unwritten.map((pgno) => (older.has(pgno) ? "older" : pgno * pageSize <= fileSize ? "file" : "zeros"));
    expect(new Set(kinds)).toEqual(new Set(["older", "file", "zeros"]));
    for (const [i, kind] of kinds.entries())
      expect(isZero(pageOf(after, unwritten[i]!, pageSize))).toBe(kind === "zeros");
    bench.end();
  },
);

test("growth, shrinking and growth again within one look", async () => {
  const bench = new Bench("one-look", 1024);
  await bench.begin();
  const image = bench.image();
  bench.insert(30_000);
  bench.app.run("delete from item where length(body) > 100");
  bench.app.run("vacuum");
  const small = bench.image().length / 1024;
  bench.appendFrames([1], small + 40);
  const { after } = bench.expectExact(image);
  expect(after.length / 1024).toBe(small + 40);
  bench.end();
});

test("pages behind the last size are in no segment, and gone from the checksum", async () => {
  const bench = new Bench("shrunk", 512);
  bench.insert(30_000);
  await bench.begin();
  const image = bench.image();
  bench.insert(20_000);
  bench.app.run("delete from item where length(body) > 100");
  bench.app.run("vacuum");
  const { after } = bench.expectExact(image);
  expect(after.length).toBeLessThan(image.length - 25_000);
  bench.end();
});

test.each([
  ["before it", -1],
  ["at it", 0],
  ["behind it", 1],
  ["far behind it", 5],
])("the lock page is in no segment and no checksum when growth ends %s", (name, beyond) => {
  const pageSize = 65536;
  const lockPgno = 2 ** 30 / pageSize + 1;
  const bench = new Bench(`lock ${name}`, pageSize);
  const commit = lockPgno - 3;
  // What the table knows of pages that do not change is made up: none of them is read.
  const writer = new PageTableWriter(join(bench.folder, "pages.crc"), pageSize);
  let sum = 0n;
  for (let pgno = 1; pgno <= commit; pgno++) {
    writer.add(pgno, pgno * 7, pgno * 11);
    sum ^= (BigInt(pgno * 7) << 32n) | BigInt(pgno * 11);
  }
  bench.table = writer.install(commit, 1n);
  bench.cursor = bench.newGeneration();
  bench.cursor = bench.scan().end;
  const end = lockPgno + beyond;
  bench.appendFrames([2, lockPgno - 1, ...(end >= lockPgno ? [lockPgno] : [])], end);
  const { header, trailer, pages } = bench.capture();
  const grown = Array.from({ length: end - commit }, (_, i) => commit + 1 + i).filter((pgno) => pgno !== lockPgno);
  expect([...pages.keys()]).toEqual([2, ...grown]);
  expect(header).toMatchObject({ commit: end, preApplyChecksum: flagged(sum) });
  sum ^= (14n << 32n) | 22n;
  for (const [pgno, page] of pages) sum ^= pageSum(pgno, page);
  expect(trailer.postApplyChecksum).toBe(flagged(sum));
  bench.end();
});

test("a new generation of the WAL is captured from its beginning, with its salts", async () => {
  const bench = new Bench("restart", 4096);
  bench.insert(20_000);
  await bench.begin();
  let image = bench.image();
  const salts = new Set<string>();
  for (let round = 0; round < 4; round++) {
    bench.database.unpin();
    bench.app.run("pragma wal_checkpoint(restart)");
    bench.insert(100);
    bench.database.pin();
    bench.cursor = bench.newGeneration();
    expect(bench.cursor.walOffset).toBe(32);
    salts.add(`${bench.cursor.salt1} ${bench.cursor.salt2}`);
    bench.insert(5000 * round);
    image = bench.expectExact(image).after;
  }
  expect(salts.size).toBe(4);
  bench.end();
});

test("if frames are gone nothing is staged, and once they are back the same txid is", async () => {
  const bench = new Bench("gone", 4096);
  await bench.begin();
  const image = bench.image();
  for (let i = 0; i < 5; i++) bench.insert(9000);
  const scan = bench.scan();
  const wal = bench.walFd;
  const bytes = Buffer.alloc(bench.database.walSizeBytes());
  readSync(wal, bytes, 0, bytes.length, 0);
  const attempt = () => captureSegment(bench.database, bench.table, bench.outbox, bench.cursor, scan, 2n, 0);
  const checksum = bench.table.checksum;
  for (const frames of [0, 1, scan.frameCount - 1]) {
    ftruncateSync(wal, bench.cursor.walOffset + frames * 4120);
    expect(attempt()).toBeNull();
    expect(readdirSync(join(bench.folder, "outbox"))).toEqual([]);
    expect([bench.outbox.files.length, bench.outbox.sizeBytes, bench.table.checksum]).toEqual([0, 0, checksum]);
  }
  // Of another generation: the salts of a frame tell.
  writeSync(wal, bytes, 0, bytes.length, 0);
  for (let i = 0; i < scan.frameCount; i++)
    writeSync(wal, Buffer.from([1, 2, 3, 4]), 0, 4, bench.cursor.walOffset + i * 4120 + 8);
  expect(attempt()).toBeNull();
  writeSync(wal, bytes, 0, bytes.length, 0);
  bench.expectExact(image);
  expect(bench.outbox.files.map(({ maxTxid }) => maxTxid)).toEqual([2n]);
  bench.end();
});

test("what is read while a writer restarts the WAL is not taken, even if the frames are there still", async () => {
  const bench = new Bench("overtaken", 4096);
  await bench.begin();
  for (let i = 0; i < 5; i++) bench.insert(9000);
  const scan = bench.scan();
  // The next generation begins with a frame or two, and those that were scanned stand behind them.
  expect(bench.cursor.walOffset).toBeGreaterThan(32 + 2 * 4120);
  bench.database.unpin();
  bench.app.run("pragma wal_checkpoint(restart)");
  bench.app.run("update item set body = null where id = 1");
  bench.database.pin();
  expect(captureSegment(bench.database, bench.table, bench.outbox, bench.cursor, scan, 2n, 0)).toBeNull();
  expect(readdirSync(join(bench.folder, "outbox"))).toEqual([]);
  bench.end();
});
