/**
 * Writes pages to their places in a database file, neighbours together: a file of a chain holds them in ascending order, and a
 * system call for each would take longer than everything else that a restore does with a page.
 */
import { KiB } from "../bytes.ts";
import { writeFully } from "../durable.ts";
import { PacedSync } from "../paced-sync.ts";
import { pageOffset } from "../page.ts";

export class PageWriter {
  /** For who puts many: between parts, and after the last `flush`. */
  readonly sync: PacedSync;
  readonly #fd: number;
  readonly #pageSize: number;
  readonly #buffer: Uint8Array;
  /** Where the first of the pages in the buffer belongs. */
  #firstPgno = 0;
  #count = 0;

  /** `path` is what the file is called. */
  constructor(fd: number, path: string, pageSize: number) {
    this.sync = new PacedSync(fd, path);
    this.#fd = fd;
    this.#pageSize = pageSize;
    this.#buffer = new Uint8Array(Math.max(pageSize, BUFFER_SIZE));
  }

  /** Takes a page, which is not kept. It is in the file after `flush` at the latest. Throws what the file system throws. */
  put(pgno: number, page: Uint8Array): void {
    const isFull = (this.#count + 1) * this.#pageSize > this.#buffer.length;
    if (isFull || pgno !== this.#firstPgno + this.#count) this.flush();
    if (this.#count === 0) this.#firstPgno = pgno;
    this.#buffer.set(page, this.#count * this.#pageSize);
    this.#count++;
  }

  flush(): void {
    if (this.#count === 0) return;
    const bytes = this.#buffer.subarray(0, this.#count * this.#pageSize);
    writeFully(this.#fd, bytes, pageOffset(this.#firstPgno, this.#pageSize));
    this.sync.wrote(bytes.length);
    this.#count = 0;
  }
}

// --- internal ---

const BUFFER_SIZE = 256 * KiB;
