// Goal: what is encrypted and not yet stored is bounded, however many databases are shipped at once; none of it is on the disk.
import { describe, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import type { Destination, WriteSource } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { limitConcurrency } from "../../src/destination/limit.ts";
import { keysOf, rejection } from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";
import { encryptedWith, makeKeys } from "./make.ts";

const folder = tempDir();
const keys = await makeKeys(join(folder, "key.txt"));
let count = 0;

/** Counts what has been encrypted and handed on, in the gate of requests or behind it. Each write takes `delayMs`. */
function makePlace(delayMs: number, sources: string) {
  const held = { now: 0, most: 0, beside: 0, written: 0 };
  const root = join(folder, `place${count++}`);
  const slow = new (class extends DirectoryDestination {
    override async write(...args: Parameters<Destination["write"]>) {
      await Bun.sleep(delayMs);
      held.written++;
      return await super.write(...args);
    }
  })(root);
  const limited = limitConcurrency(slow, 16);
  const write = limited.write.bind(limited);
  limited.write = async (...args) => {
    held.most = Math.max(held.most, ++held.now);
    held.beside = Math.max(held.beside, readdirSync(sources).length);
    try {
      return await write(...args);
    } finally {
      held.now--;
    }
  };
  return {
    held,
    destination: encryptedWith(limited, { recipients: [keys.recipient], identityFile: keys.identityFile }),
  };
}

function makeSources(files: number, sizeBytes: number): { folder: string; sources: WriteSource[] } {
  const path = tempDir();
  const sources = Array.from({ length: files }, (_, i): WriteSource => {
    const file = join(path, `${i}`);
    writeFileSync(file, Buffer.alloc(sizeBytes, i));
    return { kind: "file", path: file, sizeBytes };
  });
  return { folder: path, sources };
}

describe("of many writes at once", () => {
  test("four are encrypted in memory, and all are written", async () => {
    const { folder: path, sources } = makeSources(60, 1_000_000);
    const { held, destination } = makePlace(5, path);
    await Promise.all(sources.map((source, i) => destination.write(`${i}`, source)));
    expect(held).toEqual({ now: 0, most: 4, beside: 60, written: 60 });
  }, 30_000);

  test("large ones have no copy on the disk, and small ones do not wait for them", async () => {
    const { folder: path, sources } = makeSources(8, MiB + 1);
    const { held, destination } = makePlace(5, path);
    const large = sources.map((source, i) => destination.write(`large${i}`, source));
    const order: string[] = [];
    await Promise.all([
      Promise.all(large).then(() => order.push("large")),
      destination.write("small", { kind: "bytes", bytes: Buffer.from("x") }).then(() => order.push("small")),
    ]);
    expect(order).toEqual(["small", "large"]);
    expect(held).toMatchObject({ now: 0, beside: 8, written: 9 });
  }, 30_000);

  test.each([1000, MiB + 1])("of %d bytes, those that wait are given up with the signal", async (sizeBytes) => {
    const { folder: path, sources } = makeSources(8, sizeBytes);
    const { destination } = makePlace(300, path);
    const stop = new AbortController();
    const first = sources.slice(0, 4).map((source, i) => destination.write(`${i}`, source));
    const rest = sources.slice(4).map((source, i) => destination.write(`r${i}`, source, { signal: stop.signal }));
    const reasons = Promise.all(rest.map((one) => rejection(one)));
    stop.abort(new Error("enough"));
    expect((await reasons).map((reason) => (reason as Error).message)).toEqual(Array(4).fill("enough"));
    await Promise.all(first);
    await destination.write("after", sources[0]!);
    expect(await keysOf(destination, "")).toEqual(["0", "1", "2", "3", "after"]);
  });
});
