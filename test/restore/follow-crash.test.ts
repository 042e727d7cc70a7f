// Goal: whatever step of an update a process dies at, whoever opens the copy next with nothing but SQLite finds the state before
// or the state after, whole; and the next run goes on. A fault that is no crash leaves the same behind at once.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { observeDurableSteps } from "../../src/durable.ts";
import { Follower } from "../../src/restore/follow.ts";
import { tempDir } from "../support/temp.ts";
import { change, changePageSize, comparable, expectState, type Pair, pairsIn } from "./make-copy.ts";

const dir = tempDir();
const { signal } = new AbortController();
const { ends, makePair } = pairsIn(dir);

/** What another program finds: SQLite's own shell where there is one. */
function integrityOf(path: string): string {
  const shell = Bun.which("sqlite3");
  if (shell !== null) return Bun.spawnSync([shell, path, "pragma integrity_check"]).stdout.toString().trim();
  const reader = new Database(path, { readwrite: true, create: false });
  const found = String(reader.query("pragma integrity_check").values());
  reader.close();
  return found;
}

const growing = ({ host }: Pair) => change(host, 1);
const shrinking = async ({ host }: Pair): Promise<void> => {
  host.app.run("delete from item where id > 2");
  host.app.run("vacuum");
  await host.settle();
};
const otherPages = ({ host }: Pair) => changePageSize(host, 2048);
const gap = async ({ host }: Pair): Promise<void> => {
  await change(host, 0);
  await change(host, 1);
  await host.replicator.requests.snapshot();
  await host.settle();
  rmSync(join(host.bucketFolder, "00000002-00000002.ltx"));
};

describe.each([
  ["grows", growing],
  ["shrinks", shrinking],
  ["gets pages of another size", otherPages],
  ["is made anew", gap],
] as const)("a copy that %s", (_how, make) => {
  test("survives a kill before every step", async () => {
    const pair = await makePair(512);
    const { host, destination, local } = pair;
    const one = pair.follower();
    await one.step(signal);
    one.close();
    const before = comparable(readFileSync(local));
    await make(pair);
    const after = comparable(host.content());
    let sawOld = 0;
    let sawNew = 0;
    for (let fatal = 0; ; fatal++) {
      const folder = join(dir, crypto.randomUUID());
      cpSync(dirname(local), folder, { recursive: true });
      const copy = join(folder, "copy.db");
      const child = Bun.spawnSync(
        [process.execPath, join(import.meta.dir, "follow-child.ts"), destination.url, copy, String(fatal)],
        { stderr: "inherit" },
      );
      if (child.signalCode === undefined) {
        expect(child.exitCode).toBe(0);
        break;
      }
      expect(child.signalCode).toBe("SIGKILL");
      expect([fatal, integrityOf(copy)]).toEqual([fatal, "ok"]);
      expect(existsSync(`${copy}-journal`)).toBe(false);
      const found = comparable(readFileSync(copy));
      if (found.equals(before)) sawOld++;
      else if (found.equals(after)) sawNew++;
      else throw new Error(`killed before step ${fatal}: expected the state before or after, found another`);
      const next = new Follower(destination, "app", copy);
      await next.step(signal);
      next.close();
      expectState(copy, host.content());
      rmSync(folder, { recursive: true });
    }
    // Pages, truncation, journal and state are steps of their own.
    expect(sawOld).toBeGreaterThan(8);
    expect(sawNew).toBeGreaterThan(2);
  }, 60_000);

  test("is whole at once after a fault at any step, also for readers that may not write", async () => {
    for (let failing = 0; ; failing++) {
      const pair = await makePair(512);
      const { host, local } = pair;
      const one = pair.follower();
      await one.step(signal);
      const before = comparable(readFileSync(local));
      await make(pair);
      let steps = 0;
      observeDurableSteps((_step, path) => {
        if (path.startsWith(dirname(local)) && steps++ === failing) {
          throw Object.assign(new Error("the disk is full"), { code: "ENOSPC" });
        }
      });
      const outcome = await one.step(signal).then(
        () => "done",
        (error) => error.code,
      );
      observeDurableSteps(null);
      if (steps <= failing) {
        expect(failing).toBeGreaterThan(8);
        expect(outcome).toBe("done");
        break;
      }
      expect([failing, outcome]).toEqual([failing, "E_DISK"]);
      const reader = new Database(local, { readonly: true });
      expect(reader.query("pragma integrity_check").values()).toEqual([["ok"]]);
      reader.close();
      const found = comparable(readFileSync(local));
      expect([failing, found.equals(before) || found.equals(comparable(host.content()))]).toEqual([failing, true]);
      // The same process goes on.
      await one.step(signal);
      expectState(local, host.content());
      for (const end of ends.splice(0).reverse()) await end();
    }
  }, 60_000);
});

describe("the first state", () => {
  test("is there whole or not at all after a kill before every step", async () => {
    const { host, destination } = await makePair(512);
    for (let fatal = 0; ; fatal++) {
      const folder = join(dir, crypto.randomUUID());
      mkdirSync(folder);
      const copy = join(folder, "copy.db");
      const child = Bun.spawnSync(
        [process.execPath, join(import.meta.dir, "follow-child.ts"), destination.url, copy, String(fatal)],
        { stderr: "inherit" },
      );
      if (existsSync(copy)) expectState(copy, host.content());
      const next = new Follower(destination, "app", copy);
      await next.step(signal);
      next.close();
      expectState(copy, host.content());
      expect(readdirSync(folder).sort()).toEqual([".copy.db-walsync-replica", "copy.db"]);
      if (child.signalCode === undefined) break;
    }
  }, 60_000);
});
