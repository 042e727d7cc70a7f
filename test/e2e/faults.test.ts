// Goal: whatever the network and the service do to requests, nothing is lost, nothing is rewritten, nobody is stormed, and
// memory stays where it is. The compiled program talks to a real S3 server through a proxy that fails.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { parseKey } from "../../src/destination/layout.ts";
import { openDestination } from "../../src/destination/open.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import { randomFrom } from "../ltx/make.ts";
import { compiledBinary } from "../support/binary.ts";
import { onText } from "../support/children.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { type FaultProxy, type ProxyMode, startFaultProxy } from "../support/fault-proxy.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { proveLedger } from "./ledger.ts";

const MODES: readonly ProxyMode[] = [
  "pass",
  "pass",
  "delay",
  "reset",
  "lose-answer",
  "cut",
  "slow-down",
  "hang",
  "expired",
];
const TROUBLE_MS = 15_000;
/** Earlier moments that are restored. */
const POINTS = 10;
const dir = tempDir();
const path = join(dir, "app", "app.db");
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
const random = randomFrom(seed);
const server = await startVersitygw();
const children: Bun.Subprocess[] = [];
let proxy: FaultProxy;
let destination: Destination;
let log = "";
let endStatus: number | null = null;
let peakRss = 0;
let requestsWhileDown = 0;

/** Ends of all files at the destination, ascending. */
async function shippedTxids(): Promise<bigint[]> {
  const txids: bigint[] = [];
  for await (const { key } of destination.list("app/")) {
    const parsed = parseKey(key);
    if (parsed?.is === "ltx") txids.push(parsed.maxTxid);
  }
  return txids.sort((a, b) => (a < b ? -1 : 1));
}

const rssOf = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

describe.skipIf(server === null)(`faults between walsync and its bucket, seed ${seed}`, () => {
  beforeAll(async () => {
    if (server === null) return;
    await server.createBucket("faults");
    proxy = await startFaultProxy(server.endpoint, random);
    const credentials = { AWS_ACCESS_KEY_ID: server.accessKeyId, AWS_SECRET_ACCESS_KEY: server.secretAccessKey };
    const env = { PATH: process.env.PATH ?? "", ...credentials };
    destination = await openDestination("s3://faults/prod", { endpoint: server.endpoint, env });
    mkdirSync(join(dir, "app"));
    const program = [process.execPath, join(import.meta.dir, "ledger.ts"), path, String(seed % 1000)];
    const writer = Bun.spawn(program, { stdin: "ignore", stdout: "ignore", stderr: "inherit" });
    children.push(writer);
    while (!existsSync(`${path}-wal`)) await Bun.sleep(20);
    const args = ["watch", path, "-b", "s3://faults/prod", "--endpoint", proxy.endpoint, "--no-metrics"];
    args.push("--wal-sync-interval", "0.1", "--snapshot-interval", "2", "--shutdown-timeout", "40");
    const watcher = Bun.spawn([compiledBinary(), ...args], { env, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    children.push(watcher);
    onText(watcher.stderr, (text) => {
      log += text;
    });
    // Whoever is refused at the start ends with that; later it goes on trying.
    for (let i = 0; i < 500 && !log.includes("replicating"); i++) await Bun.sleep(20);
    const endMs = performance.now() + TROUBLE_MS;
    while (performance.now() < endMs) {
      proxy.mode = MODES[random() % MODES.length]!;
      await Bun.sleep(100 + (random() % 400));
      if (watcher.exitCode !== null) throw new Error(`the watch ended with status ${watcher.exitCode}:\n${log}`);
      peakRss = Math.max(peakRss, rssOf(watcher.pid));
    }
    proxy.mode = "pass";
    const { requests } = proxy;
    await server.pause();
    await Bun.sleep(4000);
    requestsWhileDown = proxy.requests - requests;
    // Until it is told: what a second try mends is not.
    for (let i = 0; i < 300 && !/ error .*E_UNREACHABLE/.test(log); i++) await Bun.sleep(100);
    await server.restart();
    await Bun.sleep(1000);
    // However little got through the trouble, there is something to go back to.
    for (let i = 0; i < 200 && (await shippedTxids()).length < 2 * POINTS; i++) await Bun.sleep(100);
    writer.kill("SIGKILL");
    await writer.exited;
    watcher.kill("SIGTERM");
    endStatus = await watcher.exited;
  }, 90_000);

  afterAll(async () => {
    for (const child of children) child.kill("SIGKILL");
    proxy?.stop();
    destination?.close();
    await server?.stop();
  });

  test("in the end everything is shipped, and nothing is taken for another writer", () => {
    expect({ endStatus, log: log.split("\n").slice(-5) }).toMatchObject({ endStatus: 0 });
    expect(log).not.toMatch(/bug|E_FENCED|E_INTEGRITY|E_LTX/);
    expect(log).toContain("destination answers again");
  });

  test("a server that is down is not stormed, and memory stays bounded", () => {
    expect(requestsWhileDown).toBeLessThan(60);
    expect(peakRss).toBeLessThan(150);
  });

  test("the newest state is what was committed; ten earlier points are moments that were", async () => {
    const newest = join(dir, "newest.db");
    await restoreDatabase(destination, "app", newest, { target: { kind: "newest" }, integrity: "full", force: false });
    expect(differingPages(contentOf(path), contentOf(newest))).toEqual([]);
    const txids = await shippedTxids();
    expect(txids.length).toBeGreaterThan(POINTS);
    let before = 0;
    for (let i = 0; i < POINTS; i++) {
      const txid = txids[Math.floor(((i + 1) * txids.length) / (POINTS + 1))]!;
      const output = join(dir, `${i}.db`);
      await restoreDatabase(destination, "app", output, {
        target: { kind: "txid", txid },
        integrity: "full",
        force: false,
      });
      const { last, fault } = proveLedger(output);
      expect({ txid, fault }).toEqual({ txid, fault: null });
      expect(last).toBeGreaterThanOrEqual(before);
      before = last;
    }
  }, 30_000);

  test("no upload in parts is left open", async () => {
    expect(await server!.openUploads("faults")).toEqual([]);
  });
});
