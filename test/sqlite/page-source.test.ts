// Goal: the pages of a pinned database are those that SQLite has at the pinned commit, each once and in order, whatever is
// written meanwhile and however large the database is.
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { GiB, MiB } from "../../src/bytes.ts";
import { WalsyncError } from "../../src/errors.ts";
import { lockPgno, pageOffset } from "../../src/page.ts";
import { type PinnedState, pinState } from "../../src/replication/full-scan.ts";
import { PinnedDatabase } from "../../src/sqlite/database.ts";
import { readPages } from "../../src/sqlite/page-source.ts";
import { walFrameOffset } from "../../src/sqlite/wal.ts";
import { copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { framesOf, resealed } from "../support/sqlite-wal.ts";
import { tempDir } from "../support/temp.ts";

const folder = tempDir();
const other = new SqliteProcess();
afterAll(() => other.stop());

const pins: PinnedDatabase[] = [];
afterEach(() => {
  for (const pin of pins.splice(0)) pin.close();
});

function pinned(path: string): { pin: PinnedDatabase; state: PinnedState } {
  const pin = PinnedDatabase.open(path);
  pins.push(pin);
  return { pin, state: pinState(pin) };
}

/** Pages from `first` to `last`, as they were handed out: copies. */
function pagesOf(pin: PinnedDatabase, state: PinnedState, first = 1, last = state.head.commit): Map<number, Buffer> {
  const pages = new Map<number, Buffer>();
  readPages(pin, state.overlay, first, last, (pgno, page) => {
    if (page.byteLength !== pin.pageSize) throw new Error(`page ${pgno} has ${page.byteLength} bytes`);
    if (pages.has(pgno)) throw new Error(`page ${pgno} came twice`);
    pages.set(pgno, Buffer.from(page));
  });
  return pages;
}

function expectPages(found: Map<number, Buffer>, content: Buffer, pageSize: number, first = 1): void {
  const last = first + found.size - 1;
  expect([...found.keys()]).toEqual(Array.from({ length: found.size }, (_, i) => first + i));
  const wanted = content.subarray(pageOffset(first, pageSize), pageOffset(last + 1, pageSize));
  expect(Buffer.compare(Buffer.concat([...found.values()]), wanted)).toBe(0);
}

function faultOf(run: () => unknown): WalsyncError {
  try {
    run();
  } catch (error) {
    if (error instanceof WalsyncError) return error;
    throw error;
  }
  throw new Error("expected it to be refused");
}

/** A database whose pages are partly in the file, partly in the WAL, partly in both. */
async function application(name: string, pageSize: number): Promise<string> {
  const path = join(folder, name);
  await other.open({ path, pageSize, journalMode: "wal", autocheckpoint: 0 });
  await other.run("create table t (id integer primary key, body blob)");
  for (let i = 0; i < 6; i++) await other.run("insert into t (body) values (randomblob(?))", 3 * pageSize);
  await other.checkpoint("PASSIVE");
  await other.run("update t set body = randomblob(?) where id in (2, 5)", 2 * pageSize);
  await other.run("insert into t (body) values (randomblob(?))", 4 * pageSize);
  await other.run("delete from t where id = 1");
  return path;
}

describe.each([512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])("page size %d:", (pageSize) => {
  test("with frames in the WAL: the pinned state, while others write on", async () => {
    const path = await application(`overlay-${pageSize}.db`, pageSize);
    const { pin, state } = pinned(path);
    const { content } = await other.dump(join(folder, "content"));
    expect(state.overlay).not.toBeNull();
    await other.run("update t set body = randomblob(?)", 3 * pageSize);
    await other.checkpoint("PASSIVE");
    await other.run("delete from t where id > 3");
    await other.run("vacuum");
    await other.checkpoint("PASSIVE");
    expect(content.length).toBe(state.head.commit * pageSize);
    expectPages(pagesOf(pin, state), content, pageSize);
    for (const [first, last] of [
      [1, 1],
      [2, 9],
      [state.head.commit, state.head.commit],
      [5, state.head.commit],
    ] as const) {
      const part = pagesOf(pin, state, first, last);
      expect(part.size).toBe(last - first + 1);
      expectPages(part, content, pageSize, first);
    }
  });

  test("copied back completely: the file alone, while others write on", async () => {
    const path = await application(`file-${pageSize}.db`, pageSize);
    await other.checkpoint("PASSIVE");
    const { pin, state } = pinned(path);
    const { content } = await other.dump(join(folder, "content"));
    expect(state.overlay).toBeNull();
    await other.run("update t set body = randomblob(?)", 3 * pageSize);
    await other.checkpoint("TRUNCATE");
    await other.run("vacuum");
    await other.checkpoint("FULL");
    expect(content.length).toBe(state.head.commit * pageSize);
    expectPages(pagesOf(pin, state), content, pageSize);
  });
});

test("nothing in the WAL at all: sizes come from the file", async () => {
  const path = await application("quiet.db", 2048);
  const { content } = await other.dump(join(folder, "content"));
  await other.close(); // The last connection deletes the WAL.
  const { pin, state } = pinned(path);
  expect(state).toMatchObject({ overlay: null, cursor: null, head: { frameCount: 0, commit: content.length / 2048 } });
  expectPages(pagesOf(pin, state), content, 2048);
});

test("a large database passes through one small buffer", async () => {
  const path = join(folder, "large.db");
  await other.open({ path, pageSize: 4096, journalMode: "wal", autocheckpoint: 0 });
  await other.run("create table t (body)");
  await other.run("insert into t values (zeroblob(?))", 48 * MiB);
  await other.checkpoint("PASSIVE");
  await other.run("insert into t values (zeroblob(?))", 2 * MiB);
  const { pin, state } = pinned(path);
  const buffers = new Set<ArrayBufferLike>();
  let count = 0;
  readPages(pin, state.overlay, 1, state.head.commit, (pgno, page) => {
    count++;
    if (pgno !== count) throw new Error(`expected page ${count}, found ${pgno}`);
    buffers.add(page.buffer);
  });
  expect(count).toBe(state.head.commit);
  expect(count).toBeGreaterThan((50 * MiB) / 4096);
  const held = [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0);
  expect(held).toBeLessThanOrEqual(1 * MiB);
});

// No transaction of this SQLite leaves a new page without a frame, but the format allows it. The WAL of this one says that
// the database has three pages more than frames, and SQLite itself is asked what they hold.
test("pages that the database grew by without a frame are zeros, as SQLite reads them", async () => {
  const live = join(folder, "grown-live.db");
  await other.open({ path: live, pageSize: 1024, journalMode: "wal", autocheckpoint: 0 });
  await other.run("create table t (body)");
  await other.run("insert into t (body) values (randomblob(5000))");
  const path = join(folder, "grown.db");
  copyDatabase(live, path);
  const wal = readFileSync(`${path}-wal`);
  const frames = framesOf(wal, 1024);
  const last = frames.at(-1)!;
  const first = frames.findLast(({ pgno }) => pgno === 1)!;
  wal.writeUInt32BE(last.commit + 3, last.offset + 4);
  wal.writeUInt32BE(last.commit + 3, first.offset + 24 + 28); // The size in the database header.
  writeFileSync(`${path}-wal`, resealed(wal, 1024, false));
  await other.open({ path });
  const { content } = await other.dump(join(folder, "content"));
  expect(content.length).toBe((last.commit + 3) * 1024);
  const { pin, state } = pinned(path);
  expect(state.head.commit).toBe(last.commit + 3);
  const pages = pagesOf(pin, state);
  expectPages(pages, content, 1024);
  expect(pages.get(last.commit + 2)).toEqual(Buffer.alloc(1024));
  await other.close();
});

// A real database that ends just below 1 GiB, sparse, and grows across: SQLite itself leaves the lock page out.
describe("across the lock page at 1 GiB:", () => {
  const pageSize = 65536;
  const lock = lockPgno(pageSize);

  test("the lock page is left out, in the WAL and in the file", async () => {
    const path = join(folder, "lock.db");
    await other.open({ path, pageSize, journalMode: "wal" });
    await other.run("create table t (body)");
    await other.close();
    const fd = openSync(path, "r+");
    ftruncateSync(fd, GiB - pageSize);
    const size = Buffer.alloc(4);
    size.writeUInt32BE(lock - 2);
    writeSync(fd, size, 0, 4, 28);
    closeSync(fd);

    await other.open({ path, autocheckpoint: 0 });
    // Of the overflow chain, each page names the next: lock - 1, lock + 1, lock + 2.
    await other.run("insert into t values (randomblob(?))", 3.5 * pageSize);
    const { pin, state } = pinned(path);
    const { commit } = state.head;
    expect(commit).toBeGreaterThanOrEqual(lock + 2);
    const wanted = Array.from({ length: commit - lock + 3 }, (_, i) => lock - 2 + i).filter((pgno) => pgno !== lock);
    const inWal = pagesOf(pin, state, lock - 2);
    expect([...inWal.keys()]).toEqual(wanted);
    expect(inWal.get(lock - 1)!.readUInt32BE(0)).toBe(lock + 1);
    expect(inWal.get(lock + 1)!.readUInt32BE(0)).toBe(lock + 2);
    expect(inWal.get(lock - 2)!.every((byte) => byte === 0)).toBe(true);

    await other.checkpoint("PASSIVE");
    const resting = pinState(pin);
    expect(resting.overlay).toBeNull();
    const inFile = pagesOf(pin, resting, lock - 2);
    expect([...inFile.keys()]).toEqual(wanted);
    for (const [pgno, page] of inWal) expect(Buffer.compare(inFile.get(pgno)!, page)).toBe(0);
    expect(pagesOf(pin, resting, lock, lock).size).toBe(0);
    await other.close();
  }, 20_000);
});

describe("damage from outside is an error, not other pages:", () => {
  function cut(path: string, sizeBytes: number): void {
    // By another process: closing a descriptor here would drop the pin's locks.
    expect(Bun.spawnSync(["truncate", "-s", String(sizeBytes), path]).success).toBe(true);
  }

  test.each([
    ["a page", -1024],
    ["part of a page", -1],
    ["all but a page and a half", null],
  ])("the database file lost %s", async (_part, change) => {
    const path = await application(`cut${change}.db`, 1024);
    await other.checkpoint("TRUNCATE");
    const { pin, state } = pinned(path);
    await other.close();
    const { commit } = state.head;
    const sizeBytes = change === null ? 1536 : commit * 1024 + change;
    cut(path, sizeBytes);
    const seen: number[] = [];
    const error = faultOf(() => readPages(pin, state.overlay, 1, commit, (pgno) => void seen.push(pgno)));
    const missing = Math.floor(sizeBytes / 1024) + 1;
    expect(error.code).toBe("E_DATABASE");
    expect(error.message).toStartWith(`${path}: expected page ${missing} of ${commit} `);
    expect(error.hint).toContain("integrity_check");
    expect(seen).toHaveLength(missing - 1);
  });

  test.each([
    ["emptied", (path: string) => cut(path, 0)],
    ["cut to its first frame", (path: string) => cut(path, walFrameOffset(1, 1024))],
    [
      "replaced in place by another generation",
      (path: string) => {
        writeFileSync(`${path}.salts`, Buffer.alloc(8, 0x11));
        for (let at = 32 + 8, size = Bun.file(path).size; at < size; at += 24 + 1024) {
          const args = [`if=${path}.salts`, `of=${path}`, "bs=1", `seek=${at}`, "conv=notrunc", "status=none"];
          expect(Bun.spawnSync(["dd", ...args]).success).toBe(true);
        }
      },
    ],
  ])("the WAL was %s under the pin", async (_how, damage) => {
    const path = await application(`${damage.toString().length}-wal.db`, 1024);
    const { pin, state } = pinned(path);
    damage(`${path}-wal`);
    const error = faultOf(() => pagesOf(pin, state));
    expect(error.code).toBe("E_WAL");
    expect(error.message).toStartWith(`${path}: expected page `);
    expect(error.hint).toContain("Restart walsync");
  });
});
