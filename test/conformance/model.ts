/**
 * A random sequence of operations against a destination and against a `Map`, which must agree after every step.
 * Set WALSYNC_TEST_SEED to the seed that a failure prints to see it again.
 */
import { expect, test } from "bun:test";
import type { Destination, WriteOptions } from "../../src/destination/destination.ts";
import { compareKeys } from "../../src/destination/keys.ts";
import { foldersOf, keysOf, readText, text } from "./helpers.ts";

const SEED = Number(process.env.WALSYNC_TEST_SEED ?? Date.now() % 2 ** 31);
const STEPS = 150;
// Few and close to each other, so that they collide: folders beside files, prefixes of names, both ends of the order.
const KEYS = ["a/1", "a/1.x", "a/2/1", "a-/1", "a b/ü", "b", "b0", "c/😀/1", "c/\uff5e"];
const PREFIXES = ["", "a/", "a/2/", "c/", "none/"];

interface Stored {
  content: string;
  etag: string;
}

export function destinationModelTest(fresh: () => Promise<Destination>): void {
  test(`${STEPS} random operations leave what the same operations leave in a map`, async () => {
    const destination = await fresh();
    const model = new Map<string, Stored>();
    const random = randomFrom(SEED);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
    const done: string[] = [];
    try {
      for (let step = 0; step < STEPS; step++) {
        const key = pick(KEYS);
        switch (pick(["write", "write", "read", "list", "remove"] as const)) {
          case "write": {
            const condition = pick([undefined, "absent", "right etag", "wrong etag"] as const);
            done.push(`write ${key} ${condition ?? ""}`);
            await writeBoth(destination, model, key, `${step}:${"x".repeat(random() * 50)}`, condition);
            break;
          }
          case "read": {
            done.push(`read ${key}`);
            const stored = model.get(key);
            const body = await destination.head(key);
            expect(body?.sizeBytes).toBe(stored?.content.length);
            if (stored === undefined) expect(await destination.read(key)).toBeNull();
            else {
              const first = Math.floor(random() * (stored.content.length + 5));
              const last = first + Math.floor(random() * 20);
              const expected = stored.content.slice(first, last + 1);
              expect(await readText(destination, key, { range: { first, last } })).toBe(expected);
            }
            break;
          }
          case "list": {
            const prefix = pick(PREFIXES);
            const startAfter = pick([undefined, ...KEYS]);
            done.push(`list ${prefix} after ${startAfter ?? ""}`);
            const expected = [...model.keys()]
              .filter((one) => one.startsWith(prefix) && (startAfter === undefined || compareKeys(one, startAfter) > 0))
              .sort(compareKeys);
            expect(await keysOf(destination, prefix, startAfter)).toEqual(expected);
            expect(await foldersOf(destination, prefix)).toEqual(foldersIn([...model.keys()], prefix));
            break;
          }
          case "remove": {
            const keys = KEYS.filter(() => random() < 0.3);
            done.push(`remove ${keys.join(", ")}`);
            await destination.remove(keys);
            for (const one of keys) model.delete(one);
          }
        }
      }
      for (const [key, { content }] of model) expect(await readText(destination, key)).toBe(content);
    } catch (error) {
      throw new Error(`seed ${SEED}, after: ${done.join("; ")}`, { cause: error });
    }
  });
}

async function writeBoth(
  destination: Destination,
  model: Map<string, Stored>,
  key: string,
  content: string,
  condition: undefined | "absent" | "right etag" | "wrong etag",
): Promise<void> {
  const stored = model.get(key);
  const options: WriteOptions =
    condition === undefined
      ? {}
      : condition === "absent"
        ? { condition }
        : { condition: { etag: condition === "right etag" && stored !== undefined ? stored.etag : '"other"' } };
  const holds =
    condition === undefined ||
    (condition === "absent" && stored === undefined) ||
    (condition === "right etag" && stored !== undefined);
  const result = await destination.write(key, text(content), options);
  expect(result.kind).toBe(holds ? "written" : "refused");
  if (result.kind === "written") model.set(key, { content, etag: result.etag });
}

function foldersIn(keys: readonly string[], prefix: string): string[] {
  const below = keys.filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
  const names = new Set(below.flatMap((rest) => (rest.includes("/") ? [rest.slice(0, rest.indexOf("/"))] : [])));
  return [...names].sort((a, b) => compareKeys(`${a}/`, `${b}/`));
}

/** Mulberry32: numbers from 0 up to 1. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
