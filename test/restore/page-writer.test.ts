// Goal: whatever pages come in whatever order, each is in its place after the last flush, the newest of a number wins, and what
// lies between them is untouched; neighbours go into the file together, and never more waits than the buffer holds.
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { KiB } from "../../src/bytes.ts";
import { PageWriter } from "../../src/restore/page-writer.ts";
import { tempDir } from "../support/temp.ts";

const path = join(tempDir(), "restored.db");
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
const BUFFER = 256 * KiB;
/** What the file holds where nobody has written. */
const UNTOUCHED = 0xff;

/** Writes pages of these numbers, each with content of its own, and compares the file after every one. */
class Writing {
  readonly #pageSize: number;
  readonly #fd: number;
  readonly #writer: PageWriter;
  /** As the file is when everything is flushed. */
  readonly #expected: Buffer;
  /** One buffer for all pages, as a decoder has: whoever keeps it keeps the wrong page. */
  readonly #page: Buffer;
  #puts = 0;
  /** As the file was. */
  #found: Buffer;
  /** Times that the file changed. */
  writes = 0;

  constructor(pageSize: number, pageCount: number) {
    this.#pageSize = pageSize;
    this.#expected = Buffer.alloc(pageSize * pageCount, UNTOUCHED);
    this.#page = Buffer.alloc(pageSize);
    this.#found = Buffer.from(this.#expected);
    writeFileSync(path, this.#expected);
    this.#fd = openSync(path, "r+");
    this.#writer = new PageWriter(this.#fd, path, pageSize);
  }

  put(pgno: number): void {
    // No two pages alike, so that every write shows.
    this.#page.fill(0).writeUInt32BE(++this.#puts, 0);
    this.#page.copy(this.#expected, (pgno - 1) * this.#pageSize);
    this.#writer.put(pgno, this.#page);
    this.#look();
  }

  /** Expects the file to be as it has to be. */
  end(): void {
    this.#writer.flush();
    this.#look();
    closeSync(this.#fd);
    expect(this.#found.equals(this.#expected)).toBe(true);
  }

  /** Bytes of pages that were put and are not in the file. */
  get waitingBytes(): number {
    let pages = 0;
    for (let at = 0; at < this.#expected.length; at += this.#pageSize) {
      if (this.#expected.compare(this.#found, at, at + 4, at, at + 4) !== 0) pages++;
    }
    return pages * this.#pageSize;
  }

  #look(): void {
    const found = readFileSync(path);
    if (!found.equals(this.#found)) this.writes++;
    this.#found = found;
  }
}

/** Writes that it takes: one for each run of neighbours, as many as fit into the buffer. */
function writesFor(pgnos: readonly number[], pageSize: number): number {
  let writes = 0;
  let inRun = 0;
  for (const [i, pgno] of pgnos.entries()) {
    const goesOn = i > 0 && pgno === pgnos[i - 1]! + 1 && (inRun + 1) * pageSize <= BUFFER;
    inRun = goesOn ? inRun + 1 : 1;
    if (!goesOn) writes++;
  }
  return writes;
}

describe("a page writer", () => {
  test.each([
    ["pages in any order, some of them more than once", fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 60 })],
    [
      "ascending pages with gaps, as files of a chain have them",
      fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { maxLength: 40 }).map((all) => all.sort((a, b) => a - b)),
    ],
  ])("leaves each where it belongs, with a write for each run: %s", (_, pgnos) => {
    fc.assert(
      fc.property(pgnos, fc.constantFrom(512, 4096, 65536), (numbers, pageSize) => {
        const writing = new Writing(pageSize, 40);
        for (const pgno of numbers) {
          writing.put(pgno);
          expect(writing.waitingBytes).toBeLessThanOrEqual(BUFFER);
        }
        writing.end();
        expect(writing.writes).toBe(writesFor(numbers, pageSize));
      }),
      { seed, numRuns: 60 },
    );
  });

  test.each([512, 4096, 65536])("holds 256 KiB of neighbours of %d bytes, and no page more", (pageSize) => {
    const fitting = BUFFER / pageSize;
    const writing = new Writing(pageSize, 2 * fitting + 1);
    for (let pgno = 1; pgno <= fitting; pgno++) writing.put(pgno);
    expect([writing.writes, writing.waitingBytes]).toEqual([0, BUFFER]);
    writing.put(fitting + 1);
    expect([writing.writes, writing.waitingBytes]).toEqual([1, pageSize]);
    for (let pgno = fitting + 2; pgno <= 2 * fitting + 1; pgno++) writing.put(pgno);
    writing.end();
    expect(writing.writes).toBe(3);
  });

  test("without a page writes nothing; flushed twice, it writes once", () => {
    const idle = new Writing(512, 3);
    idle.end();
    expect(idle.writes).toBe(0);
    const fd = openSync(path, "r+");
    const writer = new PageWriter(fd, path, 512);
    writer.put(2, Buffer.alloc(512, 1));
    writer.flush();
    writeFileSync(path, Buffer.alloc(1536, UNTOUCHED));
    writer.flush();
    closeSync(fd);
    expect(readFileSync(path).every((byte) => byte === UNTOUCHED)).toBe(true);
  });

  test("that cannot write says so, at the flush at the latest", () => {
    const fd = openSync(path, "r");
    const writer = new PageWriter(fd, path, 512);
    writer.put(1, Buffer.alloc(512));
    expect(() => writer.flush()).toThrow("EBADF");
    expect(() => writer.put(3, Buffer.alloc(512))).toThrow("EBADF");
    closeSync(fd);
  });
});
