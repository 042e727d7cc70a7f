// Goal: while a database is written to, its increments are merged, what was merged is removed, and old snapshots go; at any
// moment a listing verifies, and every restore point in it gives the bytes that the database had.
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readChain } from "../../src/chain/chain.ts";
import { readHashes } from "../../src/chain/manifest.ts";
import { type ChainFile, planChain, restorePoints } from "../../src/chain/plan.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { WalsyncError } from "../../src/errors.ts";
import { type CarePolicy, Caretaker, type ShippingSource } from "../../src/upkeep/caretaker.ts";
import { type MergePolicy, planSuperseded } from "../../src/upkeep/merge-plan.ts";
import { verifyDatabase } from "../../src/upkeep/verify.ts";
import { Host } from "../replication/host.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const dir = tempDir();
/** An hour in two seconds. */
const MERGE: MergePolicy = { windowsMs: [100, 500], keepFineMs: 1000 };
const KEEP = { hourly: 1, daily: 0, weekly: 0, monthly: 0, pointInTimeMs: 0 };
const POLICY: CarePolicy = {
  layout: "walsync",
  merge: MERGE,
  retention: KEEP,
  compactAfterSnapshot: false,
  compactIntervalMs: 0,
};
let running: { host: Host; care: Caretaker; destination: Destination }[] = [];

afterEach(async () => {
  for (const { host, care, destination } of running) {
    await care.stop();
    await host.end();
    destination.close();
  }
  running = [];
});

async function begin(policy: Partial<CarePolicy> = {}, host = new Host(join(dir, crypto.randomUUID()))) {
  const destination = await openDestination(join(host.bucketFolder, ".."));
  if (!existsSync(host.path)) {
    host.create(512);
    host.insert(5);
  }
  await host.start();
  const care = new Caretaker(destination);
  care.follow(host.replicator, join(host.stateFolder, "merge"), { ...POLICY, ...policy });
  running.push({ host, care, destination });
  await host.settle();
  return { host, care, destination };
}

/** Commits for so long; returns the content at each txid. */
async function write(host: Host, ms: number): Promise<Map<bigint, Uint8Array>> {
  const states = new Map<bigint, Uint8Array>([[host.txid, host.content()]]);
  const endMs = performance.now() + ms;
  while (performance.now() < endMs) {
    host.insert(1 + (states.size % 3), 200);
    await host.settle();
    states.set(host.txid, host.content());
    await Bun.sleep(10);
  }
  return states;
}

const ltxIn = (host: Host) =>
  readdirSync(host.bucketFolder)
    .filter((name) => name.endsWith(".ltx"))
    .sort();
const isMerged = (name: string) => !/^(\d+)-\1\.ltx$/.test(name) && !name.startsWith("00000001-");

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500 && !(await condition()); i++) await Bun.sleep(20);
  expect(await condition()).toBe(true);
}

async function expectEveryPoint(
  host: Host,
  destination: Destination,
  states: Map<bigint, Uint8Array>,
): Promise<number> {
  const report = await verifyDatabase(destination, "app", { quick: false });
  expect(report.findings.filter(({ severity, code }) => severity === "error" && code !== "manifest-missing")).toEqual(
    [],
  );
  expect(report.proven).toBe(report.points);
  const { files } = await readChain(destination, "app");
  const points = restorePoints(files);
  expect(points.at(-1)).toBe([...states.keys()].at(-1)!);
  for (const txid of points) {
    const found = await host.restored({ kind: "txid", txid }).catch((error: unknown) => error);
    // Removed since it was listed.
    if (found instanceof WalsyncError && (found.code === "E_NOT_FOUND" || found.code === "E_UNREACHABLE")) continue;
    expect([txid, Buffer.compare(found as Uint8Array, states.get(txid)!)]).toEqual([txid, 0]);
  }
  return points.length;
}

describe("increments", () => {
  test("are merged while more are written, and go when they are old", async () => {
    const { host, care, destination } = await begin();
    const states = await write(host, 3000);
    expect(ltxIn(host).some(isMerged)).toBe(true);
    await expectEveryPoint(host, destination, states);
    const { files } = await readChain(destination, "app");
    expect(planChain("app", files, null).length).toBeLessThan(30);
    await until(() => ltxIn(host).filter((name) => !isMerged(name)).length < 30);
    await care.stop();
    await host.stop();
    const left = await expectEveryPoint(host, destination, states);
    expect(left).toBeLessThan(states.size);
    const { findings } = await verifyDatabase(destination, "app", { quick: false });
    // Files that were about to be removed when it ended are in no manifest any more: the next run removes them.
    const { files: whole } = await readChain(destination, "app");
    const listed = await readHashes(destination, "app");
    const unlisted = whole.filter(({ key }) => !listed.has(key));
    const isReplaced = ({ key, minTxid, maxTxid }: ChainFile) =>
      whole.some(
        (wide) => wide.key !== key && wide.minTxid <= minTxid && wide.maxTxid >= maxTxid && listed.has(wide.key),
      );
    expect(unlisted.filter((file) => !isReplaced(file))).toEqual([]);
    expect(findings.filter(({ code }) => code !== "sha256-missing" || unlisted.length === 0)).toEqual([]);
    expect(existsSync(join(host.stateFolder, "merge"))).toBe(false);
    const ltx = requireTool("ltx");
    if (ltx === null) return;
    for (const name of ltxIn(host)) {
      expect(Bun.spawnSync([ltx, "verify", join(host.bucketFolder, name)])).toMatchObject({ exitCode: 0 });
    }
  }, 30_000);

  test("of a run before are merged, too, once there are new ones", async () => {
    const first = await begin({ merge: null });
    const states = await write(first.host, 800);
    expect(ltxIn(first.host).filter(isMerged)).toEqual([]);
    await first.care.stop();
    await first.host.stop();
    const { host, destination } = await begin({}, first.host);
    for (const [txid, state] of await write(host, 400)) states.set(txid, state);
    await until(() => ltxIn(host).filter(isMerged).length > 1);
    await expectEveryPoint(host, destination, states);
  }, 30_000);

  test("stay where the merged file's key is taken by something else, and it is told", async () => {
    const { host, destination } = await begin();
    const { write: put } = destination;
    destination.write = (key, source, options) => {
      if (isMerged(key.slice("app/".length))) writeFileSync(join(host.bucketFolder, "..", key), "somebody else's");
      return put.call(destination, key, source, options);
    };
    await write(host, 700);
    await until(() => host.logged("upkeep failed"));
    expect(host.log.join("\n")).toContain("E_INTEGRITY");
    expect(ltxIn(host).filter((name) => !isMerged(name)).length).toBe(Number(host.txid));
  }, 30_000);

  test("are merged again when the destination is back", async () => {
    const { host, destination } = await begin();
    const { read } = destination;
    destination.read = async () => {
      throw new WalsyncError("E_UNREACHABLE", "simulated: gone");
    };
    await write(host, 500);
    await until(() => host.logged("upkeep failed"));
    destination.read = read;
    expect(ltxIn(host).filter(isMerged)).toEqual([]);
  }, 30_000);

  test.each(["walsync", "litestream"] as const)(
    "of two page sizes stay apart, in the %s layout",
    async (layout) => {
      const host = new Host(join(dir, crypto.randomUUID()), undefined, { layout });
      const first = await begin({ layout, merge: null }, host);
      await write(host, 100);
      await first.care.stop();
      await host.stop();
      host.app.run("pragma journal_mode = delete");
      host.app.run("pragma page_size = 4096");
      host.app.run("vacuum");
      host.app.run("pragma journal_mode = wal");
      const { destination } = await begin({ layout }, host);
      const changedAt = host.txid;
      await write(host, 300);
      const merged = async () =>
        (await readChain(destination, "app")).files.filter(({ minTxid, maxTxid }) => minTxid < maxTxid && minTxid > 1n);
      await until(async () => {
        const files = await merged();
        return files.some((file) => file.maxTxid < changedAt) && files.some((file) => file.minTxid >= changedAt);
      });
      expect((await merged()).filter((file) => file.minTxid < changedAt && file.maxTxid >= changedAt)).toEqual([]);
      expect(host.logged("upkeep failed")).toBe(false);
      expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
    },
    30_000,
  );

  test("of two parts that do not fit together are not merged", async () => {
    const { host } = await begin();
    await write(host, 60);
    // All of them: some may be merged already.
    for (const name of ltxIn(host).filter((one) => !one.startsWith("00000001-"))) {
      const bytes = readFileSync(join(host.bucketFolder, name));
      bytes[bytes.length - 1]! ^= 1;
      writeFileSync(join(host.bucketFolder, name), bytes);
    }
    await write(host, 300);
    await until(() => host.logged("upkeep failed"));
    expect(host.log.join("\n")).toMatch(/E_LTX|E_CHAIN_GAP/);
  }, 30_000);

  test.each(["walsync", "litestream"] as const)(
    "that take longer to merge than a window is wide are removed nevertheless, in the %s layout",
    async (layout) => {
      const host = new Host(join(dir, crypto.randomUUID()), undefined, { layout });
      const { destination } = await begin({ layout, merge: { windowsMs: [50, 100, 200], keepFineMs: 300 } }, host);
      const { write: put } = destination;
      let merged = 0;
      destination.write = async (key, source, options) => {
        await Bun.sleep(150);
        merged++;
        return await put.call(destination, key, source, options);
      };
      const files = async () => (await readChain(destination, "app")).files;
      const first = (await files()).map(({ key }) => key);
      await write(host, 200);
      const early = (await files()).map(({ key }) => key).filter((key) => !first.includes(key));
      expect(early.length).toBeGreaterThan(2);
      const isGone = async () => {
        const left = await files();
        const held = planSuperseded(left, 0, Number.POSITIVE_INFINITY).flatMap(({ parts }) => parts);
        const isHeld = held.some(({ key }) => early.includes(key));
        // One that is alone in all its windows stays.
        return !isHeld && left.filter(({ key }) => early.includes(key)).length < early.length / 2;
      };
      // All the time there is something to merge, and each round of it takes longer than the one before.
      for (let i = 0; i < 40 && !(await isGone()); i++) await write(host, 500);
      expect(await isGone()).toBe(true);
      expect(merged).toBeGreaterThan(3);
      expect(host.logged("upkeep failed")).toBe(false);
    },
    30_000,
  );

  test("are removed although nothing is written any more", async () => {
    const { host, destination } = await begin({ merge: { windowsMs: [100], keepFineMs: 1500 } });
    await write(host, 500);
    await until(() => ltxIn(host).some(isMerged));
    await until(async () => planSuperseded((await readChain(destination, "app")).files, 0, Date.now()).length === 0);
  }, 30_000);

  test("that retention removed before they were merged are not asked for", async () => {
    const policy = { merge: { windowsMs: [50, 1500], keepFineMs: 60_000 }, compactAfterSnapshot: true };
    const { host, destination } = await begin(policy);
    const states = await write(host, 300);
    for (let i = 0; i < 2; i++) {
      await host.replicator.requests.snapshot();
      await host.settle();
    }
    await until(() => host.logged("pruned"));
    for (const [txid, state] of await write(host, 2500)) states.set(txid, state);
    expect(host.logged("upkeep failed")).toBe(false);
    expect(ltxIn(host).some(isMerged)).toBe(true);
    await expectEveryPoint(host, destination, states);
  }, 30_000);
});

describe("snapshots", () => {
  test("that retention does not keep go after the next one", async () => {
    const { host, destination } = await begin({ compactAfterSnapshot: true, merge: null });
    const states = new Map<bigint, Uint8Array>();
    for (let i = 0; i < 5; i++) {
      for (const [txid, state] of await write(host, 60)) states.set(txid, state);
      await host.replicator.requests.snapshot();
      await host.settle();
    }
    const snapshots = () => ltxIn(host).filter((name) => name.startsWith("00000001-")).length;
    await until(() => snapshots() === 2);
    await expectEveryPoint(host, destination, states);
    expect(host.logged("pruned")).toBe(true);
  }, 30_000);

  test("that are shipped while others are pruned are seen by the next pruning", async () => {
    const folder = join(dir, crypto.randomUUID());
    mkdirSync(join(folder, "bucket"), { recursive: true });
    const destination = await openDestination(join(folder, "bucket"));
    const care = new Caretaker(destination);
    const source: ShippingSource = {
      name: "app",
      onShipped: () => {},
      listInManifest: () => {},
      dropFromManifest: () => {},
    };
    const ship = (maxTxid: bigint) =>
      source.onShipped({ file: { minTxid: 1n, maxTxid, sizeBytes: 1 }, key: `app/${maxTxid}`, timestampMs: 0 });
    let listings = 0;
    destination.list = async function* () {
      if (++listings === 1) {
        ship(2n);
        await Bun.sleep(20);
      }
      yield* [];
    };
    care.follow(source, join(folder, "merge"), { ...POLICY, compactAfterSnapshot: true });
    ship(1n);
    await until(() => listings >= 2);
    await care.stop();
    destination.close();
  });

  test("go at the interval, too, and nothing is asked for what was never shipped", async () => {
    const folder = join(dir, crypto.randomUUID());
    mkdirSync(join(folder, "bucket"), { recursive: true });
    const destination = await openDestination(join(folder, "bucket"));
    const care = new Caretaker(destination);
    const asked: string[] = [];
    const { list } = destination;
    destination.list = (prefix, options) => {
      asked.push(prefix);
      return list.call(destination, prefix, options);
    };
    care.follow(
      { name: "app", onShipped: () => {}, listInManifest: () => {}, dropFromManifest: () => {} },
      join(folder, "merge"),
      { ...POLICY, compactIntervalMs: 50 },
    );
    await Bun.sleep(300);
    await care.stop();
    destination.close();
    expect(asked.length).toBeGreaterThan(1);
    expect(new Set(asked)).toEqual(new Set(["app/"]));
  });
});
