// Goal: the head of the -shm file tells the truth about what is committed, at any moment, while other processes commit.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeWalFrameHeader, decodeWalHeader, walFrameCount, walFrameOffset } from "../../src/sqlite/wal.ts";
import { readWalIndexHead, sameContent, WAL_INDEX_HEAD_SIZE, type WalIndexHead } from "../../src/sqlite/wal-index.ts";
import { bytesOf, copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";

const folder = tempDir();
const SEED = Number(process.env.WALSYNC_SEED ?? Date.now() % 2 ** 31);
const other = new SqliteProcess();
const descriptors: number[] = [];
afterAll(async () => {
  await other.stop();
  for (const fd of descriptors) closeSync(fd);
});

function openShm(path: string): number {
  const fd = openSync(`${path}-shm`, "r");
  descriptors.push(fd);
  return fd;
}

function headOf(bytes: Uint8Array): WalIndexHead | null {
  const path = join(folder, "head-shm");
  writeFileSync(path, bytes);
  const fd = openSync(path, "r");
  try {
    return readWalIndexHead(fd);
  } finally {
    closeSync(fd);
  }
}

test.each([512, 4096, 65536])("every field is what the WAL and SQLite say, page size %d", async (pageSize) => {
  const path = join(folder, `truth-${pageSize}.db`);
  await other.open({ path, pageSize, journalMode: "wal", autocheckpoint: 0 });
  await other.run("create table t (body)");
  const shmFd = openShm(path);
  let before = readWalIndexHead(shmFd)!;
  expect(before.backfilled).toBe(0);
  for (let i = 1; i <= 20; i++) {
    if (i === 12) await other.checkpoint("RESTART");
    await other.run("insert into t values (randomblob(?))", i * 700);
    if (i % 4 === 0) await other.rows("select count(*) from t"); // Reading is no change.
    const head = readWalIndexHead(shmFd)!;
    const wal = await bytesOf(`${path}-wal`);
    const header = decodeWalHeader(wal)!;
    const [pageCount] = (await other.rows("pragma page_count"))[0] as [number];
    const view = new DataView(wal.buffer, wal.byteOffset, wal.byteLength);
    const { checksum1, checksum2, commit, ...salts } = decodeWalFrameHeader(
      view,
      walFrameOffset(head.frameCount - 1, pageSize),
    );
    expect(head).toEqual({
      changeCount: (before.changeCount + 1) >>> 0,
      bigEndianChecksums: header.bigEndianChecksums,
      pageSize,
      frameCount: i < 12 ? walFrameCount(wal.length, pageSize) : head.frameCount,
      commit: pageCount,
      checksum1,
      checksum2,
      salt1: header.salt1,
      salt2: header.salt2,
      backfilled: 0,
    });
    expect(commit).toBe(pageCount);
    expect(salts).toMatchObject({ salt1: head.salt1, salt2: head.salt2 });
    expect(sameContent(before, head)).toBe(false);
    before = head;
  }
  const rolledBack = readWalIndexHead(shmFd)!;
  await other.run("begin");
  await other.run("insert into t values (1)");
  await other.run("rollback");
  expect(readWalIndexHead(shmFd)).toEqual(rolledBack);

  const copied = await other.checkpoint("PASSIVE");
  expect(copied).toEqual({ busy: false, frameCount: before.frameCount, backfilled: before.frameCount });
  const after = readWalIndexHead(shmFd)!;
  expect(after).toEqual({ ...before, backfilled: before.frameCount });
  expect(sameContent(before, after)).toBe(true);
});

test("a checkpoint that a reader stops counts what it copied", async () => {
  const path = join(folder, "partly.db");
  await other.open({ path, pageSize: 1024, journalMode: "wal", autocheckpoint: 0 });
  await other.run("create table t (body)");
  const reader = new SqliteProcess();
  try {
    await reader.open({ path });
    await reader.run("begin");
    await reader.rows("select count(*) from t");
    await other.run("insert into t values (randomblob(9000))");
    const result = await other.checkpoint("PASSIVE");
    const head = readWalIndexHead(openShm(path))!;
    expect(head).toMatchObject({ frameCount: result.frameCount, backfilled: result.backfilled });
    expect(head.backfilled).toBeGreaterThan(0);
    expect(head.backfilled).toBeLessThan(head.frameCount);
  } finally {
    await reader.stop();
  }
});

test("a WAL index of an empty WAL knows neither page size nor database size", async () => {
  const path = join(folder, "empty.db");
  await other.open({ path, pageSize: 1024, journalMode: "wal" });
  await other.run("create table t (body)");
  await other.close(); // The last connection copies everything back and deletes the WAL.
  await other.open({ path });
  await other.rows("select count(*) from t");
  expect(readWalIndexHead(openShm(path))).toMatchObject({ pageSize: 0, commit: 0, frameCount: 0 });
});

let sound: Buffer;
beforeAll(async () => {
  const path = join(folder, "sound.db");
  await other.open({ path, pageSize: 1024, journalMode: "wal" });
  await other.run("create table t (body)");
  copyDatabase(path, join(folder, "sound-copy.db"), ["-shm"]);
  sound = readFileSync(join(folder, "sound-copy.db-shm"));
});

test("two copies that differ in any bit are no head", () => {
  expect(headOf(sound)).not.toBeNull();
  for (let bit = 0; bit < 8 * 96; bit++) {
    const torn = Buffer.from(sound);
    torn[bit >> 3]! ^= 1 << (bit & 7);
    if (headOf(torn) !== null) throw new Error(`bit ${bit} of the two headers does not matter`);
  }
});

test.each(["salt1", "salt2", "frameCount", "changeCount"] as const)("another %s is other content", (field) => {
  const head = headOf(sound)!;
  expect(sameContent(head, { ...head, backfilled: head.backfilled + 1 })).toBe(true);
  expect(sameContent(head, { ...head, [field]: head[field] + 1 })).toBe(false);
});

test("a head that is not initialised, or not there, is none", () => {
  const blank = Buffer.from(sound);
  blank[12] = blank[48 + 12] = 0;
  expect(headOf(blank)).toBeNull();
  expect(headOf(new Uint8Array(WAL_INDEX_HEAD_SIZE))).toBeNull();
  expect(headOf(sound.subarray(0, WAL_INDEX_HEAD_SIZE - 1))).toBeNull();
  expect(headOf(sound.subarray(0, WAL_INDEX_HEAD_SIZE))).toEqual(headOf(sound));
});

test("page size 65536 is stored as 1, and counters use all 32 bits", () => {
  const large = Buffer.from(sound);
  for (const copy of [0, 48]) {
    new Uint16Array(large.buffer, large.byteOffset + copy, 24)[7] = 1;
    const words = new Uint32Array(large.buffer, large.byteOffset + copy, 12);
    words[2] = words[4] = words[5] = words[6] = words[7] = 0xfffffffe;
    large.writeUInt32BE(0xfffffffd, copy + 32);
    large.writeUInt32BE(0x80000001, copy + 36);
  }
  const many = 0xfffffffe;
  expect(headOf(large)).toMatchObject({ pageSize: 65536, changeCount: many, frameCount: many, commit: many });
  expect(headOf(large)).toMatchObject({ checksum1: many, checksum2: many, salt1: 0xfffffffd, salt2: 0x80000001 });
});

test(`while another process commits and checkpoints in a loop, every head is one that it had, seed ${SEED}`, async () => {
  const path = join(folder, "busy.db");
  await other.open({ path, pageSize: 512, journalMode: "wal" });
  await other.run("create table t (body)");
  const shmFd = openShm(path);
  let done = false;
  const burst = other
    .burst({ seed: SEED, steps: 500, checkpointPercent: 15, pausePercent: 5 })
    .finally(() => void (done = true));
  const seen: WalIndexHead[] = [];
  let looks = 0;
  let unreadable = 0;
  while (!done) {
    const endMs = performance.now() + 5;
    while (performance.now() < endMs) {
      const head = readWalIndexHead(shmFd);
      looks++;
      if (head === null) unreadable++;
      else if (seen.length === 0 || !sameContent(seen.at(-1)!, head)) seen.push(head);
    }
    await Bun.sleep(0);
  }
  const records = new Map((await burst).map((record) => [record.changeCount, record]));
  expect(seen.length).toBeGreaterThan(50);
  // A writer that loses its processor between the two copies leaves them different until it has one again.
  expect(unreadable).toBeLessThan(looks / 2);
  for (const [i, head] of seen.entries()) {
    const record = records.get(head.changeCount);
    if (record === undefined) throw new Error(`change count ${head.changeCount} was never committed`);
    if (i > 0) expect(head.changeCount).toBeGreaterThanOrEqual(seen[i - 1]!.changeCount);
    expect(head.commit).toBe(record.commit);
    if (head.salt1 === record.salt1) {
      const { frameCount, checksum1, checksum2, salt2 } = head;
      expect(record).toMatchObject({ frameCount, checksum1, checksum2, salt2 });
    } else {
      // A RESTART or TRUNCATE renews the salts of a WAL that is copied back; no frame follows yet.
      expect(head.frameCount).toBe(0);
      expect((head.salt1 - record.salt1) >>> 0).toBeLessThan(100);
    }
  }
  expect(statSync(`${path}-shm`).size).toBeGreaterThan(WAL_INDEX_HEAD_SIZE);
}, 20_000);
