// Goal: no damage passes. Every damaged file ends in an LtxError, or in the very pages and checksums of the whole one,
// and never in another error or in work beyond the input's size.
import { describe, expect, test } from "bun:test";
import { putUvarint } from "../../src/bytes.ts";
import { LtxError } from "../../src/errors.ts";
import { CHECKSUM_FLAG, Crc64 } from "../../src/ltx/checksum.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { encodeHeader, type LtxHeader } from "../../src/ltx/format.ts";
import { compressBlock, compressBound } from "../../src/ltx/lz4.ts";
import { lockPgno } from "../../src/page.ts";
import {
  databaseChecksum,
  decodeFile,
  encodeFile,
  fromHex,
  header,
  makePage,
  randomFrom,
  snapshotFile,
} from "./make.ts";

const SEED = Number(process.env.WALSYNC_TEST_SEED ?? Date.now() % 2 ** 31);

const golden = fromHex(await Bun.file(new URL("../fixtures/ltx-vector.hex", import.meta.url)).text());
const increment = encodeFile(
  header({
    flags: 0,
    commit: 9,
    minTxid: 4n,
    maxTxid: 6n,
    preApplyChecksum: CHECKSUM_FLAG | 3n,
    walOffset: 32,
    salt1: 5,
  }),
  new Map([2, 3, 9].map((pgno) => [pgno, makePage(512, pgno)])),
  CHECKSUM_FLAG | 4n,
);
const samples: [string, Uint8Array][] = [
  ["golden vector", golden],
  ["snapshot", snapshotFile(512, 4, 1)],
  ["increment", increment],
];

function faultOf(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return null;
}

test.each(samples)("a file cut short anywhere is refused: %s", (_name, bytes) => {
  for (let size = 0; size < bytes.length; size++) {
    expect(faultOf(() => decodeFile(bytes.subarray(0, size), 64))).toBeInstanceOf(LtxError);
  }
});

// The file checksum covers the pages as they are, not their blocks: a flipped bit in a block may stand for the same page.
// The reserved 20 bytes of the header are covered too, although nobody reads them.
test.each(samples)("one flipped bit anywhere is refused, or stands for the same pages: %s", (_name, bytes) => {
  const whole = decodeFile(bytes);
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    const damaged = bytes.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    try {
      expect(decodeFile(damaged)).toEqual(whole);
    } catch (error) {
      if (!(error instanceof LtxError)) throw new Error(`bit ${bit}`, { cause: error });
    }
  }
});

test.each(samples)("bytes after the end are refused: %s", (_name, bytes) => {
  const longer = Buffer.concat([bytes, new Uint8Array(1)]);
  for (const chunkSize of [1, bytes.length, longer.length]) {
    expect(faultOf(() => decodeFile(longer, chunkSize))).toBeInstanceOf(LtxError);
  }
});

test("a size that is not the expected one is refused, early if there is more", () => {
  const file = snapshotFile(512, 2, 1);
  const larger = new LtxDecoder({ expectedSizeBytes: file.length + 1 });
  larger.push(file);
  expect(() => larger.finish()).toThrow(LtxError);
  const smaller = new LtxDecoder({ expectedSizeBytes: file.length - 1 });
  expect(() => smaller.push(file)).toThrow(LtxError);
});

test("an error names the file, what was expected, what was found, and the byte", () => {
  const file = snapshotFile(512, 2, 1);
  file[106]! ^= 0x80;
  const decoder = new LtxDecoder({ name: "app/1-1.ltx" });
  const error = faultOf(() => decoder.push(file)) as LtxError;
  expect(error.message).toMatch(
    /^app\/1-1\.ltx: expected a block of 1 to 530 bytes for page 1, found 21474\d{5} \(at byte 106\)$/,
  );
});

test("100,000 damaged files: an LtxError or a whole file, and no page beyond the input", () => {
  const random = randomFrom(SEED);
  const bases = [
    ...samples.map(([, bytes]) => bytes),
    snapshotFile(1024, 2, 3),
    encodeFile(
      header({ commit: 0, flags: 0, minTxid: 2n, maxTxid: 2n, preApplyChecksum: CHECKSUM_FLAG }),
      new Map(),
      CHECKSUM_FLAG,
    ),
  ];
  let accepted = 0;
  for (let round = 0; round < 100_000; round++) {
    const bytes = mutate(bases[random() % bases.length]!, random);
    let pages = 0;
    const decoder = new LtxDecoder({
      onPage: (_pgno, page) => {
        pages++;
        if (page.length > 65536) throw new Error("a page is larger than any page");
      },
    });
    const chunkSize = 1 + (random() % 400);
    try {
      for (let at = 0; at < bytes.length; at += chunkSize) decoder.push(bytes.subarray(at, at + chunkSize));
      decoder.finish();
      accepted++;
    } catch (error) {
      if (!(error instanceof LtxError)) throw new Error(`seed ${SEED}, round ${round}`, { cause: error });
    }
    // A page frame takes 11 bytes at least.
    if (11 * pages > bytes.length)
      throw new Error(`seed ${SEED}, round ${round}: ${pages} pages of ${bytes.length} bytes`);
  }
  expect(accepted).toBeLessThan(20_000);
}, 60_000);

/** Flips, overwrites, cuts out or doubles one to four pieces. */
function mutate(original: Uint8Array, random: () => number): Uint8Array {
  let bytes = original.slice();
  for (let count = 1 + (random() % 4); count > 0; count--) {
    const at = random() % bytes.length;
    const span = Math.min(1 + (random() % 16), bytes.length - at);
    switch (random() % 6) {
      case 0:
        bytes[at]! ^= 1 << (random() % 8);
        break;
      case 1:
        bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random() % 5]!;
        break;
      case 2:
        bytes.fill(random(), at, at + span);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + span)]);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at + span), bytes.subarray(at)]);
        break;
      default:
        // Numbers that matter: in the header, and in the first page header.
        bytes[[4, 7, 10, 11, 12, 15, 23, 31, 40, 48, 55, 100, 103, 105, 106, 109][random() % 16]! % bytes.length] =
          random();
    }
    if (bytes.length === 0) return original.slice(0, 1);
  }
  return bytes;
}

// Files that are wrong in one thing while every checksum is right: what bit flips cannot reach.
describe("refused with all checksums right:", () => {
  interface Frame {
    pgno: number;
    flags?: number;
    page?: Uint8Array;
    block?: Uint8Array;
    blockSize?: number;
  }

  interface Craft {
    head?: Partial<LtxHeader>;
    frames: Frame[];
    index?: (entries: [number, number, number][]) => Uint8Array;
    indexLength?: (length: number) => bigint;
    post?: bigint;
  }

  const increments = { minTxid: 2n, maxTxid: 2n, commit: 9 };

  /** Bytes of the longest one of a safe integer. */
  const UVARINT_MAX = 8;

  function indexOf(entries: [number, number, number][]): Uint8Array {
    const bytes: number[] = [];
    for (const value of entries.flat()) {
      const piece = new Uint8Array(UVARINT_MAX);
      bytes.push(...piece.subarray(0, putUvarint(piece, 0, value)));
    }
    return Uint8Array.from([...bytes, 0]);
  }

  function craft({ head = {}, frames, index = indexOf, indexLength = BigInt, post = 0n }: Craft): Uint8Array {
    const full = header({ ...increments, ...head });
    const crc = new Crc64();
    const pieces: Uint8Array[] = [];
    let size = 0;
    const add = (bytes: Uint8Array, covered: Uint8Array = bytes) => {
      pieces.push(bytes);
      crc.update(covered);
      size += bytes.length;
    };
    add(encodeHeader(full));
    const entries: [number, number, number][] = [];
    for (const frame of frames) {
      const page = frame.page ?? makePage(full.pageSize, frame.pgno);
      const room = new Uint8Array(compressBound(page.length));
      const block = frame.block ?? room.subarray(0, compressBlock(page, room));
      const prefix = new Uint8Array(10);
      const view = new DataView(prefix.buffer);
      view.setUint32(0, frame.pgno);
      view.setUint16(4, frame.flags ?? 1);
      view.setUint32(6, frame.blockSize ?? block.length);
      entries.push([frame.pgno, size, 10 + block.length]);
      add(prefix);
      add(block, page);
    }
    add(new Uint8Array(6));
    const indexBytes = index(entries);
    add(indexBytes);
    const numbers = new Uint8Array(16);
    new DataView(numbers.buffer).setBigUint64(0, indexLength(indexBytes.length));
    new DataView(numbers.buffer).setBigUint64(8, post);
    add(numbers);
    const sum = new Uint8Array(8);
    new DataView(sum.buffer).setBigUint64(0, crc.digest() | CHECKSUM_FLAG);
    pieces.push(sum);
    return Buffer.concat(pieces);
  }

  test("(the crafted file is sound where nothing is wrong)", () => {
    expect(decodeFile(craft({ frames: [{ pgno: 2 }, { pgno: 5 }] })).pageCount).toBe(2);
  });

  const lock = lockPgno(65536);
  const pages = new Map([1, 2].map((pgno) => [pgno, makePage(512, pgno)]));
  const sum = databaseChecksum({ pageSize: 512, commit: 2, pages });
  const snapshot = { minTxid: 1n, maxTxid: 1n, commit: 2 };

  test.each<[string, Craft, RegExp]>([
    ["descending pages", { frames: [{ pgno: 5 }, { pgno: 2 }] }, /after page 5, found page 2/],
    ["a page twice", { frames: [{ pgno: 5 }, { pgno: 5 }] }, /after page 5, found page 5/],
    ["a page beyond the database", { frames: [{ pgno: 10 }] }, /database of 9 pages, found page 10/],
    ["the lock page", { head: { pageSize: 65536, commit: 20000 }, frames: [{ pgno: lock }] }, /lock page/],
    ["a snapshot without its first page", { head: snapshot, frames: [{ pgno: 2 }] }, /expected page 1 of a snapshot/],
    ["a snapshot without its last page", { head: snapshot, frames: [{ pgno: 1 }] }, /expected page 2 of a snapshot/],
    ["a snapshot without pages", { head: snapshot, frames: [] }, /expected page 1 of a snapshot/],
    ["page 0 with flags", { frames: [{ pgno: 0 }] }, /page number 0/],
    ["the older LZ4-frame payload", { frames: [{ pgno: 2, flags: 0 }] }, /older LZ4-frame payload/],
    ["unknown page flags", { frames: [{ pgno: 2, flags: 3 }] }, /found 3/],
    ["a smaller page", { frames: [{ pgno: 2, page: makePage(256, 2) }] }, /256 bytes, expected 512/],
    ["a larger page", { frames: [{ pgno: 2, page: makePage(1024, 2) }] }, /LZ4|block of 1 to/],
    ["an empty block", { frames: [{ pgno: 2, block: new Uint8Array(0) }] }, /1 to 530 bytes .* found 0/],
    ["a block beyond any page", { frames: [{ pgno: 2, blockSize: 0xffffffff }] }, /found 4294967295/],
    ["an index entry left out", { frames: [{ pgno: 2 }, { pgno: 5 }], index: (e) => indexOf(e.slice(1)) }, /index/],
    ["an index entry too many", { frames: [{ pgno: 2 }], index: (e) => indexOf([...e, [9, 9, 9]]) }, /index/],
    [
      "an index that points elsewhere",
      { frames: [{ pgno: 2 }], index: (e) => indexOf(e.map(([pgno, at, size]) => [pgno, at + 1, size])) },
      /index/,
    ],
    [
      "an index in another order",
      { frames: [{ pgno: 2 }, { pgno: 5 }], index: (e) => indexOf(e.toReversed()) },
      /index/,
    ],
    [
      "a padded number in the index",
      { frames: [{ pgno: 2 }], index: (e) => Uint8Array.from([0x82, 0, ...indexOf(e).subarray(1)]) },
      /index/,
    ],
    ["no end of the index", { frames: [{ pgno: 2 }], index: (e) => indexOf(e).with(-1, 1) }, /index/],
    ["a wrong index length", { frames: [{ pgno: 2 }], indexLength: (n) => BigInt(n) + 1n }, /index length/],
    ["a huge index length", { frames: [{ pgno: 2 }], indexLength: () => 2n ** 64n - 1n }, /index length/],
    ["a checksum in a file without", { frames: [{ pgno: 2 }], post: CHECKSUM_FLAG }, /post-apply checksum/],
    [
      "a database checksum that the pages do not make",
      { head: { ...snapshot, flags: 0 }, frames: [{ pgno: 1 }, { pgno: 2 }], post: sum ^ 1n },
      /database checksum/,
    ],
  ])("%s", (_law, crafted, message) => {
    const bytes = craft(crafted);
    for (const chunkSize of [bytes.length, 50]) {
      const error = faultOf(() => decodeFile(bytes, chunkSize));
      expect(error).toBeInstanceOf(LtxError);
      expect((error as LtxError).message).toMatch(message);
    }
  });

  test("(and the database checksum that they make is right)", () => {
    const frames = [{ pgno: 1 }, { pgno: 2 }];
    expect(decodeFile(craft({ head: { ...snapshot, flags: 0 }, frames, post: sum })).pages).toEqual(pages);
  });
});
