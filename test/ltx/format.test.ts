// Goal: the fixed records say what the byte table says, and every rule of the header and trailer is enforced on both sides.
import { expect, test } from "bun:test";
import fc from "fast-check";
import { AssertionError } from "../../src/assert.ts";
import { LtxError } from "../../src/errors.ts";
import {
  decodeHeader,
  decodeHeaderAndTrailer,
  decodeTrailer,
  encodeHeader,
  encodeTrailer,
  faultOfHeader,
  faultOfTrailer,
  type LtxHeader,
  MIN_FILE_SIZE,
} from "../../src/ltx/format.ts";
import { decodeFile, encodeFile, header, snapshotFile } from "./make.ts";

const FLAG = 1n << 63n;
const increment = header({ flags: 0, minTxid: 2n, maxTxid: 3n, preApplyChecksum: FLAG | 5n });

const anyHeader: fc.Arbitrary<LtxHeader> = fc
  .record({
    checksums: fc.boolean(),
    snapshot: fc.boolean(),
    fromWal: fc.boolean(),
    pageSize: fc.integer({ min: 9, max: 16 }).map((bits) => 2 ** bits),
    commit: fc.integer({ min: 0, max: 0xfffffffe }),
    minTxid: fc.bigInt({ min: 2n, max: 2n ** 63n }),
    more: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    timestampMs: fc.integer({ min: -8.64e15, max: 8.64e15 }),
    pre: fc.bigInt({ min: FLAG, max: 2n ** 64n - 1n }),
    walOffset: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    walSize: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    salt1: fc.integer({ min: 0, max: 0xffffffff }),
    salt2: fc.integer({ min: 0, max: 0xffffffff }),
    nodeId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  })
  .map((r) => {
    const minTxid = r.snapshot ? 1n : r.minTxid;
    const wal = r.fromWal ? r : { walOffset: 0, walSize: 0, salt1: 0, salt2: 0 };
    return {
      flags: r.checksums ? 0 : 2,
      pageSize: r.pageSize,
      commit: r.commit === 0 && !r.checksums ? 1 : r.commit,
      minTxid,
      maxTxid: minTxid + r.more,
      timestampMs: r.timestampMs,
      preApplyChecksum: r.checksums && !r.snapshot ? r.pre : 0n,
      walOffset: wal.walOffset,
      walSize: wal.walSize,
      salt1: wal.salt1,
      salt2: wal.salt2,
      nodeId: r.nodeId,
    };
  });

test("every valid header survives the round trip", () => {
  fc.assert(
    fc.property(anyHeader, (head) => {
      const bytes = encodeHeader(head);
      expect(bytes.length).toBe(100);
      expect(bytes.subarray(80)).toEqual(new Uint8Array(20));
      expect(decodeHeader(bytes)).toEqual(head);
    }),
  );
});

test("the fields lie where the byte table says", () => {
  const bytes = encodeHeader(
    header({
      flags: 0,
      pageSize: 0x1000,
      commit: 0x01020304,
      minTxid: 0x0506n,
      maxTxid: 0x0708090an,
      timestampMs: 0x0b0c0d,
      preApplyChecksum: 0xf0e1d2c3b4a59687n,
      walOffset: 0x20,
      walSize: 0x30,
      salt1: 0x41424344,
      salt2: 0x51525354,
      nodeId: 0x6162636465666768n,
    }),
  );
  expect(Buffer.from(bytes).toString("hex")).toBe(
    "4c545831" +
      "00000000" +
      "00001000" +
      "01020304" +
      "0000000000000506" +
      "000000000708090a" +
      "00000000000b0c0d" +
      "f0e1d2c3b4a59687" +
      "0000000000000020" +
      "0000000000000030" +
      "41424344" +
      "51525354" +
      "6162636465666768" +
      "00".repeat(20),
  );
});

const brokenHeaders: [string, Partial<LtxHeader>][] = [
  ["an unknown flag", { flags: 4 }],
  ["the page size 0", { pageSize: 0 }],
  ["a page size that is no power of two", { pageSize: 513 }],
  ["a page size that is too small", { pageSize: 256 }],
  ["a page size that is too large", { pageSize: 131072 }],
  ["more pages than SQLite has", { commit: 0xffffffff }],
  ["an empty database without checksums", { commit: 0, flags: 2, preApplyChecksum: 0n }],
  ["the txid 0", { minTxid: 0n }],
  ["txids in the wrong order", { minTxid: 4n }],
  ["a WAL size without an offset", { walSize: 1 }],
  ["a salt without an offset", { salt1: 1 }],
  ["the other salt without an offset", { salt2: 1 }],
  ["a snapshot with a checksum before it", { minTxid: 1n }],
  ["an increment without the checksum before it", { preApplyChecksum: 0n }],
  ["a checksum without bit 63", { preApplyChecksum: 5n }],
  ["a checksum in a file that has none", { flags: 2 }],
];

test.each(brokenHeaders)("header refused: %s", (_law, changes) => {
  const head = { ...increment, ...changes };
  expect(faultOfHeader(head)).toBeString();
  expect(() => encodeHeader(head)).toThrow(AssertionError);
  // The same fields as bytes. The encoder will not write them, so they are put over a valid header.
  const bytes = encodeHeader(increment);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, head.flags);
  view.setUint32(8, head.pageSize);
  view.setUint32(12, head.commit);
  view.setBigUint64(16, head.minTxid);
  view.setBigUint64(40, head.preApplyChecksum);
  view.setBigUint64(56, BigInt(head.walSize));
  view.setUint32(64, head.salt1);
  view.setUint32(68, head.salt2);
  expect(() => decodeHeader(bytes)).toThrow(LtxError);
});

test.each([
  ["another magic", 0, 0x4c545832_00000000n],
  ["a timestamp beyond any date", 32, 2n ** 62n],
  ["a timestamp before any date", 32, 2n ** 64n - 2n ** 62n],
  ["a negative WAL offset", 48, 2n ** 64n - 1n],
  ["a WAL offset that loses digits", 48, 2n ** 53n],
  ["a negative WAL size", 56, 2n ** 64n - 1n],
] as const)("header bytes refused: %s", (_law, offset, value) => {
  const bytes = encodeHeader(increment);
  new DataView(bytes.buffer).setBigUint64(offset, value);
  expect(() => decodeHeader(bytes)).toThrow(LtxError);
});

test("a time before 1970 is a time", () => {
  const head = header({ timestampMs: -62_135_596_800_000 });
  expect(decodeHeader(encodeHeader(head))).toEqual(head);
});

test("the reserved bytes are not looked at", () => {
  const bytes = encodeHeader(increment);
  bytes.fill(0xff, 80);
  expect(decodeHeader(bytes)).toEqual(increment);
});

test("a header or trailer that is cut short is refused", () => {
  for (let size = 0; size < 100; size++) {
    expect(() => decodeHeader(encodeHeader(increment).subarray(0, size))).toThrow(LtxError);
  }
  for (let size = 0; size < 16; size++) expect(() => decodeTrailer(new Uint8Array(size), increment)).toThrow(LtxError);
});

test("a valid trailer survives the round trip", () => {
  const u63 = fc.bigInt({ min: 0n, max: FLAG - 1n });
  fc.assert(
    fc.property(u63, u63, (post, file) => {
      const trailer = { postApplyChecksum: FLAG | post, fileChecksum: FLAG | file };
      expect(decodeTrailer(encodeTrailer(increment, trailer), increment)).toEqual(trailer);
    }),
  );
});

test.each([
  ["no checksum after", increment, 0n, FLAG],
  ["a checksum after without bit 63", increment, 1n, FLAG],
  ["a checksum after in a file that has none", header(), FLAG, FLAG],
  ["no file checksum", increment, FLAG, 0n],
  ["a file checksum without bit 63", increment, FLAG, 1n],
  ["pages in the checksum of an empty database", { ...increment, commit: 0 }, FLAG | 1n, FLAG],
] as const)("trailer refused: %s", (_law, head, postApplyChecksum, fileChecksum) => {
  expect(faultOfTrailer(head, { postApplyChecksum, fileChecksum })).toBeString();
  expect(() => encodeTrailer(head, { postApplyChecksum, fileChecksum })).toThrow(AssertionError);
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setBigUint64(0, postApplyChecksum);
  new DataView(bytes.buffer).setBigUint64(8, fileChecksum);
  expect(() => decodeTrailer(bytes, head)).toThrow(LtxError);
});

test("header and trailer from the two ends of a file are those of the whole file", () => {
  const file = snapshotFile(1024, 3, 7);
  const { header: head, trailer } = decodeFile(file);
  expect(decodeHeaderAndTrailer(file.subarray(0, 100), file.subarray(-16))).toEqual({ header: head, trailer });
  expect(decodeHeaderAndTrailer(file, file)).toEqual({ header: head, trailer });
});

test("a file without pages has the smallest size there is", () => {
  expect(encodeFile({ ...increment, commit: 0 }, new Map(), FLAG).length).toBe(MIN_FILE_SIZE);
});
