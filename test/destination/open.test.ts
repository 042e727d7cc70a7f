import { expect, test } from "bun:test";
import { join } from "node:path";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { openDestination, parseDestinationUrl, resolveS3 } from "../../src/destination/open.ts";
import { exitStatus, WalsyncError } from "../../src/errors.ts";
import { tempDir } from "../support/temp.ts";

const folder = tempDir();

// Goal: what a user writes is taken to mean one thing, or is refused with a hint.

test.each([
  ["s3://bucket", { kind: "s3", bucket: "bucket", prefix: "" }],
  ["s3://bucket/", { kind: "s3", bucket: "bucket", prefix: "" }],
  ["s3://bucket/a/b/", { kind: "s3", bucket: "bucket", prefix: "a/b" }],
  ["S3://bucket/a b%20c", { kind: "s3", bucket: "bucket", prefix: "a b%20c" }],
  [
    "s3://bucket/p?endpoint=http://localhost:9000/&region=eu-west-1&forcePathStyle=false",
    {
      kind: "s3",
      bucket: "bucket",
      prefix: "p",
      endpoint: "http://localhost:9000",
      region: "eu-west-1",
      forcePathStyle: false,
    },
  ],
  [
    "s3://bucket?endpoint=localhost:9000",
    { kind: "s3", bucket: "bucket", prefix: "", endpoint: "https://localhost:9000" },
  ],
  [
    "s3://bucket?force-path-style=true&skip-verify=false",
    { kind: "s3", bucket: "bucket", prefix: "", forcePathStyle: true },
  ],
  ["file:///var/backups", { kind: "directory", path: "/var/backups" }],
  ["file:///var/my%20backups", { kind: "directory", path: "/var/my backups" }],
  ["file://localhost/var", { kind: "directory", path: "/var" }],
  ["/var/backups", { kind: "directory", path: "/var/backups" }],
  ["./backups", { kind: "directory", path: "./backups" }],
  ["backups/today", { kind: "directory", path: "backups/today" }],
  ["with?query#hash", { kind: "directory", path: "with?query#hash" }],
] as const)("%s is understood", (text, expected) => {
  expect(parseDestinationUrl(text)).toEqual(expected);
});

test.each([
  "",
  "  ",
  "s3://",
  "s3:///prefix",
  "s3:bucket",
  "s3://b",
  "s3://bu cket/p",
  "s3://key:hunter2@bucket/p",
  "s3://bucket/a//b",
  "s3://bucket/../b",
  "s3://bucket?secret=hunter2",
  "s3://bucket?region=a&region=b",
  "s3://bucket?region=",
  "s3://bucket?forcePathStyle=maybe",
  "s3://bucket?skipVerify=true",
  "s3://bucket?skip-verify=true",
  "s3://bucket?endpoint=ftp://host",
  "s3://bucket?endpoint=https://me:hunter2@host",
  "s3://bucket?endpoint=",
  "https://bucket.s3.amazonaws.com/",
  "gs://bucket",
  "file://host/path",
  "file:/path",
  "file:///path?hunter2",
  "path\0",
])("%j is refused with a hint and exit status 2, and no secret is told", (text) => {
  try {
    parseDestinationUrl(text);
    throw new Error("expected a refusal");
  } catch (error) {
    if (!(error instanceof WalsyncError)) throw error;
    expect(exitStatus(error)).toBe(2);
    expect(error.hint).toBeString();
    expect(Bun.inspect(error, { depth: 20 }).replaceAll(/^.*"s3:.*$/gm, "")).not.toContain("hunter2");
    expect(error.message + error.hint).not.toContain("hunter2");
  }
});

// Goal: URL beats settings beats environment beats defaults.

const CREDENTIALS = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "hunter2" };
const ADDRESS = { kind: "s3", bucket: "bucket", prefix: "p" } as const;

test("without anything but credentials it is AWS in us-east-1, with the bucket in the host", () => {
  expect(resolveS3(ADDRESS, { env: CREDENTIALS })).toMatchObject({
    endpoint: undefined,
    region: "us-east-1",
    forcePathStyle: false,
    credentials: { accessKeyId: "id", secretAccessKey: "hunter2", sessionToken: undefined },
  });
});

test("each source beats the next one", () => {
  const env = {
    ...CREDENTIALS,
    AWS_ENDPOINT_URL_S3: "http://env:1",
    AWS_REGION: "env",
    AWS_SESSION_TOKEN: "token",
  };
  expect(resolveS3(ADDRESS, { env })).toMatchObject({
    endpoint: "http://env:1",
    region: "env",
    forcePathStyle: true,
    credentials: { sessionToken: "token" },
  });
  const settings = { env, endpoint: "http://set:1", region: "set", forcePathStyle: false };
  expect(resolveS3(ADDRESS, settings)).toMatchObject({
    endpoint: "http://set:1",
    region: "set",
    forcePathStyle: false,
  });
  const address = { ...ADDRESS, endpoint: "http://url:1", region: "url", forcePathStyle: true };
  expect(resolveS3(address, settings)).toMatchObject({ endpoint: "http://url:1", region: "url", forcePathStyle: true });
});

test.each([
  ["https://s3.eu-central-1.amazonaws.com", false],
  ["https://s3.cn-north-1.amazonaws.com.cn", false],
  ["https://amazonaws.com.example.org", true],
  ["http://127.0.0.1:9000", true],
])("the endpoint %s means path style: %p", (endpoint, expected) => {
  expect(resolveS3(ADDRESS, { env: CREDENTIALS, endpoint }).forcePathStyle).toBe(expected);
});

test.each([
  [{}, "AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY"],
  [{ AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "" }, "no AWS_SECRET_ACCESS_KEY"],
  [{ AWS_SECRET_ACCESS_KEY: "hunter2" }, "no AWS_ACCESS_KEY_ID"],
])("missing credentials are refused with exit status 3: %o", async (env, named) => {
  const error = await openDestination("s3://bucket/p", { env }).catch((thrown: unknown) => thrown);
  if (!(error instanceof WalsyncError)) throw error;
  expect(exitStatus(error)).toBe(3);
  expect(error.message).toContain(named);
  expect(error.message).not.toContain("hunter2");
});

test("a path opens a directory, an s3 URL a bucket, and neither touches anything", async () => {
  const directory = await openDestination(join(folder, "not-there"));
  expect(directory).toBeInstanceOf(DirectoryDestination);
  expect(await Bun.file(join(folder, "not-there")).exists()).toBe(false);
  const bucket = await openDestination("s3://bucket/p?endpoint=http://127.0.0.1:1", { env: CREDENTIALS });
  expect(bucket.url).toBe("s3://bucket/p");
  expect(bucket.capabilities.metadata).toBe(true);
  bucket.close();
});

// Goal: nobody pays for the SDK who does not use it.

test("opening a directory does not load the SDK", async () => {
  const module = join(import.meta.dir, "../../src/destination/open.ts");
  const script = `
    const { openDestination } = await import(${JSON.stringify(module)});
    await openDestination(${JSON.stringify(folder)});
    console.log(Object.keys(require.cache).filter((path) => path.includes("@aws-sdk")).length);
    await openDestination("s3://bucket", { env: ${JSON.stringify(CREDENTIALS)} });
    console.log(Object.keys(require.cache).filter((path) => path.includes("@aws-sdk")).length > 0);
  `;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
  expect((await new Response(child.stdout).text()).trim().split("\n")).toEqual(["0", "true"]);
});
