import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { resolveRange } from "../../src/destination/chunks.ts";
import type { Destination, ObjectBody, ReadOptions, WriteResult } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { Gate, limitConcurrency } from "../../src/destination/limit.ts";
import { type RetryOptions, retrying, withRetry } from "../../src/destination/retry.ts";
import { DestinationError, WalsyncError } from "../../src/errors.ts";
import { destinationConformance } from "../conformance/destination.ts";
import {
  collectText,
  expectFault,
  foldersOf,
  keysOf,
  ownFilesIn,
  readText,
  rejection,
  text,
} from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";

const root = tempDir();
let count = 0;
const directory = (): DirectoryDestination => new DirectoryDestination(join(root, `d${count++}`));

// Goal: a wrapper is a destination like any other.
destinationConformance("a wrapped directory", async () => ({
  fresh: async () => {
    const destination = withRetry(limitConcurrency(directory(), 4));
    await destination.prepare();
    return destination;
  },
  missing: async () => withRetry(limitConcurrency(directory(), 4)),
  leftovers: async () => ownFilesIn(root),
}));

// Goal: wait longer each time, never in step with others, and not for ever.

describe("waiting", () => {
  test("waits double up to the limit, with full jitter, and end after the last attempt", async () => {
    const { options, waits } = recorded({ attempts: 6, baseDelayMs: 100, maxDelayMs: 500, random: () => 0.5 });
    let tries = 0;
    const action = async () => {
      tries++;
      throw outage();
    };
    await expectFault(retrying("test", action, options), true);
    expect(tries).toBe(6);
    expect(waits).toEqual([50, 100, 200, 250, 250]);
  });

  test("jitter reaches from nothing to the whole wait", async () => {
    for (const [random, expected] of [
      [0, 0],
      [0.999, 99.9],
    ] as const) {
      const { options, waits } = recorded({ attempts: 2, baseDelayMs: 100, random: () => random });
      await expectFault(
        retrying("test", () => Promise.reject(outage()), options),
        true,
      );
      expect(waits[0]).toBeCloseTo(expected);
    }
  });

  test.each([
    ["what will not heal", new DestinationError("refused", { retryable: false })],
    ["a fault of the local disk", new WalsyncError("E_DISK", "broken")],
    ["a bug", new TypeError("bug")],
  ])("%s is thrown at once", async (_law, error) => {
    const { options, waits } = recorded({});
    expect(await rejection(retrying("test", () => Promise.reject(error), options))).toBe(error);
    expect(waits).toEqual([]);
  });

  test("each wait is told before it begins", async () => {
    const notices: string[] = [];
    const { options } = recorded({
      attempts: 3,
      baseDelayMs: 100,
      random: () => 1,
      onRetry: ({ operation, attempt, delayMs, error }) =>
        notices.push(`${operation} ${attempt} ${delayMs} ${error.code}`),
    });
    await expectFault(
      retrying("write app/1", () => Promise.reject(outage()), options),
      true,
    );
    expect(notices).toEqual(["write app/1 1 100 E_UNREACHABLE", "write app/1 2 200 E_UNREACHABLE"]);
  });

  test.each(["of the wrapper", "of the caller"])("a signal %s ends a wait with its reason", async (whose) => {
    const controller = new AbortController();
    const reason = new Error("stop");
    const isCaller = whose === "of the caller";
    const own = { baseDelayMs: 60_000, random: () => 1, ...(isCaller ? {} : { signal: controller.signal }) };
    const pending = retrying("test", () => Promise.reject(outage()), own, isCaller ? controller.signal : undefined);
    setTimeout(() => controller.abort(reason), 10);
    expect(await rejection(pending)).toBe(reason);
  });
});

// Goal: each operation goes on where it broke off, and nothing is given twice or left out.

describe("an unreliable destination", () => {
  test("every operation succeeds in the end", async () => {
    const inner = await filled();
    const { options } = recorded({ attempts: 4 });
    let failures = 0;
    const shaky = broken(inner, () => (failures++ % 3 === 2 ? null : outage()));
    const destination = withRetry(shaky, options);
    await destination.prepare();
    expect((await destination.head("a/1"))?.sizeBytes).toBe(10);
    expect(await readText(destination, "a/1")).toBe("0123456789");
    expect((await destination.write("new", text("x"))).kind).toBe("written");
    await destination.remove(["new"]);
    expect(await keysOf(destination, "")).toEqual(["a/1", "a/2", "b/1", "c/1"]);
    expect(await foldersOf(destination, "")).toEqual(["a", "b", "c"]);
  });

  test("a list that breaks off after every key is complete, and no key comes twice", async () => {
    const inner = await filled();
    const breaking: Destination = {
      ...passing(inner),
      async *list(prefix, options) {
        for await (const info of inner.list(prefix, options)) {
          yield info;
          throw outage();
        }
      },
      async *listFolders(prefix, options) {
        let given = 0;
        for await (const folder of inner.listFolders(prefix, options)) {
          yield folder;
          if (++given > folderRounds) {
            folderRounds++;
            throw outage();
          }
        }
      },
    };
    let folderRounds = 0;
    const destination = withRetry(breaking, recorded({ attempts: 2 }).options);
    expect(await keysOf(destination, "")).toEqual(["a/1", "a/2", "b/1", "c/1"]);
    expect(await foldersOf(destination, "")).toEqual(["a", "b", "c"]);
  });

  test.each([
    ["all of it", undefined, "0123456789", ["0-", "3-9", "6-9", "9-9"]],
    ["a range", { first: 2, last: 7 }, "234567", ["2-7", "5-7"]],
    ["a range past the end", { first: 5, last: 99 }, "56789", ["5-99", "8-9"]],
    ["a range from the end", { first: -5 }, "56789", ["-5-", "8-9"]],
  ] as const)("a body that breaks off every 3 bytes arrives whole: %s", async (_law, range, expected, asked) => {
    const inner = await filled();
    const ranges: string[] = [];
    const destination = withRetry(breakingBodies(inner, 3, ranges), recorded({ attempts: 5 }).options);
    expect(await readText(destination, "a/1", range === undefined ? {} : { range })).toBe(expected);
    expect(ranges).toEqual([...asked]);
  });

  test("a body that never moves on is given up", async () => {
    const inner = await filled();
    const ranges: string[] = [];
    const destination = withRetry(breakingBodies(inner, 0, ranges), recorded({ attempts: 3 }).options);
    await expectFault(readText(destination, "a/1"), true);
    expect(ranges).toEqual(["0-", "0-9", "0-9"]);
  });

  test("an object that was replaced meanwhile is an error, never a mix of both", async () => {
    for (const change of [
      (inner: Destination) => inner.write("a/1", text("abcdefghij")),
      (inner: Destination) => inner.remove(["a/1"]),
    ]) {
      const inner = await filled();
      const destination = withRetry(breakingBodies(inner, 3, []), recorded({}).options);
      const chunks = (await destination.read("a/1"))?.chunks[Symbol.asyncIterator]();
      expect(Buffer.from((await chunks?.next())?.value ?? []).toString()).toBe("012");
      await change(inner);
      const error = await expectFault(Promise.resolve(chunks?.next()), false);
      expect(error.message).toContain("from byte 3");
    }
  });

  test("a write whose answer was lost comes back as refused, and the bytes are there to compare", async () => {
    const inner = await filled();
    let lost = false;
    const losing: Destination = {
      ...passing(inner),
      async write(key, source, options): Promise<WriteResult> {
        const result = await inner.write(key, source, options);
        if (lost) return result;
        lost = true;
        throw outage();
      },
    };
    const destination = withRetry(losing, recorded({}).options);
    expect(await destination.write("new/1", text("mine"), { condition: "absent" })).toEqual({ kind: "refused" });
    expect(await readText(destination, "new/1")).toBe("mine");
  });
});

// Goal: no more requests than allowed are in flight, everybody gets a turn in order, and nobody waits for himself.

describe("limits", () => {
  test("no more run at once than the gate lets through, also across destinations", async () => {
    const gate = new Gate(3);
    let running = 0;
    let most = 0;
    const counting = (inner: Destination): Destination => ({
      ...passing(inner),
      async head(key, options) {
        most = Math.max(most, ++running);
        await Bun.sleep(2);
        running--;
        return await inner.head(key, options);
      },
    });
    const one = limitConcurrency(counting(await filled()), gate);
    const two = limitConcurrency(counting(await filled()), gate);
    const results = await Promise.all(Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? one : two).head("a/1")));
    expect(results.every((head) => head?.sizeBytes === 10)).toBe(true);
    expect(most).toBe(3);
  });

  test("who came first goes first, a failure frees the place, and an abort leaves the line", async () => {
    const gate = new Gate(1);
    const order: number[] = [];
    const controller = new AbortController();
    const run = (n: number, signal?: AbortSignal) =>
      gate.run(async () => {
        order.push(n);
        await Bun.sleep(1);
        if (n === 1) throw new Error("fails");
      }, signal);
    const all = [run(0), run(1), run(2, controller.signal), run(3)];
    controller.abort(new Error("stop"));
    const settled = await Promise.allSettled(all);
    expect(settled.map((one) => one.status)).toEqual(["fulfilled", "rejected", "rejected", "fulfilled"]);
    expect(order).toEqual([0, 1, 3]);
    await gate.run(async () => {});
  });

  test("many bodies may be open side by side, and a list may be read slowly", async () => {
    const destination = limitConcurrency(await filled(), 1);
    const bodies: (ObjectBody | null)[] = [];
    for await (const info of destination.list("")) bodies.push(await destination.read(info.key));
    expect(bodies).toHaveLength(4);
    for (const body of bodies) expect(await collectText(body)).toBe("0123456789");
  });
});

// --- helpers ---

function outage(): DestinationError {
  return new DestinationError("test: expected an answer, found none", { retryable: true });
}

/** Options that wait not at all, and what they would have waited. */
function recorded(options: RetryOptions): { options: RetryOptions; waits: number[] } {
  const waits: number[] = [];
  return { waits, options: { sleep: async (ms) => void waits.push(ms), ...options } };
}

async function filled(): Promise<DirectoryDestination> {
  const destination = directory();
  for (const key of ["a/1", "a/2", "b/1", "c/1"]) await destination.write(key, text("0123456789"));
  return destination;
}

function passing(inner: Destination): Destination {
  return {
    url: inner.url,
    capabilities: inner.capabilities,
    prepare: (options) => inner.prepare(options),
    list: (prefix, options) => inner.list(prefix, options),
    listFolders: (prefix, options) => inner.listFolders(prefix, options),
    head: (key, options) => inner.head(key, options),
    read: (key, options) => inner.read(key, options),
    write: (key, source, options) => inner.write(key, source, options),
    remove: (keys, options) => inner.remove(keys, options),
    close: () => inner.close(),
  };
}

/** Asks `fault` before each request whether it fails. */
function broken(inner: Destination, fault: () => Error | null): Destination {
  const check = (): void => {
    const error = fault();
    if (error !== null) throw error;
  };
  const pass = passing(inner);
  return {
    ...pass,
    prepare: async (options) => {
      check();
      await pass.prepare(options);
    },
    async *list(prefix, options) {
      check();
      yield* pass.list(prefix, options);
    },
    async *listFolders(prefix, options) {
      check();
      yield* pass.listFolders(prefix, options);
    },
    head: async (key, options) => {
      check();
      return await pass.head(key, options);
    },
    read: async (key, options) => {
      check();
      return await pass.read(key, options);
    },
    write: async (key, source, options) => {
      check();
      return await pass.write(key, source, options);
    },
    remove: async (keys, options) => {
      check();
      await pass.remove(keys, options);
    },
  };
}

/** Gives at most `limit` bytes of each body, then fails. Notes the ranges that were asked for. */
function breakingBodies(inner: Destination, limit: number, ranges: string[]): Destination {
  return {
    ...passing(inner),
    async read(key: string, options: ReadOptions = {}) {
      ranges.push(options.range === undefined ? "0-" : `${options.range.first}-${options.range.last ?? ""}`);
      const body = await inner.read(key, options);
      if (body === null) return null;
      const { first, end } = resolveRange(options.range, body.sizeBytes);
      const chunks = (async function* () {
        for await (const chunk of body.chunks) {
          if (chunk.length === end - first && chunk.length <= limit) yield chunk;
          else {
            if (limit > 0) yield chunk.subarray(0, limit);
            throw outage();
          }
        }
      })();
      return { ...body, chunks };
    },
  };
}
