// Goal: a block is decoded exactly as the LZ4 format says or refused with an LtxError, and no block, however hostile,
// spoils the decoder for the next one.
import { expect, test } from "bun:test";
import fc from "fast-check";
import { LtxError } from "../../src/errors.ts";
import { compressBlock, compressBound, decompressBlock } from "../../src/ltx/lz4.ts";
import { makePage, randomFrom } from "./make.ts";

const SEED = Number(process.env.WALSYNC_TEST_SEED ?? Date.now() % 2 ** 31);

function compressed(page: Uint8Array): Uint8Array {
  const out = new Uint8Array(compressBound(page.length));
  return out.slice(0, compressBlock(page, out));
}

/** The block format in its plainest form, as the oracle. Null if the block breaks a rule. */
function plainDecode(block: Uint8Array, size: number): Uint8Array | null {
  const out: number[] = [];
  let at = 0;
  const extended = (first: number): number => {
    let length = first;
    if (first === 15) for (let more = 255; more === 255; length += more) more = block[at++] ?? Number.NaN;
    return length;
  };
  while (at < block.length) {
    const token = block[at++]!;
    const literals = extended(token >> 4);
    if (!(at + literals <= block.length)) return null;
    for (let i = 0; i < literals; i++) out.push(block[at++]!);
    if (at === block.length) return out.length === size ? Uint8Array.from(out) : null;
    const offset = block[at]! + 256 * (block[at + 1] ?? Number.NaN);
    at += 2;
    const match = 4 + extended(token & 15);
    if (!(offset >= 1 && offset <= out.length && match + out.length <= size)) return null;
    for (let i = 0; i < match; i++) out.push(out[out.length - offset]!);
  }
  return null;
}

test("a page survives the round trip, within the bound, at every page size", () => {
  for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
    const noise = makePage(pageSize, 1).map((_, i) => (i * 2654435761) >>> 13);
    for (const page of [new Uint8Array(pageSize), noise, makePage(pageSize, pageSize), makePage(pageSize, 3)]) {
      const block = compressed(page);
      expect(block.length).toBeLessThanOrEqual(compressBound(pageSize));
      const back: Uint8Array = new Uint8Array(pageSize);
      decompressBlock(block, back);
      expect(back).toEqual(page);
      expect(plainDecode(block, pageSize)).toEqual(page);
    }
  }
});

test("any bytes survive the round trip, from and into the middle of a buffer", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 600 }), fc.nat(9), (bytes, offset) => {
      const buffer = new Uint8Array(offset + compressBound(bytes.length) + 5);
      const size = compressBlock(bytes, buffer, offset);
      const back: Uint8Array = new Uint8Array(bytes.length);
      decompressBlock(buffer, back, offset, offset + size);
      expect(back).toEqual(bytes);
    }),
  );
});

test.each([
  ["nothing at all", [], 16],
  ["literals beyond the end", [0xf0, 255, 255], 16],
  ["literals for another size", [0x40, 1, 2, 3, 4], 16],
  ["more literals than the page", [0x40, 1, 2, 3, 4], 2],
  ["a match offset of 0", [0x44, 1, 2, 3, 4, 0, 0, 0x10, 9], 13],
  ["a match before the start", [0x44, 1, 2, 3, 4, 5, 0, 0x10, 9], 13],
  ["a match without its offset", [0x44, 1, 2, 3, 4, 1], 12],
  ["a match at the very end", [0x44, 1, 2, 3, 4, 1, 0], 12],
  ["a match longer than the page", [0x4f, 1, 2, 3, 4, 1, 0, 255, 255, 255, 3, 0x10, 9], 20],
  ["a match length without end", [0x4f, 1, 2, 3, 4, 1, 0, 255, 255], 4000],
] as const)("refused: %s", (_law, block, pageSize) => {
  expect(() => decompressBlock(Uint8Array.from(block), new Uint8Array(pageSize))).toThrow(LtxError);
  const page = makePage(512, 5);
  const back: Uint8Array = new Uint8Array(512);
  decompressBlock(compressed(page), back);
  expect(back).toEqual(page);
});

test("a damaged block decodes as the format says or is refused, and memory stays as it is", () => {
  const random = randomFrom(SEED);
  const blocks = Array.from({ length: 16 }, (_, i) => compressed(makePage(512, SEED + i)));
  const page = new Uint8Array(512);
  for (let i = 0; i < 20_000; i++) {
    const block = blocks[i % blocks.length]!.slice();
    for (let flips = 1 + (random() % 3); flips > 0; flips--) block[random() % block.length]! ^= 1 << (random() % 8);
    const wanted = plainDecode(block, 512);
    let found: Uint8Array | null;
    try {
      decompressBlock(block, page);
      found = page;
    } catch (error) {
      if (!(error instanceof LtxError)) throw new Error(`seed ${SEED}, round ${i}`, { cause: error });
      found = null;
    }
    if (found === null ? wanted !== null : wanted === null || Buffer.compare(found, wanted) !== 0) {
      throw new Error(`seed ${SEED}, round ${i}: block ${Buffer.from(block).toString("hex")} is decoded otherwise`);
    }
  }
});
