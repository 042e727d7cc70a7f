// Goal: encrypted, a destination keeps the same contract as without, in a directory and in a bucket.
import { afterAll } from "bun:test";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { S3Destination } from "../../src/destination/s3.ts";
import { destinationConformance } from "../conformance/destination.ts";
import { ownFilesIn } from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { encryptedWith, makeKeys } from "./make.ts";

const root = tempDir();
const { recipient, identityFile } = await makeKeys(join(root, "key.txt"));
const encrypted = async (inner: Destination) => encryptedWith(inner, { recipients: [recipient], identityFile });
let count = 0;
const newPath = (): string => join(root, `d${count++}`);

destinationConformance(
  "an encrypted directory",
  async () => ({
    fresh: async () => {
      const destination = await encrypted(new DirectoryDestination(newPath()));
      await destination.prepare();
      return destination;
    },
    missing: () => encrypted(new DirectoryDestination(newPath())),
    leftovers: async () => ownFilesIn(root),
  }),
  { isWrapper: true },
);

const server = await startVersitygw();
afterAll(() => server?.stop());
await server?.createBucket("bucket");

if (server !== null) {
  const { endpoint, region, accessKeyId, secretAccessKey } = server;
  const bucketOf = (bucket: string) =>
    encrypted(
      new S3Destination({
        bucket,
        prefix: `p${count++}`,
        endpoint,
        region,
        credentials: { accessKeyId, secretAccessKey },
        forcePathStyle: true,
      }),
    );
  destinationConformance(
    "an encrypted S3 bucket",
    async () => ({
      fresh: () => bucketOf("bucket"),
      missing: () => bucketOf("no-such-bucket"),
      leftovers: async () => await server.openUploads("bucket"),
    }),
    { isWrapper: true },
  );
}
