// Goal: what is asked of a destination is counted once, by what came of it, with its bytes; and it is the same destination.
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { measured, receivedBytes, requests, sentBytes } from "../../src/destination/measure.ts";
import { withRetry } from "../../src/destination/retry.ts";
import { DestinationError } from "../../src/errors.ts";
import { destinationConformance } from "../conformance/destination.ts";
import { ownFilesIn } from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const bytes = new Uint8Array(1000).fill(7);

destinationConformance("a measured directory", async () => ({
  fresh: async () => {
    const destination = measured(new DirectoryDestination(join(dir, crypto.randomUUID())));
    await destination.prepare();
    return destination;
  },
  missing: async () => measured(new DirectoryDestination(join(dir, crypto.randomUUID()))),
  leftovers: async () => ownFilesIn(dir),
}));

/** What `action` adds to the counters. */
async function added(action: () => Promise<unknown>): Promise<Record<string, number>> {
  const read = (): Record<string, number> => {
    const values: Record<string, number> = { sent: sentBytes.valueOf({}), received: receivedBytes.valueOf({}) };
    for (const operation of ["prepare", "list", "head", "read", "write", "remove"])
      for (const result of ["ok", "missing", "condition", "unreachable", "refused", "aborted", "failed"])
        values[`${operation} ${result}`] = requests.valueOf({ operation, result });
    return values;
  };
  const before = read();
  await action();
  return Object.fromEntries(
    Object.entries(read())
      .map(([name, value]) => [name, value - before[name]!] as const)
      .filter(([, value]) => value !== 0),
  );
}

async function readAll(destination: Destination, key: string): Promise<number> {
  let size = 0;
  for await (const chunk of (await destination.read(key))!.chunks) size += chunk.length;
  return size;
}

describe("a directory, measured", () => {
  const destination = measured(new DirectoryDestination(join(dir, "bucket")));
  const write = (options = {}) => destination.write("a/b", { kind: "bytes", bytes }, options);

  test("counts each request by its result", async () => {
    expect(await added(() => destination.prepare())).toEqual({ "prepare ok": 1 });
    expect(await added(() => write())).toEqual({ "write ok": 1, sent: 1000 });
    expect(await added(() => write({ condition: "absent" }))).toMatchObject({ "write condition": 1 });
    expect(await added(() => destination.head("a/b"))).toEqual({ "head ok": 1 });
    expect(await added(() => destination.head("a/c"))).toEqual({ "head missing": 1 });
    expect(await added(() => destination.read("a/c"))).toEqual({ "read missing": 1 });
    expect(await added(() => readAll(destination, "a/b"))).toEqual({ "read ok": 1, received: 1000 });
    expect(await added(() => Array.fromAsync(destination.list("")))).toEqual({ "list ok": 1 });
    expect(await added(() => Array.fromAsync(destination.listFolders("")))).toEqual({ "list ok": 1 });
    expect(await added(() => destination.remove(["a/b"]))).toEqual({ "remove ok": 1 });
    const signal = AbortSignal.abort();
    expect(await added(() => write({ signal }).catch(() => {}))).toEqual({ "write aborted": 1 });
  });

  test("counts a body that is given up, and a list that is left, once", async () => {
    await write();
    const leave = async () => {
      for await (const _ of destination.list("")) break;
    };
    expect(await added(leave)).toEqual({ "list ok": 1 });
    const giveUp = async () => {
      await (await destination.read("a/b"))!.chunks[Symbol.asyncIterator]().return?.();
    };
    expect(await added(giveUp)).toEqual({ "read ok": 1 });
  });

  test("counts every try", async () => {
    let failures = 2;
    const inner = new DirectoryDestination(join(dir, "bucket"));
    inner.head = async () => {
      if (failures-- > 0) throw new DestinationError("busy", { retryable: true });
      throw new DestinationError("no", { retryable: false });
    };
    const retried = withRetry(measured(inner), { baseDelayMs: 0 });
    const counts = await added(() => retried.head("a/b").catch(() => {}));
    expect(counts).toEqual({ "head unreachable": 2, "head refused": 1 });
  });
});
