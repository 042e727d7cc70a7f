// Goal: a look at a database never takes less than everything that was committed for everything. When the WAL leaves a
// doubt the plan is a resync, and it says why.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type CheckpointPolicy, planCapture, planCheckpoint, proveScan, QUIET_MS } from "../../src/replication/plan.ts";
import type { Captured } from "../../src/replication/position.ts";
import type { WalIndexHead } from "../../src/sqlite/wal-index.ts";
import type { WalCursor, WalScan } from "../../src/sqlite/wal-reader.ts";

const PAGE_SIZE = 4096;
const FRAME_SIZE = PAGE_SIZE + 24;
const offsetOf = (frames: number) => 32 + frames * FRAME_SIZE;

function cursor(changes: Partial<WalCursor & { frames: number }> = {}): WalCursor {
  const { frames = 10, ...rest } = changes;
  return {
    salt1: 1,
    salt2: 2,
    walOffset: offsetOf(frames),
    checksum1: 3,
    checksum2: 4,
    bigEndianChecksums: false,
    ...rest,
  };
}

function captured(changes: Partial<Captured> = {}): Captured {
  const known = { txid: 5n, checksum: 0n, commit: 9, pageSize: PAGE_SIZE, timestampMs: 0 };
  return { ...known, cursor: cursor(), changeCount: 100, ...changes };
}

/** The WAL index at the place of `captured()`. */
function head(changes: Partial<WalIndexHead> = {}): WalIndexHead {
  return {
    changeCount: 100,
    bigEndianChecksums: false,
    pageSize: PAGE_SIZE,
    frameCount: 10,
    commit: 9,
    checksum1: 3,
    checksum2: 4,
    salt1: 1,
    salt2: 2,
    backfilled: 0,
    ...changes,
  };
}

function scan(changes: Partial<WalScan> = {}): WalScan {
  const pages = { pgnos: new Uint32Array(), frameIndexes: new Uint32Array() };
  return { end: cursor(), commitCount: 1, commit: 9, frameCount: 1, pages, ...changes };
}

describe("a look at the WAL index", () => {
  test.each<[string, Captured, WalIndexHead, ReturnType<typeof planCapture>]>([
    ["nothing was committed", captured(), head(), { kind: "idle" }],
    ["the WAL grew", captured(), head({ frameCount: 11 }), { kind: "append" }],
    [
      "after a restart of walsync, same salts",
      captured({ changeCount: null }),
      head({ frameCount: 11 }),
      { kind: "append" },
    ],
    [
      "same salts and length, but other frames",
      captured(),
      head({ checksum1: 9 }),
      { kind: "resync", reason: "wal-restarted" },
    ],
    ["the WAL is shorter", captured(), head({ frameCount: 9 }), { kind: "resync", reason: "wal-truncated" }],
    ["the page size changed", captured(), head({ pageSize: 512 }), { kind: "resync", reason: "page-size-changed" }],
    ["new salts", captured(), head({ salt1: 9, changeCount: 103 }), { kind: "restarted", expectedCommits: 3 }],
    [
      "one new salt is enough",
      captured(),
      head({ salt2: 9, changeCount: 101 }),
      { kind: "restarted", expectedCommits: 1 },
    ],
    [
      "the count of commits wraps",
      captured({ changeCount: 2 ** 32 - 1 }),
      head({ salt1: 9, changeCount: 1 }),
      { kind: "restarted", expectedCommits: 2 },
    ],
    [
      "new salts, count unknown",
      captured({ changeCount: null }),
      head({ salt1: 9 }),
      { kind: "resync", reason: "wal-restarted" },
    ],
    ["an empty WAL, nothing committed", captured(), head({ salt1: 9, frameCount: 0 }), { kind: "idle" }],
    [
      "an empty WAL, a commit is missing",
      captured(),
      head({ salt1: 9, frameCount: 0, changeCount: 101 }),
      { kind: "resync", reason: "wal-restarted" },
    ],
    [
      "no cursor, no count",
      captured({ cursor: null, changeCount: null }),
      head(),
      { kind: "resync", reason: "position-unknown" },
    ],
    [
      "no cursor, but the count",
      captured({ cursor: null }),
      head({ changeCount: 101 }),
      { kind: "restarted", expectedCommits: 1 },
    ],
    ["no cursor, and nothing since", captured({ cursor: null }), head({ frameCount: 0 }), { kind: "idle" }],
    [
      "nothing captured of this generation yet",
      captured({ cursor: cursor({ frames: 0 }) }),
      head({ frameCount: 0, checksum1: 0 }),
      { kind: "idle" },
    ],
  ])("%s", (_, position, index, expected) => {
    expect(planCapture(position, index)).toEqual(expected);
  });
});

describe("a scan", () => {
  test.each<[string, Parameters<typeof proveScan>, ReturnType<typeof proveScan>]>([
    ["to the end", [{ kind: "append" }, scan(), head()], null],
    ["that stops before the end", [{ kind: "append" }, scan({ end: cursor({ frames: 9 }) }), head()], "wal-unreadable"],
    [
      "with another checksum at the end",
      [{ kind: "append" }, scan({ end: cursor({ checksum2: 5 }) }), head()],
      "wal-unreadable",
    ],
    ["of a new generation, complete", [{ kind: "restarted", expectedCommits: 1 }, scan(), head()], null],
    [
      "of a new generation, one commit short",
      [{ kind: "restarted", expectedCommits: 2 }, scan(), head()],
      "wal-restarted",
    ],
    [
      "of a new generation, with more than were counted",
      [{ kind: "restarted", expectedCommits: 0 }, scan(), head()],
      "wal-restarted",
    ],
  ])("%s", (_, [plan, found, index], expected) => {
    expect(proveScan(plan, found, index)).toBe(expected);
  });
});

/** A WAL as SQLite keeps it, reduced to what can be counted. */
class ModelWal {
  salt = 1;
  /** Frames in each transaction of this generation. */
  transactions: number[] = [];
  changeCount = 0;
  /** Transactions ever committed. */
  total = 0;

  get frameCount(): number {
    return this.transactions.reduce((sum, frames) => sum + frames, 0);
  }

  commit(frames: number): void {
    this.transactions.push(frames);
    this.changeCount++;
    this.total++;
  }

  /** Everything was copied back, and the next writer begins again. */
  restart(): void {
    this.salt++;
    this.transactions = [];
  }

  head(): WalIndexHead {
    const sum = this.salt * 1000 + this.transactions.length;
    return head({
      changeCount: this.changeCount,
      frameCount: this.frameCount,
      salt1: this.salt,
      salt2: 0,
      checksum1: sum,
      checksum2: 0,
    });
  }

  cursor(): WalCursor {
    const { frameCount, checksum1 } = this.head();
    return cursor({ salt1: this.salt, salt2: 0, frames: frameCount, checksum1, checksum2: 0 });
  }
}

const event = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("commit" as const), frames: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 3, arbitrary: fc.constant({ kind: "restart" as const }) },
  { weight: 3, arbitrary: fc.constant({ kind: "look" as const }) },
  /** walsync stops and starts; meanwhile the WAL index may be made anew. */
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("down" as const), isIndexNew: fc.boolean() }) },
);

test("no order of commits, restarts and looks makes a look believe that it has everything when it has not", () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 30 }), (events) => {
      const wal = new ModelWal();
      let position = captured({ cursor: wal.cursor(), changeCount: 0 });
      /** Transactions that were captured, the last one of this generation included. */
      let taken = 0;
      let takenHere = { salt: wal.salt, count: 0 };
      const look = () => {
        const index = wal.head();
        const plan = planCapture(position, index);
        const countBefore = takenHere.salt === wal.salt ? takenHere.count : 0;
        if (plan.kind === "resync") taken = wal.total;
        else if (plan.kind === "append" || plan.kind === "restarted") {
          const fresh = wal.transactions.slice(plan.kind === "append" ? countBefore : 0);
          const doubt = proveScan(plan, scan({ end: wal.cursor(), commitCount: fresh.length }), index);
          taken = doubt === null ? taken + fresh.length : wal.total;
        }
        expect(taken).toBe(wal.total);
        takenHere = { salt: wal.salt, count: wal.transactions.length };
        // An idle look at a WAL with new salts leaves the position as it was.
        if (plan.kind !== "idle") position = captured({ cursor: wal.cursor(), changeCount: wal.changeCount });
      };
      for (const one of events) {
        if (one.kind === "commit") wal.commit(one.frames);
        else if (one.kind === "restart") wal.restart();
        else if (one.kind === "look") look();
        else {
          position = { ...position, changeCount: null };
          if (one.isIndexNew) wal.changeCount = 0;
        }
      }
      look();
    }),
    { numRuns: 3000 },
  );
});

describe("a checkpoint of ours", () => {
  const policy: CheckpointPolicy = { minFrames: 100, intervalMs: 60_000, fenceFrames: 400 };
  const waiting = (frames: number) => head({ frameCount: frames + 5, backfilled: 5 });

  test.each<[string, WalIndexHead, number, number, boolean, ReturnType<typeof planCheckpoint>]>([
    ["nothing waits", head({ frameCount: 900, backfilled: 900 }), 1e9, 1e9, true, "none"],
    ["few frames wait, and the database is busy", waiting(50), 5000, 0, true, "none"],
    ["enough wait", waiting(100), 5000, 0, true, "passive"],
    ["enough wait, but the last one was a moment ago", waiting(100), 100, 0, true, "none"],
    ["the interval is over", waiting(1), 60_000, 0, true, "passive"],
    ["the database is quiet", waiting(1), 0, QUIET_MS, true, "passive"],
    ["the WAL is long", waiting(400), 5000, 0, true, "fence"],
    ["the WAL is long, whatever else we did a moment ago", waiting(400), 0, 0, true, "fence"],
    ["the WAL is long, and a fence has just failed", waiting(400), 1000, 0, false, "passive"],
  ])("%s", (_, index, sinceLastMs, quietMs, mayFence, expected) => {
    expect(planCheckpoint(index, policy, sinceLastMs, quietMs, mayFence)).toBe(expected);
  });

  test("holds up writers only for a WAL that is too long, and not again soon if that was in vain", () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(1000), fc.boolean(), fc.nat(2000), (frames, done, mayFence, quietMs) => {
        const index = head({ frameCount: frames, backfilled: Math.min(done, frames) });
        const plan = planCheckpoint(index, policy, 1e9, quietMs, mayFence);
        if (plan === "fence") {
          expect(frames).toBeGreaterThanOrEqual(policy.fenceFrames);
          expect(mayFence).toBe(true);
        }
        if (done >= frames) expect(plan).toBe("none");
      }),
    );
  });
});
