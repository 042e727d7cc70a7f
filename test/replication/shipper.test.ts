// Goal: each file reaches the destination once and in order; it is recorded after the acknowledgement and leaves the
// outbox after the record. Whatever fails on the way, nothing is lost and nobody else's object is touched.
import { afterEach, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { DestinationError, WalsyncError } from "../../src/errors.ts";
import { Outbox, type OutboxFile } from "../../src/replication/outbox.ts";
import { Shipper } from "../../src/replication/shipper.ts";
import { header, makePage } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const CHECKSUM = 1n << 63n;
let shippers: Shipper[] = [];

afterEach(async () => {
  for (const shipper of shippers) await shipper.stop();
  shippers = [];
});

type Fate = "fine" | "fails before" | "loses the answer";

/** A directory that fails as it is told; it remembers what was asked of it. */
async function makeWorld(fates: Fate[] = []) {
  const folder = join(dir, crypto.randomUUID());
  const inner = await openDestination(join(folder, "bucket"));
  await inner.prepare();
  const outbox = new Outbox(join(folder, "outbox"));
  const events: string[] = [];
  let underWay = 0;
  let most = 0;
  const destination: Destination = {
    ...inner,
    url: inner.url,
    capabilities: inner.capabilities,
    head: (key, options) => inner.head(key, options),
    read: (key, options) => inner.read(key, options),
    list: (prefix, options) => inner.list(prefix, options),
    async write(key, source, options) {
      const fate = fates.shift() ?? "fine";
      most = Math.max(most, ++underWay);
      try {
        await Bun.sleep(1);
        if (fate === "fails before") throw new DestinationError("no answer", { retryable: true });
        const result = await inner.write(key, source, options);
        if (fate === "loses the answer") throw new DestinationError("the answer was lost", { retryable: true });
        events.push(`acknowledged ${key} ${result.kind}`);
        return result;
      } finally {
        underWay--;
      }
    },
  };
  const stops: unknown[] = [];
  const failures: number[] = [];
  const world = {
    outbox,
    events,
    stops,
    failures,
    inner,
    bucket: join(folder, "bucket", "app"),
    outboxFolder: join(folder, "outbox"),
    mostUnderWay: () => most,
    onShipped: (_file: OutboxFile) => {},
    shipper: null as unknown as Shipper,
  };
  world.shipper = new Shipper(destination, "app", outbox, {
    onShipped: ({ file }) => {
      world.onShipped(file);
      events.push(
        `recorded ${file.minTxid}-${file.maxTxid}, ${outbox.files.includes(file) ? "still" : "not"} in the outbox`,
      );
    },
    onFailure: (_error, count) => void failures.push(count),
    onStop: (error) => void stops.push(error),
  });
  shippers.push(world.shipper);
  return world;
}

function stage(outbox: Outbox, minTxid: bigint, maxTxid = minTxid, seed = Number(maxTxid)): OutboxFile {
  const isSnapshot = minTxid === 1n;
  const head = header({ flags: 0, minTxid, maxTxid, preApplyChecksum: isSnapshot ? 0n : CHECKSUM, timestampMs: seed });
  const staging = outbox.stage(head, 1);
  staging.encoder.encodePage(1, makePage(512, seed));
  return staging.commit(CHECKSUM | 1n);
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !condition(); i++) await Bun.sleep(5);
  expect(condition()).toBe(true);
}

const objects = (bucket: string) =>
  readdirSync(bucket)
    .filter((name) => name.endsWith(".ltx"))
    .sort();

describe("uploads", () => {
  test("go in order, one at a time, recorded before they leave the outbox", async () => {
    const world = await makeWorld();
    for (let txid = 1n; txid <= 5n; txid++) stage(world.outbox, txid);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    const expected = [1, 2, 3, 4, 5].flatMap((txid) => [
      `acknowledged app/0000000${txid}-0000000${txid}.ltx written`,
      `recorded ${txid}-${txid}, still in the outbox`,
    ]);
    expect(world.events).toEqual(expected);
    expect(world.mostUnderWay()).toBe(1);
    expect(readdirSync(world.outboxFolder)).toEqual([]);
  });

  test("of a later snapshot go beside the increments and do not hold them up", async () => {
    const world = await makeWorld();
    for (let txid = 1n; txid <= 3n; txid++) stage(world.outbox, txid);
    stage(world.outbox, 1n, 3n);
    world.shipper.start();
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(objects(world.bucket)).toHaveLength(4);
    expect(world.mostUnderWay()).toBe(2);
  });

  test("of what is staged while others are under way follow", async () => {
    const world = await makeWorld();
    stage(world.outbox, 1n);
    world.onShipped = (file) => {
      if (file.maxTxid < 4n) stage(world.outbox, file.maxTxid + 1n);
    };
    world.shipper.start();
    await until(() => world.events.length === 8 && world.outbox.files.length === 0);
    expect(objects(world.bucket)).toHaveLength(4);
  });

  test("carry exactly the staged bytes", async () => {
    const world = await makeWorld();
    const bytes = readFileSync(stage(world.outbox, 1n).path);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(Buffer.compare(readFileSync(join(world.bucket, objects(world.bucket)[0]!)), bytes)).toBe(0);
  });
});

describe("a destination that fails", () => {
  test("keeps everything waiting: no later file goes before", async () => {
    const world = await makeWorld(["fails before", "fails before"]);
    for (let txid = 1n; txid <= 3n; txid++) stage(world.outbox, txid);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.failures).toEqual([1, 2]);
    expect(world.events.filter((event) => event.startsWith("ack")).map((event) => event.slice(17, 25))).toEqual([
      "00000001",
      "00000002",
      "00000003",
    ]);
  });

  test("and loses the answer to a write that arrived: recognised as ours", async () => {
    const world = await makeWorld(["loses the answer", "fine", "loses the answer"]);
    for (let txid = 1n; txid <= 3n; txid++) stage(world.outbox, txid);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.events.filter((event) => event.includes("refused"))).toHaveLength(2);
    expect(world.stops).toEqual([]);
    expect(objects(world.bucket)).toHaveLength(3);
  });

  test("a failing record keeps the file: it is shipped again", async () => {
    const world = await makeWorld();
    stage(world.outbox, 1n);
    let faults = 2;
    world.onShipped = () => {
      if (faults-- > 0) throw new WalsyncError("E_DISK", "the disk is full");
    };
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.events.filter((event) => event.startsWith("recorded"))).toEqual(["recorded 1-1, still in the outbox"]);
    expect(world.failures).toEqual([1, 2]);
  });

  test("stopping ends the waiting and keeps the files", async () => {
    const world = await makeWorld(Array<Fate>(100).fill("fails before"));
    stage(world.outbox, 1n);
    world.shipper.start();
    await until(() => world.failures.length > 0);
    await world.shipper.stop();
    expect(world.outbox.files).toHaveLength(1);
    expect(new Outbox(world.outboxFolder).files).toHaveLength(1);
  });
});

describe("somebody else's object under our key", () => {
  test.each([
    ["of another size", (bytes: Buffer) => Buffer.concat([bytes, bytes])],
    ["of the same size", (bytes: Buffer) => Buffer.from(bytes.map((byte, i) => (i === 80 ? byte ^ 1 : byte)))],
    ["empty", () => Buffer.alloc(0)],
  ])("%s: fenced, and it stays as it is", async (_, change) => {
    const world = await makeWorld();
    stage(world.outbox, 1n);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    const ours = stage(world.outbox, 2n);
    const theirs = change(readFileSync(ours.path));
    const path = join(world.bucket, "00000002-00000002.ltx");
    writeFileSync(path, theirs);
    stage(world.outbox, 3n);
    world.shipper.start();
    await until(() => world.stops.length > 0);
    expect(world.stops[0]).toMatchObject({ code: "E_FENCED" });
    expect(Buffer.compare(readFileSync(path), theirs)).toBe(0);
    expect(objects(world.bucket)).toHaveLength(2);
    expect(world.outbox.files).toHaveLength(2);
    // For good: being asked again changes nothing.
    world.shipper.start();
    await Bun.sleep(20);
    expect(objects(world.bucket)).toHaveLength(2);
  });

  test("a later snapshot of the same state by another writer counts as ours", async () => {
    const world = await makeWorld();
    stage(world.outbox, 1n);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    const elsewhere = new Outbox(join(dir, crypto.randomUUID()));
    writeFileSync(join(world.bucket, "00000001-00000002.ltx"), readFileSync(stage(elsewhere, 1n, 2n, 77).path));
    stage(world.outbox, 1n, 2n, 5);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.stops).toEqual([]);
  });
});
