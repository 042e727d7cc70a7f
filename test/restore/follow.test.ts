// Goal: a read copy is at every moment one state that the source had, also for a reader in the middle of an update and after a
// crash at any step; and nothing that is not such a copy is ever overwritten.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { Follower } from "../../src/restore/follow.ts";
import { Host } from "../replication/host.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const { signal } = new AbortController();
let ends: (() => unknown)[] = [];

afterEach(async () => {
  observeDurableSteps(null);
  for (const end of ends.reverse()) await end();
  ends = [];
});

interface Pair {
  host: Host;
  destination: Destination;
  local: string;
  /** A follower as a new process would have it. */
  follower(): Follower;
}

async function makePair(pageSize = 512): Promise<Pair> {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  const host = new Host(folder);
  host.create(pageSize);
  host.insert(10, 300);
  await host.start();
  ends.push(() => host.end());
  await host.settle();
  const destination = await openDestination(join(host.bucketFolder, ".."));
  ends.push(() => destination.close());
  const local = join(folder, "copy", "copy.db");
  mkdirSync(join(folder, "copy"));
  const follower = (): Follower => {
    const made = new Follower(destination, "app", local);
    ends.push(() => made.close());
    return made;
  };
  return { host, destination, local, follower };
}

/** Without what a copy has of its own: journal mode, change counter, and which version wrote it. */
function comparable(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  for (const [start, end] of [
    [18, 20],
    [24, 28],
    [92, 96],
  ] as const)
    copy.fill(0, start, end);
  return copy;
}

function expectState(local: string, expected: Uint8Array): void {
  expect(comparable(readFileSync(local)).equals(comparable(expected))).toBe(true);
  const reader = new Database(local, { readonly: true });
  expect(reader.query("pragma integrity_check").values()).toEqual([["ok"]]);
  expect(reader.query("pragma journal_mode").values()).toEqual([["delete"]]);
  reader.close();
}

async function change(host: Host, step: number): Promise<void> {
  if (step % 4 === 3) {
    host.app.run("delete from item where id % 2 = 0");
    host.app.run("vacuum");
  } else host.insert(1 + step * 2, 400);
  await host.settle();
}

describe("a copy", () => {
  test.each([512, 4096, 65536])(
    "is the source after every step, growing and shrinking, page size %p",
    async (pageSize) => {
      const { host, local, follower } = await makePair(pageSize);
      const one = follower();
      expect(await one.step(signal)).toMatchObject({ kind: "bootstrap", txid: 1n });
      expectState(local, host.content());
      for (let step = 0; step < 9; step++) {
        await change(host, step);
        expect(await one.step(signal)).toMatchObject({ kind: "increments", txid: host.txid, fileCount: 1 });
        expectState(local, host.content());
        expect(await one.step(signal)).toMatchObject({ kind: "current", txid: host.txid });
      }
      expect(readdirSync(join(local, "..")).sort()).toEqual([".copy.db-walsync-replica", "copy.db"]);
      expect(readdirSync(join(local, "..", ".copy.db-walsync-replica"))).toEqual(["replica.json"]);
    },
  );

  test("goes on where another process left it, many increments in one go", async () => {
    const { host, local, follower } = await makePair();
    const first = follower();
    await first.step(signal);
    first.close();
    for (let step = 0; step < 6; step++) await change(host, step);
    const inode = statSync(local).ino;
    expect(await follower().step(signal)).toMatchObject({ kind: "increments", fileCount: 6 });
    expectState(local, host.content());
    expect(statSync(local).ino).toBe(inode);
  });

  test("is consistent for a reader that is there all the time, and shows it the next state", async () => {
    const { host, local, follower } = await makePair();
    host.app.run("create table pair (a integer, b integer)");
    host.app.run("insert into pair values (0, 0)");
    await host.settle();
    const one = follower();
    await one.step(signal);
    const reader = new Database(local, { readonly: true });
    ends.push(() => reader.close());
    for (let step = 1; step < 8; step++) {
      host.app.run("update pair set a = a + 1, b = b + 1");
      await change(host, step);
      await one.step(signal);
      const [[a, b]] = reader.query("select a, b from pair").values() as [[number, number]];
      expect([a, b]).toEqual([step, step]);
      expect(reader.query("select count(*) from item").values()).toEqual(
        host.app.query("select count(*) from item").values(),
      );
    }
  });

  test("waits for a reader's transaction, and is left as it was if that does not end", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const before = host.content();
    const reader = new Database(local, { readonly: true });
    ends.push(() => reader.close());
    reader.run("begin");
    reader.query("select count(*) from item").values();
    await change(host, 0);
    await expect(one.step(signal)).rejects.toMatchObject({ code: "E_LOCKED" });
    expect(comparable(readFileSync(local)).equals(comparable(before))).toBe(true);
    reader.run("commit");
    expect(await one.step(signal)).toMatchObject({ kind: "increments" });
    expectState(local, host.content());
  }, 20_000);

  test("is made anew in place when increments are missing", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const inode = statSync(local).ino;
    await change(host, 0);
    await change(host, 1);
    await host.replicator.snapshot();
    await host.settle();
    rmSync(join(host.bucketFolder, "00000002-00000002.ltx"));
    expect(await one.step(signal)).toMatchObject({ kind: "bootstrap", txid: 3n });
    expectState(local, host.content());
    expect(statSync(local).ino).toBe(inode);
    await change(host, 2);
    expect(await one.step(signal)).toMatchObject({ kind: "increments" });
    expectState(local, host.content());
  });

  test("takes another page size", async () => {
    const { host, local, follower } = await makePair(512);
    const one = follower();
    await one.step(signal);
    await host.stop();
    host.app.run("pragma journal_mode = delete");
    host.app.run("pragma page_size = 4096");
    host.app.run("vacuum");
    host.app.run("pragma journal_mode = wal");
    await host.start();
    await host.settle();
    await one.step(signal);
    expectState(local, host.content());
    await change(host, 0);
    await one.step(signal);
    expectState(local, host.content());
  });
});

describe("a crash", () => {
  test("before any durable step leaves one state or the next, and the next run goes on", async () => {
    const { host, local, follower } = await makePair();
    const first = follower();
    await first.step(signal);
    first.close();
    const countSteps = async (failing: number): Promise<number> => {
      let steps = 0;
      observeDurableSteps((step, path) => {
        if (!path.startsWith(join(local, ".."))) return;
        if (steps++ === failing) throw new Error(`crash before ${step} ${path}`);
      });
      const one = follower();
      const outcome = await one.step(signal).then(
        () => "done",
        (error: Error) => error.message,
      );
      observeDurableSteps(null);
      one.close();
      expect(outcome).toMatch(failing < 0 ? /^done$/ : /crash before|cannot be/);
      return steps;
    };
    let before = host.content();
    await change(host, 1);
    const total = await countSteps(-1);
    expect(total).toBeGreaterThan(8);
    for (let failing = 0; failing < total; failing++) {
      before = host.content();
      await change(host, failing % 4);
      await countSteps(failing);
      // As any reader would find it: a hot journal is undone first.
      const reader = new Database(local, { readwrite: true, create: false });
      expect(reader.query("pragma integrity_check").values()).toEqual([["ok"]]);
      reader.close();
      const found = comparable(readFileSync(local));
      expect([failing, [before, host.content()].some((state) => comparable(state).equals(found))]).toEqual([
        failing,
        true,
      ]);
      await follower().step(signal);
      expectState(local, host.content());
      for (const end of ends.splice(2)) await end();
    }
  }, 30_000);
});

describe("a file that is no copy of this database", () => {
  test("is refused, and stays", async () => {
    const { local, follower } = await makePair();
    writeFileSync(local, "somebody else's");
    expect(follower).toThrow(expect.objectContaining({ code: "E_OUTPUT_EXISTS" }));
    expect(readFileSync(local, "utf8")).toBe("somebody else's");
    expect(existsSync(join(local, "..", ".copy.db-walsync-replica"))).toBe(false);
  });

  test("a copy of another database is refused", async () => {
    const { destination, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    one.close();
    expect(() => new Follower(destination, "other", local)).toThrow(
      expect.objectContaining({ code: "E_OUTPUT_EXISTS" }),
    );
  });

  test("a copy that somebody wrote to is told, and not overwritten", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const writer = new Database(local);
    writer.run("create table mine (body)");
    writer.close();
    const content = readFileSync(local);
    await change(host, 0);
    await expect(one.step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    expect(readFileSync(local).equals(content)).toBe(true);
  });

  test("beside a leftover -wal is refused", async () => {
    const { local, follower } = await makePair();
    writeFileSync(`${local}-wal`, "");
    expect(follower).toThrow(expect.objectContaining({ code: "E_OUTPUT_EXISTS" }));
  });
});
