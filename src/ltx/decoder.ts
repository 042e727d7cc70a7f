/**
 * Reads an LTX v3 file that arrives in chunks of any size, and verifies it on the way.
 * Promise: `finish` returns only if every rule holds. Pages are handed out before that: whoever writes them must be ready
 * to throw them away. Memory is bounded by one page frame.
 * Spec: https://github.com/superfly/ltx
 */
import { assert } from "../assert.ts";
import type { U64Halves } from "./checksum.ts";
import type { LtxHeader, LtxTrailer } from "./format.ts";
import { LtxParser, type LtxParserOptions } from "./parser.ts";

export interface LtxDecoderOptions extends LtxParserOptions {
  /** The header, as soon as its bytes are there. Already checked. */
  onHeader?: ((header: LtxHeader) => void) | undefined;
  /**
   * Each page, ascending by `pgno`, with its checksum as `pageChecksum` gives it. Both are borrowed: valid until the callback
   * returns.
   */
  onPage?: ((pgno: number, page: Uint8Array, checksum: Readonly<U64Halves>) => void) | undefined;
}

export interface LtxSummary {
  header: LtxHeader;
  trailer: LtxTrailer;
  pageCount: number;
}

export class LtxDecoder {
  readonly #parser: LtxParser;
  readonly #options: LtxDecoderOptions;
  #broken = false; // a call did not return

  constructor(options: LtxDecoderOptions = {}) {
    this.#options = options;
    this.#parser = new LtxParser(options);
  }

  /** Takes the next bytes. Not kept beyond the call. Throws LtxError; errors of the callbacks pass through as they are. */
  push(chunk: Uint8Array): void {
    const parser = this.#parser;
    const { onHeader, onPage } = this.#options;
    assert(!this.#broken, "the LTX decoder is not used after an error");
    this.#broken = true;
    parser.feed(chunk);
    for (;;) {
      switch (parser.next()) {
        case "header":
          onHeader?.(parser.header);
          break;
        case "page":
          onPage?.(parser.pgno, parser.page, parser.pageChecksum);
          break;
        case "more":
        case "end":
          this.#broken = false;
          return;
      }
    }
  }

  /** Says that all bytes were pushed. Throws LtxError if the file is not complete. */
  finish(): LtxSummary {
    assert(!this.#broken, "the LTX decoder is not used after an error");
    this.#parser.finish();
    const { header, trailer, pageCount } = this.#parser;
    return { header, trailer, pageCount };
  }
}
