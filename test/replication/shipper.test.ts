// Goal: each file reaches the destination once and in order; it is recorded after the acknowledgement and leaves the
// outbox after the record. Whatever fails on the way, nothing is lost and nobody else's object is touched.
import { afterAll, afterEach, describe, expect, spyOn, test } from "bun:test";
import { copyFileSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { WALSYNC_RULES } from "../../src/chain/layout-rules.ts";
import type { Destination, ObjectHead, WriteOptions } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { DestinationError, WalsyncError } from "../../src/errors.ts";
import { Outbox, type OutboxFile } from "../../src/replication/outbox.ts";
import { type Shipped, Shipper } from "../../src/replication/shipper.ts";
import { header, makePage } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";
import { checksumOf, pagesOf } from "./make.ts";

const dir = tempDir();
const CHECKSUM = 1n << 63n;
let shippers: Shipper[] = [];
/** Pauses after failures are random between nothing and a limit: here nothing, or the limit. */
const random = spyOn(Math, "random").mockReturnValue(0);

afterAll(() => random.mockRestore());
afterEach(async () => {
  random.mockReturnValue(0);
  observeDurableSteps(null);
  for (const shipper of shippers) await shipper.stop();
  shippers = [];
});

type Fate = "fine" | "fails before" | "loses the answer" | "never answers";

/** A directory that fails as it is told; it remembers what was asked of it. */
async function makeWorld(fates: Fate[] = [], folder = join(dir, crypto.randomUUID())) {
  const inner = await openDestination(join(folder, "bucket"));
  await inner.prepare();
  const outbox = new Outbox(join(folder, "outbox"), WALSYNC_RULES);
  const events: string[] = [];
  const asked: { key: string; options: WriteOptions | undefined }[] = [];
  const shipped: Shipped[] = [];
  const reads: string[] = [];
  const progress: [number, number][] = [];
  let underWay = 0;
  let most = 0;
  const destination: Destination = {
    ...inner,
    url: inner.url,
    capabilities: inner.capabilities,
    head: async (key, options) => world.onHead(await inner.head(key, options)),
    read: (key, options) => {
      reads.push(key);
      return inner.read(key, options);
    },
    list: (prefix, options) => inner.list(prefix, options),
    async write(key, source, options) {
      const fate = fates.shift() ?? "fine";
      asked.push({ key, options });
      most = Math.max(most, ++underWay);
      try {
        await Bun.sleep(1);
        if (fate === "never answers") await new Promise((_, reject) => onAbort(options?.signal, reject));
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
    asked,
    shipped,
    reads,
    progress,
    stops,
    failures,
    inner,
    bucket: join(folder, "bucket", "app"),
    outboxFolder: join(folder, "outbox"),
    mostUnderWay: () => most,
    onShipped: (_file: OutboxFile) => {},
    onFailure: (_error: WalsyncError) => {},
    onHead: (head: ObjectHead | null): ObjectHead | null => head,
    shipper: null as unknown as Shipper,
  };
  world.shipper = new Shipper(destination, "app", outbox, null, {
    onProgress: (sent, total) => void progress.push([sent, total]),
    onShipped: (one) => {
      const { file } = one;
      world.onShipped(file);
      shipped.push(one);
      events.push(
        `recorded ${file.minTxid}-${file.maxTxid}, ${outbox.files.includes(file) ? "still" : "not"} in the outbox`,
      );
    },
    onFailure: (error, count) => {
      failures.push(count);
      world.onFailure(error);
    },
    onStop: (error) => void stops.push(error),
  });
  shippers.push(world.shipper);
  return world;
}

function onAbort(signal: AbortSignal | undefined, reject: (reason: unknown) => void): void {
  if (signal?.aborted) reject(signal.reason);
  signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
}

/** One page that follows from `content`, and the checksum that is true of it. */
function stage(
  outbox: Outbox,
  minTxid: bigint,
  maxTxid = minTxid,
  timestampMs = Number(maxTxid),
  content = Number(maxTxid),
): OutboxFile {
  const preApplyChecksum = minTxid === 1n ? 0n : CHECKSUM;
  const staging = outbox.stage(header({ flags: 0, minTxid, maxTxid, preApplyChecksum, timestampMs }), 1);
  const page = makePage(512, content);
  staging.encoder.encodePage(1, page);
  return staging.commit(checksumOf(pagesOf(page)));
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !condition(); i++) await Bun.sleep(5);
  expect(condition()).toBe(true);
}

const objects = (bucket: string) =>
  readdirSync(bucket)
    .filter((name) => name.endsWith(".ltx"))
    .sort();

describe("uploads", () => {
  test("go in order, one at a time, told before they leave the outbox", async () => {
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
    // Until that is recorded.
    expect(readdirSync(world.outboxFolder)).toHaveLength(5);
    world.outbox.purge();
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

  test("of what is staged at the moment the last one ends are not forgotten", async () => {
    const world = await makeWorld();
    stage(world.outbox, 1n);
    world.onShipped = ({ maxTxid }) => {
      if (maxTxid !== 1n) return;
      queueMicrotask(() => {
        stage(world.outbox, 2n);
        world.shipper.start();
      });
    };
    world.shipper.start();
    await until(() => world.shipped.length === 2);
  });

  test("tell how far they are", async () => {
    const world = await makeWorld();
    const { sizeBytes } = stage(world.outbox, 1n);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.progress.at(-1)).toEqual([sizeBytes, sizeBytes]);
  });

  test("carry exactly the staged bytes", async () => {
    const world = await makeWorld();
    const bytes = readFileSync(stage(world.outbox, 1n).path);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(Buffer.compare(readFileSync(join(world.bucket, objects(world.bucket)[0]!)), bytes)).toBe(0);
  });
});

describe("every upload", () => {
  test("asks for an absent key, and says whose bytes these are", async () => {
    const world = await makeWorld();
    const files = [stage(world.outbox, 1n), stage(world.outbox, 2n), stage(world.outbox, 1n, 2n, 9)];
    const hashes = files.map(({ path }) => new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex"));
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.asked.map(({ options }) => options?.condition)).toEqual(["absent", "absent", "absent"]);
    expect(new Set(world.asked.map(({ options }) => options?.metadata?.sha256))).toEqual(new Set(hashes));
    expect(world.asked.map(({ options }) => options?.metadata?.commits)).toEqual(["1", "1", "1"]);
  });

  test("is recorded with what its file says", async () => {
    const world = await makeWorld();
    for (let txid = 1n; txid <= 2n; txid++) stage(world.outbox, txid);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.shipped).toMatchObject([
      {
        key: "app/00000001-00000001.ltx",
        timestampMs: 1,
        checksums: { pre: 0n, post: checksumOf(pagesOf(makePage(512, 1))) },
      },
      {
        key: "app/00000002-00000002.ltx",
        timestampMs: 2,
        checksums: { pre: CHECKSUM, post: checksumOf(pagesOf(makePage(512, 2))) },
      },
    ]);
  });

  test("of what an earlier process left goes in its order, with the digest of what is on the disk", async () => {
    const folder = join(dir, crypto.randomUUID());
    const left = new Outbox(join(folder, "outbox"), WALSYNC_RULES);
    for (const [min, max] of [
      [1n, 1n],
      [2n, 2n],
      [1n, 2n],
      [10n, 10n],
      [3n, 3n],
    ] as const)
      stage(left, min, max);
    const digests = left.files.map(({ sha256 }) => sha256);
    const world = await makeWorld([], folder);
    expect(world.outbox.files.map(({ minTxid, maxTxid }) => `${minTxid}-${maxTxid}`)).toEqual([
      "1-1",
      "2-2",
      "1-2",
      "3-3",
      "10-10",
    ]);
    expect(world.outbox.sizeBytes).toBe(left.sizeBytes);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(new Set(world.asked.map(({ options }) => options?.metadata?.sha256))).toEqual(new Set(digests.map(String)));
    const claims = world.asked.map(({ key }) => key).filter((key) => !key.includes("00000001-00000002"));
    expect(claims).toEqual([...claims].sort());
    expect(world.outbox.sizeBytes).toBe(0);
  });

  test.each([
    ["cut off", (path: string) => truncateSync(path, 150)],
    ["empty", (path: string) => truncateSync(path, 0)],
    ["changed in one bit", (path: string) => flip(path, 150)],
    ["of other transactions", (path: string) => copyFileSync(path.replace(/2-(0+)2\./, "1-$11."), path)],
  ])("of a file that was %s before this process never reaches the destination", async (_, damage) => {
    const folder = join(dir, crypto.randomUUID());
    const left = new Outbox(join(folder, "outbox"), WALSYNC_RULES);
    stage(left, 1n);
    damage(stage(left, 2n).path);
    const world = await makeWorld([], folder);
    world.shipper.start();
    await until(() => world.stops.length + world.failures.length > 0 || world.outbox.files.length === 0);
    expect(objects(world.bucket)).toEqual(["00000001-00000001.ltx"]);
    expect(world.outbox.files.map(({ maxTxid }) => maxTxid)).toEqual([2n]);
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
    expect(new Outbox(world.outboxFolder, WALSYNC_RULES).files).toHaveLength(1);
  });
});

describe("after failures", () => {
  test("pauses grow up to half a minute, and start small again after a success", async () => {
    const pauses: number[] = [];
    const fates = [...Array<Fate>(12).fill("fails before"), "fine", "fails before"] as Fate[];
    const world = await makeWorld(fates);
    const realSetTimeout = globalThis.setTimeout;
    const timers = spyOn(globalThis, "setTimeout").mockImplementation(((run: () => void, ms: number) => {
      pauses.push(ms);
      return realSetTimeout(run, 0);
    }) as typeof setTimeout);
    try {
      random.mockReturnValue(1);
      for (let txid = 1n; txid <= 2n; txid++) stage(world.outbox, txid);
      world.shipper.start();
      while (world.outbox.files.length > 0) await Bun.sleep(1);
    } finally {
      timers.mockRestore();
    }
    expect(world.failures).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1]);
    const growing = pauses.slice(0, 12);
    expect(growing).toEqual([...growing].sort((a, b) => a - b));
    expect(Math.max(...growing)).toBe(30_000);
    expect(pauses[0]).toBeLessThanOrEqual(2000);
    expect(pauses[12]).toBe(pauses[0]!);
  });

  test("whoever watches may end it: nothing further is asked", async () => {
    const world = await makeWorld(["fails before"]);
    world.onFailure = (error) => {
      throw error;
    };
    for (let txid = 1n; txid <= 2n; txid++) stage(world.outbox, txid);
    world.shipper.start();
    await until(() => world.stops.length > 0);
    world.shipper.start();
    await world.shipper.settled();
    expect(world.stops).toEqual([expect.objectContaining({ code: "E_UNREACHABLE" })]);
    expect([world.asked.length, world.outbox.files.length]).toEqual([1, 2]);
  });

  test("a bug is no failure: it stops for good and keeps the file", async () => {
    const world = await makeWorld();
    stage(world.outbox, 1n);
    world.onShipped = () => {
      throw new TypeError("a bug");
    };
    world.shipper.start();
    await until(() => world.stops.length > 0);
    expect(world.failures).toEqual([]);
    expect(world.stops[0]).toBeInstanceOf(TypeError);
    expect(world.outbox.files).toHaveLength(1);
  });

  test("an upload that never ends is given up when it is stopped, and counts for nothing", async () => {
    const world = await makeWorld(["never answers", "never answers"]);
    stage(world.outbox, 1n);
    stage(world.outbox, 1n, 3n);
    world.shipper.start();
    await until(() => world.asked.length === 2);
    await world.shipper.stop();
    expect([world.shipped, world.failures, world.stops]).toEqual([[], [], []]);
    expect(new Outbox(world.outboxFolder, WALSYNC_RULES).files).toHaveLength(2);
    world.shipper.start();
    await world.shipper.settled();
    expect(world.asked).toHaveLength(2);
  });

  test("a disk that refuses to remove a file keeps it for another try, and nothing is shipped twice", async () => {
    const world = await makeWorld();
    for (const txid of [1n, 2n, 3n]) stage(world.outbox, txid);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    let removed = 0;
    observeDurableSteps((step) => {
      if (step === "remove" && removed++ === 1) throw Object.assign(new Error("i/o error"), { code: "EIO" });
    });
    expect(() => world.outbox.purge()).toThrow("i/o error");
    expect([world.outbox.releasedFiles, readdirSync(world.outboxFolder).length]).toEqual([2, 2]);
    world.outbox.purge();
    expect([world.outbox.releasedFiles, readdirSync(world.outboxFolder)]).toEqual([0, []]);
    world.shipper.start();
    await world.shipper.settled();
    expect(world.shipped).toHaveLength(3);
  });

  test("an object that is said to exist and is gone is written again", async () => {
    const world = await makeWorld(["loses the answer"]);
    stage(world.outbox, 1n);
    let heads = 0;
    world.onHead = (head) => {
      if (heads++ > 0) return head;
      rmSync(join(world.bucket, "00000001-00000001.ltx"));
      return null;
    };
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.events[1]).toBe("acknowledged app/00000001-00000001.ltx written");
    expect(objects(world.bucket)).toHaveLength(1);
  });

  test("a process that died between the acknowledgement and the end of the record goes on where it was", async () => {
    const folder = join(dir, crypto.randomUUID());
    const first = await makeWorld(["fine", "loses the answer", ...Array<Fate>(50).fill("fails before")], folder);
    for (let txid = 1n; txid <= 4n; txid++) stage(first.outbox, txid);
    first.shipper.start();
    await until(() => first.failures.length >= 2);
    await first.shipper.stop();
    const before = new Map(objects(first.bucket).map((name) => [name, readFileSync(join(first.bucket, name), "hex")]));
    expect(before.size).toBe(2);
    const second = await makeWorld([], folder);
    second.shipper.start();
    await until(() => second.outbox.files.length === 0);
    // Neither of the two that were acknowledged was recorded.
    expect(second.events.filter((event) => event.startsWith("ack")).map((event) => event.split(" ")[2])).toEqual([
      "refused",
      "refused",
      "written",
      "written",
    ]);
    for (const [name, bytes] of before) expect(readFileSync(join(second.bucket, name), "hex")).toBe(bytes);
    expect(objects(second.bucket)).toHaveLength(4);
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
    expect(world.reads).toHaveLength(theirs.length === ours.sizeBytes ? 1 : 0);
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
    const elsewhere = new Outbox(join(dir, crypto.randomUUID()), WALSYNC_RULES);
    writeFileSync(join(world.bucket, "00000001-00000002.ltx"), readFileSync(stage(elsewhere, 1n, 2n, 77).path));
    stage(world.outbox, 1n, 2n, 5);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    expect(world.stops).toEqual([]);
  });

  test.each(["same", "other"])(
    "a digest kept with the object that is the %s decides, without reading it",
    async (kept) => {
      const world = await makeWorld(["loses the answer"]);
      const { sha256 } = stage(world.outbox, 1n);
      world.onHead = (head) => head && { ...head, metadata: { sha256: kept === "same" ? sha256! : "0".repeat(64) } };
      world.shipper.start();
      await until(() => world.outbox.files.length === 0 || world.stops.length > 0);
      expect(world.stops).toEqual(kept === "same" ? [] : [expect.objectContaining({ code: "E_FENCED" })]);
      expect(world.reads).toEqual([]);
    },
  );

  test("a later snapshot of another state is fenced, and so is a damaged one", async () => {
    for (const damage of [(bytes: Buffer) => bytes, (bytes: Buffer) => bytes.fill(0, 40, 60)]) {
      const world = await makeWorld();
      stage(world.outbox, 1n);
      world.shipper.start();
      await until(() => world.outbox.files.length === 0);
      const elsewhere = new Outbox(join(dir, crypto.randomUUID()), WALSYNC_RULES);
      const theirs = damage(readFileSync(stage(elsewhere, 1n, 2n, 5, 77).path));
      writeFileSync(join(world.bucket, "00000001-00000002.ltx"), theirs);
      stage(world.outbox, 1n, 2n, 5);
      world.shipper.start();
      await until(() => world.stops.length + world.failures.length > 0);
      expect(world.outbox.files).toHaveLength(1);
      expect(Buffer.compare(readFileSync(join(world.bucket, "00000001-00000002.ltx")), theirs)).toBe(0);
    }
  });

  test("an increment of the same state by another writer is fenced all the same", async () => {
    const world = await makeWorld();
    stage(world.outbox, 1n);
    world.shipper.start();
    await until(() => world.outbox.files.length === 0);
    const elsewhere = new Outbox(join(dir, crypto.randomUUID()), WALSYNC_RULES);
    writeFileSync(join(world.bucket, "00000002-00000002.ltx"), readFileSync(stage(elsewhere, 2n, 2n, 77).path));
    stage(world.outbox, 2n, 2n, 5);
    world.shipper.start();
    await until(() => world.stops.length > 0);
    expect(world.stops[0]).toMatchObject({
      code: "E_FENCED",
      message: expect.stringContaining("00000002-00000002.ltx"),
    });
  });

  test("two writers of one name: each key is of one of them, and one of them stops", async () => {
    const folder = join(dir, crypto.randomUUID());
    const [a, b] = [await makeWorld([], folder), await makeWorld([], folder)];
    const own = new Outbox(join(folder, "outbox of b"), WALSYNC_RULES);
    const others: unknown[] = [];
    const rival = new Shipper(b.inner, "app", own, null, {
      onShipped: () => {},
      onFailure: () => {},
      onStop: (error) => void others.push(error),
    });
    shippers.push(rival);
    for (let txid = 1n; txid <= 5n; txid++) {
      stage(a.outbox, txid, txid, 10 + Number(txid));
      stage(own, txid, txid, 20 + Number(txid));
    }
    a.shipper.start();
    rival.start();
    await Promise.all([a.shipper.settled(), rival.settled()]);
    const stopped = [...a.stops, ...others];
    expect(stopped).toEqual([expect.objectContaining({ code: "E_FENCED" })]);
    expect([a.outbox.files.length, own.files.length].sort()).toEqual([0, 5]);
  });
});

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 4;
  writeFileSync(path, bytes);
}
