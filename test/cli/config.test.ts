// Goal: a time or a size means one thing, and half-given settings are refused before anything is sent.
import { describe, expect, test } from "bun:test";
import { parseDuration, parseSize, resolveS3Settings } from "../../src/config.ts";

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

describe("S3 settings", () => {
  const pair = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" };

  test("come from the environment, with a default region", () => {
    const env = { ...pair, AWS_SESSION_TOKEN: "token", AWS_ENDPOINT_URL_S3: "http://localhost:9000" };
    expect(resolveS3Settings(env)).toEqual({
      endpoint: "http://localhost:9000",
      region: "us-east-1",
      credentials: { accessKeyId: "id", secretAccessKey: "secret", sessionToken: "token" },
    });
  });

  test("a flag beats the environment, an empty variable is none", () => {
    const env = { AWS_ENDPOINT_URL_S3: "http://env", AWS_REGION: "", AWS_SESSION_TOKEN: "" };
    expect(resolveS3Settings(env, { endpoint: "https://flag" })).toEqual({
      endpoint: "https://flag",
      region: "us-east-1",
      credentials: undefined,
    });
  });

  test.each([["AWS_ACCESS_KEY_ID"], ["AWS_SECRET_ACCESS_KEY"]])("%s alone is refused", (name) => {
    expect(() => resolveS3Settings({ [name]: "x" })).toThrow(`${name} is set`);
  });

  test.each(["localhost:9000", "s3://bucket", "not a url"])("the endpoint %p is refused", (endpoint) => {
    expect(() => resolveS3Settings(pair, { endpoint })).toThrow("S3 endpoint: expected a URL");
  });
});
