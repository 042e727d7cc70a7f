// Goal: what the encoder writes the decoder reads, in chunks of any size, for every page size, and both agree with a file
// that neither of them wrote.
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { AssertionError } from "../../src/assert.ts";
import { WalsyncError } from "../../src/errors.ts";
import { CHECKSUM_FLAG } from "../../src/ltx/checksum.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { nextSnapshotPgno } from "../../src/ltx/format.ts";
import { lockPgno } from "../../src/page.ts";
import { tempDir } from "../support/temp.ts";
import {
  databaseChecksum,
  decodeFile,
  encodeFile,
  fromHex,
  header,
  makePage,
  type PageMap,
  snapshotFile,
} from "./make.ts";

const directory = tempDir();

const golden = fromHex(await Bun.file(new URL("../fixtures/ltx-vector.hex", import.meta.url)).text());

describe("the golden vector", () => {
  test("is read, whatever the chunks", () => {
    for (const chunkSize of [1, 2, 7, 100, 301]) {
      const file = decodeFile(golden, chunkSize);
      expect(file.header).toEqual(header({ commit: 2, timestampMs: 1_700_000_000_000 }));
      expect(file.pageCount).toBe(2);
      expect(file.trailer).toEqual({ postApplyChecksum: 0n, fileChecksum: 0xb9bdff46b930f0f2n });
      expect(Buffer.from(file.pages.get(1)!.subarray(0, 15)).toString()).toBe("SQLite format 3");
      const checksum = databaseChecksum({ pageSize: 512, commit: 2, pages: file.pages });
      expect(checksum.toString(16)).toBe("a04d9c61cd6f3779");
    }
  });

  test("holds what we write for its pages", () => {
    const { header: head, pages, trailer } = decodeFile(golden);
    const ours = decodeFile(encodeFile(head, pages, 0n));
    // Page sizes in the file depend on the compressor, and the file checksum covers them: only the pages must agree.
    expect(ours.pages).toEqual(pages);
    expect(ours.header).toEqual(head);
    expect(ours.trailer.postApplyChecksum).toBe(trailer.postApplyChecksum);
  });
});

describe("round trip", () => {
  test("every page size, as snapshot and increment, with checksums and without, in chunks of any size", () => {
    for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
      for (const flags of [0, 2]) {
        const pages: PageMap = new Map([1, 2, 3, 4, 5].map((pgno) => [pgno, makePage(pageSize, pgno)]));
        const checksum = databaseChecksum({ pageSize, commit: 5, pages });
        const post = flags === 0 ? checksum : 0n;
        const snapshot = header({ flags, pageSize, commit: 5 });
        const pre = flags === 0 ? CHECKSUM_FLAG | 9n : 0n;
        const increment = { ...snapshot, commit: 99, minTxid: 7n, maxTxid: 9n, preApplyChecksum: pre };
        for (const head of [snapshot, increment]) {
          const bytes = encodeFile(head, pages, post);
          for (const chunkSize of [bytes.length, 1 + (pageSize >> 3), 13]) {
            const file = decodeFile(bytes, chunkSize);
            expect(file.header).toEqual(head);
            expect(file.trailer.postApplyChecksum).toBe(post);
            expect(file.pageCount).toBe(5);
            expect(file.pages).toEqual(pages);
          }
        }
      }
    }
  });

  test("any set of pages, any cuts", () => {
    const pgnos = fc.uniqueArray(fc.integer({ min: 1, max: 0xfffffffe }), { maxLength: 12 });
    fc.assert(
      fc.property(pgnos, fc.array(fc.nat(3000), { maxLength: 8 }), fc.nat(), (numbers, cuts, seed) => {
        const lock = lockPgno(512);
        const pages: PageMap = new Map(numbers.filter((n) => n !== lock).map((n, i) => [n, makePage(512, seed + i)]));
        const head = header({ minTxid: 2n, maxTxid: 2n, commit: 0xfffffffe });
        const bytes = encodeFile(head, pages, 0n);
        const found: PageMap = new Map();
        const decoder = new LtxDecoder({
          expectedSizeBytes: bytes.length,
          onPage: (pgno, page) => void found.set(pgno, page.slice()),
        });
        const ends = [...cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length];
        let at = 0;
        for (const end of ends) {
          decoder.push(bytes.subarray(at, end));
          at = end;
        }
        expect(decoder.finish()).toMatchObject({ header: head, pageCount: pages.size });
        expect(found).toEqual(pages);
      }),
    );
  });

  test("a database may become empty, with the flag as its checksum", () => {
    const head = header({ flags: 0, commit: 0, minTxid: 2n, maxTxid: 2n, preApplyChecksum: CHECKSUM_FLAG | 1n });
    expect(decodeFile(encodeFile(head, new Map(), CHECKSUM_FLAG)).pageCount).toBe(0);
  });

  test("the header comes before the first page, and pages ascend", () => {
    const seen: string[] = [];
    const decoder = new LtxDecoder({
      onHeader: (head) => void seen.push(`header ${head.commit}`),
      onPage: (pgno) => void seen.push(`page ${pgno}`),
    });
    decoder.push(snapshotFile(512, 3, 1));
    expect(seen).toEqual(["header 3", "page 1", "page 2", "page 3"]);
  });

  test("an error of a callback passes through as it is, and ends the decoder", () => {
    const error = new TypeError("mine");
    const decoder = new LtxDecoder({
      onPage: () => {
        throw error;
      },
    });
    expect(() => decoder.push(snapshotFile(512, 3, 1))).toThrow(error);
    expect(() => decoder.push(new Uint8Array(0))).toThrow(AssertionError);
    expect(() => decoder.finish()).toThrow(AssertionError);
  });
});

describe("the lock page", () => {
  const pageSize = 65536;
  const lock = lockPgno(pageSize); // 16385
  const head = header({ pageSize, commit: lock + 3, minTxid: 2n, maxTxid: 2n });

  test("is stepped over by an increment that reaches beyond it", () => {
    const pages: PageMap = new Map([lock - 1, lock + 1, lock + 3].map((pgno) => [pgno, makePage(pageSize, pgno)]));
    expect(decodeFile(encodeFile(head, pages, 0n), 5000).pages).toEqual(pages);
  });

  test("is refused by the encoder", () => {
    expect(() => encodeFile(head, new Map([[lock, makePage(pageSize, 1)]]), 0n)).toThrow(AssertionError);
  });

  test("is left out of a snapshot, and only it", () => {
    expect(nextSnapshotPgno(0, lock)).toBe(1);
    expect(nextSnapshotPgno(lock - 2, lock)).toBe(lock - 1);
    expect(nextSnapshotPgno(lock - 1, lock)).toBe(lock + 1);
    expect(nextSnapshotPgno(lock + 1, lock)).toBe(lock + 2);
  });
});

describe("the encoder refuses", () => {
  const page = makePage(512, 1);
  const open = (changes = {}) => new LtxEncoder(() => {}, header({ commit: 9, ...changes }));
  const increment = { minTxid: 2n, maxTxid: 2n };

  test.each<[string, () => void]>([
    ["a page of another size", () => open().encodePage(1, new Uint8Array(511))],
    ["page 0", () => open(increment).encodePage(0, page)],
    ["a page beyond the database", () => open(increment).encodePage(10, page)],
    ["a snapshot that does not begin at page 1", () => open().encodePage(2, page)],
    ["a snapshot that ends early", () => open().finish(0n)],
    ["a checksum in a file without checksums", () => open(increment).finish(CHECKSUM_FLAG | 1n)],
    [
      "no checksum in a file with checksums",
      () => open({ ...increment, flags: 0, preApplyChecksum: CHECKSUM_FLAG }).finish(0n),
    ],
    ["a header that breaks a rule", () => open({ minTxid: 0n })],
  ])("%s", (_law, run) => expect(run).toThrow(AssertionError));

  test("pages out of order, a page after the end, and a second end", () => {
    const encoder = open(increment);
    encoder.encodePage(5, page);
    expect(() => encoder.encodePage(5, page)).toThrow(AssertionError);
    expect(() => encoder.encodePage(4, page)).toThrow(AssertionError);
    encoder.finish(0n);
    expect(() => encoder.encodePage(6, page)).toThrow(AssertionError);
    expect(() => encoder.finish(0n)).toThrow(AssertionError);
  });

  test("a hole in a snapshot", () => {
    const encoder = open();
    encoder.encodePage(1, page);
    expect(() => encoder.encodePage(3, page)).toThrow(AssertionError);
  });
});

describe("the page index of a large file", () => {
  const pageSize = 512;
  const pageCount = 150_000;
  const head = header({ pageSize, commit: 0xfffffffe, minTxid: 2n, maxTxid: 2n });
  const page = new Uint8Array(pageSize);

  function encode(spoolPath: string | undefined): { hash: string; sizeBytes: number; largest: number } {
    const hasher = new Bun.CryptoHasher("sha256");
    let largest = 0;
    const encoder = new LtxEncoder(
      (bytes) => {
        hasher.update(bytes);
        largest = Math.max(largest, bytes.length);
      },
      head,
      { spoolPath },
    );
    for (let i = 1; i <= pageCount; i++) encoder.encodePage(i * 9, page);
    encoder.finish(0n);
    return { hash: hasher.digest("hex"), sizeBytes: encoder.sizeBytes, largest };
  }

  test("is the same whether it overflowed to disk or not, and leaves nothing behind", () => {
    const spoolPath = join(directory, "index.spool");
    const spooled = encode(spoolPath);
    expect(spooled).toEqual(encode(undefined));
    expect(existsSync(spoolPath)).toBe(false);
    expect(spooled.largest).toBeLessThanOrEqual(256 * 1024);
  });

  test("that cannot overflow is an error of the disk", () => {
    const error = (() => {
      try {
        encode(join(directory, "missing", "index.spool"));
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toBeInstanceOf(WalsyncError);
    expect((error as WalsyncError).code).toBe("E_DISK");
  });
});

test("sizeBytes is the size of the file", () => {
  let written = 0;
  const encoder = new LtxEncoder((bytes) => void (written += bytes.length), header());
  encoder.encodePage(1, makePage(512, 1));
  encoder.finish(0n);
  expect(encoder.sizeBytes).toBe(written);
  expect(encoder.pageCount).toBe(1);
});

test("encoders at work at the same time do not meet, even after one was given up", () => {
  const files = [1, 2].map((seed) => snapshotFile(4096, 40, 100 * seed));
  const wanted = files.map((bytes) => decodeFile(bytes));
  const aborted = new LtxEncoder(() => {}, header());
  aborted.abort();
  aborted.abort();
  const pieces: Uint8Array[][] = [[], []];
  const encoders = wanted.map((file, i) => new LtxEncoder((bytes) => void pieces[i]!.push(bytes.slice()), file.header));
  for (let pgno = 1; pgno <= 40; pgno++) {
    for (const [i, encoder] of encoders.entries()) encoder.encodePage(pgno, wanted[i]!.pages.get(pgno)!);
  }
  for (const [i, encoder] of encoders.entries()) encoder.finish(wanted[i]!.trailer.postApplyChecksum);
  for (const [i, file] of files.entries()) expect(Buffer.compare(Buffer.concat(pieces[i]!), file)).toBe(0);
});
