// Goal: one event is one line that both people and programs can read, whatever the values are.
import { describe, expect, test } from "bun:test";
import { formatEvent, redact, table } from "../../src/log.ts";
import { formatBytes, formatDuration } from "../../src/quantities.ts";

const at = new Date(0);

describe("an event", () => {
  test("is one line of text, whatever its values hold", () => {
    const line = formatEvent(
      at,
      "warn",
      "retry",
      { key: "a b\nc", error: new Error('no "x"\nat all'), attempt: 2 },
      "text",
    );
    expect(line).toBe('1970-01-01T00:00:00.000Z warn  retry key="a b\\nc" error="no \\"x\\" at all" attempt=2');
  });

  test("leaves out what is undefined", () => {
    expect(formatEvent(at, "info", "idle", { database: undefined }, "text")).toEndWith(" idle");
  });

  test("keeps every digit of a txid in JSON", () => {
    const json = (txid: bigint) => JSON.parse(formatEvent(at, "info", "shipped", { txid }, "json")).txid;
    expect(json(12n)).toBe(12);
    expect(json(2n ** 64n - 1n)).toBe("18446744073709551615");
  });

  test("is coloured only when asked", () => {
    expect(formatEvent(at, "error", "failed", {}, "text", true)).toContain("\u001b[31m");
    expect(formatEvent(at, "error", "failed", {}, "text", false)).not.toContain("\u001b");
  });
});

describe("redact", () => {
  test.each([
    ["https://user:pass@host/path", "https://***@host/path"],
    ["s3://key:sec@bucket and https://k@h", "s3://***@bucket and https://***@h"],
    ["https://host/path@2x", "https://host/path@2x"],
    ["mail me@example.com", "mail me@example.com"],
  ])("%p becomes %p", (text, safe) => expect(redact(text, {})).toBe(safe));

  test("hides every copy of a secret", () => {
    expect(redact("k=abcd abcd", { AWS_SECRET_ACCESS_KEY: "abcd" })).toBe("k=*** ***");
  });
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1 KiB"],
  [1536, "1.5 KiB"],
  [1024 * 1024 - 1, "1 MiB"],
  [64 * 1024 * 1024, "64 MiB"],
])("%p bytes are %p", (sizeBytes, text) => expect(formatBytes(sizeBytes)).toBe(text));

test.each([
  [0, "0 ms"],
  [999.6, "1 s"],
  [1500, "1.5 s"],
  [59_970, "1 min 00 s"],
  [125_000, "2 min 05 s"],
  [3_599_900, "1 h 00 min"],
  [11_220_000, "3 h 07 min"],
  [187_200_000, "2 d 04 h"],
])("%p ms are %p", (durationMs, text) => expect(formatDuration(durationMs)).toBe(text));

test("columns line up, numbers to the right, no white space at line ends", () => {
  const rows = [
    ["NAME", "FILES", "NEWEST"],
    ["app", "3", "now"],
    ["größer", "1200", ""],
  ];
  expect(table(rows, [1])).toBe("NAME    FILES  NEWEST\napp         3  now\ngrößer   1200");
});
