/**
 * LZ4 blocks, by the lz4-wasm package: one page in, one raw block out, and back.
 * Promise: damaged input ends in an LtxError; it never traps its way past us, and no buffer is larger than a page's bound.
 * Spec: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
 *
 * The package's own JavaScript entry does not load in Bun, so the raw exports are called. The module is compiled at first
 * use; its memory (about 1.2 MB) never shrinks, but does not grow either, since every call returns what it took.
 */
import { readFileSync } from "node:fs";
import wasmPath from "lz4-wasm/lz4_wasm_bg.wasm" with { type: "file" };
import { assert } from "../assert.ts";
import { LtxError } from "../errors.ts";

/** The most bytes that a block of `sizeBytes` uncompressed bytes may take: all literals, and the marks of their length. */
export function compressBound(sizeBytes: number): number {
  return sizeBytes + Math.floor(sizeBytes / 255) + 16;
}

/** Compresses `page` into `out` from `outOffset`; returns the block's size in bytes. `out` must have room for the bound. */
export function compressBlock(page: Uint8Array, out: Uint8Array, outOffset = 0): number {
  assert(outOffset + compressBound(page.length) <= out.length, "the target has room for the largest block");
  const lz4 = instance();
  const input = lz4.malloc(page.length);
  lz4.bytes().set(page, input);
  lz4.compress(lz4.resultAt, input, page.length); // takes `input` and frees it
  const words = lz4.words();
  const block = words[lz4.resultAt / 4]!;
  const blockSize = words[lz4.resultAt / 4 + 1]!;
  const bytes = lz4.bytes();
  const size = blockSize - SIZE_PREFIX;
  out.set(bytes.subarray(block + SIZE_PREFIX, block + blockSize), outOffset);
  lz4.free(block, blockSize);
  return size;
}

/**
 * Decompresses `source[start, end)` into `out`, which has the exact size of the page.
 * Throws LtxError if the block is malformed or decodes to another size; then the contents of `out` mean nothing.
 */
export function decompressBlock(source: Uint8Array, out: Uint8Array, start = 0, end = source.length): void {
  const fault = faultOfBlock(source, start, end, out.length);
  if (fault !== null) throw new LtxError(`malformed LZ4 block of ${end - start} bytes: ${fault}`);
  const lz4 = instance();
  const inputSize = end - start + SIZE_PREFIX;
  const input = lz4.malloc(inputSize);
  const target = lz4.bytes();
  target[input] = out.length & 0xff;
  target[input + 1] = (out.length >>> 8) & 0xff;
  target[input + 2] = (out.length >>> 16) & 0xff;
  target[input + 3] = 0;
  target.set(source.subarray(start, end), input + SIZE_PREFIX);
  try {
    lz4.decompress(lz4.resultAt, input, inputSize);
  } catch (cause) {
    // A trap leaves the module's stack and heap in an unknown state: the next call gets a new instance.
    loaded = null;
    throw new LtxError(`malformed LZ4 block of ${end - start} bytes: the decoder trapped`, { cause });
  }
  const words = lz4.words();
  const result = lz4.resultAt / 4;
  if (words[result + 3] !== 0) {
    throw new LtxError(`malformed LZ4 block of ${end - start} bytes: ${lz4.lastFault()}`);
  }
  const page = words[result]!;
  const pageSize = words[result + 1]!;
  const right = pageSize === out.length;
  if (right) out.set(lz4.bytes().subarray(page, page + pageSize));
  lz4.free(page, pageSize);
  if (!right) throw new LtxError(`LZ4 block decodes to ${pageSize} bytes, expected ${out.length}`);
}

// --- internal ---

/** The package prepends the uncompressed size, u32 little-endian, to every block. LTX does not. */
const SIZE_PREFIX = 4;

/**
 * Walks the block's sequences without copying; null if they are sound.
 * Necessary because the module takes a match offset of 0, which the format forbids, and copies stale memory for it.
 */
function faultOfBlock(source: Uint8Array, start: number, end: number, pageSize: number): string | null {
  let at = start;
  let written = 0;
  while (at < end) {
    const token = source[at++]!;
    let literals = token >>> 4;
    if (literals === 15) {
      let more: number;
      do {
        if (at >= end) return "a literal length is cut short";
        more = source[at++]!;
        literals += more;
      } while (more === 255);
    }
    at += literals;
    written += literals;
    if (at > end) return "its literals reach beyond its end";
    if (written > pageSize) return `it decodes to more than ${pageSize} bytes`;
    if (at === end) return written === pageSize ? null : `it decodes to ${written} bytes, expected ${pageSize}`;
    if (at + 2 > end) return "a match offset is cut short";
    const offset = source[at]! | (source[at + 1]! << 8);
    at += 2;
    if (offset === 0) return "a match offset is 0";
    if (offset > written) return `a match reaches ${offset} bytes back, but only ${written} are decoded`;
    let match = (token & 15) + 4;
    if ((token & 15) === 15) {
      let more: number;
      do {
        if (at >= end) return "a match length is cut short";
        more = source[at++]!;
        match += more;
      } while (more === 255);
    }
    written += match;
    if (written > pageSize) return `it decodes to more than ${pageSize} bytes`;
  }
  return "it does not end with literals";
}

interface WasmExports {
  memory: WebAssembly.Memory;
  compress(resultAt: number, input: number, size: number): void;
  decompress(resultAt: number, input: number, size: number): void;
  __wbindgen_add_to_stack_pointer(delta: number): number;
  __wbindgen_malloc(size: number): number;
  __wbindgen_free(at: number, size: number): void;
}

interface Lz4 {
  compress: WasmExports["compress"];
  decompress: WasmExports["decompress"];
  malloc: WasmExports["__wbindgen_malloc"];
  free: WasmExports["__wbindgen_free"];
  /** Where results are written: pointer, size, error value, error mark; four u32. */
  resultAt: number;
  /** The memory as bytes. Taken anew each time: growing the memory detaches the old view. */
  bytes(): Uint8Array;
  /** The memory as u32. */
  words(): Uint32Array;
  /** What the module last said was wrong. */
  lastFault(): string;
}

let compiled: WebAssembly.Module | null = null;
let loaded: Lz4 | null = null;

function instance(): Lz4 {
  return (loaded ??= load());
}

function load(): Lz4 {
  compiled ??= new WebAssembly.Module(readFileSync(wasmPath as unknown as string));
  let fault = "";
  const { exports } = new WebAssembly.Instance(compiled, {
    "./lz4_wasm_bg.js": {
      __wbindgen_string_new(at: number, size: number): number {
        fault = new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, at, size));
        return 0;
      },
    },
  });
  const wasm = exports as unknown as WasmExports;
  let bytes = new Uint8Array(wasm.memory.buffer);
  let words = new Uint32Array(wasm.memory.buffer);
  return {
    compress: wasm.compress,
    decompress: wasm.decompress,
    malloc: wasm.__wbindgen_malloc,
    free: wasm.__wbindgen_free,
    resultAt: wasm.__wbindgen_add_to_stack_pointer(-16), // never given back: one result slot for the instance's life
    bytes: () => (bytes.buffer === wasm.memory.buffer ? bytes : (bytes = new Uint8Array(wasm.memory.buffer))),
    words: () => (words.buffer === wasm.memory.buffer ? words : (words = new Uint32Array(wasm.memory.buffer))),
    lastFault: () => fault,
  };
}
