// Goal: while walsync ships, merges, removes and prunes in the litestream layout, and while it is killed, the official restore
// never fails and never gives anything but a moment that was.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Chain, readChain } from "../../src/chain/chain.ts";
import { restorePoints } from "../../src/chain/plan.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { Caretaker } from "../../src/upkeep/caretaker.ts";
import { verifyDatabase } from "../../src/upkeep/verify.ts";
import { proveLedger } from "../e2e/ledger.ts";
import { Host } from "../replication/host.ts";
import { compiledBinary } from "../support/binary.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { Litestream } from "../support/litestream.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { interopMatrix } from "./matrix.ts";
import { startPlaces } from "./places.ts";

const dir = tempDir();
const { record } = interopMatrix("walsync-upkeep");
const { places, stop } = await startPlaces();
const isReady = requireTool("litestream") !== null;
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
const KEEP_FINE_MS = 3000;
const RUN_MS = 6000;
/** Nothing is removed while there is something to merge, and in a bucket a merge may take longer than a tenth of a second. */
const WINDOWS_MS = [500, 1000, 2000];
/** On a busy machine it takes longer until files of every level have come and gone. */
const PATIENCE_MS = 20_000;

afterAll(async () => {
  await stop();
});

function startLedger(path: string): Bun.Subprocess<"ignore", "pipe", "inherit"> {
  const args = [process.execPath, join(import.meta.dir, "../e2e/ledger.ts"), path, String(seed)];
  return Bun.spawn(args, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
}

async function end(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGKILL");
  await child.exited;
}

/** Restores as users of Litestream do, and proves what came of it. Returns how far it reaches, or null if it took too long. */
async function restoreOnce(litestream: Litestream, path: string, output: string): Promise<number | null> {
  const startedMs = performance.now();
  const run = await litestream.restore(path, output);
  // Whoever reads for longer than files stay may find one gone.
  if (run.status !== 0 && performance.now() - startedMs > KEEP_FINE_MS * 0.8) return null;
  expect(run).toMatchObject({ status: 0 });
  const { last, fault } = proveLedger(output);
  expect(fault).toBeNull();
  for (const suffix of ["", "-wal", "-shm"]) rmSync(`${output}${suffix}`, { force: true });
  return last;
}

/**
 * Files that do not follow on from the one before in their level, behind what the next level holds: Litestream cannot merge on
 * from there. Before that there is a gap for a moment while files are removed.
 */
function gapsIn({ files }: Chain): string[] {
  return [0, 1, 2, 3].flatMap((level) => {
    const held = restorePoints(files.filter((file) => file.level === level + 1)).at(-1) ?? 0n;
    const front = files.filter((file) => file.level === level && file.maxTxid > held);
    const inOrder = front.sort((a, b) => Number(a.minTxid - b.minTxid));
    return inOrder.slice(1).flatMap((file, i) => (file.minTxid === inOrder[i]!.maxTxid + 1n ? [] : [file.key]));
  });
}

async function listed(destination: Destination): Promise<Chain> {
  return await readChain(destination, "app");
}

describe.skipIf(!isReady).each(places)(`in $label, seed ${seed}`, (place) => {
  test("the official restore in a loop, during merging, removing and pruning", async () => {
    const folder = join(dir, crypto.randomUUID());
    const replica = await place.begin(folder);
    const destination = await replica.open();
    const host = new Host(folder, undefined, { layout: "litestream", open: replica.open });
    let ledger = startLedger(host.path);
    const care = new Caretaker(destination);
    const litestream = Litestream.configured(folder, [{ path: host.path, place: replica.litestream }])!;
    try {
      await ledger.stdout.getReader().read();
      await host.start({ syncIntervalMs: 20 });
      care.follow(host.replicator, join(host.stateFolder, "merge"), {
        layout: "litestream",
        merge: { windowsMs: WINDOWS_MS, keepFineMs: KEEP_FINE_MS },
        retention: { hourly: 1, daily: 0, weekly: 0, monthly: 0, pointInTimeMs: 2 * KEEP_FINE_MS },
        compactAfterSnapshot: true,
        compactIntervalMs: 0,
      });
      await host.settle().catch(() => {});
      let running = true;
      const levels = new Set<number>();
      const gone = new Set<string>();
      let known = new Set<string>();
      const looking = (async () => {
        for (let i = 0; running; i++) {
          host.look();
          await Bun.sleep(5);
          if (i % 100 !== 99) continue;
          if (i % 300 === 299) await host.replicator.requests.snapshot();
          const chain = await listed(destination);
          const keys = new Set(chain.files.map((file) => file.key));
          for (const key of known) if (!keys.has(key)) gone.add(key);
          known = keys;
          for (const { level } of chain.files) levels.add(level);
          expect(gapsIn(chain)).toEqual([]);
        }
      })();
      looking.catch(() => {}); // Looked at in the end.
      const endMs = performance.now() + RUN_MS;
      let reached = 0;
      let restored = 0;
      const isEnough = () => performance.now() >= endMs && restored > 3 && levels.size === 5 && gone.size > 10;
      while (!isEnough() && performance.now() < endMs + PATIENCE_MS) {
        const last = await restoreOnce(litestream, host.path, join(folder, "official.db"));
        if (last === null) continue;
        expect(last).toBeGreaterThanOrEqual(reached);
        reached = last;
        restored++;
      }
      running = false;
      await looking;
      expect(restored).toBeGreaterThan(3);
      // Where a file takes longer than a window, there is nothing in the next one to merge.
      expect([...levels]).toEqual(expect.arrayContaining([0, 1, 9]));
      expect(gone.size).toBeGreaterThan(10);

      await end(ledger);
      await host.stop();
      await care.stop();
      const { findings, points, proven } = await verifyDatabase(destination, "app", { quick: false });
      expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
      expect(proven).toBe(points);
      expect(differingPages(contentOf(host.path), await host.restored())).toEqual([]);
      const chain = await listed(destination);
      expect(await restoreOnce(litestream, host.path, join(folder, "official.db"))).toBe(proveLedger(host.path).last);

      // And Litestream can go on where that ended, with merging and retention of its own.
      await host.end();
      const hurried = { levels: ["300ms", "900ms", "2s"], l0Retention: "1s", snapshotInterval: "2s" };
      const successor = Litestream.configured(folder, [{ path: host.path, place: replica.litestream }], hurried)!;
      ledger = startLedger(host.path);
      successor.start();
      // Until it has merged as far as it goes what both wrote.
      const ours = restorePoints(chain.files).at(-1)!;
      await until(async () => {
        const now = await listed(destination).catch(() => ({ files: [] }));
        return now.files.some(({ level, maxTxid }) => level === 3 && maxTxid > ours);
      });
      await end(ledger);
      // What it could not merge shows below: its newest merged file reaches beyond ours.
      await successor.stop();
      expect(await restoreOnce(litestream, host.path, join(folder, "official.db"))).toBe(proveLedger(host.path).last);
      const row = { writer: "walsync", where: place.where, reader: "litestream" } as const;
      record({
        ...row,
        command: "restore, while walsync merges and prunes",
        result: "always a state that was committed",
      });
      record({ ...row, command: "replicate, of what walsync merged", result: "goes on merging and pruning" });
    } finally {
      await end(ledger);
      await care.stop();
      await host.end();
      destination.close();
    }
  }, 60_000);

  test("a watch that is killed again and again goes on where it was", async () => {
    const folder = join(dir, crypto.randomUUID());
    const replica = await place.begin(folder);
    const path = join(folder, "host", "app.db");
    mkdirSync(join(folder, "host"), { recursive: true });
    const litestream = Litestream.configured(folder, [{ path, place: replica.litestream }])!;
    const ledger = startLedger(path);
    const flags = ["--layout", "litestream", "--wal-sync-interval", "0.05", "--no-metrics", ...replica.flags];
    const watch = () =>
      Bun.spawn([compiledBinary(), "watch", path, "-b", replica.url, ...flags], {
        env: { PATH: process.env.PATH ?? "", ...replica.env },
        stdin: "ignore",
        stdout: "ignore",
        stderr: Bun.file(join(folder, "watch.log")),
      });
    try {
      await ledger.stdout.getReader().read();
      for (let kill = 0; kill < 6; kill++) {
        const child = watch();
        await Bun.sleep(300 + ((seed * (kill + 1)) % 700));
        await end(child);
      }
      const last = watch();
      const destination = await replica.open();
      await until(async () => (await listed(destination).catch(() => null))?.files.length !== undefined);
      await Bun.sleep(500);
      await end(ledger);
      last.kill("SIGTERM");
      expect(await last.exited).toBe(0);
      const reached = await restoreOnce(litestream, path, join(folder, "official.db"));
      expect(reached).toBe(proveLedger(path).last);
      const { findings, points, proven } = await verifyDatabase(destination, "app", { quick: false });
      expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
      expect(proven).toBe(points);
      expect(gapsIn(await listed(destination))).toEqual([]);
      destination.close();
    } finally {
      await end(ledger);
    }
  }, 60_000);
});

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await condition()) return;
    await Bun.sleep(20);
  }
  throw new Error("expected the condition to come true");
}
