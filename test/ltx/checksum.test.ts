// Goal: our CRC-64 is the one that LTX means, in whatever pieces the bytes come, and the database checksum forgets a page
// that is replaced.
import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  CHECKSUM_FLAG,
  ChecksumAccumulator,
  Crc64,
  EMPTY_DATABASE_CHECKSUM,
  joinHalves,
  pageChecksum,
} from "../../src/ltx/checksum.ts";

function crcOf(bytes: Uint8Array): bigint {
  const crc = new Crc64();
  crc.update(bytes);
  return crc.digest();
}

/** The definition, one bit at a time. */
function slowCrc(bytes: Uint8Array): bigint {
  let crc = (1n << 64n) - 1n;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0xd800000000000000n : crc >> 1n;
  }
  return crc ^ ((1n << 64n) - 1n);
}

test("the check value of CRC-64/ISO (Go's hash/crc64)", () => {
  expect(crcOf(new TextEncoder().encode("123456789")).toString(16)).toBe("b90956c775a41001");
  expect(crcOf(new Uint8Array(0))).toBe(0n);
});

test("equal to the bit-by-bit definition", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => expect(crcOf(bytes)).toBe(slowCrc(bytes))));
});

test("the same in any pieces, and after a look at the digest", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat(200), { maxLength: 6 }), (bytes, cuts) => {
      const crc = new Crc64();
      let at = 0;
      for (const cut of cuts.toSorted((a, b) => a - b)) {
        const end = Math.max(at, Math.min(cut, bytes.length));
        crc.update(bytes, at, end);
        crc.digest();
        at = end;
      }
      crc.update(bytes, at);
      expect(crc.digest()).toBe(crcOf(bytes));
      crc.reset();
      expect(crc.digest()).toBe(0n);
    }),
  );
});

test("a page's checksum is the CRC of its number, big-endian, and its bytes", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 0xffffffff }), fc.uint8Array({ maxLength: 64 }), (pgno, page) => {
      const bytes = new Uint8Array(4 + page.length);
      new DataView(bytes.buffer).setUint32(0, pgno);
      bytes.set(page, 4);
      const halves = { hi: 0, lo: 0 };
      pageChecksum(pgno, page, halves);
      expect(joinHalves(halves.hi, halves.lo)).toBe(slowCrc(bytes));
    }),
  );
});

test("the same wherever the bytes lie in memory, and however many there are", () => {
  const memory = crypto.getRandomValues(new Uint8Array(1024));
  for (let start = 0; start < 9; start++) {
    for (let length = 120; length < 300; length++) {
      const bytes = memory.subarray(start, start + length);
      expect(crcOf(bytes)).toBe(slowCrc(bytes));
    }
  }
});

test("a page that is added by its checksum counts as if it had been read, for every page size", () => {
  for (let pageSize = 512; pageSize <= 65_536; pageSize *= 2) {
    const page = crypto.getRandomValues(new Uint8Array(pageSize));
    for (const [pgno, before] of [
      [1, ""],
      [0xffffffff, "header"],
      [pageSize, "what came before"],
    ] as const) {
      const [read, added] = [new Crc64(), new Crc64()];
      const halves = { hi: 0, lo: 0 };
      pageChecksum(pgno, page, halves);
      for (const crc of [read, added]) crc.update(new TextEncoder().encode(before));
      read.update(page);
      added.updatePage(pgno, halves, pageSize);
      expect(added.digest()).toBe(read.digest());
      // Bytes that follow, and a second page.
      for (const crc of [read, added]) crc.update(Uint8Array.of(7));
      read.update(page);
      added.updatePage(pgno, halves, pageSize);
      expect(added.digest()).toBe(read.digest());
    }
  }
});

test("a database without pages has the flag alone", () => {
  expect(new ChecksumAccumulator().value()).toBe(CHECKSUM_FLAG);
  expect(EMPTY_DATABASE_CHECKSUM).toBe(CHECKSUM_FLAG);
});

test("adding a page twice is not having added it, whatever the order and wherever one starts", () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(fc.array(fc.tuple(u32, u32)), fc.array(fc.tuple(u32, u32)), (kept, replaced) => {
      const direct = new ChecksumAccumulator();
      for (const [hi, lo] of kept) direct.xorPage(hi, lo);
      const roundabout = new ChecksumAccumulator();
      for (const [hi, lo] of [...replaced, ...kept]) roundabout.xorPage(hi, lo);
      const resumed = new ChecksumAccumulator();
      resumed.set(roundabout.value());
      for (const [hi, lo] of replaced.toReversed()) resumed.xorPage(hi, lo);
      expect(resumed.value()).toBe(direct.value());
      expect(resumed.value() & CHECKSUM_FLAG).toBe(CHECKSUM_FLAG);
      resumed.reset();
      expect(resumed.value()).toBe(CHECKSUM_FLAG);
    }),
  );
});
