import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import { withRetry } from "../../src/destination/retry.ts";
import { S3Destination } from "../../src/destination/s3.ts";
import type { S3Options } from "../../src/destination/s3-requests.ts";
import { partSizeOf } from "../../src/destination/s3-upload.ts";
import { exitStatus } from "../../src/errors.ts";
import { destinationConformance } from "../conformance/destination.ts";
import { expectFault, expectNoSecret, foldersOf, keysOf, makeFile, readText, text } from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";

const SECRET = "a-secret-that-must-not-be-told-0123456789";

const server = await startVersitygw();
afterAll(() => server?.stop());
await server?.createBucket("bucket");
const folder = tempDir();

let count = 0;
const newPrefix = (): string => `p${count++}/deep er`;

function options(overrides: Partial<S3Options> = {}): S3Options {
  if (server === null) throw new Error("these tests need a server");
  const { endpoint, region, accessKeyId, secretAccessKey } = server;
  const credentials = { accessKeyId, secretAccessKey };
  return { bucket: "bucket", prefix: newPrefix(), endpoint, region, credentials, forcePathStyle: true, ...overrides };
}

if (server !== null) {
  destinationConformance("an S3 bucket", async () => ({
    fresh: async () => new S3Destination(options()),
    missing: async () => new S3Destination(options({ bucket: "no-such-bucket" })),
    leftovers: async () => await server.openUploads("bucket"),
  }));
}

describe.skipIf(server === null)("with a real server", () => {
  // Goal: who is refused learns why, at once, and what to do.

  test.each([
    [
      "a wrong secret",
      { credentials: { accessKeyId: server?.accessKeyId ?? "", secretAccessKey: SECRET } },
      "AWS_SECRET_ACCESS_KEY",
    ],
    ["an unknown access key", { credentials: { accessKeyId: "nobody", secretAccessKey: SECRET } }, "AWS_ACCESS_KEY_ID"],
    ["a bucket that is not there", { bucket: "no-such-bucket" }, '"no-such-bucket"'],
  ] as const)("%s is refused for good, with exit status 3 and a hint", async (_law, overrides, hint) => {
    const destination = new S3Destination(options(overrides));
    const attempts = [
      () => destination.prepare(),
      () => destination.head("key"),
      () => destination.read("key"),
      () => destination.write("key", text("x"), { condition: "absent" }),
      () => keysOf(destination, ""),
      () => destination.remove(["a", "b"]),
    ];
    for (const attempt of attempts) {
      const error = await expectFault(attempt(), false);
      expect(exitStatus(error)).toBe(3);
      expect(error.hint).toContain(hint);
      expect(error.message).toStartWith(destination.url);
      expectNoSecret(error, SECRET);
    }
  });

  test("a server that went away is retried, and the same destination goes on once it is back", async () => {
    const destination = new S3Destination(options());
    await destination.write("key", text("x"));
    await server?.pause();
    const error = await expectFault(destination.head("key"), true);
    expect(exitStatus(error)).toBe(3);
    const notices: string[] = [];
    const patient = withRetry(destination, {
      attempts: 100,
      baseDelayMs: 20,
      maxDelayMs: 100,
      onRetry: ({ operation }) => notices.push(operation),
    });
    const pending = readText(patient, "key");
    await Bun.sleep(100);
    await server?.restart();
    expect(await pending).toBe("x");
    expect(notices[0]).toBe("read key");
  });

  test("prefixes keep destinations in one bucket apart", async () => {
    const one = new S3Destination(options({ prefix: "apart/a" }));
    const two = new S3Destination(options({ prefix: "apart/ab" }));
    const root = new S3Destination(options({ prefix: "" }));
    await one.write("x/1", text("one"));
    await two.write("x/1", text("two"));
    expect(await keysOf(one, "")).toEqual(["x/1"]);
    expect(await foldersOf(one, "")).toEqual(["x"]);
    expect(await readText(root, "apart/ab/x/1")).toBe("two");
    expect(await keysOf(root, "apart/")).toEqual(["apart/a/x/1", "apart/ab/x/1"]);
    expect([one.url, root.url]).toEqual(["s3://bucket/apart/a", "s3://bucket"]);
  });

  // Each in a process of its own: the peak of this one is that of all tests before.
  test("memory does not grow with the file: 200 MiB take no more than 64 MiB above what 10 MiB take", async () => {
    const peaks: Record<string, number> = {};
    for (const sizeBytes of [10 * MiB, 200 * MiB]) {
      const { source } = await makeFile(join(folder, "bounded"), sizeBytes);
      for (const direction of ["up", "down"]) {
        const argument = JSON.stringify({ direction, source, options: options({ prefix: "bounded" }) });
        const child = Bun.spawn([process.execPath, join(import.meta.dir, "transfer-child.ts")], {
          stdin: Buffer.from(argument),
          stdout: "pipe",
        });
        peaks[`${direction} ${sizeBytes / MiB}`] = Number(await new Response(child.stdout).text()) / MiB;
        expect(await child.exited).toBe(0);
      }
    }
    if (process.env.WALSYNC_FIGURES) console.log("peak RSS in MiB:", peaks);
    expect(peaks["up 200"]! - peaks["up 10"]!).toBeLessThan(64);
    expect(peaks["down 200"]! - peaks["down 10"]!).toBeLessThan(64);
    await new S3Destination(options({ prefix: "bounded" })).remove(["key"]);
  }, 60_000);
});

// Goal: a part is never so small that S3's 10,000 are not enough.
test.each([
  [8 * MiB + 1, 5 * MiB],
  [50_000 * MiB, 5 * MiB],
  [50_000 * MiB + 1, 6 * MiB],
  [5_000_000 * MiB, 500 * MiB],
])("a file of %d bytes is sent in parts of %d", (sizeBytes, expected) => {
  expect(partSizeOf(sizeBytes)).toBe(expected);
  expect(Math.ceil(sizeBytes / partSizeOf(sizeBytes))).toBeLessThanOrEqual(10_000);
});
