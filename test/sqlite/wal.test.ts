// Goal: we read the bytes that SQLite writes as SQLite itself reads them, in both byte orders, and a header that is wrong
// in one bit is no header.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { AssertionError } from "../../src/assert.ts";
import {
  decodeWalFrameHeader,
  decodeWalHeader,
  updateWalChecksum,
  WAL_FRAME_HEADER_SIZE,
  WAL_HEADER_SIZE,
  walFrameCount,
  walFrameOffset,
} from "../../src/sqlite/wal.ts";
import { copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { framesOf, resealed, slowChecksum } from "../support/sqlite-wal.ts";
import { tempDir } from "../support/temp.ts";

const folder = tempDir();
const other = new SqliteProcess();
afterAll(() => other.stop());

interface Sample {
  pageSize: number;
  path: string;
  wal: Buffer;
  /** PRAGMA page_count after the last transaction. */
  pageCount: number;
}

const PAGE_SIZES = [512, 1024, 4096, 32768, 65536];
const samples = new Map<number, Sample>();

/** Three transactions of several frames each, none copied back. */
beforeAll(async () => {
  for (const pageSize of PAGE_SIZES) {
    const live = join(folder, `live-${pageSize}.db`);
    const path = join(folder, `${pageSize}.db`);
    await other.open({ path: live, pageSize, journalMode: "wal", autocheckpoint: 0 });
    await other.run("create table t (id integer primary key, body blob)");
    await other.run("insert into t (body) values (randomblob(?))", 4 * pageSize);
    await other.run("insert into t (body) values (randomblob(?))", 2 * pageSize);
    const pageCount = Number((await other.rows("pragma page_count"))[0]![0]);
    copyDatabase(live, path);
    samples.set(pageSize, { pageSize, path, wal: readFileSync(`${path}-wal`), pageCount });
  }
});

/** What SQLite finds in a database whose WAL has these bytes: it has to recover the WAL index from them. */
async function rowsRecovered(sample: Sample, name: string, wal: Uint8Array): Promise<unknown> {
  const path = join(folder, name);
  copyDatabase(sample.path, path, [""]);
  writeFileSync(`${path}-wal`, wal);
  await other.open({ path });
  try {
    return (await other.rows("select count(*), sum(length(body)) from t"))[0];
  } catch (error) {
    return (error as Error).message;
  } finally {
    await other.close();
  }
}

describe.each(PAGE_SIZES)("written by SQLite, page size %d:", (pageSize) => {
  test("the header is read", () => {
    const { wal } = samples.get(pageSize)!;
    expect(decodeWalHeader(wal)).toEqual({
      bigEndianChecksums: wal[3] === 0x83,
      pageSize,
      checkpointSequence: 0,
      salt1: wal.readUInt32BE(16),
      salt2: wal.readUInt32BE(20),
      checksum1: wal.readUInt32BE(24),
      checksum2: wal.readUInt32BE(28),
    });
  });

  test("the checksum runs through every frame, and the last frame tells the size of the database", () => {
    const { wal, pageCount } = samples.get(pageSize)!;
    const header = decodeWalHeader(wal)!;
    const sum = { checksum1: header.checksum1, checksum2: header.checksum2 };
    const view = new DataView(wal.buffer, wal.byteOffset, wal.byteLength);
    const frameCount = walFrameCount(wal.length, pageSize);
    const commits: number[] = [];
    for (let i = 0; i < frameCount; i++) {
      const at = walFrameOffset(i, pageSize);
      const frame = decodeWalFrameHeader(view, at);
      updateWalChecksum(sum, wal, at, at + 8, header.bigEndianChecksums);
      const pageStart = at + WAL_FRAME_HEADER_SIZE;
      updateWalChecksum(sum, wal, pageStart, pageStart + pageSize, header.bigEndianChecksums);
      expect(frame).toMatchObject({ salt1: header.salt1, salt2: header.salt2, ...sum });
      expect(frame.pgno).toBeGreaterThan(0);
      if (frame.commit > 0) commits.push(frame.commit);
    }
    expect(walFrameOffset(frameCount, pageSize)).toBe(wal.length);
    expect(commits).toHaveLength(3);
    expect(commits.at(-1)).toBe(pageCount);
  });

  // Both sides must agree: SQLite recovers all rows from the WAL as we understand it, and none from one with the byte
  // order of the other magic.
  test.each([false, true])("SQLite recovers a WAL that we sealed, big-endian %p", async (bigEndian) => {
    const sample = samples.get(pageSize)!;
    const wal = resealed(sample.wal, pageSize, bigEndian);
    expect(decodeWalHeader(wal)).toMatchObject({ bigEndianChecksums: bigEndian, pageSize });
    expect(await rowsRecovered(sample, `sealed-${pageSize}-${bigEndian}.db`, wal)).toEqual([2, 6 * pageSize]);
    wal[3]! ^= 1;
    expect(decodeWalHeader(wal)).toBeNull();
    expect(await rowsRecovered(sample, `unsealed-${pageSize}-${bigEndian}.db`, wal)).toBe(
      "the other process: no such table: t",
    );
  });
});

test("sealing a little-endian WAL of SQLite again gives the same bytes", () => {
  for (const { wal, pageSize } of samples.values()) {
    expect(Buffer.compare(resealed(wal, pageSize, wal[3] === 0x83), wal)).toBe(0);
  }
});

test.each([false, true])("one flipped bit anywhere in the header is no header, big-endian %p", (bigEndian) => {
  for (const sample of samples.values()) {
    const wal = resealed(sample.wal.subarray(0, WAL_HEADER_SIZE), sample.pageSize, bigEndian);
    expect(decodeWalHeader(wal)).not.toBeNull();
    for (let bit = 0; bit < 8 * WAL_HEADER_SIZE; bit++) {
      const damaged = Buffer.from(wal);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      if (decodeWalHeader(damaged) !== null) throw new Error(`bit ${bit} of the header does not matter`);
    }
  }
});

test.each([
  ["page size 0", 8, 0],
  ["page size 1, which means 65536 elsewhere", 8, 1],
  ["page size 256", 8, 256],
  ["page size 1000", 8, 1000],
  ["page size 131072", 8, 131072],
  ["another format version", 4, 3007001],
])("no header, with a right checksum: %s", (_law, offset, value) => {
  const wal = Buffer.from(samples.get(512)!.wal.subarray(0, WAL_HEADER_SIZE));
  wal.writeUInt32BE(value, offset);
  expect(decodeWalHeader(resealed(wal, 512, false))).toBeNull();
});

test("a file shorter than a header has none", () => {
  const { wal } = samples.get(512)!;
  for (let size = 0; size < WAL_HEADER_SIZE; size++) expect(decodeWalHeader(wal.subarray(0, size))).toBeNull();
  expect(decodeWalHeader(new Uint8Array(WAL_HEADER_SIZE))).toBeNull();
});

test("the header is read at any place in memory", () => {
  const { wal } = samples.get(512)!;
  const room = new Uint8Array(WAL_HEADER_SIZE + 8);
  for (let shift = 0; shift < 8; shift++) {
    room.set(wal.subarray(0, WAL_HEADER_SIZE), shift);
    expect(decodeWalHeader(room.subarray(shift))).toEqual(decodeWalHeader(wal));
  }
});

test("the checksum is that of the definition: any bytes, both orders, any alignment, in pieces", () => {
  const words = fc.uint8Array({ minLength: 0, maxLength: 160 }).map((bytes) => bytes.subarray(0, bytes.length & ~7));
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(words, fc.nat(7), fc.boolean(), u32, u32, fc.nat(20), (bytes, shift, bigEndian, s0, s1, cut) => {
      const room = new Uint8Array(shift + bytes.length);
      room.set(bytes, shift);
      const sum = { checksum1: s0, checksum2: s1 };
      const middle = shift + Math.min(8 * cut, bytes.length);
      updateWalChecksum(sum, room, shift, middle, bigEndian);
      updateWalChecksum(sum, room, middle, room.length, bigEndian);
      const wanted = slowChecksum(bytes, bigEndian, [BigInt(s0), BigInt(s1)]);
      expect([BigInt(sum.checksum1), BigInt(sum.checksum2)]).toEqual(wanted);
    }),
  );
});

test("a checksum over half a pair of words is a bug", () => {
  expect(() => updateWalChecksum({ checksum1: 0, checksum2: 0 }, new Uint8Array(12), 0, 12, false)).toThrow(
    AssertionError,
  );
});

test("a frame header is its six fields, big-endian, at any offset", () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(fc.tuple(u32, u32, u32, u32, u32, u32), fc.nat(9), (fields, offset) => {
      const view = new DataView(new ArrayBuffer(offset + WAL_FRAME_HEADER_SIZE));
      fields.forEach((value, i) => void view.setUint32(offset + 4 * i, value));
      const [pgno, commit, salt1, salt2, checksum1, checksum2] = fields;
      expect(decodeWalFrameHeader(view, offset)).toEqual({ pgno, commit, salt1, salt2, checksum1, checksum2 });
      expect(() => decodeWalFrameHeader(view, offset + 1)).toThrow(AssertionError);
    }),
  );
});

test("frame index and offset are two names of one place", () => {
  const pageSizes = fc.integer({ min: 9, max: 16 }).map((bits) => 2 ** bits);
  fc.assert(
    fc.property(fc.nat(2 ** 32 - 1), pageSizes, fc.nat(65535), (frameIndex, pageSize, more) => {
      const offset = walFrameOffset(frameIndex, pageSize);
      expect(walFrameCount(offset, pageSize)).toBe(frameIndex);
      expect(walFrameCount(offset + Math.min(more, pageSize + WAL_FRAME_HEADER_SIZE - 1), pageSize)).toBe(frameIndex);
    }),
  );
  expect(walFrameCount(0, 4096)).toBe(0);
  expect(framesOf(samples.get(512)!.wal, 512)[3]!.offset).toBe(walFrameOffset(3, 512));
});
