// Goal: a time or a size means one thing, and what means nothing is refused.
import { describe, expect, test } from "bun:test";
import { parseDuration, parseSize } from "../../src/config.ts";

describe("durations", () => {
  test.each([
    ["500ms", 500],
    ["1s", 1000],
    ["5m", 300_000],
    ["1h", 3_600_000],
    ["2d", 172_800_000],
    ["1.5s", 1500],
    ["3600", 3_600_000],
    ["0", 0],
  ])("%p is %p ms", (text, ms) => expect(parseDuration(text)).toBe(ms));

  test.each(["", "s", "-1", "1 fortnight", "1h30m", "0x10", "1e3", "Infinity", "1H", "99999999999999999d"])(
    "%p is refused",
    (text) => {
      expect(() => parseDuration(text, "--interval")).toThrow("--interval: expected a duration");
    },
  );
});

describe("sizes", () => {
  test.each([
    ["4096", 4096],
    ["4096B", 4096],
    ["64MiB", 67_108_864],
    ["64 MiB", 67_108_864],
    ["1GB", 1_000_000_000],
    ["512k", 512_000],
    ["1.5Ki", 1536],
    ["1tib", 1_099_511_627_776],
  ])("%p is %p bytes", (text, bytes) => expect(parseSize(text)).toBe(bytes));

  test.each(["", "MiB", "-1", "1XB", "1i", "1iB", "1e6", "99999999TiB"])("%p is refused", (text) => {
    expect(() => parseSize(text, "--max-outbox")).toThrow("--max-outbox: expected a size");
  });
});
