// Goal: a destination that is away for an hour costs neither data nor memory nor a storm of requests; when it is back the
// backlog drains in order. An outbox that is full pauses capture, and says so.

import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseKey } from "../../src/destination/layout.ts";
import { Gate } from "../../src/destination/limit.ts";
import { configureLog } from "../../src/log.ts";
import { NO_SNAPSHOTS } from "../../src/replication/due.ts";
import { Replicator } from "../../src/replication/replicator.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import { Application } from "./application.ts";
import { Bucket } from "./bucket.ts";
import { VirtualClock } from "./clock.ts";
import { Random } from "./random.ts";

const HOUR_S = 3600;
const random = new Random(7);
let host: SlowMotion | null = null;

afterEach(async () => {
  await host?.end();
  host = null;
});

/** One host in virtual time: an application that commits, walsync, a bucket. */
class SlowMotion {
  readonly clock = new VirtualClock(1_800_000_000_000);
  readonly bucket = new Bucket(random, { metadata: true, levelFolders: "bucket" });
  readonly log: string[] = [];
  readonly written: string[] = [];
  readonly folder = mkdtempSync(join(tmpdir(), "walsync-outage-"));
  readonly app = new Application(join(this.folder, "app.db"), 4096, random);
  readonly replicator: Replicator;
  #dueMs = 0;

  constructor(maxOutboxBytes: number) {
    this.clock.install();
    configureLog({ level: "info", sink: (line) => this.log.push(line) });
    this.bucket.onWritten = (key) => this.written.push(key);
    this.replicator = new Replicator({
      layout: "walsync",
      path: this.app.path,
      name: "app",
      destination: this.bucket.connect().destination,
      stateFolder: join(this.folder, "state"),
      policy: {
        syncIntervalMs: 1000,
        snapshot: NO_SNAPSHOTS,
        validationIntervalMs: 0,
        checkpoint: { minFrames: 100, intervalMs: 60_000, fenceFrames: 400 },
        maxOutboxBytes,
        enableWal: false,
      },
      ready: Promise.resolve(true),
      patience: "endless",
      scans: new Gate(1),
    });
    this.replicator.onWake = () => {
      this.#dueMs = this.clock.nowMs;
    };
    this.replicator.open();
    this.replicator.begin();
  }

  /** Lets `ms` go by; returns the most requests in one second of it. */
  async pass(ms: number): Promise<number> {
    const endMs = this.clock.nowMs + ms;
    let most = 0;
    let { requests } = this.bucket;
    let secondMs = this.clock.nowMs;
    while (this.clock.nowMs < endMs) {
      this.clock.moveTo(Math.max(this.clock.nowMs, Math.min(this.clock.nextDueMs, this.#dueMs, endMs)));
      for (let i = 0; i < 6; i++) {
        if (this.#dueMs <= this.clock.nowMs) this.#dueMs = this.replicator.tick(this.clock.nowMs);
        await new Promise((resolve) => setImmediate(resolve));
      }
      if (this.clock.nowMs - secondMs < 1000) continue;
      most = Math.max(most, this.bucket.requests - requests);
      ({ requests } = this.bucket);
      secondMs = this.clock.nowMs;
    }
    return most;
  }

  commit(): void {
    this.app.commit();
    this.replicator.notice(false);
    this.#dueMs = this.clock.nowMs;
  }

  async restored(): Promise<string> {
    const output = join(this.folder, "restored.db");
    const { destination } = this.bucket.connect();
    const options = { target: { kind: "newest" }, integrity: "full", force: true } as const;
    await restoreDatabase(destination, "app", output, options);
    return Bun.hash.xxHash64(readFileSync(output)).toString(16);
  }

  async end(): Promise<void> {
    const stopped = this.replicator.stop(AbortSignal.abort());
    await this.pass(1000);
    await stopped;
    this.clock.uninstall();
    configureLog({ sink: null });
    this.app.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const claimsOf = (keys: readonly string[]) =>
  keys
    .map((key) => parseKey(key))
    .flatMap((key) => (key?.is === "ltx" && key.minTxid === key.maxTxid ? [key.minTxid] : []));

describe("a destination that is away for an hour", () => {
  test("is asked ever more rarely, and gets everything in order when it is back", async () => {
    host = new SlowMotion(1e9);
    host.commit();
    await host.pass(3000);
    const before = claimsOf(host.written).length;
    host.bucket.weather = "down";
    const { requests } = host.bucket;
    let mostFiles = 0;
    for (let second = 0; second < HOUR_S; second++) {
      host.commit();
      await host.pass(1000);
      mostFiles = Math.max(mostFiles, host.replicator.waitingFiles);
    }
    const asked = host.bucket.requests - requests;
    // Pauses of up to half a minute, by chance shorter: an hour has a few hundred.
    expect(asked).toBeLessThan(600);
    expect(asked).toBeGreaterThan(60);
    // While it waits, more goes into each file: the backlog grows with the root of time.
    expect(mostFiles).toBeLessThan(900);
    expect(host.log.filter((line) => line.includes(" error ")).length).toBeLessThan(25);

    host.bucket.weather = "fine";
    const most = await host.pass(60_000);
    expect(host.replicator.waitingFiles).toBe(0);
    // Drained one after the other. Virtual requests take no time, so all of them may fall into one second.
    expect(most).toBeLessThan(mostFiles * 2 + 20);
    const claims = claimsOf(host.written);
    expect(claims.length).toBeGreaterThan(before + 100);
    expect(claims).toEqual(claims.map((_, i) => BigInt(i + 1)));
    expect(host.log.some((line) => line.includes("destination answers again"))).toBe(true);
    expect(await host.restored()).toBe(host.app.newest);
  }, 120_000);

  test("fills the outbox to its bound: capture pauses, is told once, and goes on", async () => {
    const maxOutboxBytes = 200_000;
    host = new SlowMotion(maxOutboxBytes);
    host.commit();
    await host.pass(3000);
    host.bucket.weather = "down";
    let most = 0;
    for (let second = 0; second < 600; second++) {
      for (let i = 0; i < 3; i++) host.commit();
      await host.pass(1000);
      const folder = readdirSync(join(host.folder, "state")).find((name) => name !== "lock")!;
      const outbox = join(host.folder, "state", folder, "outbox");
      const bytes = readdirSync(outbox).reduce((sum, name) => sum + Bun.file(join(outbox, name)).size, 0);
      most = Math.max(most, bytes);
    }
    const full = host.log.filter((line) => line.includes("the outbox is full"));
    expect(full).toHaveLength(1);
    // The file that reaches the bound is the last one.
    expect(most).toBeLessThan(maxOutboxBytes * 2);
    host.bucket.weather = "fine";
    await host.pass(120_000);
    expect(await host.restored()).toBe(host.app.newest);
    const claims = claimsOf(host.written);
    expect(claims).toEqual(claims.map((_, i) => BigInt(i + 1)));
  }, 120_000);
});
