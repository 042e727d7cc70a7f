// Goal: whatever a WAL looks like, torn, stale, damaged or in the middle of a transaction, what is reported are whole
// transactions of one generation, from the first on, and not one frame more.
import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { decodeWalHeader, WAL_HEADER_SIZE, walFrameOffset } from "../../src/sqlite/wal.ts";
import { readWalIndexHead } from "../../src/sqlite/wal-index.ts";
import {
  cursorAt,
  cursorAtStart,
  readFramePage,
  readWalHeader,
  scanWal,
  type WalCursor,
  type WalScan,
} from "../../src/sqlite/wal-reader.ts";
import { copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { craftWal, framesOf, resealed } from "../support/sqlite-wal.ts";
import { tempDir } from "../support/temp.ts";

const ALL = Number.POSITIVE_INFINITY;
const folder = tempDir();
const other = new SqliteProcess();
afterAll(() => other.stop());

/** Runs `look` on a file with these bytes. */
function withFile<T>(bytes: Uint8Array, look: (fd: number) => T): T {
  const path = join(folder, "looked-at.wal");
  writeFileSync(path, bytes);
  const fd = openSync(path, "r");
  try {
    return look(fd);
  } finally {
    closeSync(fd);
  }
}

function startOf(wal: Uint8Array): WalCursor {
  return cursorAtStart(decodeWalHeader(wal)!);
}

function scanBytes(wal: Uint8Array, pageSize: number, start = startOf(wal), frameLimit = ALL): WalScan {
  return withFile(wal, (fd) => scanWal(fd, pageSize, start, frameLimit));
}

/** What a scan of the first `frameCount` frames of an undamaged WAL must report, by the definition. */
function wantedOf(wal: Buffer, pageSize: number, frameCount: number) {
  const frames = framesOf(wal, pageSize).slice(0, frameCount);
  const whole = frames.findLastIndex(({ commit }) => commit > 0) + 1;
  const newest = new Map<number, number>();
  frames.slice(0, whole).forEach(({ pgno }, index) => void newest.set(pgno, index));
  return {
    frameCount: whole,
    commitCount: frames.filter(({ commit }) => commit > 0).length,
    commit: whole === 0 ? 0 : frames[whole - 1]!.commit,
    walOffset: walFrameOffset(whole, pageSize),
    pages: [...newest].sort(([a], [b]) => a - b),
  };
}

function summaryOf(scan: WalScan) {
  const { frameCount, commitCount, commit, end, pages } = scan;
  const pairs = Array.from(pages.pgnos, (pgno, i) => [pgno, pages.frameIndexes[i]!] as [number, number]);
  return { frameCount, commitCount, commit, walOffset: end.walOffset, pages: pairs };
}

/** A database of a few transactions that touch the same pages again and again; nothing is copied back. */
async function realWal(name: string, pageSize: number): Promise<{ path: string; wal: Buffer }> {
  const live = join(folder, `live-${name}.db`);
  const path = join(folder, `${name}.db`);
  await other.open({ path: live, pageSize, journalMode: "wal", autocheckpoint: 0 });
  await other.run("create table t (id integer primary key, body blob)");
  for (let i = 0; i < 4; i++) await other.run("insert into t (body) values (randomblob(?))", 3 * pageSize);
  await other.run("update t set body = randomblob(10) where id = 2");
  await other.run("insert into t (body) values (randomblob(?))", 2 * pageSize);
  copyDatabase(live, path);
  return { path, wal: readFileSync(`${path}-wal`) };
}

const small = await realWal("small", 512);

describe.each([512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])("page size %d:", (pageSize) => {
  test("a whole WAL of SQLite: all transactions, the newest frame of each page, the pages that SQLite has", async () => {
    const { path, wal } = await realWal(`p${pageSize}`, pageSize);
    const { content } = await other.dump(join(folder, "content"));
    const scan = scanBytes(wal, pageSize);
    expect(summaryOf(scan)).toEqual(wantedOf(wal, pageSize, ALL));
    expect(scan.end.walOffset).toBe(wal.length);
    expect(scan.commitCount).toBe(7);
    expect(scan.commit * pageSize).toBe(content.length);
    const file = readFileSync(path);
    const found = Buffer.alloc(content.length, file.subarray(0, content.length));
    withFile(wal, (fd) => {
      const page = new Uint8Array(pageSize);
      for (const [pgno, frameIndex] of summaryOf(scan).pages) {
        expect(readFramePage(fd, scan.end, frameIndex, page)).toBe(true);
        found.set(page, (pgno - 1) * pageSize);
      }
    });
    expect(Buffer.compare(found, content)).toBe(0);
  });

  // The parts in which a WAL is read hold a megabyte: one frame more, one less, and a multiple must not matter.
  test("a WAL of more than one part", () => {
    const frameCount = Math.ceil((2.2 * 2 ** 20) / pageSize);
    const page = new Uint8Array(pageSize);
    const frames = Array.from({ length: frameCount }, (_, i) => ({
      pgno: 1 + ((i * 7) % 97),
      commit: i % 5 === 4 || i === frameCount - 1 ? 100 : 0,
      page,
    }));
    const wal = craftWal(pageSize, frames);
    expect(summaryOf(scanBytes(wal, pageSize))).toEqual(wantedOf(wal, pageSize, ALL));
  }, 20_000);
});

test("a tail torn at any byte of the last frame ends the WAL at the commit before", () => {
  const { wal } = small;
  const frames = framesOf(wal, 512);
  const last = frames.at(-1)!.offset;
  const wanted = wantedOf(wal, 512, frames.length - 1);
  expect(wanted.frameCount).toBeLessThan(frames.length - 1);
  for (let size = last; size < wal.length; size++) {
    expect(summaryOf(scanBytes(wal.subarray(0, size), 512))).toEqual(wanted);
    // Torn, and the file was preallocated or holds what was there before.
    const zeroed = Buffer.concat([wal.subarray(0, size), Buffer.alloc(wal.length - size)]);
    if (wal.subarray(size).some((byte) => byte !== 0)) expect(summaryOf(scanBytes(zeroed, 512))).toEqual(wanted);
  }
});

test("a flipped bit in any frame ends the WAL at the commit before that frame", () => {
  const { wal } = small;
  const frames = framesOf(wal, 512);
  for (const [index, { offset }] of frames.entries()) {
    const wanted = wantedOf(wal, 512, index);
    for (let bit = 0; bit < 8 * 536; bit += bit < 8 * 24 ? 1 : 61) {
      const damaged = Buffer.from(wal);
      damaged[offset + (bit >> 3)]! ^= 1 << (bit & 7);
      const found = summaryOf(scanBytes(damaged, 512));
      if (!Bun.deepEquals(found, wanted)) throw new Error(`bit ${bit} of frame ${index}: ${JSON.stringify(found)}`);
    }
  }
});

test("page number 0 ends the WAL, right checksum or not", () => {
  const { wal } = small;
  const { offset } = framesOf(wal, 512)[5]!;
  const damaged = Buffer.from(wal);
  damaged.writeUInt32BE(0, offset);
  expect(summaryOf(scanBytes(resealed(damaged, 512, false), 512))).toEqual(wantedOf(wal, 512, 5));
});

test.each([
  ["salt1", { salt1: 1 }],
  ["salt2", { salt2: 1 }],
  ["checksum1", { checksum1: 1 }],
  ["checksum2", { checksum2: 1 }],
])("nothing of a WAL that does not continue the cursor's %s", (_field, wrong) => {
  const start = { ...startOf(small.wal), ...wrong };
  expect(scanBytes(small.wal, 512, start)).toMatchObject({ end: start, frameCount: 0, commitCount: 0, commit: 0 });
});

test("the wrong byte order reads nothing", () => {
  for (const bigEndian of [false, true]) {
    const wal = resealed(small.wal, 512, bigEndian);
    const start = startOf(wal);
    expect(summaryOf(scanBytes(wal, 512, start))).toEqual(wantedOf(small.wal, 512, ALL));
    expect(scanBytes(wal, 512, { ...start, bigEndianChecksums: !bigEndian }).frameCount).toBe(0);
  }
});

test("frames at or behind the limit do not exist, and a limit within a transaction hides all of it", () => {
  const count = framesOf(small.wal, 512).length;
  for (let limit = 0; limit <= count + 1; limit++) {
    expect(summaryOf(scanBytes(small.wal, 512, startOf(small.wal), limit))).toEqual(wantedOf(small.wal, 512, limit));
  }
});

test("scanning on from any commit is the same as scanning at once", () => {
  const { wal } = small;
  const whole = scanBytes(wal, 512);
  for (const [index, { commit }] of framesOf(wal, 512).entries()) {
    if (commit === 0) continue;
    const first = scanBytes(wal, 512, startOf(wal), index + 1);
    const second = scanBytes(wal, 512, first.end);
    expect(first.end.walOffset).toBe(walFrameOffset(index + 1, 512));
    expect(second.end).toEqual(whole.end);
    expect(first.commitCount + second.commitCount).toBe(whole.commitCount);
    expect(first.frameCount + second.frameCount).toBe(whole.frameCount);
    const newest = new Map([...summaryOf(first).pages, ...summaryOf(second).pages]);
    expect([...newest].sort(([a], [b]) => a - b)).toEqual(summaryOf(whole).pages);
    // Nothing follows: the cursor stays.
    if (index === framesOf(wal, 512).length - 1) expect(second).toMatchObject({ end: first.end, commit: 0 });
    // The same place, found without a scan.
    const { salt1, salt2, walOffset } = first.end;
    expect(withFile(wal, (fd) => cursorAt(fd, 512, { salt1, salt2, walOffset }))).toEqual(first.end);
  }
});

test("there is no cursor in another generation, behind the end, or within the first frame", () => {
  const { wal } = small;
  const { salt1, salt2, walOffset } = scanBytes(wal, 512).end;
  const place = { salt1, salt2, walOffset };
  const at = (bytes: Uint8Array, changes: object) =>
    withFile(bytes, (fd) => cursorAt(fd, 512, { ...place, ...changes }));
  expect(at(wal, {})).not.toBeNull();
  expect(at(wal, { salt1: salt1 ^ 1 })).toBeNull();
  expect(at(wal, { salt2: salt2 ^ 1 })).toBeNull();
  expect(at(wal, { walOffset: walOffset + 536 })).toBeNull();
  expect(at(wal, { walOffset: WAL_HEADER_SIZE + 24 })).toBeNull();
  expect(at(wal.subarray(0, 31), {})).toBeNull();
  expect(at(new Uint8Array(0), {})).toBeNull();
  // A stale frame of the generation before, under a header of ours.
  for (const field of [8, 12]) {
    const stale = Buffer.from(wal);
    stale[walOffset - 536 + field]! ^= 1;
    expect(at(stale, {})).toBeNull();
  }
});

test("a page of another generation, or behind the end, is not handed out", () => {
  const { wal } = small;
  const cursor = startOf(wal);
  const page = new Uint8Array(512);
  const count = framesOf(wal, 512).length;
  expect(withFile(wal, (fd) => readFramePage(fd, cursor, count - 1, page))).toBe(true);
  expect(Buffer.compare(page, wal.subarray(-512))).toBe(0);
  expect(withFile(wal, (fd) => readFramePage(fd, cursor, count, page))).toBe(false);
  expect(withFile(wal.subarray(0, -1), (fd) => readFramePage(fd, cursor, count - 1, page))).toBe(false);
  expect(withFile(wal, (fd) => readFramePage(fd, { ...cursor, salt1: 0 }, 0, page))).toBe(false);
  expect(withFile(wal, (fd) => readFramePage(fd, { ...cursor, salt2: 0 }, 0, page))).toBe(false);
});

test("an empty WAL, or a header alone", () => {
  expect(withFile(new Uint8Array(0), readWalHeader)).toBeNull();
  expect(withFile(small.wal.subarray(0, 31), readWalHeader)).toBeNull();
  const header = small.wal.subarray(0, 32);
  expect(withFile(header, readWalHeader)).toEqual(decodeWalHeader(small.wal));
  expect(scanBytes(header, 512)).toMatchObject({ end: startOf(header), frameCount: 0, commitCount: 0, commit: 0 });
});

describe("a live WAL of SQLite:", () => {
  test("frames of the generation before, behind a restart, are not read", async () => {
    const path = join(folder, "restarted.db");
    await other.open({ path, pageSize: 1024, journalMode: "wal", autocheckpoint: 0 });
    await other.run("create table t (body)");
    await other.run("insert into t values (randomblob(40000))");
    const copy = join(folder, "restarted-copy.db");
    copyDatabase(path, copy);
    const before = readFileSync(`${copy}-wal`);
    expect(await other.checkpoint("RESTART")).toMatchObject({ busy: false });
    await other.run("insert into t values (1)");
    copyDatabase(path, copy, ["", "-wal", "-shm"]);
    const wal = readFileSync(`${copy}-wal`);
    expect(wal.length).toBe(before.length);
    expect(wal.readUInt32BE(16)).toBe((before.readUInt32BE(16) + 1) >>> 0);
    expect(wal.readUInt32BE(12)).toBe(1);

    const { frameCount } = await other.state();
    const scan = scanBytes(wal, 1024);
    expect(scan).toMatchObject({ frameCount, commitCount: 1 });
    expect(frameCount).toBeLessThan(framesOf(wal, 1024).length);
    // A cursor of the old generation finds nothing in the new one, although old frames do lie behind it.
    const { end } = scanBytes(before, 1024, startOf(before), 1);
    expect(scanBytes(wal, 1024, end).frameCount).toBe(0);
    const old = scanBytes(before, 1024);
    expect(withFile(wal, (fd) => cursorAt(fd, 1024, old.end))).toBeNull();
    // Nor does one of the new generation that is placed on an old frame.
    const misplaced = {
      ...scanBytes(before, 1024, startOf(before), 2).end,
      salt1: scan.end.salt1,
      salt2: scan.end.salt2,
    };
    expect(scanBytes(wal, 1024, { ...misplaced, walOffset: walFrameOffset(frameCount, 1024) }).frameCount).toBe(0);
  });

  test("frames that a large transaction spilled before its end are not reported, nor after its rollback", async () => {
    const path = join(folder, "spilled.db");
    await other.open({ path, pageSize: 512, journalMode: "wal", autocheckpoint: 0, cachePages: 5 });
    await other.run("create table t (body)");
    const committed = await other.state();
    const committedSize = statSync(`${path}-wal`).size;
    const copy = join(folder, "spilled-copy.db");
    const shm = () => {
      copyDatabase(path, copy, ["", "-wal", "-shm"]);
      const fd = openSync(`${copy}-shm`, "r");
      const head = readWalIndexHead(fd)!;
      closeSync(fd);
      return { wal: readFileSync(`${copy}-wal`), head };
    };

    await other.run("begin");
    for (let i = 0; i < 20; i++) await other.run("insert into t values (randomblob(5000))");
    const open = shm();
    expect(open.wal.length).toBeGreaterThan(committedSize + 50_000);
    expect(open.head.frameCount).toBe(committed.frameCount);
    const wanted = wantedOf(open.wal, 512, committed.frameCount);
    expect(summaryOf(scanBytes(open.wal, 512))).toEqual(wanted);

    await other.run("rollback");
    const after = shm();
    expect(after.wal.length).toBe(open.wal.length);
    expect(summaryOf(scanBytes(after.wal, 512))).toEqual(wanted);

    // The next transaction writes over the spilled frames; what is left of them has the right salts, and still is no frame.
    await other.run("insert into t values (1)");
    const next = shm();
    expect(next.wal.length).toBe(open.wal.length);
    expect(summaryOf(scanBytes(next.wal, 512))).toEqual(wantedOf(next.wal, 512, next.head.frameCount));
    expect(next.head.frameCount).toBeGreaterThan(committed.frameCount);

    // Spilled, then committed: one transaction.
    await other.run("begin");
    for (let i = 0; i < 20; i++) await other.run("insert into t values (randomblob(5000))");
    await other.run("commit");
    const last = shm();
    const scan = scanBytes(last.wal, 512, scanBytes(next.wal, 512).end);
    expect(scan.commitCount).toBe(1);
    expect(scan.end).toMatchObject({ walOffset: walFrameOffset(last.head.frameCount, 512) });
    expect(scan.end).toMatchObject({ checksum1: last.head.checksum1, checksum2: last.head.checksum2 });
  });
});

test("random transactions, cut or damaged anywhere: what lies before is reported, nothing else", () => {
  const frame = fc.record({ pgno: fc.integer({ min: 1, max: 9 }), fill: fc.nat(255) });
  const transaction = fc.array(frame, { minLength: 1, maxLength: 4 });
  const damage = fc.record({
    kind: fc.constantFrom("none", "cut", "flip"),
    where: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
    bit: fc.nat(7),
  });
  fc.assert(
    fc.property(
      fc.array(transaction, { maxLength: 6 }),
      fc.nat(3),
      fc.boolean(),
      damage,
      fc.nat(30),
      (list, open, bigEndian, { kind, where, bit }, limit) => {
        const frames = list.flatMap((pages, t) =>
          pages.map(({ pgno, fill }, i) => ({
            pgno,
            commit: i === pages.length - 1 ? 9 + t : 0,
            page: new Uint8Array(512).fill(fill),
          })),
        );
        for (let i = 0; i < open; i++) frames.push({ pgno: 1, commit: 0, page: new Uint8Array(512) });
        const wal = craftWal(512, frames, { bigEndian });
        const start = startOf(wal);
        const at = WAL_HEADER_SIZE + Math.floor(where * (wal.length - WAL_HEADER_SIZE));
        const sound = kind === "none" ? ALL : Math.floor((at - WAL_HEADER_SIZE) / 536);
        let damaged = Buffer.from(wal);
        if (kind === "cut") damaged = damaged.subarray(0, at);
        if (kind === "flip" && at < wal.length) damaged[at]! ^= 1 << bit;
        const found = summaryOf(scanBytes(damaged, 512, start, limit));
        expect(found).toEqual(wantedOf(wal, 512, Math.min(sound, limit)));
      },
    ),
    { numRuns: 300 },
  );
});
