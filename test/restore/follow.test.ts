// Goal: a read copy is at every moment one state that the source had, also for a reader in the middle of
// an update.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { tempDir } from "../support/temp.ts";
import { change, changePageSize, expectState, pairsIn } from "./make-copy.ts";

const dir = tempDir();
const { signal } = new AbortController();
const { ends, makePair } = pairsIn(dir);

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

  test("is made anew in place when increments are missing", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const inode = statSync(local).ino;
    await change(host, 0);
    await change(host, 1);
    await host.replicator.requests.snapshot();
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
    await changePageSize(host, 4096);
    await one.step(signal);
    expectState(local, host.content());
    await change(host, 0);
    await one.step(signal);
    expectState(local, host.content());
  });
});
