/** A set of page numbers, one bit each. */
export class PageSet {
  readonly #bits: Uint8Array;

  /** For pages up to `commit`. */
  constructor(commit: number) {
    this.#bits = new Uint8Array((commit >>> 3) + 1);
  }

  add(pgno: number): void {
    this.#bits[pgno >>> 3]! |= 1 << (pgno & 7);
  }

  has(pgno: number): boolean {
    return (this.#bits[pgno >>> 3]! & (1 << (pgno & 7))) !== 0;
  }
}
