// Goal: pruning deletes what the plan says and leaves a chain that verifies, whatever it is interrupted by and whoever writes
// meanwhile; and gives nothing up for a chain that is broken.
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, readdirSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { updateManifest } from "../../src/replication/manifest-keeper.ts";
import { planPruning, prune } from "../../src/upkeep/prune.ts";
import type { RetentionPolicy } from "../../src/upkeep/retention.ts";
import { verifyDatabase } from "../../src/upkeep/verify.ts";
import { makeChain, outcomeOf, txidTarget } from "../restore/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const chain = await makeChain(join(dir, "chain"), { count: 12, snapshotsAt: [3n, 5n, 8n, 10n] });
/** The newest two snapshots, and what follows on from the last one. */
const TWO: RetentionPolicy = { hourly: 1, daily: 0, weekly: 0, monthly: 0, pointInTimeMs: 0 };
const opened: Destination[] = [];
afterAll(() => {
  for (const destination of [chain.destination, ...opened]) destination.close();
});

async function copyOf(): Promise<{ destination: Destination; folder: string }> {
  const root = join(dir, crypto.randomUUID());
  cpSync(join(chain.folder, ".."), root, { recursive: true });
  const destination = await openDestination(root);
  opened.push(destination);
  return { destination, folder: join(root, "app") };
}

const filesIn = (folder: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(".ltx"))
    .sort();

async function expectSound(destination: Destination): Promise<void> {
  const report = await verifyDatabase(destination, "app", { quick: false });
  expect(report.findings.filter(({ severity }) => severity === "error")).toEqual([]);
  expect(report.proven).toBe(report.points);
}

test("what the plan says goes, the rest stays, and all of it verifies and restores", async () => {
  const { destination, folder } = await copyOf();
  const pruning = await planPruning(destination, "app", TWO, Date.now() + 60_000);
  await prune(destination, pruning);
  expect(filesIn(folder)).toEqual([
    "00000001-00000008.ltx",
    "00000001-00000010.ltx",
    "00000011-00000011.ltx",
    "00000012-00000012.ltx",
  ]);
  await expectSound(destination);
  for (const txid of [8n, 10n, 11n, 12n]) {
    const outcome = await outcomeOf({ ...chain, destination }, join(folder, "out.db"), txidTarget(txid));
    expect(Buffer.compare(outcome as Uint8Array, chain.states.get(txid)!)).toBe(0);
  }
  expect((await planPruning(destination, "app", TWO, Date.now() + 60_000)).keys).toEqual([]);
});

test("a crash after any deletion leaves a chain in which everything listed is proven, and the next run ends it", async () => {
  for (let left = 0; left < 12; left++) {
    const { destination, folder } = await copyOf();
    const pruning = await planPruning(destination, "app", TWO, Date.now() + 60_000);
    expect(pruning.keys.length).toBeGreaterThan(11);
    const { remove } = destination;
    destination.remove = async (keys) => {
      await remove.call(destination, keys.slice(0, left));
      throw new Error("killed");
    };
    await expect(prune(destination, pruning)).rejects.toThrow("killed");
    destination.remove = remove;
    await expectSound(destination);
    await prune(destination, await planPruning(destination, "app", TWO, Date.now() + 60_000));
    expect(filesIn(folder)).toHaveLength(4);
    await expectSound(destination);
  }
});

describe("a watch that writes the manifest", () => {
  const identity = { name: "app", lineage: "0".repeat(16), pageSize: 512 };
  // "complete" is false: it lists the files, and puts those that are not in the manifest back into it.
  const write = (destination: Destination) => updateManifest(destination, identity, [], false, Date.now());

  test("between the manifest and the files, or after them, leaves no entry of a file that is gone", async () => {
    const { destination } = await copyOf();
    const { remove } = destination;
    destination.remove = async (keys) => {
      await write(destination);
      await remove.call(destination, keys);
    };
    await prune(destination, await planPruning(destination, "app", TWO, Date.now() + 60_000));
    destination.remove = remove;
    await expectSound(destination);
    await write(destination);
    await expectSound(destination);
  });

  test("that listed before the files went, and writes after them, lists again", async () => {
    const { destination } = await copyOf();
    const pruning = await planPruning(destination, "app", TWO, Date.now() + 60_000);
    const watch = await openDestination(destination.url);
    opened.push(watch);
    const listed = Promise.withResolvers<void>();
    const pruned = Promise.withResolvers<void>();
    const { write: put } = watch;
    watch.write = async (...args) => {
      listed.resolve();
      await pruned.promise;
      return put.apply(watch, args);
    };
    const { remove } = destination;
    let writing: Promise<void> | null = null;
    destination.remove = async (keys, options) => {
      // The manifest has lost its entries already, and the files are still there.
      writing ??= write(watch);
      await listed.promise;
      await remove.call(destination, keys, options);
    };
    await prune(destination, pruning);
    pruned.resolve();
    await writing!;
    await expectSound(destination);
  });
});

describe("nothing is deleted", () => {
  test("while the newest state cannot be restored", async () => {
    const { destination, folder } = await copyOf();
    rmSync(join(folder, "00000011-00000011.ltx"));
    await expect(planPruning(destination, "app", TWO, Date.now() + 60_000)).rejects.toMatchObject({
      code: "E_CHAIN_GAP",
    });
  });

  test("while a snapshot cannot be read", async () => {
    const { destination, folder } = await copyOf();
    truncateSync(join(folder, "00000001-00000010.ltx"), 50);
    await expect(planPruning(destination, "app", TWO, Date.now() + 60_000)).rejects.toMatchObject({ code: "E_LTX" });
  });

  test("of a name that is not there", async () => {
    const { destination } = await copyOf();
    await expect(planPruning(destination, "other", TWO, Date.now())).rejects.toMatchObject({ code: "E_NOT_FOUND" });
  });
});
