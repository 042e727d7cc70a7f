/**
 * One simulated world: an application, walsync watching it, a bucket, and everything that goes wrong between them. Every
 * choice comes from the seed. The laws are checked at the end, and whenever walsync reports something.
 */

import { cpSync, existsSync, fstatSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readChains } from "../../src/chain/chain.ts";
import { type LayoutRules, layoutRules } from "../../src/chain/layout-rules.ts";
import { planChain, restorePoints } from "../../src/chain/plan.ts";
import type { Capabilities } from "../../src/destination/destination.ts";
import { type Layout, parseKey } from "../../src/destination/layout.ts";
import { Gate } from "../../src/destination/limit.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { ChainGapError, WalsyncError } from "../../src/errors.ts";
import { configureLog } from "../../src/log.ts";
import type { Txid } from "../../src/ltx/txid.ts";
import { NO_SNAPSHOTS } from "../../src/replication/due.ts";
import { Replicator } from "../../src/replication/replicator.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import { PinnedDatabase } from "../../src/sqlite/database.ts";
import { SleepingDatabase } from "../../src/sqlite/sleeping-database.ts";
import { readFully } from "../../src/sqlite/wal-reader.ts";
import { Application, type CheckpointMode } from "./application.ts";
import { Bucket, type Weather } from "./bucket.ts";
import { VirtualClock } from "./clock.ts";
import { Random } from "./random.ts";

export interface Outcome {
  seed: number;
  steps: number;
  /** What happened, in order, for a person to read. */
  trace: string[];
  /** The law that was broken, or null. */
  failure: string | null;
  counts: Record<string, number>;
}

/** Thrown where the process is to die. */
class Crash extends Error {}

const NAME = "app";
const PAGE_SIZES = [512, 1024, 4096, 4096, 4096, 65536];
/** A bucket, and what a directory is like. */
const PLACES: readonly Capabilities[] = [
  { metadata: true, levelFolders: "bucket" },
  { metadata: true, levelFolders: "bucket" },
  { metadata: false, levelFolders: "directory" },
];
const RESTORED_POINTS = 10;

export class World {
  readonly #seed: number;
  readonly #random: Random;
  readonly #clock = new VirtualClock(1_800_000_000_000);
  readonly #folder: string;
  readonly #app: Application;
  readonly #bucket: Bucket;
  readonly #rules: LayoutRules;
  readonly #trace: string[] = [];
  readonly #counts: Record<string, number> = {};
  /** Newest state of the oracle when each txid was minted: a restore of it must not be older. */
  readonly #stateAtTxid = new Map<Txid, number>();
  #process: { replicator: Replicator; cut: () => void; dueMs: number; wakes: number } | null = null;
  /** Durable steps until the process dies; infinite: it lives. */
  #stepsToCrash = Number.POSITIVE_INFINITY;
  #crashed = false;
  #waitingCheckpoint: CheckpointMode | null = null;
  /** The bucket lost nothing so far. */
  #isBucketWhole = true;
  #hole: string | null = null;
  /** Until then the local disk refuses what it is asked for. */
  #diskFault = { untilMs: 0, code: "" };
  #events: { atMs: number; renamed: boolean }[] = [];

  constructor(seed: number) {
    this.#seed = seed;
    this.#random = new Random(seed);
    const base = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
    this.#folder = mkdtempSync(join(base, "walsync-sim-"));
    const pageSize = this.#random.pick(PAGE_SIZES);
    this.#bucket = new Bucket(this.#random, this.#random.pick(PLACES));
    this.#rules = layoutRules(this.#random.pick<Layout>(["walsync", "litestream"]), this.#bucket.capabilities);
    this.#bucket.onWritten = (key) => this.#lookForHole(key);
    this.#app = new Application(join(this.#folder, "app.db"), pageSize, this.#random);
  }

  /** Runs `steps` steps but those in `skipped`; what the others choose does not depend on that. */
  async run(steps: number, skipped: ReadonlySet<number> = new Set()): Promise<Outcome> {
    configureLog({ level: "info", sink: (line) => this.#say(`  log: ${line.slice(25)}`) });
    const restoreOverrides = this.#override();
    let failure: string | null = null;
    let step = 0;
    try {
      await this.#start();
      for (; step < steps; step++) {
        if (skipped.has(step)) continue;
        this.#random.reseed(this.#seed, step);
        await this.#act();
        await this.#pump();
      }
      this.#random.reseed(this.#seed, -1);
      await this.#comeToRest();
      await this.#checkLaws();
    } catch (error) {
      failure = error instanceof LawBroken ? error.message : `${error instanceof Error ? error.stack : error}`;
    } finally {
      await this.#kill().catch(() => {});
      this.#app.close();
      restoreOverrides();
      configureLog({ sink: null });
      rmSync(this.#folder, { recursive: true, force: true });
    }
    return { seed: this.#seed, steps: step, trace: this.#trace, failure, counts: this.#counts };
  }

  // --- the process under test ---

  get #stateFolder(): string {
    return join(this.#folder, "state");
  }

  async #start(): Promise<void> {
    const { destination, cut } = this.#bucket.connect();
    const random = this.#random;
    const replicator = new Replicator({
      layout: this.#rules.layout,
      path: this.#app.path,
      name: NAME,
      destination,
      stateFolder: this.#stateFolder,
      policy: {
        syncIntervalMs: random.pick([0, 0, 100, 1000]),
        snapshot: { ...NO_SNAPSHOTS, intervalMs: random.pick([0, 2000, 20_000]) },
        validationIntervalMs: random.pick([0, 3000]),
        checkpoint: {
          minFrames: random.pick([4, 30, 1000]),
          intervalMs: random.pick([500, 60_000]),
          fenceFrames: random.pick([16, 120, 4000]),
        },
        maxOutboxBytes: random.pick([30_000, 1e9, 1e9]),
        enableWal: false,
      },
      ready: Promise.resolve(true),
      patience: "endless",
      scans: new Gate(1),
    });
    const process = { replicator, cut, dueMs: this.#clock.nowMs, wakes: 0 };
    replicator.onWake = () => {
      process.dueMs = this.#clock.nowMs;
      process.wakes++;
    };
    this.#process = process;
    this.#crashed = false;
    this.#say("start");
    await this.#alive(() => {
      replicator.openWhenPossible(this.#clock.nowMs);
      replicator.begin();
    });
  }

  /** Runs something that may hit the step where the process dies. */
  async #alive(work: () => void | Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
    }
    if (this.#crashed) await this.#bury();
  }

  /** The process is dead: what it left on disk is the image that was taken at that moment. */
  async #bury(): Promise<void> {
    const image = `${this.#stateFolder}.image`;
    await this.#kill();
    rmSync(this.#stateFolder, { recursive: true, force: true });
    if (existsSync(image)) cpSync(image, this.#stateFolder, { recursive: true });
    rmSync(image, { recursive: true, force: true });
    this.#crashed = false;
  }

  /** Ends the process without a chance to do anything more that anybody could see. */
  async #kill(): Promise<void> {
    const process = this.#process;
    if (process === null) return;
    this.#process = null;
    this.#stepsToCrash = Number.POSITIVE_INFINITY;
    process.cut();
    const stopped = process.replicator.stop(AbortSignal.abort());
    let done = false;
    void stopped.catch(() => {}).finally(() => (done = true));
    for (let i = 0; i < 10_000 && !done; i++) {
      await turn();
      if (i % 50 === 49) this.#clock.moveTo(this.#clock.nowMs + 50);
    }
    if (!done) throw new LawBroken("stopping hangs");
  }

  #override(): () => void {
    this.#clock.install();
    const { random } = Math;
    Math.random = () => this.#random.below(2 ** 30) / 2 ** 30;
    observeDurableSteps((step, path) => this.#onDurableStep(step, path));
    const { isCheckpointWaiting, fingerprint, walMark } = PinnedDatabase.prototype;
    const { fingerprint: asleep, walMark: walMarkAsleep } = SleepingDatabase.prototype;
    const { isScarce } = SleepingDatabase;
    PinnedDatabase.prototype.isCheckpointWaiting = () => this.#waitingCheckpoint !== null;
    // Virtual time runs ahead of the file system's clock: only content tells whether a file was changed.
    PinnedDatabase.prototype.fingerprint = function () {
      // The file that is open, as in the product: another one may have its name by now.
      const { ino, size } = fstatSync(this.databaseFd);
      const bytes = new Uint8Array(size);
      readFully(this.databaseFd, bytes, size, 0);
      return `${ino}:${Bun.hash(bytes)}`;
    };
    SleepingDatabase.prototype.fingerprint = function () {
      const stats = statSync(this.path, { throwIfNoEntry: false });
      return stats === undefined ? null : `${stats.ino}:${Bun.hash(readFileSync(this.path))}`;
    };
    PinnedDatabase.prototype.walMark = function () {
      const { ino, size } = fstatSync(this.walFd);
      const bytes = new Uint8Array(size);
      readFully(this.walFd, bytes, size, 0);
      return `${ino}:${Bun.hash(bytes)}`;
    };
    SleepingDatabase.prototype.walMark = function () {
      const wal = `${this.path}-wal`;
      const stats = statSync(wal, { throwIfNoEntry: false });
      return stats === undefined ? "none" : `${stats.ino}:${Bun.hash(readFileSync(wal))}`;
    };
    SleepingDatabase.isScarce = () => this.#random.below(2) === 0;
    const onRejection = (error: unknown) => {
      if (!(error instanceof Crash)) this.#say(`unhandled ${error instanceof Error ? error.stack : error}`);
    };
    process.on("unhandledRejection", onRejection);
    return () => {
      this.#clock.uninstall();
      Math.random = random;
      observeDurableSteps(null);
      PinnedDatabase.prototype.isCheckpointWaiting = isCheckpointWaiting;
      PinnedDatabase.prototype.fingerprint = fingerprint;
      PinnedDatabase.prototype.walMark = walMark;
      SleepingDatabase.prototype.fingerprint = asleep;
      SleepingDatabase.prototype.walMark = walMarkAsleep;
      SleepingDatabase.isScarce = isScarce;
      process.off("unhandledRejection", onRejection);
    };
  }

  #onDurableStep(step: string, path: string): void {
    if (this.#process === null || this.#crashed) return;
    if (this.#clock.nowMs < this.#diskFault.untilMs && !(step === "remove" && this.#diskFault.code === "ENOSPC")) {
      this.#count(this.#diskFault.code);
      throw Object.assign(new Error(`simulated: ${this.#diskFault.code}`), { code: this.#diskFault.code });
    }
    if (--this.#stepsToCrash > 0) return;
    this.#crashed = true;
    // What else runs in this turn does not know yet that it is dead: none of it may be seen from outside.
    this.#process.cut();
    this.#say(`crash before ${step} ${path.replace(this.#folder, "")}`);
    this.#count("crashes");
    const image = `${this.#stateFolder}.image`;
    rmSync(image, { recursive: true, force: true });
    if (existsSync(this.#stateFolder)) cpSync(this.#stateFolder, image, { recursive: true });
    throw new Crash();
  }

  // --- what happens ---

  async #act(): Promise<void> {
    const random = this.#random;
    const app = this.#app;
    const action = random.weighted({
      commit: 46,
      burst: 6,
      time: 22,
      checkpoint: 8,
      waiting: 5,
      weather: 6,
      sleep: 12,
      crash: 4,
      restart: 3,
      down: 2,
      reader: 2,
      replace: 1,
      forget: 1,
      lose: 1,
      disk: 2,
      "page size": 1,
      clock: 1,
    });
    this.#count(action);
    switch (action) {
      case "commit":
        this.#commit();
        break;
      case "burst":
        for (let i = 2 + random.below(6); i > 0; i--) {
          this.#commit();
          if (random.oneIn(3)) this.#checkpoint(random.pick(["PASSIVE", "RESTART", "TRUNCATE"]));
        }
        break;
      case "time":
        await this.#pass(random.pick([1, 5, 40, 300, 700, 2000, 15_000]));
        break;
      case "checkpoint":
        this.#checkpoint(random.pick(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]));
        break;
      case "waiting":
        await this.#waitForCheckpoint(random.pick(["FULL", "RESTART", "TRUNCATE"]));
        break;
      case "weather":
        this.#bucket.weather = random.weighted<Weather>({ fine: 50, flaky: 20, down: 12, refusing: 6, slow: 12 });
        this.#say(`weather ${this.#bucket.weather}`);
        break;
      case "sleep":
        if (this.#process?.replicator.trySleep() === true) {
          this.#count("asleep");
          this.#say("asleep");
        }
        break;
      case "crash":
        this.#stepsToCrash = 1 + random.below(25);
        break;
      case "restart":
        await this.#stopGracefully();
        await this.#start();
        break;
      case "down":
        await this.#beDown();
        break;
      case "reader":
        if (random.oneIn(2)) app.beginRead();
        else app.endRead();
        this.#say("reader");
        break;
      case "replace":
        if (random.oneIn(2)) {
          app.keepCopy();
          this.#say("a copy is kept");
        } else if (app.replace()) {
          this.#say(`the database is replaced: state ${app.states.length - 1}`);
          this.#announce(true);
        }
        break;
      case "forget":
        // The state folder is deleted while walsync is down.
        await this.#stopGracefully();
        rmSync(this.#stateFolder, { recursive: true, force: true });
        this.#say("the state folder is deleted");
        await this.#start();
        break;
      case "lose":
        // Found out at the next first contact.
        await this.#stopGracefully();
        this.#isBucketWhole = false;
        this.#say(`the bucket loses ${this.#bucket.loseNewest(random.pick([1, 2, 5, 1000]))} objects`);
        await this.#start();
        break;
      case "disk": {
        const code = random.pick(["ENOSPC", "EIO", "EROFS"]);
        this.#diskFault = { untilMs: this.#clock.nowMs + random.pick([20, 700, 15_000]), code };
        this.#say(`the disk says ${code}`);
        break;
      }
      case "page size":
        await this.#stopGracefully();
        if (app.changePageSize(random.pick(PAGE_SIZES))) this.#say(`another page size: state ${app.states.length - 1}`);
        await this.#start();
        break;
      case "clock":
        this.#clock.wallOffsetMs += random.pick([-3_600_000, -5000, 86_400_000]);
        this.#say("the host's clock jumps");
        break;
    }
    if (this.#process === null) await this.#start();
  }

  #commit(): void {
    if (!this.#app.commit()) return;
    this.#count("commits");
    this.#say(`commit: state ${this.#app.states.length - 1} ${this.#app.newest}`);
    this.#announce(false);
  }

  #checkpoint(mode: CheckpointMode): void {
    const done = this.#app.checkpoint(mode);
    this.#say(`checkpoint ${mode} ${done ? "done" : "busy"}`);
    if (this.#random.oneIn(2)) this.#announce(false);
  }

  /** A checkpoint that holds its locks and tries again until the pin gives way, as with a busy timeout. */
  async #waitForCheckpoint(mode: CheckpointMode): Promise<void> {
    this.#waitingCheckpoint = mode;
    this.#announce(false);
    let done = false;
    for (let i = 0; i < 12 && !done; i++) {
      await this.#pass(2 ** Math.min(i, 6));
      done = this.#app.checkpoint(mode);
    }
    this.#waitingCheckpoint = null;
    this.#say(`waiting checkpoint ${mode} ${done ? "done" : "gave up"}`);
    this.#count(done ? "yielded" : "not yielded");
    // The application goes on at once, before the pin is back.
    for (let i = this.#random.below(3); i > 0; i--) this.#commit();
    if (done && this.#random.oneIn(2)) this.#checkpoint("TRUNCATE");
  }

  /** Events come at once, late, twice or never. */
  #announce(renamed: boolean): void {
    const delays = this.#random.pick([[0], [0], [1], [30], [0, 2], [], []]);
    for (const delay of delays) this.#events.push({ atMs: this.#clock.nowMs + delay, renamed });
  }

  async #stopGracefully(): Promise<void> {
    const process = this.#process;
    if (process === null) return;
    this.#say("stop");
    const deadline = new AbortController();
    let left: number | undefined;
    await this.#alive(async () => {
      const stopping = process.replicator.stop(deadline.signal).then((files) => {
        left = files;
      });
      for (let i = 0; i < 2000 && left === undefined && !this.#crashed; i++) {
        await turn();
        if (i % 10 === 9) this.#clock.moveTo(this.#clock.nowMs + 20);
        if (i === 300) deadline.abort();
      }
      if (this.#crashed) return;
      if (left === undefined) throw new LawBroken("stopping hangs");
      await stopping;
    });
    if (this.#process === process) {
      process.cut();
      this.#process = null;
    }
    this.#stepsToCrash = Number.POSITIVE_INFINITY;
  }

  async #beDown(): Promise<void> {
    const random = this.#random;
    if (random.oneIn(2)) await this.#stopGracefully();
    else {
      this.#say("killed");
      await this.#kill();
    }
    for (let i = random.below(5); i > 0; i--) {
      this.#commit();
      if (random.oneIn(3)) this.#checkpoint(random.pick(["PASSIVE", "RESTART", "TRUNCATE"]));
      if (random.oneIn(4)) {
        this.#app.close();
        this.#say("the application closes the database");
      }
    }
    this.#clock.moveTo(this.#clock.nowMs + random.pick([10, 5000, 3_600_000]));
    await this.#start();
  }

  // --- time ---

  async #pass(ms: number): Promise<void> {
    const endMs = this.#clock.nowMs + ms;
    for (let i = 0; i < 3000; i++) {
      const nextMs = Math.min(this.#nextDueMs(), endMs);
      this.#clock.moveTo(Math.max(this.#clock.nowMs, nextMs));
      await this.#pump();
      if (this.#clock.nowMs >= endMs) break;
    }
    if (ms >= 10_000 && this.#process !== null) {
      const process = this.#process;
      await this.#alive(() => {
        process.replicator.notice(true);
        process.dueMs = process.replicator.tick(this.#clock.nowMs);
      });
      await this.#pump();
    }
  }

  #nextDueMs(): number {
    const eventMs = this.#events.reduce((earliest, { atMs }) => Math.min(earliest, atMs), Number.POSITIVE_INFINITY);
    return Math.min(this.#clock.nextDueMs, this.#process?.dueMs ?? Number.POSITIVE_INFINITY, eventMs);
  }

  /** Lets everything happen that is due now. */
  async #pump(): Promise<void> {
    let quiet = 0;
    for (let i = 0; i < 500 && quiet < 4; i++) {
      const before = this.#signsOfLife();
      const process = this.#process;
      if (process !== null) {
        await this.#alive(() => {
          const due = this.#events.filter(({ atMs }) => atMs <= this.#clock.nowMs);
          this.#events = this.#events.filter(({ atMs }) => atMs > this.#clock.nowMs);
          for (const { renamed } of due) process.replicator.notice(renamed);
          if (due.length > 0 || process.dueMs <= this.#clock.nowMs) {
            process.dueMs = process.replicator.tick(this.#clock.nowMs);
          }
        });
        this.#noteCaptures();
      }
      await turn();
      if (this.#crashed) await this.#bury();
      quiet = this.#signsOfLife() === before ? quiet + 1 : 0;
    }
  }

  #signsOfLife(): string {
    const { replicator, wakes } = this.#process ?? { replicator: null, wakes: 0 };
    return `${this.#bucket.requests} ${wakes} ${replicator?.waitingFiles} ${replicator?.position?.captured.txid}`;
  }

  /** Remembers how old the newest state is when a txid appears. */
  #noteCaptures(): void {
    const txid = this.#process?.replicator.position?.captured.txid;
    if (txid === undefined || this.#stateAtTxid.has(txid)) return;
    this.#stateAtTxid.set(txid, this.#app.states.length - 1);
    this.#say(`txid ${txid} captured`);
  }

  // --- the laws ---

  /** At any moment the newest restore point can be restored: an increment never comes before the one it follows. */
  #lookForHole(key: string): void {
    const parsed = parseKey(key);
    if (!this.#isBucketWhole || parsed?.is !== "ltx" || parsed.minTxid === 1n) return;
    const before = parsed.minTxid - 1n;
    const names = [before, 1n].flatMap((minTxid) => this.#rules.shippedKeys(NAME, { minTxid, maxTxid: before }));
    if (!names.some((name) => this.#bucket.objects.has(name))) this.#hole ??= `${key} comes before txid ${before}`;
  }

  async #comeToRest(): Promise<void> {
    this.#say("come to rest");
    this.#stepsToCrash = Number.POSITIVE_INFINITY;
    this.#diskFault.untilMs = 0;
    this.#bucket.weather = "fine";
    this.#app.endRead();
    if (this.#process === null) await this.#start();
    for (let i = 0; i < 40; i++) {
      this.#events.push({ atMs: this.#clock.nowMs, renamed: true });
      await this.#pass(11_000);
      if (i > 2 && (await this.#isShipped())) return;
    }
    const fetched = await this.#fetch(null);
    const newest = fetched instanceof Error ? fetched.message : `not the newest state`;
    throw new LawBroken(`not everything is shipped in the end: ${this.#signsOfLife()}: ${newest}`);
  }

  async #isShipped(): Promise<boolean> {
    const replicator = this.#process?.replicator;
    if (replicator === undefined || replicator.waitingFiles > 0) return false;
    if (replicator.fencedBy !== null) throw new LawBroken("fenced, although nobody else writes");
    // A snapshot that replaces lost objects may still be owed, because the disk was full a minute ago.
    if ((await this.#fetch(null)) instanceof Error) return false;
    return (await this.#restored(null)) === this.#app.newest;
  }

  async #checkLaws(): Promise<void> {
    if (this.#hole !== null) throw new LawBroken(this.#hole);
    if ((await this.#restored(null)) !== this.#app.newest)
      throw new LawBroken("the newest restore point is not the end");
    const { destination } = this.#bucket.connect();
    const [chain] = await readChains(destination, `${NAME}/`, NAME);
    const points = restorePoints(chain!.files).filter((txid) => isReachable(chain!.files, txid));
    const picked = points.filter((_, i) => i % Math.ceil(points.length / RESTORED_POINTS) === 0);
    let previous = 0;
    for (const txid of picked) {
      const digest = await this.#restored(txid);
      // A state may come back later; what counts is that some occurrence is not older than the point before.
      const index = this.#app.states.indexOf(digest, previous);
      if (index < 0) {
        const known = this.#app.states.includes(digest) ? "an older state" : "a state that never was";
        throw new LawBroken(`txid ${txid} restores ${known} (${digest})`);
      }
      previous = index;
      this.#count("points");
    }
  }

  /** Digest of what a restore gives. */
  async #restored(txid: Txid | null): Promise<string> {
    const fetched = await this.#fetch(txid);
    if (fetched instanceof Error) throw new LawBroken(`restoring ${txid ?? "the newest"}: ${fetched.message}`);
    return fetched;
  }

  async #fetch(txid: Txid | null): Promise<string | WalsyncError> {
    const output = join(this.#folder, `restored-${txid ?? "newest"}.db`);
    const { destination } = this.#bucket.connect();
    const target = txid === null ? ({ kind: "newest" } as const) : ({ kind: "txid", txid } as const);
    try {
      await restoreDatabase(destination, NAME, output, { target, integrity: "full", force: true });
      return Bun.hash.xxHash64(readFileSync(output)).toString(16);
    } catch (error) {
      if (error instanceof WalsyncError) return error;
      throw error;
    } finally {
      rmSync(output, { force: true });
    }
  }

  #say(line: string): void {
    this.#trace.push(`${this.#clock.nowMs.toFixed(0).padStart(9)} ${line}`);
  }

  #count(what: string): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + 1;
  }
}

class LawBroken extends Error {}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function isReachable(files: Parameters<typeof planChain>[1], txid: Txid): boolean {
  try {
    planChain(NAME, files, txid);
    return true;
  } catch (error) {
    // Before the first snapshot, or behind a gap that a snapshot bridges.
    if (error instanceof ChainGapError || (error instanceof WalsyncError && error.code === "E_NOT_FOUND")) return false;
    throw error;
  }
}
