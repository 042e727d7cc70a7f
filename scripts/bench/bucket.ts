/** Buckets of one versitygw: a fresh one for each measurement, with its objects and its requests counted from outside. */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { dirname, join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import { errnoOf } from "../../src/errors.ts";
import { requireTool } from "../../test/support/tools.ts";
import { startVersitygw, type Versitygw } from "../../test/support/versitygw.ts";

/** Requests by what they cost: services bill writes and listings at a multiple of reads. */
export interface RequestCount {
  writes: number;
  lists: number;
  reads: number;
  deletes: number;
}

export interface Bucket {
  name: string;
  /** Environment that leads a program to the server, and nowhere else. */
  env: Record<string, string>;
  endpoint: string;
  /** How many LTX files it holds of a database, in whatever layout. */
  filesOf(database: string): number;
  /** Name of its newest file of one txid, merged ones left out; "" if there is none. */
  newestIncrement(database: string): string;
  /** Requests since it was made. */
  requests(): RequestCount;
}

export class BenchServer {
  readonly #server: Versitygw;
  readonly #log: number;
  readonly #counts = new Map<string, RequestCount>();
  readonly #chunk = Buffer.alloc(MiB);
  #buckets = 0;
  #logOffset = 0;

  /** `parentFolder`: where its files go, if not on the disk of everything else. */
  static async start(parentFolder?: string): Promise<BenchServer> {
    const server = await startVersitygw({ logsAccess: true, parentFolder });
    if (server === null)
      throw new Error("versitygw: expected it in .cache/tools/bin, found none; run ./scripts/test once");
    return new BenchServer(server);
  }

  private constructor(server: Versitygw) {
    this.#server = server;
    this.#log = openSync(server.accessLog!, "r");
  }

  /** As scripts/test installed it: the program itself does not know. */
  static version(): string {
    const stamp = join(dirname(requireTool("versitygw") ?? ""), "../versitygw.version");
    return existsSync(stamp) ? readFileSync(stamp, "utf8").trim() : "unknown";
  }

  async makeBucket(): Promise<Bucket> {
    const { endpoint, accessKeyId, secretAccessKey, dataFolder } = this.#server;
    const name = `bench-${++this.#buckets}`;
    await this.#server.createBucket(name);
    const env = {
      PATH: process.env.PATH ?? "",
      HOME: process.env.HOME ?? "/",
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_ENDPOINT_URL_S3: endpoint,
    };
    const requests = (): RequestCount => {
      this.#readLog();
      return { ...(this.#counts.get(name) ?? NO_REQUESTS) };
    };
    const folderOf = (database: string) => join(dataFolder, name, database);
    return {
      name,
      env,
      endpoint,
      filesOf: (database) => filesBelow(folderOf(database)).length,
      newestIncrement: (database) => filesBelow(folderOf(database)).filter(isIncrement).sort().at(-1) ?? "",
      requests,
    };
  }

  async stop(): Promise<void> {
    closeSync(this.#log);
    await this.#server.stop();
  }

  /** Counts the lines that were written since the last time. */
  #readLog(): void {
    for (;;) {
      const filled = readSync(this.#log, this.#chunk, 0, this.#chunk.length, this.#logOffset);
      const end = this.#chunk.lastIndexOf("\n", filled - 1) + 1;
      if (filled === 0 || end === 0) return;
      for (const line of this.#chunk.toString("latin1", 0, end).split("\n")) this.#count(line);
      this.#logOffset += end;
    }
  }

  #count(line: string): void {
    const match = LOG_LINE.exec(line);
    if (match === null) return;
    const [, bucket, operation] = match as unknown as [string, string, string];
    const count = this.#counts.get(bucket) ?? { ...NO_REQUESTS };
    count[kindOf(operation)]++;
    this.#counts.set(bucket, count);
  }
}

/** Requests between two counts. */
export function requestsBetween(before: RequestCount, after: RequestCount): RequestCount {
  const { writes, lists, reads, deletes } = after;
  return {
    writes: writes - before.writes,
    lists: lists - before.lists,
    reads: reads - before.reads,
    deletes: deletes - before.deletes,
  };
}

export function totalOf({ writes, lists, reads, deletes }: RequestCount): number {
  return writes + lists + reads + deletes;
}

// --- internal ---

const NO_REQUESTS: RequestCount = { writes: 0, lists: 0, reads: 0, deletes: 0 };
/** `- bench-1 [time] 127.0.0.1 - ID s3_PutObject key ...`: the bucket, and what was asked. */
const LOG_LINE = /^\S+ (\S+) \[[^\]]*\] \S+ \S+ \S+ s3_(\w+) /;

function kindOf(operation: string): keyof RequestCount {
  if (/^(Get|Head)/.test(operation)) return "reads";
  if (operation.startsWith("List")) return "lists";
  return operation.startsWith("Delete") || operation.startsWith("Abort") ? "deletes" : "writes";
}

/** walsync's are N-N.ltx; Litestream's are in folder 0000, merged ones in the next. */
function isIncrement(path: string): boolean {
  const match = /^(?:([0-9a-f]{4})\/)?([0-9a-f]+)-([0-9a-f]+)\.ltx$/.exec(path);
  return match !== null && (match[1] ?? "0000") === "0000" && match[2] === match[3];
}

/** Paths of the LTX files below `folder`, from there on. */
function filesBelow(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ltx"));
  } catch (error) {
    // The folder of a database appears with its first object.
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}
