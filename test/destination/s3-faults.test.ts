/** What S3 does when the server or the network does not do as it should. Needs no server but small fakes. */
import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import { withRetry } from "../../src/destination/retry.ts";
import { S3Destination } from "../../src/destination/s3.ts";
import type { S3Options } from "../../src/destination/s3-requests.ts";
import { collectText, expectFault, expectNoSecret, keysOf, makeFile, readText, text } from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";
import { freePort } from "../support/versitygw.ts";
import { cuttingServer, fakeServer, multipartServer, storingServer } from "./fake-s3.ts";

const folder = tempDir();
const SECRET = "a-secret-that-must-not-be-told-0123456789";
const QUICK = { attempts: 5, baseDelayMs: 1, maxDelayMs: 2 };

function options(overrides: Partial<S3Options> & { endpoint: string }): S3Options {
  const credentials = { accessKeyId: "test", secretAccessKey: SECRET, sessionToken: `token-${SECRET}` };
  return { bucket: "bucket", prefix: "p", region: "us-east-1", credentials, forcePathStyle: true, ...overrides };
}

// Goal: whatever a server or the network does, the answer is a `DestinationError` that knows whether to try again.

test("no server is an error that may heal", async () => {
  const destination = new S3Destination(options({ endpoint: `http://127.0.0.1:${freePort()}` }));
  for (const attempt of [() => destination.head("k"), () => destination.prepare(), () => destination.read("k")]) {
    const error = await expectFault(attempt(), true);
    expect(error.hint).toContain("127.0.0.1");
    expectNoSecret(error, SECRET);
  }
});

test("a server that accepts and never answers is given up after the time limit, whatever was asked", async () => {
  await using fake = fakeServer(() => new Promise<Response>(() => {}));
  const destination = new S3Destination(options({ endpoint: fake.endpoint, timeouts: { answerMs: 100 } }));
  const attempts = [
    () => destination.prepare(),
    () => destination.head("k"),
    () => destination.read("k"),
    () => destination.write("k", text("x"), { condition: "absent" }),
    () => destination.remove(["k"]),
  ];
  for (const attempt of attempts) {
    const error = await expectFault(attempt(), true);
    expect(error.message).toContain("no answer within 0.1");
  }
});

test.each([
  [503, "SlowDown", true, undefined],
  [500, "InternalError", true, undefined],
  [429, "TooManyRequests", true, undefined],
  [400, "RequestTimeout", true, undefined],
  [502, "", true, undefined],
  [403, "RequestTimeTooSkewed", false, "clock"],
  [403, "AccessDenied", false, "Allow"],
  [403, "SignatureDoesNotMatch", false, "AWS_SECRET_ACCESS_KEY"],
  [403, "InvalidAccessKeyId", false, "AWS_ACCESS_KEY_ID"],
  [400, "ExpiredToken", false, "AWS_SESSION_TOKEN"],
  [401, "", false, "AWS_ACCESS_KEY_ID"],
  [301, "PermanentRedirect", false, "region"],
  [307, "TemporaryRedirect", false, "region"],
  [400, "AuthorizationHeaderMalformed", false, "region"],
  [404, "NoSuchBucket", false, '"bucket"'],
  [501, "NotImplemented", false, "does not offer"],
  [200, "", false, "S3 endpoint"],
] as const)("an answer %d %s: may heal is %p", async (status, code, retryable, hint) => {
  const message = `the server says ${SECRET} back`;
  const body = code === "" ? "<html>a proxy</html" : `<Error><Code>${code}</Code><Message>${message}</Message></Error>`;
  await using fake = fakeServer(
    async () => new Response(body, { status, headers: { Location: "http://127.0.0.1:1/" } }),
  );
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  const attempts = [
    () => destination.prepare(),
    () => keysOf(destination, ""),
    // Bytes and uploads have tests of their own below: an answer 200 means something else to each.
    ...(status === 200 ? [] : [() => destination.write("key", text("x")), () => destination.read("key")]),
  ];
  for (const attempt of attempts) {
    const error = await expectFault(attempt(), retryable);
    expect(error.status).toBe(status);
    if (hint !== undefined) expect(error.hint).toContain(hint);
    if (code !== "") expect(error.message).toContain(code);
    expectNoSecret(error, SECRET);
  }
});

test("a web page that answers 200 is not an empty list", async () => {
  await using fake = fakeServer(async () => new Response("<html><body>hello</body></html>"));
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  const error = await expectFault(keysOf(destination, ""), false);
  expect(error.hint).toContain("endpoint");
});

test("a page that answers 200 to an upload is not a copy of anything", async () => {
  await using fake = fakeServer(async () => new Response("<html><body>hello</body></html>"));
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  const error = await expectFault(destination.write("key", text("x"), { condition: "absent" }), false);
  expect(error.hint).toContain("endpoint");
});

test("404 with another reason than a missing key never reads as a missing key", async () => {
  for (const code of ["NoSuchBucket", "XAdminUserNotFound", "NoSuchTenant"]) {
    const answer = `<Error><Code>${code}</Code><Message>not here</Message></Error>`;
    await using fake = fakeServer(async () => new Response(answer, { status: 404 }));
    const destination = new S3Destination(options({ endpoint: fake.endpoint }));
    for (const attempt of [() => destination.read("key"), () => destination.remove(["key"])]) {
      expect((await expectFault(attempt(), false)).message).toContain(code);
    }
  }
});

test("404 without a reason is asked about: it may be the bucket that is missing", async () => {
  let hasBucket = false;
  await using fake = fakeServer(async (request) => {
    if (!new URL(request.url).search.includes("list-type")) return new Response(null, { status: 404 });
    return hasBucket
      ? new Response("<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>")
      : new Response("<Error><Code>NoSuchBucket</Code></Error>", { status: 404 });
  });
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  await expectFault(destination.read("key"), false);
  await expectFault(destination.head("key"), false);
  hasBucket = true;
  expect(await destination.read("key")).toBeNull();
  expect(await destination.head("key")).toBeNull();
});

test("an answer to HEAD has no reason, so the reason is asked for", async () => {
  await using fake = fakeServer(async (request) =>
    request.method === "HEAD"
      ? new Response(null, { status: 403 })
      : new Response("<Error><Code>ExpiredToken</Code><Message>old</Message></Error>", { status: 400 }),
  );
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  expect((await expectFault(destination.head("key"), false)).message).toContain("ExpiredToken");
});

test("409 for two conditional writes at once may heal; 412 is an answer", async () => {
  let status = 409;
  await using fake = fakeServer(
    async () => new Response("<Error><Code>ConditionalRequestConflict</Code></Error>", { status }),
  );
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  await expectFault(destination.write("key", text("x"), { condition: "absent" }), true);
  status = 412;
  expect(await destination.write("key", text("x"), { condition: "absent" })).toEqual({ kind: "refused" });
});

test("a service without conditional writes is refused by name: two writers could mix their files there", async () => {
  await using fake = fakeServer(
    async () => new Response("<Error><Code>NotImplemented</Code></Error>", { status: 501 }),
  );
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  const error = await expectFault(destination.write("key", text("x"), { condition: "absent" }), false);
  expect(error.hint).toContain("conditional writes");
});

// Goal: what may heal is tried again and done once; what will not is asked for once.

test("503 twice and then an answer is a success, after three requests", async () => {
  using server = await storingServer();
  server.failNext(503, "SlowDown", 2);
  const destination = withRetry(new S3Destination(options({ endpoint: server.endpoint })), QUICK);
  expect((await destination.write("key", text("x"), { condition: "absent" })).kind).toBe("written");
  expect(server.log).toEqual(["PUT 503", "PUT 503", "PUT 200"]);
});

test("403 is asked for once", async () => {
  using server = await storingServer();
  server.failNext(403, "AccessDenied", 99);
  const destination = withRetry(new S3Destination(options({ endpoint: server.endpoint })), QUICK);
  const error = await expectFault(destination.write("key", text("x")), false);
  expect(error.hint).toContain("Allow");
  expect(server.log).toEqual(["PUT 403"]);
});

test("an answer lost on its way makes a claim come back as refused, and the object was written once", async () => {
  using server = await storingServer();
  const destination = withRetry(new S3Destination(options({ endpoint: server.endpoint })), QUICK);
  server.loseNextAnswer();
  expect(await destination.write("key", text("mine"), { condition: "absent" })).toEqual({ kind: "refused" });
  expect(server.log).toEqual(["PUT lost", "PUT 412"]);
  expect(server.objects.get("/bucket/p/key")).toBe("mine");
});

test("a connection reset while a body is sent may heal", async () => {
  let requests = 0;
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket) {
        if (socket.data !== undefined) return;
        socket.data = ++requests;
        socket.terminate();
      },
    },
  } as Bun.TCPSocketListenOptions<number | undefined>);
  try {
    const { source } = await makeFile(join(folder, "reset"), 8 * MiB);
    const endpoint = `http://127.0.0.1:${listener.port}`;
    const error = await expectFault(new S3Destination(options({ endpoint })).write("key", source), true);
    expectNoSecret(error, SECRET);
    requests = 0;
    await expectFault(withRetry(new S3Destination(options({ endpoint })), QUICK).write("key", source), true);
    expect(requests).toBe(QUICK.attempts);
  } finally {
    listener.stop(true);
  }
});

// Goal: a request carries what every S3 server understands, and a signature over its body.

test("uploads and downloads carry no checksum headers of the SDK, and sign their bodies", async () => {
  const seen: { method: string; headers: Headers; sha256: string }[] = [];
  await using fake = fakeServer(async (request) => {
    const sha256 = createHash("sha256")
      .update(Buffer.from(await request.arrayBuffer()))
      .digest("hex");
    seen.push({ method: request.method, headers: request.headers, sha256 });
    return new Response("content", { headers: { ETag: '"1"' } });
  });
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  await destination.write("key", text("content"), { metadata: { commits: "3" }, condition: "absent" });
  await readText(destination, "key");
  expect(seen.map(({ method }) => method)).toEqual(["PUT", "GET"]);
  for (const { headers, sha256 } of seen) {
    const names = [...headers.keys()];
    expect(names.filter((name) => /checksum|trailer|content-encoding|expect/.test(name))).toEqual([]);
    expect(headers.get("x-amz-content-sha256")).toBe(sha256);
    expect(headers.get("authorization")).toStartWith("AWS4-HMAC-SHA256 Credential=test/");
  }
  expect(seen[0]?.headers.get("x-amz-meta-commits")).toBe("3");
  expect(seen[0]?.headers.get("if-none-match")).toBe("*");
});

// Goal: a body that is cut short is never taken for the whole one.

test.each([
  ["closes the connection", "close"],
  ["goes silent", "silent"],
] as const)(
  "a server that %s in the middle of a body is an error that may heal, after the bytes that came",
  async (_law, how) => {
    using cut = cuttingServer("0123456789", 4, how);
    const destination = new S3Destination(options({ endpoint: cut.endpoint, timeouts: { idleMs: 200 } }));
    const body = await destination.read("key");
    expect(body?.sizeBytes).toBe(10);
    let received = "";
    const read = (async () => {
      for await (const chunk of body?.chunks ?? []) received += Buffer.from(chunk).toString();
    })();
    const error = await expectFault(read, true);
    expect(error.message).toContain("10 bytes");
    expect("0123".startsWith(received)).toBe(true);
  },
);

test("with retries the rest is fetched from where it broke off", async () => {
  using cut = cuttingServer("0123456789", 4, "close");
  const destination = withRetry(new S3Destination(options({ endpoint: cut.endpoint })), {
    attempts: 10,
    baseDelayMs: 1,
    maxDelayMs: 2,
  });
  expect(await collectText(await destination.read("key"))).toBe("0123456789");
  expect(await collectText(await destination.read("key", { range: { first: 2, last: 8 } }))).toBe("2345678");
  expect(await collectText(await destination.read("key", { range: { first: -7 } }))).toBe("3456789");
  expect(cut.ranges.slice(0, 3)).toEqual(["", "bytes=4-9", "bytes=8-9"]);
});

test("a server that ignores ranges is found out", async () => {
  await using fake = fakeServer(async () => new Response("0123456789", { headers: { ETag: '"1"' } }));
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  const error = await expectFault(destination.read("key", { range: { first: 2, last: 3 } }), false);
  expect(error.hint).toContain("ignores ranges");
  expect(await readText(destination, "key", { range: { first: 0 } })).toBe("0123456789");
});

// Goal: many keys are removed whatever the server offers, and one that stays is reported.

test("a server that refuses to remove many keys at once is asked for one after the other", async () => {
  const log: string[] = [];
  await using fake = fakeServer(async (request) => {
    const url = new URL(request.url);
    log.push(`${request.method} ${url.pathname}${url.search}`);
    if (request.method !== "POST") return new Response(null, { status: 204 });
    return new Response("<Error><Code>MissingContentMD5</Code></Error>", { status: 400 });
  });
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  await destination.remove(["a", "b"]);
  await destination.remove(["c", "d"]);
  expect(log.slice(1).sort()).toEqual(["a", "b", "c", "d"].map((key) => `DELETE /bucket/p/${key}?x-id=DeleteObject`));
});

test("a key that could not be removed is named", async () => {
  const errors = (code: string) =>
    `<DeleteResult><Error><Key>p/b</Key><Code>${code}</Code><Message>why</Message></Error></DeleteResult>`;
  let code = "AccessDenied";
  await using fake = fakeServer(async () => new Response(errors(code)));
  const destination = new S3Destination(options({ endpoint: fake.endpoint }));
  const error = await expectFault(destination.remove(["a", "b"]), false);
  expect(error.message).toContain("s3://bucket/p/b: ");
  code = "SlowDown";
  await expectFault(destination.remove(["a", "b"]), true);
});

// Goal: an upload in parts ends whole or leaves nothing.

test("a part that fails is sent again; one that fails for good ends the upload and frees the parts", async () => {
  const fake = multipartServer();
  await using _server = fake.server;
  const file = await makeFile(join(folder, "parts"), 25 * MiB);
  const partRetry = { attempts: 4, baseDelayMs: 1, maxDelayMs: 2 };
  const destination = new S3Destination(options({ endpoint: fake.server.endpoint, partRetry }));

  fake.failures.set(2, 2);
  expect(await destination.write("key", file.source, { metadata: { a: "b" } })).toMatchObject({ kind: "written" });
  expect(fake.log.filter((line) => line.startsWith("part 2"))).toHaveLength(3);
  expect(fake.log.at(-1)).toBe("complete 1,2,3,4,5");
  expect(fake.mostInFlight()).toBe(2);

  fake.log.length = 0;
  fake.failures.set(1, 99);
  await expectFault(destination.write("key", file.source), true);
  expect(fake.log.filter((line) => line.startsWith("part 1"))).toHaveLength(4);
  // The part beside it was given up, which the server may learn after it was told that the upload is.
  expect(fake.log.filter((line) => !line.startsWith("part"))).toEqual(["create", "abort"]);
});

test("an error in an answer 200 to the last request, as S3 sends it, is an error", async () => {
  const fake = multipartServer();
  await using _server = fake.server;
  fake.failLast("InternalError");
  const { source } = await makeFile(join(folder, "last"), 9 * MiB);
  const destination = new S3Destination(options({ endpoint: fake.server.endpoint }));
  const error = await expectFault(destination.write("key", source), true);
  expect(error.message).toContain("InternalError");
  expect(fake.log.at(-1)).toBe("abort");
});

test('a service without a condition on the last request is asked whether the key is there, for "absent"', async () => {
  const fake = multipartServer();
  await using _server = fake.server;
  fake.refuseConditions();
  const file = await makeFile(join(folder, "conditions"), 9 * MiB);
  const destination = new S3Destination(options({ endpoint: fake.server.endpoint }));
  expect((await destination.write("key", file.source, { condition: "absent" })).kind).toBe("written");
  expect(fake.log.filter((line) => !line.startsWith("part"))).toEqual([
    "head",
    "create",
    "complete 1,2 if-none-match *",
    "head",
    "complete 1,2",
  ]);
  await expectFault(destination.write("key", file.source, { condition: { etag: '"1"' } }), false);
});

// Goal: both addressing styles reach the same object.

test("virtual-hosted style puts the bucket into the host", async () => {
  const hosts: string[] = [];
  await using fake = fakeServer(async (request) => {
    hosts.push(`${request.headers.get("host")} ${new URL(request.url).pathname}`);
    return new Response(null, { status: 404 });
  });
  const endpoint = fake.endpoint.replace("127.0.0.1", "localhost");
  const destination = new S3Destination(options({ endpoint, forcePathStyle: false }));
  // Whether "bucket.localhost" resolves is up to the machine; without an answer there is nothing to look at.
  await destination.read("key").catch(() => null);
  if (hosts.length > 0) expect(hosts[0]).toBe(`bucket.${new URL(endpoint).host} /p/key`);
});
