// Goal: what is committed after the pin began stays readable in the WAL until we move the pin, whatever other processes
// do; and a move that lost something never passes for one that did not.
import { Database } from "bun:sqlite";
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { existsSync, renameSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { PinnedDatabase } from "../../src/sqlite/database.ts";
import { decodeWalHeader, walFrameOffset } from "../../src/sqlite/wal.ts";
import { cursorAtStart, readWalHeader, scanWal } from "../../src/sqlite/wal-reader.ts";
import { type LookResult, WalCopy } from "../support/sqlite-capture.ts";
import { bytesOf, CHECKPOINT_MODES, copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";

const folder = tempDir();
const SEED = Number(process.env.WALSYNC_SEED ?? Date.now() % 2 ** 31);
const PAGE_SIZE = 1024;
/** Busy timeout of a checkpoint that waits for its turn. */
const WAIT_MS = 15;

/** The application: every write has a second to succeed, and one that fails fails the test. */
const other = new SqliteProcess();
const third = new SqliteProcess();
afterAll(() => Promise.all([other.stop(), third.stop()]));

const pins: PinnedDatabase[] = [];
afterEach(() => {
  for (const pin of pins.splice(0)) pin.close();
});

let fileCount = 0;

/** A database with a table and some rows, open in the other process; nothing of its WAL is copied back. */
async function application(
  changes: { pageSize?: number; autocheckpoint?: number; cachePages?: number } = {},
): Promise<string> {
  const path = join(folder, `app-${++fileCount}.db`);
  await other.open({ path, pageSize: PAGE_SIZE, journalMode: "wal", ...changes });
  await other.run("create table t (id integer primary key, body blob)");
  for (let i = 0; i < 5; i++) await write();
  return path;
}

/** One transaction of several frames. */
function write(): Promise<void> {
  return other.run("insert into t (body) values (randomblob(?))", 5000);
}

function pinned(path: string): PinnedDatabase {
  const pin = PinnedDatabase.open(path);
  pins.push(pin);
  return pin;
}

type Mark = "mark 0" | "mark k > 0";

/** A pin of each kind: behind a WAL that is copied back completely, or not at all. */
async function pinnedAt(mark: Mark, autocheckpoint?: number): Promise<{ path: string; pin: PinnedDatabase }> {
  const path = await application(autocheckpoint === undefined ? {} : { autocheckpoint });
  if (mark === "mark 0") expect(await other.checkpoint("PASSIVE")).toMatchObject({ busy: false });
  const pin = pinned(path);
  const head = pin.walIndex();
  expect(head.frameCount).toBeGreaterThan(5);
  expect(head.backfilled).toBe(mark === "mark 0" ? head.frameCount : 0);
  return { path, pin };
}

/** Commits readable in the WAL from the first frame of its generation on. */
function commitsInWal(pin: PinnedDatabase): { commits: number; frameCount: number } {
  const scan = scanWal(pin.walFd, pin.pageSize, cursorAtStart(readWalHeader(pin.walFd)!), pin.walIndex().frameCount);
  return { commits: scan.commitCount, frameCount: scan.frameCount };
}

describe.each<Mark>(["mark 0", "mark k > 0"])("pinned at %s:", (mark) => {
  test.each([...CHECKPOINT_MODES, "every mode in turn"] as const)(
    "checkpoints of another process take no frame away: %s",
    async (which) => {
      const { pin } = await pinnedAt(mark);
      const copy = new WalCopy(pin);
      // Taking the copy pinned the same commit again.
      const begin = pin.walIndex();
      const commitsBefore = commitsInWal(pin).commits;
      const salts = new Set([begin.salt1]);
      let writes = 0;
      for (let step = 0; step < 8; step++) {
        await write();
        writes++;
        const mode = which === "every mode in turn" ? CHECKPOINT_MODES[step % 4]! : which;
        const result = await other.checkpoint(mode, step % 2 === 0 ? 0 : WAIT_MS);
        const head = pin.walIndex();
        salts.add(head.salt1);
        // Nothing new is copied back, so nothing can be restarted; and the caller is told.
        expect(head.backfilled).toBe(mark === "mark 0" ? 0 : begin.frameCount);
        expect(head.backfilled).toBeLessThan(head.frameCount);
        if (mode !== "PASSIVE") expect(result.busy).toBe(true);
        expect((head.changeCount - begin.changeCount) >>> 0).toBe(writes);
        // Every transaction since the pin is in the WAL, and readable.
        expect(commitsInWal(pin)).toEqual({
          commits: mark === "mark 0" ? writes : commitsBefore + writes,
          frameCount: head.frameCount,
        });
      }
      // At mark 0 the first writer restarts the WAL: all before it was in the database. After that, and at other marks, never.
      expect([...salts]).toEqual(mark === "mark 0" ? [begin.salt1, (begin.salt1 + 1) >>> 0] : [begin.salt1]);
      expect(copy.look()).toEqual({ kind: "captured", commits: writes, restarted: mark === "mark 0" });
      expect(copy.sha256()).toBe((await other.state()).sha256);
    },
  );

  test("the default autocheckpoint takes no frame away", async () => {
    const { pin } = await pinnedAt(mark, 1000);
    const copy = new WalCopy(pin);
    const begin = pin.walIndex();
    const writes = 60;
    for (let i = 0; i < writes; i++) await other.run("insert into t (body) values (randomblob(60000))");
    const head = pin.walIndex();
    expect(head.frameCount).toBeGreaterThan(3000);
    expect(head.backfilled).toBe(mark === "mark 0" ? 0 : begin.frameCount);
    expect(copy.look()).toMatchObject({ kind: "captured", commits: writes });
    expect(copy.sha256()).toBe((await other.state()).sha256);
  });

  test("the file is not touched behind the pin", async () => {
    const { path, pin } = await pinnedAt(mark);
    if (mark === "mark k > 0") await other.checkpoint("PASSIVE"); // Up to the mark it may.
    const file = await bytesOf(path);
    for (const mode of CHECKPOINT_MODES) {
      await write();
      await other.checkpoint(mode);
    }
    expect(Buffer.compare(await bytesOf(path), file)).toBe(0);
    expect(pin.walSizeBytes()).toBe(statSync(`${path}-wal`).size);
  });

  test("the other process may close, crash and come back", async () => {
    const { path, pin } = await pinnedAt(mark);
    const copy = new WalCopy(pin);
    const guest = new SqliteProcess();
    await guest.open({ path });
    await write();
    await guest.run("insert into t (body) values (randomblob(3000))");
    await guest.crash();
    await other.close(); // Would delete the WAL, were it the last connection.
    expect(existsSync(`${path}-wal`)).toBe(true);
    await other.open({ path });
    await write();
    expect(copy.look()).toMatchObject({ kind: "captured", commits: 3 });
    expect(copy.sha256()).toBe((await other.state()).sha256);
  });

  test("TRUNCATE before any write loses nothing", async () => {
    const { path, pin } = await pinnedAt(mark);
    const copy = new WalCopy(pin);
    for (let i = 0; i < 3; i++) {
      expect(await other.checkpoint("TRUNCATE")).toMatchObject({ busy: mark !== "mark 0" });
      expect(copy.look()).toEqual({ kind: "idle" });
    }
    expect(statSync(`${path}-wal`).size === 0).toBe(mark === "mark 0");
    await write();
    await other.checkpoint("TRUNCATE");
    await write();
    expect(copy.look()).toMatchObject({ kind: "captured", commits: 2 });
    expect(copy.sha256()).toBe((await other.state()).sha256);
  });
});

// What happens while the pin is moved is played slowly here: the pin is let go, something happens, it is taken again.
describe("a hop is proven by the count of commits:", () => {
  const grown = "insert into t (body) values (randomblob(3000))";
  test.each<[string, () => Promise<unknown>, LookResult]>([
    ["nothing happened", async () => {}, { kind: "idle" }],
    [
      "a commit slipped in and lies behind what was captured",
      write,
      { kind: "captured", commits: 1, restarted: false },
    ],
    [
      "the WAL was copied back and restarted, and everything is in the new generation",
      async () => {
        await other.checkpoint("RESTART");
        await write();
        await other.run(grown);
      },
      { kind: "captured", commits: 2, restarted: true },
    ],
    ["the WAL was truncated, and nothing was written", () => other.checkpoint("TRUNCATE"), { kind: "idle" }],
    [
      "a commit was copied back and is gone from the WAL",
      async () => {
        await write();
        await other.checkpoint("TRUNCATE");
      },
      { kind: "doubt", reason: "wal-restarted" },
    ],
    [
      "a commit is gone, and another one is in the new generation",
      async () => {
        await write();
        await other.checkpoint("RESTART");
        await write();
      },
      { kind: "doubt", reason: "wal-restarted" },
    ],
    [
      "as many commits are gone as were captured before, of the same size",
      async () => {
        for (let i = 0; i < 3; i++) {
          await other.checkpoint("RESTART");
          await write();
          await write();
        }
      },
      { kind: "doubt", reason: "wal-restarted" },
    ],
  ])("%s", async (_law, meanwhile, wanted) => {
    const path = await application();
    const pin = pinned(path);
    const copy = new WalCopy(pin);
    await write();
    expect(copy.look()).toEqual({ kind: "captured", commits: 1, restarted: false });
    pin.unpin();
    await meanwhile();
    pin.pin();
    expect(copy.look()).toEqual(wanted);
    if (wanted.kind === "doubt") copy.reload();
    expect(copy.sha256()).toBe((await other.state()).sha256);
    // And the pin holds again.
    const { frameCount } = pin.walIndex();
    await write();
    await other.checkpoint("TRUNCATE");
    expect(pin.walIndex().backfilled).toBeLessThanOrEqual(frameCount);
    expect(copy.look()).toMatchObject({ kind: "captured", commits: 1 });
    expect(copy.sha256()).toBe((await other.state()).sha256);
  });

  test("after each hop checkpoints reach as far as what was captured", async () => {
    const path = await application({ autocheckpoint: 0 });
    const pin = pinned(path);
    for (let i = 0; i < 3; i++) {
      await write();
      pin.repin();
      const { frameCount } = pin.walIndex();
      await write();
      expect(await other.checkpoint("PASSIVE")).toMatchObject({ backfilled: frameCount });
    }
  });
});

describe("our own checkpoint:", () => {
  test("copies back up to the pin and not behind it, and never waits", async () => {
    const path = await application({ autocheckpoint: 0 });
    const pin = pinned(path);
    const { frameCount } = pin.walIndex();
    await write();
    await third.open({ path });
    await third.run("begin immediate"); // A writer does not stop it.
    const startMs = performance.now();
    expect(pin.checkpointPassive()).toEqual({
      busy: false,
      frameCount: pin.walIndex().frameCount,
      backfilled: frameCount,
    });
    expect(performance.now() - startMs).toBeLessThan(500);
    await third.close();
    pin.repin();
    pin.checkpointPassive();
    // Copied back, and pinned again: mark 0, where a TRUNCATE of the application succeeds at once.
    pin.repin();
    expect(await other.checkpoint("TRUNCATE")).toEqual({ busy: false, frameCount: 0, backfilled: 0 });
  });
});

describe("the fence:", () => {
  test("writers wait, nothing slips by, and the next one restarts the WAL at frame 1", async () => {
    const path = await application({ autocheckpoint: 0 });
    const pin = pinned(path);
    const copy = new WalCopy(pin);
    await write();
    const before = decodeWalHeader(await bytesOf(`${path}-wal`))!;
    let waiting: Promise<void> | undefined;
    let captured: LookResult | undefined;
    const moved = pin.fence(() => {
      waiting = write();
      captured = copy.look();
      Bun.sleepSync(60);
      expect(copy.look()).toEqual({ kind: "idle" });
      return true;
    });
    expect(moved).toBe("freed");
    expect(captured).toEqual({ kind: "captured", commits: 1, restarted: false });
    await waiting;
    const after = decodeWalHeader(await bytesOf(`${path}-wal`))!;
    expect(after.salt1).toBe((before.salt1 + 1) >>> 0);
    expect(after.checkpointSequence).toBe(before.checkpointSequence + 1);
    expect(commitsInWal(pin)).toEqual({ commits: 1, frameCount: pin.walIndex().frameCount });
    expect(copy.look()).toEqual({ kind: "captured", commits: 1, restarted: true });
    expect(copy.sha256()).toBe((await other.state()).sha256);
    // Pinned at mark 0: not one frame of the new generation may be copied back.
    for (const mode of CHECKPOINT_MODES) expect(await other.checkpoint(mode)).toMatchObject({ backfilled: 0 });
  });

  test("rests at mark 0 without a writer: the WAL is copied back, and a TRUNCATE succeeds", async () => {
    const pin = pinned(await application());
    expect(pin.fence(() => true)).toBe("freed");
    const head = pin.walIndex();
    expect(head.frameCount).toBeGreaterThan(0);
    expect(head.backfilled).toBe(head.frameCount);
    expect(await other.checkpoint("TRUNCATE")).toEqual({ busy: false, frameCount: 0, backfilled: 0 });
  });

  test("is given up soon while another process writes: the pin stays, and nobody is disturbed", async () => {
    const pin = pinned(await application());
    const { frameCount } = pin.walIndex();
    await other.run("begin immediate");
    await write();
    let asked = false;
    const startMs = performance.now();
    expect(pin.fence(() => (asked = true))).toBe("held-off");
    expect(performance.now() - startMs).toBeLessThan(500);
    expect(asked).toBe(false);
    await other.run("commit");
    expect(await other.checkpoint("PASSIVE")).toMatchObject({ backfilled: frameCount });
  });

  test.each<[string, unknown, () => boolean]>([
    ["answers that something is left", "held-off", () => false],
    [
      "throws",
      "no room",
      () => {
        throw new Error("no room");
      },
    ],
  ])("does not move the pin if the capture %s, and lets writers go on", async (_how, wanted, captureRest) => {
    const pin = pinned(await application());
    const copy = new WalCopy(pin);
    const { frameCount } = pin.walIndex();
    await write();
    let answer: unknown;
    try {
      answer = pin.fence(captureRest);
    } catch (error) {
      answer = (error as Error).message;
    }
    expect(answer).toBe(wanted);
    await write();
    for (const mode of CHECKPOINT_MODES) await other.checkpoint(mode);
    expect(pin.walIndex().backfilled).toBe(frameCount);
    expect(copy.look()).toEqual({ kind: "captured", commits: 2, restarted: false });
    expect(copy.sha256()).toBe((await other.state()).sha256);
  });

  test("a reader of the application that needs old frames keeps the WAL; nothing is lost", async () => {
    const path = await application({ autocheckpoint: 0 });
    const pin = pinned(path);
    const copy = new WalCopy(pin);
    await third.open({ path });
    await third.run("begin");
    await third.rows("select count(*) from t");
    await write();
    expect(pin.fence(() => copy.look().kind === "captured")).toBe("reader");
    const head = pin.walIndex();
    expect(head.backfilled).toBeLessThan(head.frameCount);
    await third.close();
    await write();
    for (const mode of CHECKPOINT_MODES) await other.checkpoint(mode);
    expect(pin.walIndex()).toMatchObject({ salt1: head.salt1, backfilled: head.frameCount });
    expect(copy.look()).toEqual({ kind: "captured", commits: 1, restarted: false });
    expect(copy.sha256()).toBe((await other.state()).sha256);
  });
});

// The application's own checkpoint may be waiting for our mark, and holds the write lock meanwhile.
describe.skipIf(process.platform !== "linux")("a checkpoint that waits is noticed:", () => {
  test.each(["FULL", "RESTART", "TRUNCATE"] as const)("%s goes on as soon as the pin is let go", async (mode) => {
    const path = await application({ autocheckpoint: 0 });
    const pin = pinned(path);
    const copy = new WalCopy(pin);
    await write();
    expect(copy.look()).toMatchObject({ kind: "captured", commits: 1 });
    expect(pin.isCheckpointWaiting()).toBe(false);
    const checkpoint = other.checkpoint(mode, 5000);
    const endMs = performance.now() + 2000;
    while (!pin.isCheckpointWaiting() && performance.now() < endMs) await Bun.sleep(1);
    expect(pin.isCheckpointWaiting()).toBe(true);
    pin.unpin();
    expect(await checkpoint).toMatchObject({ busy: false });
    pin.pin();
    expect(pin.isCheckpointWaiting()).toBe(false);
    expect(copy.look()).toEqual({ kind: "idle" });
    await write();
    expect(copy.look()).toEqual({ kind: "captured", commits: 1, restarted: true });
    expect(copy.sha256()).toBe((await other.state()).sha256);
  });

  test("a writer alone is none, nor is a checkpoint of ours", async () => {
    const pin = pinned(await application());
    await other.run("begin immediate");
    expect(pin.isCheckpointWaiting()).toBe(false);
    await other.run("rollback");
    expect(pin.fence(() => !pin.isCheckpointWaiting())).toBe("freed");
  });
});

describe("the end of the pin:", () => {
  test("the WAL stays although the last connection closed, and tells what was captured", async () => {
    const path = await application();
    const pin = PinnedDatabase.open(path);
    await other.close();
    const head = pin.walIndex();
    pin.close();
    const { salt1, salt2 } = decodeWalHeader(await bytesOf(`${path}-wal`))!;
    expect({ salt1, salt2 }).toEqual({ salt1: head.salt1, salt2: head.salt2 });
    expect(statSync(`${path}-wal`).size).toBe(walFrameOffset(head.frameCount, PAGE_SIZE));
  });

  test("an empty WAL goes with the last connection, as it would without us", async () => {
    const path = await application();
    await other.close();
    PinnedDatabase.open(path).close();
    expect(existsSync(`${path}-wal`)).toBe(false);
    expect(existsSync(`${path}-shm`)).toBe(false);
  });

  test("checkpoints of others are free again", async () => {
    const path = await application();
    PinnedDatabase.open(path).close();
    expect(await other.checkpoint("TRUNCATE")).toEqual({ busy: false, frameCount: 0, backfilled: 0 });
  });
});

test("nothing of ours is ever in the database: pages and schema are what they were", async () => {
  const path = await application();
  const before = await other.dump(join(folder, "before"));
  const schema = await other.rows("select * from sqlite_schema");
  const file = await bytesOf(path);
  const pin = PinnedDatabase.open(path);
  pin.repin();
  expect(Buffer.compare(await bytesOf(path), file)).toBe(0);
  pin.checkpointPassive();
  expect(pin.fence(() => true)).toBe("freed");
  pin.unpin();
  pin.pin();
  const { state } = await other.dump(join(folder, "during"));
  pin.close();
  const after = await other.dump(join(folder, "after"));
  expect(Buffer.compare(after.content, before.content)).toBe(0);
  expect(state).toMatchObject({ sha256: before.state.sha256, changeCount: before.state.changeCount });
  expect(await other.rows("select * from sqlite_schema")).toEqual(schema);
  await other.checkpoint("TRUNCATE");
  expect(Buffer.compare(await bytesOf(path), before.content)).toBe(0);
  expect(await other.rows("pragma integrity_check")).toEqual([["ok"]]);
});

describe("a database that is replaced is noticed:", () => {
  test.each<[string, (path: string) => void]>([
    ["another file is renamed over it", (path) => renameSync(`${path}.new`, path)],
    ["it is deleted", (path) => unlinkSync(path)],
    ["it is moved away", (path) => renameSync(path, `${path}.old`)],
  ])("%s", async (_how, replace) => {
    const path = await application();
    copyDatabase(path, `${path}.new`);
    const pin = pinned(path);
    await write();
    await other.checkpoint("TRUNCATE");
    expect(pin.isReplaced()).toBe(false);
    replace(path);
    expect(pin.isReplaced()).toBe(true);
    await other.close();
  });

  test("not when it is moved away and back", async () => {
    const path = await application();
    const pin = pinned(path);
    renameSync(path, `${path}.old`);
    renameSync(`${path}.old`, path);
    expect(pin.isReplaced()).toBe(false);
  });
});

test("two pins of one process on two databases do not drop each other's locks, nor does a third connection", async () => {
  const first = await application();
  const pin = pinned(first);
  const copy = new WalCopy(pin);
  const second = join(folder, "second.db");
  await third.open({ path: second, journalMode: "wal" });
  await third.run("create table t (body)");
  PinnedDatabase.open(second).close();
  new Database(first, { readwrite: true, create: false }).close();
  for (let i = 0; i < 3; i++) {
    pin.checkpointPassive();
    await write();
    for (const mode of CHECKPOINT_MODES) await other.checkpoint(mode);
  }
  expect(copy.look()).toMatchObject({ kind: "captured", commits: 3 });
  expect(copy.sha256()).toBe((await other.state()).sha256);
});

// SQLite writes two copies of the WAL index's head. A writer that loses its processor between them leaves them different
// for as long as it has to wait. Bytes 4 to 7 of a copy mean nothing: changing them in one copy does the same.
describe("a WAL index in the middle of a change", () => {
  function change(path: string, byte: string): string {
    return `printf '\\${byte}' | dd of='${path}-shm' bs=1 seek=52 conv=notrunc status=none`;
  }

  test("is waited for", async () => {
    const path = await application();
    const pin = pinned(path);
    const head = pin.walIndex();
    expect(Bun.spawnSync(["sh", "-c", change(path, "001")]).success).toBe(true);
    const writer = Bun.spawn(["sh", "-c", `sleep 0.1; ${change(path, "000")}`]);
    expect(pin.walIndex()).toEqual(head);
    expect(await writer.exited).toBe(0);
  });

  test("is an error in the end, and SQLite repairs it", async () => {
    const path = await application();
    const pin = pinned(path);
    const head = pin.walIndex();
    expect(Bun.spawnSync(["sh", "-c", change(path, "001")]).success).toBe(true);
    let refused: unknown;
    try {
      pin.walIndex();
    } catch (error) {
      refused = error;
    }
    expect(refused).toMatchObject({ code: "E_DATABASE", hint: expect.stringContaining("open the database") });
    expect((refused as Error).message).toStartWith(`${path}: expected a WAL index`);
    await third.open({ path });
    await third.rows("select count(*) from t");
    expect(pin.walIndex()).toMatchObject({ salt1: head.salt1, frameCount: head.frameCount, commit: head.commit });
    await third.close();
  });
});

// --- Random worlds. Every state that we capture must be one that the database had: the one with the same count of commits.

/** Mulberry32: 0 up to, but not, `limit`. */
function randomFrom(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  };
}

describe(`random writes, checkpoints and moves of the pin, seed ${SEED}:`, () => {
  test("step by step: every step is captured and proven, and no state differs", async () => {
    const random = randomFrom(SEED);
    const path = await application({ pageSize: 512, cachePages: 8 });
    const pin = pinned(path);
    const copy = new WalCopy(pin);
    const restarts = { count: 0 };
    for (let step = 0; step < 300; step++) {
      const context = `seed ${SEED}, step ${step}`;
      const [now] = (
        await other.burst({ seed: random(2 ** 31), steps: 1 + random(4), checkpointPercent: 30, pausePercent: 0 })
      ).slice(-1);
      if (random(3) > 0) {
        const result = copy.look();
        if (result.kind === "doubt") throw new Error(`${context}: ${result.reason}`);
        if (result.kind === "captured" && result.restarted) restarts.count++;
        if (copy.sha256() !== now!.sha256 || copy.changeCount !== now!.changeCount) {
          throw new Error(`${context}: captured commit ${copy.changeCount}, another state than ${now!.changeCount}`);
        }
        // Only what is captured may be let go.
        const move = random(10);
        if (move < 5) pin.repin();
        else if (move < 7) pin.checkpointPassive();
        else if (move < 8) expect(pin.fence(() => copy.look().kind === "idle")).toBe("freed");
      }
    }
    expect(restarts.count).toBeGreaterThan(5);
  }, 30_000);

  test.each([512, 4096])(
    "at full speed, two processes at once, page size %d",
    async (pageSize) => {
      const random = randomFrom(SEED ^ pageSize);
      const path = await application({ pageSize, cachePages: 8 });
      await third.open({ path });
      const pin = pinned(path);
      const copy = new WalCopy(pin);
      const taken = [{ changeCount: copy.changeCount, sha256: copy.sha256() }];
      const count = { captured: 0, restarted: 0, doubt: 0, fenced: 0 };
      const look = (): boolean => {
        const result = copy.look();
        if (result.kind === "idle") return true;
        if (result.kind === "doubt") {
          // Rare, and right: the WAL was restarted in the microseconds without a pin.
          count.doubt++;
          copy.reload();
        } else {
          count.captured++;
          if (result.restarted) count.restarted++;
        }
        taken.push({ changeCount: copy.changeCount, sha256: copy.sha256() });
        return true;
      };
      let done = false;
      const burst = other
        .burst({ seed: SEED, steps: 500, checkpointPercent: 15, pausePercent: 20 })
        .finally(() => void (done = true));
      const checkpoints = third.checkpoints(SEED, 700);
      while (!done) {
        look();
        const move = random(100);
        if (move < 50) pin.repin();
        else if (move < 55) pin.checkpointPassive();
        else if (move < 58 && pin.fence(look) !== "held-off") count.fenced++;
        await Bun.sleep(random(3));
      }
      const states = new Map((await burst).map(({ changeCount, sha256 }) => [changeCount, sha256]));
      expect(await checkpoints).toBeGreaterThan(20);
      look();
      for (const { changeCount, sha256 } of taken) {
        if (states.get(changeCount) !== sha256)
          throw new Error(`seed ${SEED}: captured commit ${changeCount} is no state`);
      }
      expect(copy.sha256()).toBe((await other.state()).sha256);
      expect(count.captured).toBeGreaterThan(30);
      expect(count.doubt).toBeLessThan(count.captured / 10);
      await third.close();
    },
    30_000,
  );
});
