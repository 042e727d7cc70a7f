// Goal: whatever happens to the chain at the destination, a copy is brought to its newest state, or stays in the one it has: merged
// files, missing ones, damaged ones, another history under the same name, with and without checksums.
import { describe, expect, test } from "bun:test";
import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { hex64 } from "../../src/bytes.ts";
import { openDestination } from "../../src/destination/open.ts";
import { compactLtx } from "../../src/ltx/compactor.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { LtxFileReader } from "../../src/ltx/file-reader.ts";
import { HEADER_FLAG_NO_CHECKSUM } from "../../src/ltx/format.ts";
import { Follower } from "../../src/restore/follow.ts";
import { Host } from "../replication/host.ts";
import { tempDir } from "../support/temp.ts";
import { change, expectState, type Pair, pairsIn } from "./make-copy.ts";

const dir = tempDir();
const { signal } = new AbortController();
const { ends, makePair } = pairsIn(dir);
const nameOf = (min: number, max = min): string =>
  `${String(min).padStart(8, "0")}-${String(max).padStart(8, "0")}.ltx`;

/** As the caretaker of a watch merges, and removes what was merged. */
async function merge({ host }: Pair, min: number, max: number, removed: boolean): Promise<void> {
  const paths = Array.from({ length: max - min + 1 }, (_, i) => join(host.bucketFolder, nameOf(min + i)));
  const parts: Uint8Array[] = [];
  await compactLtx(paths, (bytes) => void parts.push(bytes.slice()));
  writeFileSync(join(host.bucketFolder, nameOf(min, max)), Buffer.concat(parts));
  if (removed) for (const path of paths) rmSync(path);
}

describe("merged files", () => {
  test("lead on from a state inside them, also when its own files are gone, growing and shrinking", async () => {
    const pair = await makePair();
    const { host, local, follower } = pair;
    let one: Follower = follower();
    await one.step(signal);
    for (let first = 2; first < 30; first += 6) {
      await change(host, 0);
      await change(host, 1);
      await one.step(signal);
      for (let step = 2; step < 6; step++) await change(host, step);
      await merge(pair, first, first + 5, first % 4 === 0);
      if (first % 3 === 0) {
        one.close();
        one = follower();
      }
      expect(await one.step(signal)).toMatchObject({ kind: "increments", txid: host.txid });
      expectState(local, host.content());
      expect(await one.step(signal)).toMatchObject({ kind: "current" });
    }
  });

  test("that overlap are applied one after the other", async () => {
    const pair = await makePair();
    const { host, local, follower } = pair;
    const one = follower();
    await one.step(signal);
    for (let step = 0; step < 5; step++) await change(host, step);
    await merge(pair, 2, 4, false);
    await merge(pair, 3, 6, false);
    for (let txid = 2; txid <= 6; txid++) rmSync(join(host.bucketFolder, nameOf(txid)));
    expect(await one.step(signal)).toMatchObject({ kind: "increments", fileCount: 2 });
    expectState(local, host.content());
  });
});

describe("damage", () => {
  test("in an increment is found before a reader sees it, and a snapshot leads around it", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const before = readFileSync(local);
    await change(host, 0);
    await change(host, 1);
    const path = join(host.bucketFolder, nameOf(2));
    const bytes = readFileSync(path);
    bytes[150]! ^= 1;
    writeFileSync(path, bytes);
    await expect(one.step(signal)).rejects.toMatchObject({ code: expect.stringMatching(/^E_(LTX|INTEGRITY)$/) });
    expect(readFileSync(local).equals(before)).toBe(true);
    await host.replicator.requests.snapshot();
    await host.settle();
    expect(await one.step(signal)).toMatchObject({ kind: "bootstrap", txid: 3n });
    expectState(local, host.content());
  });

  test("in a page of the copy that an increment replaces makes it anew", async () => {
    const { host, local, follower } = await makePair();
    host.app.run("create table counter (n integer)");
    host.app.run("insert into counter values (1)");
    await host.settle();
    const one = follower();
    await one.step(signal);
    host.app.run("update counter set n = 2");
    await host.settle();
    const pgno = Number(host.app.query("select rootpage from sqlite_schema where name = 'counter'").values()[0]![0]);
    const fd = openSync(local, "r+");
    writeSync(fd, Buffer.from([0x5a]), 0, 1, (pgno - 1) * 512 + 100);
    closeSync(fd);
    expect(await one.step(signal)).toMatchObject({ kind: "bootstrap" });
    expectState(local, host.content());
  });
});

/** The name is given to another database, which goes on for `changes` increments. */
async function beginAnew({ host }: Pair, changes: number): Promise<Host> {
  await host.stop();
  const other = new Host(join(dir, crypto.randomUUID()));
  other.create(512);
  other.insert(7, 333);
  await other.start();
  ends.push(() => other.end());
  await other.settle();
  for (let i = 0; i < changes; i++) await change(other, 0);
  rmSync(host.bucketFolder, { recursive: true });
  cpSync(other.bucketFolder, host.bucketFolder, { recursive: true });
  return other;
}

describe("another history under the same name", () => {
  test.each([
    ["shorter", 1],
    ["as long", 3],
    ["longer", 6],
  ])("that is %s: the copy is made anew, for a running follower and for the next one", async (_how, changes) => {
    for (const isRestarted of [false, true]) {
      const pair = await makePair();
      const { host, local, follower } = pair;
      let one = follower();
      await one.step(signal);
      for (let i = 0; i < 3; i++) await change(host, i);
      await one.step(signal);
      const other = await beginAnew(pair, changes);
      if (isRestarted) {
        one.close();
        one = follower();
      }
      expect(await one.step(signal)).toMatchObject({ kind: "bootstrap", txid: other.txid });
      expectState(local, other.content());
      await change(other, 1);
      cpSync(other.bucketFolder, host.bucketFolder, { recursive: true, preserveTimestamps: true });
      await one.step(signal);
      expectState(local, other.content());
    }
  });
});

/** Puts a file of the chain where and as Litestream writes it: no checksums, a folder for each level. */
async function shipAsLitestream({ host }: Pair, bucket: string, txid: number, level: 0 | 9): Promise<void> {
  const reader = new LtxFileReader(join(host.bucketFolder, nameOf(txid)), 4096);
  const parts: Uint8Array[] = [];
  const header = { ...reader.header, flags: HEADER_FLAG_NO_CHECKSUM, preApplyChecksum: 0n };
  const encoder = new LtxEncoder((bytes) => void parts.push(bytes.slice()), header);
  for (reader.advance(); Number.isFinite(reader.pgno); reader.advance()) encoder.encodePage(reader.pgno, reader.page);
  encoder.finish(0n);
  reader.close();
  const folder = join(bucket, "app", "ltx", String(level));
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${hex64(BigInt(txid))}-${hex64(BigInt(txid))}.ltx`), Buffer.concat(parts));
}

test("the layout of Litestream, which has no checksums, is followed, and a chain that was begun anew is noticed", async () => {
  const pair = await makePair();
  const { host, local } = pair;
  const bucket = join(dir, crypto.randomUUID());
  await shipAsLitestream(pair, bucket, 1, 9);
  await shipAsLitestream(pair, bucket, 1, 0);
  const destination = await openDestination(bucket);
  ends.push(() => destination.close());
  const one = new Follower(destination, "app", local);
  ends.push(() => one.close());
  await one.step(signal);
  for (let txid = 2; txid < 8; txid++) {
    await change(host, txid);
    await shipAsLitestream(pair, bucket, txid, 0);
    expect(await one.step(signal)).toMatchObject({ kind: "increments", txid: BigInt(txid) });
    expectState(local, host.content());
    expect(await one.step(signal)).toMatchObject({ kind: "current" });
    // Removed once it is merged elsewhere; the newest stays.
    if (txid > 4) rmSync(join(bucket, "app", "ltx", "0", `${hex64(BigInt(txid - 2))}-${hex64(BigInt(txid - 2))}.ltx`));
  }
  const other = await beginAnew(pair, 7);
  rmSync(join(bucket, "app"), { recursive: true });
  await shipAsLitestream(pair, bucket, 1, 9);
  for (let txid = 1; txid <= 8; txid++) await shipAsLitestream(pair, bucket, txid, 0);
  expect(await one.step(signal)).toMatchObject({ kind: "bootstrap", txid: other.txid });
  expectState(local, other.content());
});

test("files that are gone between the look and the fetch are looked for again", async () => {
  const pair = await makePair();
  const { host, local, destination, follower } = pair;
  const one = follower();
  await one.step(signal);
  expect(await one.step(signal)).toMatchObject({ kind: "current" });
  for (let step = 0; step < 3; step++) await change(host, step);
  const read = destination.read.bind(destination);
  let isMerged = false;
  destination.read = async (key, options) => {
    if (!isMerged) {
      isMerged = true;
      await merge(pair, 2, 4, true);
    }
    return await read(key, options);
  };
  expect(await one.step(signal)).toMatchObject({ kind: "increments", fileCount: 1 });
  expectState(local, host.content());
  expect(readdirSync(host.bucketFolder)).toContain(nameOf(2, 4));
});

test("a name that is not there yet, and an empty destination, leave no file", async () => {
  const { destination, local } = await makePair();
  const other = new Follower(destination, "other", local);
  await expect(other.step(signal)).rejects.toMatchObject({ code: "E_NOT_FOUND" });
  other.close();
  expect(readdirSync(join(local, "..")).filter((name) => name.includes("copy.db"))).not.toContain("copy.db");
});
