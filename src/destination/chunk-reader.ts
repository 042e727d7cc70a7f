/** Reads a body in pieces of the sizes that the reader wants. */
export class ChunkReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** What was not asked for yet. Borrowed: valid until the next chunk. */
  #left: Uint8Array = new Uint8Array();

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Fills `buffer`; returns how much of it, which is less at the end only. */
  async fill(buffer: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < buffer.length) {
      if (this.#left.length === 0) {
        const { done, value } = await this.#chunks.next();
        if (done) break;
        this.#left = value;
        continue;
      }
      const part = this.#left.subarray(0, buffer.length - filled);
      buffer.set(part, filled);
      filled += part.length;
      this.#left = this.#left.subarray(part.length);
    }
    return filled;
  }

  /** Gives up the rest, if there is one. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
