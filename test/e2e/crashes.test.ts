// Goal: kill walsync at any moment, twenty times, and the application too: nothing that was committed is missing in the end,
// every earlier point is a moment that was, and no txid ever has two contents.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { parseKey } from "../../src/destination/layout.ts";
import { openDestination } from "../../src/destination/open.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import { randomFrom } from "../ltx/make.ts";
import { compiledBinary } from "../support/binary.ts";
import { onText } from "../support/children.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw, type Versitygw } from "../support/versitygw.ts";
import { proveLedger } from "./ledger.ts";

const KILLS = 20;
const NAMES = ["one", "two"];
const dir = tempDir();
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
const random = randomFrom(seed);
const server = await startVersitygw();
const writers = new Map<string, Bun.Subprocess>();
const etags = new Map<string, string>();
const rewritten: string[] = [];
let destination: Destination;
let watcher: Bun.Subprocess | null = null;
let log = "";
let endStatus: number | null = null;

const pathOf = (name: string) => join(dir, name, `${name}.db`);

function startWriter(name: string): void {
  const program = join(import.meta.dir, "ledger.ts");
  const args = [process.execPath, program, pathOf(name), String(random() % 1e6)];
  writers.set(name, Bun.spawn(args, { stdin: "ignore", stdout: "ignore", stderr: "inherit" }));
}

function startWatch(env: Record<string, string>): void {
  const args = ["watch", ...NAMES.map(pathOf), "-b", "s3://crashes/prod", "--no-metrics"];
  args.push("--wal-sync-interval", "0.05", "--snapshot-interval", "1", "--shutdown-timeout", "20");
  const child = Bun.spawn([compiledBinary(), ...args], { env, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  watcher = child;
  onText(child.stderr, (text) => {
    log += text;
  });
}

async function kill(child: Bun.Subprocess | null | undefined): Promise<void> {
  child?.kill("SIGKILL");
  await child?.exited;
}

/** An object that claims a txid never changes. */
async function lookAtObjects(): Promise<void> {
  for await (const { key, etag } of destination.list("")) {
    if (parseKey(key)?.is !== "ltx") continue;
    if (etags.has(key) && etags.get(key) !== etag) rewritten.push(key);
    etags.set(key, etag);
  }
}

async function restoreTo(name: string, output: string, txid?: bigint): Promise<void> {
  const target = txid === undefined ? ({ kind: "newest" } as const) : ({ kind: "txid", txid } as const);
  await restoreDatabase(destination, name, output, { target, integrity: "full", force: true });
}

describe.skipIf(server === null)(`twenty kills, seed ${seed}`, () => {
  beforeAll(async () => {
    const { endpoint, region, accessKeyId, secretAccessKey } = server as Versitygw;
    const env = {
      PATH: process.env.PATH ?? "",
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_ENDPOINT_URL_S3: endpoint,
      AWS_REGION: region,
    };
    await server!.createBucket("crashes");
    destination = await openDestination("s3://crashes/prod", { env });
    for (const name of NAMES) {
      mkdirSync(join(dir, name));
      startWriter(name);
    }
    await Bun.sleep(300);
    for (let round = 0; round < KILLS; round++) {
      startWatch(env);
      // Some die while they start, some in the middle of a snapshot, some after a while.
      await Bun.sleep(random() % (round % 4 === 0 ? 60 : 900));
      await kill(watcher);
      if (round % 3 === 1) {
        const name = NAMES[random() % NAMES.length]!;
        await kill(writers.get(name));
        startWriter(name);
      }
      if (round % 2 === 0) await Bun.sleep(random() % 200);
      await lookAtObjects();
    }
    startWatch(env);
    await Bun.sleep(2500);
    for (const writer of writers.values()) await kill(writer);
    await Bun.sleep(500);
    watcher!.kill("SIGTERM");
    endStatus = await watcher!.exited;
    await lookAtObjects();
  }, 60_000);

  afterAll(async () => {
    await kill(watcher);
    for (const writer of writers.values()) await kill(writer);
    destination?.close();
    await server?.stop();
  });

  test("the last run ends well, and no object was ever rewritten", () => {
    expect(endStatus).toBe(0);
    expect(rewritten).toEqual([]);
    expect(log).not.toMatch(/bug|E_FENCED|E_INTEGRITY|E_LTX/);
  });

  test.each(NAMES)(
    "%s: the newest state is what was committed, page by page",
    async (name) => {
      const output = join(dir, `${name}-newest.db`);
      await restoreTo(name, output);
      expect(differingPages(contentOf(pathOf(name)), contentOf(output))).toEqual([]);
      const proof = proveLedger(output);
      expect(proof.fault).toBeNull();
      expect(proof.last).toBeGreaterThan(300);
    },
    20_000,
  );

  test.each(NAMES)(
    "%s: ten earlier points are moments that were, in order",
    async (name) => {
      const txids = [...etags.keys()]
        .map((key) => parseKey(key))
        .flatMap((key) => (key?.is === "ltx" && key.name === name ? [key.maxTxid] : []))
        .sort((a, b) => (a < b ? -1 : 1));
      expect(txids.length).toBeGreaterThan(KILLS);
      let before = 0;
      for (let i = 0; i < 10; i++) {
        const txid = txids[Math.floor(((i + 1) * txids.length) / 11)]!;
        const output = join(dir, `${name}-${txid}.db`);
        await restoreTo(name, output, txid);
        const { last, fault } = proveLedger(output);
        expect({ txid, fault }).toEqual({ txid, fault: null });
        expect(last).toBeGreaterThanOrEqual(before);
        before = last;
        rmSync(output);
      }
    },
    30_000,
  );
});
