/** A body as an iterable that can be read once and given up at any moment. */
import { assert } from "../assert.ts";

/**
 * Iterates `next` until it returns null. `close` runs exactly once: at the end, after an error, or at `return()`, even
 * if that comes before the first chunk (a generator would not run its `finally` then, and leak the file or connection).
 */
export function readOnce(
  next: () => Promise<Uint8Array | null>,
  close: () => Promise<void> | void = () => {},
): AsyncIterable<Uint8Array> {
  let started = false;
  let closed = false;
  const closeOnce = async (): Promise<void> => {
    if (closed) return;
    closed = true;
    await close();
  };
  const iterator: AsyncIterator<Uint8Array> = {
    async next() {
      if (closed) return { done: true, value: undefined };
      try {
        const chunk = await next();
        if (chunk !== null) return { done: false, value: chunk };
      } catch (error) {
        await closeOnce();
        throw error;
      }
      await closeOnce();
      return { done: true, value: undefined };
    },
    async return() {
      await closeOnce();
      return { done: true, value: undefined };
    },
  };
  return {
    [Symbol.asyncIterator]() {
      assert(!started, "a body is iterated once");
      started = true;
      return iterator;
    },
  };
}

/** The absolute bytes that a range means in an object of `sizeBytes`: `first` up to, but not including, `end`. */
export function resolveRange(
  range: { first: number; last?: number } | undefined,
  sizeBytes: number,
): { first: number; end: number } {
  if (range === undefined) return { first: 0, end: sizeBytes };
  assert(Number.isSafeInteger(range.first), "a range begins at a whole byte");
  if (range.first < 0) {
    assert(range.last === undefined, "a range counted from the end has no last byte");
    return { first: Math.max(0, sizeBytes + range.first), end: sizeBytes };
  }
  const last = range.last ?? Number.MAX_SAFE_INTEGER - 1;
  assert(last >= range.first, "a range ends behind its beginning");
  return { first: Math.min(range.first, sizeBytes), end: Math.min(last + 1, sizeBytes) };
}
