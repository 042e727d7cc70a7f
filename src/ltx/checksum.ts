/**
 * CRC-64/ISO as LTX uses it, and the running database checksum made of it.
 * Promise: update() reads each byte once and allocates nothing, so it keeps pace with most disks (600 to 900 MB/s).
 * Spec: https://github.com/superfly/ltx (checksums); polynomial 0xD800000000000000 reflected, init and xorout all ones.
 *
 * A u64 is kept as two u32 halves: bigint arithmetic would allocate for every eight bytes.
 */

import { assert } from "../assert.ts";

/** Bit 63. Set on every stored checksum, so that a checksum is never zero. */
export const CHECKSUM_FLAG = 1n << 63n;

/** The database checksum of a database without pages. */
export const EMPTY_DATABASE_CHECKSUM = CHECKSUM_FLAG;

/** A u64 in two unsigned 32-bit halves. */
export interface U64Halves {
  hi: number;
  lo: number;
}

/** A CRC-64 over any number of pieces. */
export class Crc64 {
  // Signed 32-bit on purpose: the engine keeps those unboxed. The xorout is applied in digest().
  #state: U64Halves = { hi: -1, lo: -1 };

  /** Adds `bytes[start, end)`. */
  update(bytes: Uint8Array, start = 0, end = bytes.length): void {
    advance(this.#state, bytes, start, end);
  }

  /**
   * Adds a page by what `pageChecksum` gave for it: a CRC is linear, so bytes that one CRC was computed of need not be read
   * for another. `sizeBytes` is the page size.
   */
  updatePage(pgno: number, { hi, lo }: Readonly<U64Halves>, sizeBytes: number): void {
    const state = this.#state;
    // Both CRCs went on over the same bytes. Where they differ after them is where they differed before, moved by as many zeros.
    startPage(pgno, beforePage);
    state.hi ^= beforePage.hi;
    state.lo ^= beforePage.lo;
    zerosOf(sizeBytes).advance(state);
    state.hi ^= ~hi;
    state.lo ^= ~lo;
  }

  /** The CRC of everything added so far. Does not disturb the state. */
  digest(): bigint {
    return joinHalves(~this.#state.hi >>> 0, ~this.#state.lo >>> 0);
  }

  /** Starts again from nothing. */
  reset(): void {
    this.#state.hi = -1;
    this.#state.lo = -1;
  }
}

/**
 * Writes CRC(pgno as big-endian u32, page) into `into`: what one page adds to the database checksum.
 * Bit 63 is the CRC's own; it counts nowhere, because stored checksums always have it set.
 */
export function pageChecksum(pgno: number, page: Uint8Array, into: U64Halves): void {
  startPage(pgno, into);
  advance(into, page, 0, page.length);
  into.hi = ~into.hi >>> 0;
  into.lo = ~into.lo >>> 0;
}

/**
 * The database checksum while pages come and go: the XOR of every page's checksum, bit 63 set.
 * XOR is its own inverse: to replace a page, add the old checksum once more and then the new one.
 */
export class ChecksumAccumulator {
  #hi = 0;
  #lo = 0;

  /** Adds or removes a page by the halves that `pageChecksum` gave. */
  xorPage(hi: number, lo: number): void {
    this.#hi ^= hi;
    this.#lo ^= lo;
  }

  /** The database checksum. Without pages it is the flag alone. */
  value(): bigint {
    return CHECKSUM_FLAG | joinHalves(this.#hi >>> 0, this.#lo >>> 0);
  }

  /** Continues from a database checksum. */
  set(checksum: bigint): void {
    this.#hi = Number((checksum >> 32n) & 0xffffffffn);
    this.#lo = Number(checksum & 0xffffffffn);
  }

  /** Back to the database without pages. */
  reset(): void {
    this.#hi = 0;
    this.#lo = 0;
  }
}

/** The u64 of two unsigned halves. */
export function joinHalves(hi: number, lo: number): bigint {
  return (BigInt(hi) << 32n) | BigInt(lo);
}

// --- internal ---

const POLYNOMIAL_HI = 0xd8000000;

/**
 * Slicing by 8: table k gives the CRC effect of a byte that is followed by k zero bytes, as high and low half. Table 7 comes
 * first. One array for all: with one for each table and half the loop below takes three times as long in the compiled
 * program, since sixteen addresses do not fit into registers.
 */
const TABLE_SIZE = 2 * 256;
const TABLE_0 = 7 * TABLE_SIZE;
const TABLES = makeTables();

function makeTables(): Int32Array {
  const tables = new Int32Array(8 * TABLE_SIZE);
  for (let byte = 0; byte < 256; byte++) {
    let hi = 0;
    let lo = byte;
    for (let bit = 0; bit < 8; bit++) {
      const out = lo & 1;
      lo = (lo >>> 1) | (hi << 31);
      hi = (hi >>> 1) ^ (out ? POLYNOMIAL_HI : 0);
    }
    tables[TABLE_0 + 2 * byte] = hi;
    tables[TABLE_0 + 2 * byte + 1] = lo;
  }
  for (let at = TABLE_0 - 2; at >= 0; at -= 2) {
    const hi = tables[at + TABLE_SIZE]!;
    const lo = tables[at + TABLE_SIZE + 1]!;
    const low = TABLE_0 + 2 * (lo & 0xff);
    tables[at] = (hi >>> 8) ^ tables[low]!;
    tables[at + 1] = ((lo >>> 8) | (hi << 24)) ^ tables[low + 1]!;
  }
  return tables;
}

/** The state of a page's checksum before its first byte. */
function startPage(pgno: number, into: U64Halves): void {
  into.hi = -1;
  into.lo = -1;
  advanceByte(into, pgno >>> 24);
  advanceByte(into, (pgno >>> 16) & 0xff);
  advanceByte(into, (pgno >>> 8) & 0xff);
  advanceByte(into, pgno & 0xff);
}

const beforePage: U64Halves = { hi: 0, lo: 0 };

function advanceByte(state: U64Halves, byte: number): void {
  const at = TABLE_0 + 2 * ((state.lo ^ byte) & 0xff);
  state.lo = ((state.lo >>> 8) | (state.hi << 24)) ^ TABLES[at + 1]!;
  state.hi = (state.hi >>> 8) ^ TABLES[at]!;
}

/** Moves `state` (without xorout) over `bytes[start, end)`. */
function advance(state: U64Halves, bytes: Uint8Array, start: number, end: number): void {
  let at = start;
  if (end - start >= WORDS_MIN) {
    for (; ((bytes.byteOffset + at) & 3) !== 0; at++) advanceByte(state, bytes[at]!);
    // Every processor that Bun runs on is little-endian, as this CRC is.
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, ((end - at) >> 3) << 1);
    advanceWords(state, words);
    at += words.byteLength;
  }
  for (; at < end; at++) advanceByte(state, bytes[at]!);
}

/** Below this, a view costs more than it saves. */
const WORDS_MIN = 128;

/** As `advance`, over an even number of little-endian words. */
function advanceWords(state: U64Halves, words: Int32Array): void {
  const tables = TABLES;
  let hi = state.hi | 0;
  let lo = state.lo | 0;
  for (let i = 0; i < words.length; i += 2) {
    lo ^= words[i]!;
    hi ^= words[i + 1]!;
    // The first byte, which has seven behind it, is looked up in table 7.
    const a = (lo << 1) & 0x1fe;
    const b = ((lo >>> 7) & 0x1fe) + TABLE_SIZE;
    const c = ((lo >>> 15) & 0x1fe) + 2 * TABLE_SIZE;
    const d = ((lo >>> 23) & 0x1fe) + 3 * TABLE_SIZE;
    const e = ((hi << 1) & 0x1fe) + 4 * TABLE_SIZE;
    const f = ((hi >>> 7) & 0x1fe) + 5 * TABLE_SIZE;
    const g = ((hi >>> 15) & 0x1fe) + 6 * TABLE_SIZE;
    const h = ((hi >>> 23) & 0x1fe) + TABLE_0;
    hi = tables[a]! ^ tables[b]! ^ tables[c]! ^ tables[d]! ^ tables[e]! ^ tables[f]! ^ tables[g]! ^ tables[h]!;
    lo =
      tables[a + 1]! ^
      tables[b + 1]! ^
      tables[c + 1]! ^
      tables[d + 1]! ^
      tables[e + 1]! ^
      tables[f + 1]! ^
      tables[g + 1]! ^
      tables[h + 1]!;
  }
  state.hi = hi;
  state.lo = lo;
}

/**
 * What a run of zero bytes does to a CRC's state: a linear function, kept as its values for each byte of the state at each of
 * the eight places, which is 16 KiB.
 */
class Zeros {
  readonly #hi = new Int32Array(8 * 256);
  readonly #lo = new Int32Array(8 * 256);

  /** `sizeBytes`: a power of two, as all page sizes are. */
  constructor(sizeBytes: number) {
    const bits = Array.from({ length: 64 }, (_, i) => {
      const bit = i < 32 ? { hi: 0, lo: 1 << i } : { hi: 1 << (i - 32), lo: 0 };
      advanceByte(bit, 0);
      return bit;
    });
    this.#fill(bits);
    for (let done = 1; done < sizeBytes; done *= 2) {
      // Twice as many zeros: the function applied to its own values.
      for (const bit of bits) this.advance(bit);
      this.#fill(bits);
    }
  }

  advance(state: U64Halves): void {
    const { hi, lo } = state;
    let [newHi, newLo] = [0, 0];
    for (let place = 0; place < 8; place++) {
      const half = place < 4 ? lo : hi;
      const at = place * 256 + ((half >>> (8 * (place & 3))) & 0xff);
      newHi ^= this.#hi[at]!;
      newLo ^= this.#lo[at]!;
    }
    state.hi = newHi;
    state.lo = newLo;
  }

  #fill(bits: readonly U64Halves[]): void {
    for (let place = 0; place < 8; place++) {
      for (let byte = 1; byte < 256; byte++) {
        const lowest = 31 - Math.clz32(byte & -byte);
        const rest = place * 256 + (byte & (byte - 1));
        this.#hi[place * 256 + byte] = this.#hi[rest]! ^ bits[place * 8 + lowest]!.hi;
        this.#lo[place * 256 + byte] = this.#lo[rest]! ^ bits[place * 8 + lowest]!.lo;
      }
    }
  }
}

/** One for each page size in use, of eight that there are. */
const zeros = new Map<number, Zeros>();

function zerosOf(sizeBytes: number): Zeros {
  let found = zeros.get(sizeBytes);
  if (found === undefined) {
    assert(sizeBytes > 0 && (sizeBytes & (sizeBytes - 1)) === 0, "a page size is a power of two");
    found = new Zeros(sizeBytes);
    zeros.set(sizeBytes, found);
  }
  return found;
}
