// Goal: every restore point gives exactly the bytes that the database had then, and until it is proven nothing has the
// output's name.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { observeDurableSteps } from "../../src/durable.ts";
import { Host } from "../replication/host.ts";
import { tempDir } from "../support/temp.ts";
import { makeChain, outcomeOf, restoreTo, timeTarget, txidTarget } from "./make.ts";

const dir = tempDir();
const chain = await makeChain(join(dir, "chain"));
const newest = [...chain.states.keys()].at(-1)!;
let outputs = 0;
const newOutput = () => join(dir, `output-${outputs++}`, "restored.db");

describe("every restore point", () => {
  test.each([
    [512, [4n]],
    [4096, []],
    [65536, [1n, 2n, 6n]],
  ])("gives its bytes, page size %p, snapshots at %p", async (pageSize, snapshotsAt) => {
    const made = await makeChain(join(dir, `pages-${pageSize}`), { pageSize, snapshotsAt });
    expect(made.states.size).toBe(7);
    for (const [txid, content] of made.states) {
      const output = newOutput();
      const result = await restoreTo(made, output, txidTarget(txid));
      expect(Buffer.compare(readFileSync(output), content)).toBe(0);
      expect(result).toMatchObject({ txid, sizeBytes: content.length, pageCount: content.length / pageSize });
      expect(result.timestampMs).toBe(made.timestamps.get(txid)!);
    }
  });

  test("the newest is the default, and is an SQLite database", async () => {
    const output = newOutput();
    expect((await restoreTo(chain, output, { kind: "newest" })).txid).toBe(newest);
    expect(Buffer.compare(readFileSync(output), chain.states.get(newest)!)).toBe(0);
    const database = new Database(output, { readwrite: true, create: false });
    database.run("insert into item (body) values (1)");
    database.close();
  });

  test("is told by its time: at or before, never after", async () => {
    const output = newOutput();
    for (const [txid, atMs] of chain.timestamps) {
      // Of several states in one millisecond the last one is meant.
      const last = [...chain.timestamps].findLast(([, other]) => other === atMs)![0];
      expect(
        Buffer.compare((await outcomeOf(chain, output, timeTarget(atMs))) as Uint8Array, chain.states.get(last)!),
      ).toBe(0);
      const before = [...chain.timestamps].findLast(([, other]) => other < atMs)?.[0];
      const found = await outcomeOf(chain, output, timeTarget(atMs - 1));
      if (before === undefined) expect(found).toBe("E_NOT_FOUND");
      else expect(Buffer.compare(found as Uint8Array, chain.states.get(before)!)).toBe(0);
      expect(txid).toBeLessThanOrEqual(last);
    }
    const future = await outcomeOf(chain, output, timeTarget(Date.now() + 1e9));
    expect(Buffer.compare(future as Uint8Array, chain.states.get(newest)!)).toBe(0);
  });

  test.each([0n, 8n, 2n ** 63n])("txid %p is none", async (txid) => {
    expect(await outcomeOf(chain, newOutput(), txidTarget(txid))).toBe("E_NOT_FOUND");
  });
});

describe("the output", () => {
  test("is not replaced", async () => {
    const output = newOutput();
    mkdirSync(join(output, ".."));
    writeFileSync(output, "precious");
    await expect(restoreTo(chain, output, { kind: "newest" })).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    expect(readFileSync(output, "utf8")).toBe("precious");
  });

  test("is replaced with force, whole and at once", async () => {
    const output = newOutput();
    mkdirSync(join(output, ".."));
    writeFileSync(output, "old");
    const onProgress = () => void expect(readFileSync(output, "utf8")).toBe("old");
    await restoreTo(chain, output, { kind: "newest" }, { force: true, onProgress });
    expect(Buffer.compare(readFileSync(output), chain.states.get(newest)!)).toBe(0);
  });

  test("that appears meanwhile is not replaced", async () => {
    const output = newOutput();
    const onProgress = () => writeFileSync(output, "made by an application");
    const restoring = restoreTo(chain, output, { kind: "newest" }, { onProgress });
    await expect(restoring).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    expect(readFileSync(output, "utf8")).toBe("made by an application");
    expect(readdirSync(join(output, ".."))).toEqual(["restored.db"]);
  });

  test.each(["-wal", "-shm", "-journal"])("beside a leftover %s is refused, with force too", async (suffix) => {
    const output = newOutput();
    mkdirSync(join(output, ".."));
    writeFileSync(output + suffix, "old");
    for (const force of [false, true]) {
      const restoring = restoreTo(chain, output, { kind: "newest" }, { force });
      await expect(restoring).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    }
    expect(readdirSync(join(output, ".."))).toEqual([`restored.db${suffix}`]);
  });

  test("below folders that are missing", async () => {
    const output = join(dir, "a", "b", "c", "restored.db");
    await restoreTo(chain, output, { kind: "newest" });
    expect(statSync(output).mode & 0o777).toBe(0o600);
  });

  test("of a name with signs that mean something in a URI", async () => {
    const output = join(dir, "50% of #1?&mode=memory", "ä b.db");
    await restoreTo(chain, output, { kind: "newest" });
    expect(Buffer.compare(readFileSync(output), chain.states.get(newest)!)).toBe(0);
  });

  test("in a place that is no folder", async () => {
    const file = join(dir, "no-folder");
    writeFileSync(file, "");
    const restoring = restoreTo(chain, join(file, "restored.db"), { kind: "newest" });
    await expect(restoring).rejects.toMatchObject({ code: "E_DISK" });
  });
});

describe("a restore that ends early", () => {
  test("leaves nothing when it is aborted, at any moment", async () => {
    for (let after = 0; after < chain.objects.length; after++) {
      const output = newOutput();
      const abort = new AbortController();
      let calls = 0;
      const onProgress = () => {
        if (calls++ === after) abort.abort();
      };
      const restoring = restoreTo(chain, output, txidTarget(3n), { signal: abort.signal, onProgress });
      if (after >= 3) await restoring;
      else await expect(restoring).rejects.toThrow();
      expect(readdirSync(join(output, ".."))).toEqual(after >= 3 ? ["restored.db"] : []);
    }
  });

  // A whole database takes seconds to read back, and whoever asked it to end, a watch with its drill, waits for that.
  test("while the written file is read back ends then, and leaves nothing", async () => {
    const output = newOutput();
    const stop = new AbortController();
    observeDurableSteps((step, path) => {
      if (step === "sync" && path.endsWith(".tmp-restore")) setImmediate(() => stop.abort());
    });
    const restored = restoreTo(chain, output, { kind: "newest" }, { signal: stop.signal, integrity: "none" });
    await expect(restored.finally(() => observeDurableSteps(null))).rejects.toMatchObject({ name: "AbortError" });
    expect(readdirSync(join(output, ".."))).toEqual([]);
  });

  test("leaves nothing under the output's name when it is killed, and the next one clears what it left", async () => {
    const output = newOutput();
    const script = join(import.meta.dir, "restore-child.ts");
    const child = Bun.spawn([process.execPath, script, join(chain.folder, ".."), output], { stdout: "pipe" });
    for await (const _ of child.stdout) break; // It has begun to write.
    child.kill("SIGKILL");
    await child.exited;
    expect(readdirSync(join(output, ".."))).toEqual(["restored.db.tmp-restore"]);
    await restoreTo(chain, output, { kind: "newest" });
    expect(readdirSync(join(output, ".."))).toEqual(["restored.db"]);
    expect(Buffer.compare(readFileSync(output), chain.states.get(newest)!)).toBe(0);
  });

  test.each([true, false])(
    "EIO at any durable step is E_DISK; the output is old or new as a whole, force %p",
    async (force) => {
      const old = Buffer.from("what was there before");
      const restored = chain.states.get(newest)!;
      const failAt = async (failing: number): Promise<{ output: string; steps: number }> => {
        const output = newOutput();
        mkdirSync(join(output, ".."));
        if (force) writeFileSync(output, old);
        let steps = 0;
        observeDurableSteps((step, path) => {
          if (!path.startsWith(join(output, "..")) || steps++ !== failing) return;
          throw Object.assign(new Error(`EIO at ${step}`), { code: "EIO" });
        });
        const restoring = restoreTo(chain, output, { kind: "newest" }, { force });
        const failure = await restoring.then(() => null).catch((error) => error.code);
        observeDurableSteps(null);
        expect([failing, failure]).toEqual([failing, failing < 0 ? null : "E_DISK"]);
        return { output, steps };
      };
      const { steps } = await failAt(-1);
      expect(steps).toBeGreaterThan(1);
      for (let failing = 0; failing < steps; failing++) {
        const { output } = await failAt(failing);
        const left = readdirSync(join(output, ".."));
        expect(left).toEqual(force || left.length > 0 ? ["restored.db"] : []);
        if (left.length > 0) expect([restored, old].some((state) => readFileSync(output).equals(state))).toBe(true);
      }
    },
  );

  test("two to one output: one of them is refused", async () => {
    const output = newOutput();
    const [first, second] = await Promise.allSettled([
      restoreTo(chain, output, { kind: "newest" }),
      restoreTo(chain, output, { kind: "newest" }),
    ]);
    expect([first.status, second.status].sort()).toEqual(["fulfilled", "rejected"]);
    const refused = first.status === "rejected" ? first : (second as PromiseRejectedResult);
    expect(["E_LOCKED", "E_OUTPUT_EXISTS"]).toContain(refused.reason.code);
    expect(readdirSync(join(output, ".."))).toEqual(["restored.db"]);
  });
});

test("memory does not grow with the database", async () => {
  const host = new Host(join(dir, "large"));
  host.create(4096);
  host.insert(60, 1 << 20);
  await host.start();
  await host.settle();
  host.insert(60, 1 << 20);
  await host.settle();
  await host.end();
  const peakOf = async (bucket: string) => {
    const script = join(import.meta.dir, "restore-child.ts");
    const child = Bun.spawn([process.execPath, script, bucket, newOutput(), "to-the-end"], { stdout: "pipe" });
    const text = await new Response(child.stdout).text();
    expect(await child.exited).toBe(0);
    return Number(text.trim().split("\n").at(-1));
  };
  const small = await peakOf(join(chain.folder, ".."));
  const large = await peakOf(join(host.bucketFolder, ".."));
  expect(large - small).toBeLessThan(40e6);
}, 30_000);
