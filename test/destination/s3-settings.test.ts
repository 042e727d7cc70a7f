/** The SDK does what it is told, and looks nowhere else. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { tempDir } from "../support/temp.ts";
import { fakeServer } from "./fake-s3.ts";

const folder = tempDir();
const REPOSITORY = join(import.meta.dir, "../..");

// Goal: a machine's own AWS settings change nothing. The files are pipes that nobody writes to: whoever opens one waits
// for ever, and so would the request or the end of the process.
test("profiles, other variables and metadata servers are not looked at", async () => {
  const requests: string[] = [];
  await using metadata = fakeServer(async (request) => {
    requests.push(`metadata ${request.url}`);
    return new Response(null, { status: 404 });
  });
  await using fake = fakeServer(async (request) => {
    const scope = /Credential=([^,]*)/.exec(request.headers.get("authorization") ?? "")?.[1] ?? "";
    const checksums = [...request.headers.keys()].filter((name) => name.includes("checksum"));
    requests.push(`${request.method} ${new URL(request.url).pathname} ${scope.replace(/\d{8}/, "today")} ${checksums}`);
    return request.method === "GET"
      ? new Response("<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>")
      : new Response(null, { headers: { ETag: '"1"' } });
  });
  const pipes = [join(folder, "config"), join(folder, "credentials")];
  for (const pipe of pipes) expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
  const script = `
    const { S3Destination } = await import("./src/destination/s3.ts");
    const credentials = { accessKeyId: "given", secretAccessKey: "a-secret" };
    const destination = new S3Destination({
      bucket: "bucket", prefix: "p", endpoint: "${fake.endpoint}", region: "given-1", credentials, forcePathStyle: true,
    });
    await destination.prepare();
    await destination.write("key", { kind: "bytes", bytes: Buffer.from("x") });
    destination.close();
  `;
  const child = Bun.spawn([process.execPath, "-e", script], {
    cwd: REPOSITORY,
    stderr: "inherit",
    timeout: 10_000,
    env: {
      PATH: process.env.PATH ?? "",
      HOME: folder,
      AWS_CONFIG_FILE: pipes[0]!,
      AWS_SHARED_CREDENTIALS_FILE: pipes[1]!,
      AWS_PROFILE: "other",
      AWS_REGION: "other-1",
      AWS_DEFAULT_REGION: "other-1",
      AWS_ACCESS_KEY_ID: "other",
      AWS_SECRET_ACCESS_KEY: "other",
      AWS_ENDPOINT_URL: "http://127.0.0.1:1",
      AWS_ENDPOINT_URL_S3: "http://127.0.0.1:1",
      AWS_REQUEST_CHECKSUM_CALCULATION: "when_supported",
      AWS_RESPONSE_CHECKSUM_VALIDATION: "when_supported",
      AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.endpoint,
      AWS_CONTAINER_CREDENTIALS_FULL_URI: metadata.endpoint,
    },
  });
  expect(await child.exited).toBe(0);
  expect(requests).toEqual([
    "GET /bucket/ given/today/given-1/s3/aws4_request ",
    "PUT /bucket/p/key given/today/given-1/s3/aws4_request ",
  ]);
}, 20_000);
