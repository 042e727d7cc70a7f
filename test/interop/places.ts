/** Where walsync and Litestream meet: the same replica, as each of them names it. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import type { LitestreamPlace } from "../support/litestream.ts";
import { startVersitygw, type Versitygw } from "../support/versitygw.ts";
import type { MatrixRow } from "./matrix.ts";

export interface Place {
  label: string;
  where: MatrixRow["where"];
  /** A new, empty destination below `folder` or in a bucket of its own. */
  begin(folder: string): Promise<SharedReplica>;
}

/** The replica of a database that both call `app`. */
export interface SharedReplica {
  /** As `-b` takes it, and what else the command line and the environment need. */
  url: string;
  flags: string[];
  env: Record<string, string>;
  open(): Promise<Destination>;
  litestream: LitestreamPlace;
  /** As Litestream's extension takes it, with the environment as above. */
  vfsUrl: string;
}

/** A directory, and a bucket where there is a server (see `startVersitygw`), until `stop`. */
export async function startPlaces(): Promise<{ places: readonly Place[]; stop(): Promise<void> }> {
  const server = await startVersitygw();
  const places = server === null ? [DIRECTORY] : [DIRECTORY, bucketOf(server)];
  return { places, stop: async () => server?.stop() };
}

/** Every object of a destination, with a copy of its bytes in a file, for tools that read files. */
export async function copyObjects(destination: Destination, folder: string): Promise<Map<string, string>> {
  mkdirSync(folder, { recursive: true });
  const copies = new Map<string, string>();
  for await (const { key } of destination.list("")) {
    const body = await destination.read(key);
    const parts: Buffer[] = [];
    for await (const chunk of body?.chunks ?? []) parts.push(Buffer.from(chunk));
    const path = join(folder, key.replaceAll("/", "_"));
    writeFileSync(path, Buffer.concat(parts));
    copies.set(key, path);
  }
  return copies;
}

// --- internal ---

const DIRECTORY: Place = {
  label: "a directory",
  where: "directory",
  begin: async (folder) => {
    const url = join(folder, "destination");
    mkdirSync(url, { recursive: true });
    const litestream = { kind: "file", path: join(url, "app") } as const;
    return {
      url,
      flags: [],
      env: {},
      open: () => openDestination(url),
      litestream,
      vfsUrl: `file://${litestream.path}`,
    };
  },
};

function bucketOf(server: Versitygw): Place {
  const { endpoint, region, accessKeyId, secretAccessKey } = server;
  const env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  return {
    label: "a bucket",
    where: "bucket",
    begin: async () => {
      const bucket = `interop-${crypto.randomUUID()}`;
      await server.createBucket(bucket);
      const url = `s3://${bucket}/prod`;
      const flags = ["--endpoint", endpoint, "--region", region];
      const open = () => openDestination(url, { endpoint, region, env });
      const litestream = { kind: "s3", server, bucket, path: "prod/app" } as const;
      const query = new URLSearchParams({ endpoint, region, "force-path-style": "true" });
      return { url, flags, env, open, litestream, vfsUrl: `s3://${bucket}/prod/app?${query}` };
    },
  };
}
