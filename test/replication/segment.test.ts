// Goal: a segment holds every page that its transactions changed, as it is after them, and its checksums are those of the
// whole database before and after, computed here from the specification and from nothing of ours.
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { configureLog } from "../../src/log.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import type { LtxHeader } from "../../src/ltx/format.ts";
import { randomFrom } from "../ltx/make.ts";
import { resealed } from "../support/sqlite-wal.ts";
import { tempDir } from "../support/temp.ts";
import { Host } from "./host.ts";

const dir = tempDir();
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));

afterAll(() => configureLog({ sink: null }));

/** CRC-64/ISO of a page number and a page, bit by bit; two halves. */
function pageCrc(pgno: number, page: Uint8Array): [number, number] {
  let hi = 0xffffffff;
  let lo = 0xffffffff;
  const feed = (byte: number) => {
    lo ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      const out = lo & 1;
      lo = (lo >>> 1) | (hi << 31);
      hi = (hi >>> 1) ^ (out === 1 ? 0xd8000000 : 0);
    }
  };
  for (const shift of [24, 16, 8, 0]) feed((pgno >>> shift) & 255);
  for (const byte of page) feed(byte);
  return [~hi >>> 0, ~lo >>> 0];
}

function databaseChecksum(content: Uint8Array, pageSize: number): bigint {
  let hi = 0;
  let lo = 0;
  for (let pgno = 1; pgno <= content.length / pageSize; pgno++) {
    const [pageHi, pageLo] = pageCrc(pgno, content.subarray((pgno - 1) * pageSize, pgno * pageSize));
    hi ^= pageHi;
    lo ^= pageLo;
  }
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0) | (1n << 63n);
}

interface Increment {
  header: LtxHeader;
  postApplyChecksum: bigint;
  pages: Map<number, Buffer>;
}

function readIncrement(host: Host, txid: bigint): Increment {
  const name = readdirSync(host.bucketFolder).find((one) => one.endsWith(`-${String(txid).padStart(8, "0")}.ltx`))!;
  const pages = new Map<number, Buffer>();
  const decoder = new LtxDecoder({ name, onPage: (pgno, page) => void pages.set(pgno, Buffer.from(page)) });
  decoder.push(readFileSync(join(host.bucketFolder, name)));
  const { header, trailer } = decoder.finish();
  return { header, postApplyChecksum: trailer.postApplyChecksum, pages };
}

function expectExact(found: Increment, before: Uint8Array, after: Uint8Array, pageSize: number): void {
  const pageOf = (content: Uint8Array, pgno: number) => content.subarray((pgno - 1) * pageSize, pgno * pageSize);
  const commit = after.length / pageSize;
  expect(found.header).toMatchObject({ pageSize, commit, flags: 0 });
  expect(found.header.preApplyChecksum).toBe(databaseChecksum(before, pageSize));
  expect(found.postApplyChecksum).toBe(databaseChecksum(after, pageSize));
  expect([...found.pages.keys()]).toEqual([...found.pages.keys()].sort((a, b) => a - b));
  for (let pgno = 1; pgno <= commit; pgno++) {
    const page = found.pages.get(pgno);
    if (page !== undefined) expect(Buffer.compare(page, pageOf(after, pgno))).toBe(0);
    else expect(Buffer.compare(pageOf(before, pgno), pageOf(after, pgno))).toBe(0);
  }
  expect(Math.max(0, ...found.pages.keys())).toBeLessThanOrEqual(commit);
}

describe(`segments of a real WAL, seed ${seed}`, () => {
  test.each([512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])("page size %p", async (pageSize) => {
    const random = randomFrom(seed + pageSize);
    const host = new Host(join(dir, String(pageSize)));
    host.create(pageSize, random() % 2 === 0 ? "full" : "none");
    host.insert(2, pageSize);
    await host.start();
    await host.settle();
    let before = host.content();
    let previous: LtxHeader | null = null;
    for (let step = 0; step < 12; step++) {
      for (let i = random() % 3; i >= 0; i--) {
        switch (random() % 6) {
          case 0:
            host.app.run("delete from item where id % 2 = 0");
            break;
          case 1:
            host.app.run("vacuum");
            break;
          case 2:
            host.app.run("update item set body = randomblob(?)", [random() % pageSize]);
            break;
          case 3:
            host.checkpoint("PASSIVE");
            break;
          default:
            host.insert(1 + (random() % 3), random() % (pageSize * 2));
        }
      }
      const { txid } = host;
      await host.settle();
      const after = host.content();
      if (host.txid === txid) {
        expect(Buffer.compare(before, after)).toBe(0);
        continue;
      }
      const found = readIncrement(host, host.txid);
      expectExact(found, before, after, pageSize);
      const { walOffset, walSize, salt1 } = found.header;
      expect(walSize % (pageSize + 24)).toBe(0);
      // Within one generation of the WAL no byte is skipped, and none is taken twice.
      const start: number = previous?.salt1 === salt1 ? previous.walOffset + previous.walSize : walOffset;
      expect(walOffset).toBe(start);
      previous = found.header;
      before = after;
    }
    expect(host.log.some((line) => line.includes("comparing"))).toBe(false);
    await host.end();
  });
});

// No transaction of this SQLite leaves a new page without a frame, but the format allows it.
test("pages that a transaction grew by and never wrote are in its segment", async () => {
  const host = new Host(join(dir, "unwritten"));
  host.create();
  host.insert(3, 100);
  await host.start();
  await host.settle();
  const before = host.content();
  const { txid } = host;
  host.closeApp();
  await host.stop();
  const wal = readFileSync(`${host.path}-wal`);
  const pages = before.length / 4096;
  const frame = Buffer.alloc(24 + 4096);
  frame.writeUInt32BE(1, 0);
  frame.writeUInt32BE(pages + 3, 4);
  wal.copy(frame, 8, 16, 24);
  frame.set(before.subarray(0, 4096), 24);
  frame.writeUInt32BE(pages + 3, 24 + 28);
  writeFileSync(`${host.path}-wal`, resealed(Buffer.concat([wal, frame]), 4096, wal.readUInt8(3) === 0x83));
  await host.start();
  await host.until("the frame is captured", () => host.txid > txid);
  await host.settle();
  const after = host.content();
  expect(after.length).toBe(before.length + 3 * 4096);
  const found = readIncrement(host, txid + 1n);
  expect(host.logged("comparing")).toBe(false);
  expect(found.header.walSize).toBe(4120);
  expect([...found.pages.keys()]).toEqual([1, pages + 1, pages + 2, pages + 3]);
  expectExact(found, before, after, 4096);
  await host.end();
});

test("only the newest frame of each page is in a segment", async () => {
  const host = new Host(join(dir, "newest"));
  host.create();
  host.insert(1, 10);
  await host.start();
  await host.settle();
  for (let i = 0; i < 50; i++) host.app.run("update item set body = ? where id = 1", [`value ${i}`]);
  await host.settle();
  const { header, pages } = readIncrement(host, 2n);
  expect(header.walSize / 4120).toBe(50);
  expect([...pages.keys()]).toEqual([2]);
  expect(pages.get(2)!.toString("latin1")).toContain("value 49");
  await host.end();
});
