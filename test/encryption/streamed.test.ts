// Goal: a large file is encrypted while it is sent. It needs no room on the disk, is whole whatever has to be sent again, and no
// key ever encrypts two versions of it.
import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { KiB, MiB } from "../../src/bytes.ts";
import { CHUNK_BYTES, HEADER_BYTES, PAYLOAD_OFFSET, storedSize, TAG_BYTES } from "../../src/destination/age-format.ts";
import type { Destination, SourceStream, WriteSource } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { withRetry } from "../../src/destination/retry.ts";
import { S3Destination } from "../../src/destination/s3.ts";
import { DestinationError } from "../../src/errors.ts";
import { ownFilesIn, rejection } from "../conformance/helpers.ts";
import { fakeServer } from "../destination/fake-s3.ts";
import { tempDir } from "../support/temp.ts";
import { encryptedWith, makeKeys } from "./make.ts";

const folder = tempDir();
const keys = await makeKeys(join(folder, "key.txt"));
const KEYS = { recipients: [keys.recipient], identityFile: keys.identityFile };
const QUICK = { attempts: 5, baseDelayMs: 1, maxDelayMs: 2 };
let count = 0;

function makeSource(sizeBytes: number): WriteSource & { kind: "file" } {
  const path = join(tempDir(), "large.ltx");
  writeFileSync(path, randomBytes(sizeBytes));
  return { kind: "file", path, sizeBytes };
}

async function bytesOf(destination: Destination, key: string): Promise<Buffer> {
  const body = await destination.read(key);
  const chunks: Buffer[] = [];
  for await (const chunk of body!.chunks) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

const sha256 = (bytes: Uint8Array): string => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");

test("nothing is written beside it, and nothing stays at the destination if it ends early", async () => {
  const root = join(folder, `place${count++}`);
  const destination = encryptedWith(new DirectoryDestination(root), KEYS);
  const source = makeSource(3 * MiB);
  const beside = join(source.path, "..");
  const seen = new Set<string>();
  const progress: number[] = [];
  const onProgress = (sentBytes: number) => {
    progress.push(sentBytes);
    for (const name of readdirSync(beside)) seen.add(name);
  };
  const written = await destination.write("whole", source, { onProgress });
  expect([...seen]).toEqual(["large.ltx"]);
  expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  expect(progress.at(-1)).toBe(source.sizeBytes);
  expect((await bytesOf(destination, "whole")).equals(readFileSync(source.path))).toBe(true);
  const stored = readFileSync(join(root, "whole"));
  expect(stored.length).toBe(storedSize(source.sizeBytes));
  expect(written).toMatchObject({ kind: "written", storedSha256: sha256(stored) });

  const stop = new AbortController();
  const stopping = destination.write("stopped", source, {
    signal: stop.signal,
    onProgress: () => stop.abort(new Error("stop")),
  });
  expect(await rejection(stopping)).toMatchObject({ message: "stop" });
  const shrinking = destination.write("shrunk", source, { onProgress: () => truncateSync(source.path, MiB) });
  expect(await rejection(shrinking)).toMatchObject({ code: "E_DISK", message: expect.stringContaining(source.path) });
  expect(await rejection(destination.write("short", source))).toMatchObject({ code: "E_DISK" });
  expect(readdirSync(root)).toEqual(["whole"]);
  expect(ownFilesIn(root)).toEqual([]);
});

/** A bucket that knows uploads in parts, keeps what it was sent at each try of a part, and fails as `fails` says. */
function partsServer(fails: (part: number, attempt: number) => boolean) {
  const parts = new Map<string, Map<number, Buffer[]>>();
  const objects = new Map<string, Buffer>();
  const server = fakeServer(async (request) => {
    const { pathname, searchParams } = new URL(request.url);
    if (request.method === "HEAD" || request.method === "DELETE") return new Response(null, { status: 404 });
    if (request.method === "POST" && searchParams.has("uploads")) {
      parts.set(pathname, new Map());
      return new Response("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>");
    }
    const body = Buffer.from(await request.arrayBuffer());
    const sent = parts.get(pathname) ?? new Map<number, Buffer[]>();
    if (request.method === "PUT") {
      const part = Number(searchParams.get("partNumber"));
      const attempts = [...(sent.get(part) ?? []), body];
      sent.set(part, attempts);
      if (fails(part, attempts.length)) {
        return new Response("<Error><Code>SlowDown</Code></Error>", { status: 503 });
      }
      return new Response(null, { headers: { ETag: `"${part}"` } });
    }
    objects.set(pathname, Buffer.concat(Array.from({ length: sent.size }, (_, i) => sent.get(i + 1)!.at(-1)!)));
    return new Response('<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>');
  });
  return { server, parts, objects };
}

test("in parts: each is the same bytes when it is sent again, and they are the file, in order, of several at once", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 8 * MiB, max: 16 * MiB }), { minLength: 1, maxLength: 3 }),
      fc.array(fc.boolean(), { minLength: 3, maxLength: 7 }),
      async (sizes, failures) => {
        const { server, parts, objects } = partsServer(
          (part, attempt) => attempt < 3 && failures[part % failures.length]!,
        );
        await using _ = server;
        const bucket = new S3Destination({
          bucket: "bucket",
          prefix: "",
          region: "us-east-1",
          endpoint: server.endpoint,
          forcePathStyle: true,
          credentials: { accessKeyId: "test", secretAccessKey: "test" },
          partRetry: QUICK,
        });
        const destination = encryptedWith(bucket, KEYS);
        // The second ends with a part that is small.
        const sources = sizes.map((size, i) => makeSource(i === 1 ? 10 * MiB + 100 : size + 1));
        const written = await Promise.all(sources.map((source, i) => destination.write(`k${i}`, source)));
        for (const [i, { path }] of sources.entries()) {
          const object = objects.get(`/bucket/k${i}`)!;
          expect(written[i]).toMatchObject({ kind: "written", storedSha256: sha256(object) });
          for (const attempts of parts.get(`/bucket/k${i}`)!.values()) {
            for (const attempt of attempts) expect(attempt.equals(attempts[0]!)).toBe(true);
          }
          const root = join(folder, `place${count++}`);
          const copy = new DirectoryDestination(root);
          await copy.write("copy", { kind: "bytes", bytes: object });
          const plain = await bytesOf(encryptedWith(copy, KEYS), "copy");
          expect(plain.equals(readFileSync(path))).toBe(true);
        }
      },
    ),
    { numRuns: 4 },
  );
}, 30_000);

test("a try that fails is followed by one under another key, so that a file that changed meanwhile is not given away", async () => {
  const tries: Buffer[] = [];
  const source = makeSource(MiB + 100 * KiB);
  const before = readFileSync(source.path);
  const inner = new (class extends DirectoryDestination {
    override async write(...[key, sealed, options]: Parameters<Destination["write"]>) {
      if (sealed.kind !== "stream") throw new Error(`expected a stream, found ${sealed.kind}`);
      const stream: SourceStream = await sealed.open();
      const bytes = Buffer.alloc(sealed.sizeBytes);
      await stream.read(bytes);
      await stream.close();
      tries.push(bytes);
      if (tries.length > 1) return await super.write(key, { kind: "bytes", bytes }, options);
      writeFileSync(source.path, randomBytes(source.sizeBytes));
      throw new DestinationError("the first try fails", { retryable: true });
    }
  })(join(folder, `place${count++}`));
  const destination = encryptedWith(withRetry(inner, QUICK), KEYS);
  const result = await destination.write("key", source);
  const [first, second] = tries as [Buffer, Buffer];
  expect(tries).toHaveLength(2);
  expect(result).toMatchObject({ kind: "written", storedSha256: sha256(second) });
  const after = readFileSync(source.path);
  expect((await bytesOf(destination, "key")).equals(after)).toBe(true);
  expect(first.subarray(HEADER_BYTES, PAYLOAD_OFFSET).equals(second.subarray(HEADER_BYTES, PAYLOAD_OFFSET))).toBe(
    false,
  );
  // Under one key and nonce the difference of the two would be that of what they hold.
  const stride = CHUNK_BYTES + TAG_BYTES;
  for (let i = 0; i * CHUNK_BYTES < source.sizeBytes; i++) {
    const [a, b] = [first, second].map((one) => one.subarray(PAYLOAD_OFFSET + i * stride).subarray(0, 1000)) as [
      Buffer,
      Buffer,
    ];
    const [c, d] = [before, after].map((one) => one.subarray(i * CHUNK_BYTES).subarray(0, 1000)) as [Buffer, Buffer];
    const same = c.filter((byte, at) => (byte ^ d[at]!) === (a[at]! ^ b[at]!)).length;
    expect(same).toBeLessThan(50);
  }
});
