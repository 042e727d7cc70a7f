/** A real S3 server for tests: versitygw over a temporary folder, on a free port of the loopback interface. */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, ListMultipartUploadsCommand, S3Client } from "@aws-sdk/client-s3";
import { FetchHttpHandler } from "@smithy/fetch-http-handler";
import { requireTool } from "./tools.ts";

export interface Versitygw {
  endpoint: string;
  /** Where the objects are, as files: bucket/key. */
  dataFolder: string;
  /** One line for each request, if asked for. */
  accessLog: string | null;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  createBucket(name: string): Promise<void>;
  /** Keys of the uploads in parts that were begun in this bucket and neither completed nor given up. */
  openUploads(bucket: string): Promise<string[]>;
  /** Ends the server, keeping what it holds. Requests get no answer until `restart`. */
  pause(): Promise<void>;
  /** Starts it again at the same address with the same content. */
  restart(): Promise<void>;
  /** Ends the server and removes its files. */
  stop(): Promise<void>;
}

const READY_WITHIN_MS = 15_000;

export interface VersitygwOptions {
  /** Write an access log, for counting requests. */
  logsAccess?: boolean;
  /** The folder in which its own is made; the temporary folder by default. */
  parentFolder?: string | undefined;
}

/** Null if versitygw is not installed (see `requireTool`). */
export async function startVersitygw(options: VersitygwOptions = {}): Promise<Versitygw | null> {
  const program = requireTool("versitygw");
  if (program === null) return null;
  const folder = mkdtempSync(join(options.parentFolder ?? tmpdir(), "walsync-s3-"));
  const dataFolder = join(folder, "data");
  // Metadata goes to files of its own, since not every temporary folder keeps extended attributes.
  const sidecarFolder = join(folder, "sidecar");
  mkdirSync(dataFolder);
  mkdirSync(sidecarFolder);
  const accessLog = options.logsAccess === true ? join(folder, "access.log") : null;
  const accessKeyId = `test${randomBytes(8).toString("hex")}`;
  const secretAccessKey = randomBytes(20).toString("hex");
  const port = freePort();
  const endpoint = `http://127.0.0.1:${port}`;

  let child: Bun.Subprocess | null = null;
  const onExit = (): void => child?.kill("SIGKILL");
  process.on("exit", onExit);

  const start = async (): Promise<void> => {
    const started = Bun.spawn(
      [
        program,
        "--quiet",
        "--keep-alive",
        ...(accessLog === null ? [] : ["--access-log", accessLog]),
        "--port",
        `127.0.0.1:${port}`,
        "posix",
        "--sidecar",
        sidecarFolder,
        dataFolder,
      ],
      {
        env: { PATH: process.env.PATH ?? "", ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey },
        stdin: "ignore",
        stdout: "ignore",
        stderr: "ignore",
      },
    );
    child = started;
    const deadline = performance.now() + READY_WITHIN_MS;
    for (;;) {
      if (started.exitCode !== null) throw new Error(`versitygw: expected it to run, found exit ${started.exitCode}`);
      try {
        await (await fetch(endpoint, { signal: AbortSignal.timeout(1000) })).arrayBuffer();
        return;
      } catch (error) {
        if (performance.now() > deadline) throw error;
        await Bun.sleep(20);
      }
    }
  };
  const end = async (): Promise<void> => {
    child?.kill("SIGTERM");
    const killer = setTimeout(() => child?.kill("SIGKILL"), 3000);
    await child?.exited;
    clearTimeout(killer);
    child = null;
  };

  const withClient = async <T>(action: (client: S3Client) => Promise<T>): Promise<T> => {
    const client = new S3Client({
      endpoint,
      region: "us-east-1",
      credentials: { accessKeyId, secretAccessKey },
      forcePathStyle: true,
      requestHandler: new FetchHttpHandler({}),
    });
    try {
      return await action(client);
    } finally {
      client.destroy();
    }
  };

  await start();
  return {
    endpoint,
    dataFolder,
    accessLog,
    region: "us-east-1",
    accessKeyId,
    secretAccessKey,
    async createBucket(name) {
      await withClient((client) => client.send(new CreateBucketCommand({ Bucket: name })));
    },
    async openUploads(bucket) {
      const output = await withClient((client) => client.send(new ListMultipartUploadsCommand({ Bucket: bucket })));
      return (output.Uploads ?? []).map((upload) => upload.Key ?? "");
    },
    pause: end,
    restart: async () => {
      await end();
      await start();
    },
    stop: async () => {
      await end();
      process.off("exit", onExit);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A port that was free a moment ago. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
