// Goal: the whole promise, from outside. The compiled program watches four live databases on a real S3 server while other
// processes write to them; it is killed once without warning. Afterwards every database comes back page by page, under
// the name that `list` shows, and the public ltx tool finds nothing wrong with any object.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { openDestination } from "../../src/destination/open.ts";
import { compiledBinary, runBinary } from "../support/binary.ts";
import { contentOf, differingPages, tablesOf } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { startVersitygw } from "../support/versitygw.ts";

const ltx = requireTool("ltx");
const server = await startVersitygw();
const folder = tempDir();
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 31));
const children: Bun.Subprocess[] = [];

/** Three of four are called app.db. */
const DATABASES = [
  { path: join(folder, "romneys/app.db"), name: "romneys/app", pageSize: 4096 },
  { path: join(folder, "smiths/app.db"), name: "smiths/app", pageSize: 512 },
  { path: join(folder, "jones/data/app.db"), name: "data/app", pageSize: 65536 },
  { path: join(folder, "shop.db"), name: "shop", pageSize: 1024 },
];

describe.skipIf(server === null || ltx === null)(`four live databases, seed ${seed}`, () => {
  const s3 = server!;
  const env = {
    AWS_ACCESS_KEY_ID: s3?.accessKeyId ?? "",
    AWS_SECRET_ACCESS_KEY: s3?.secretAccessKey ?? "",
    AWS_ENDPOINT_URL_S3: s3?.endpoint ?? "",
  };
  const bucket = "s3://backups/prod";
  const log = join(folder, "watch.log");
  const tables: string[][] = [];
  let endOfWatch = -1;

  beforeAll(async () => {
    await s3.createBucket("backups");
    const writers = DATABASES.map(({ path, pageSize }, i) => {
      mkdirSync(dirname(path), { recursive: true });
      return startWriter(path, pageSize, seed + i);
    });
    for (const { ready } of writers) await ready;
    const first = startWatch(env, bucket, log);
    await shipped(log, 5);
    // Killed in the middle of everything, and started again.
    first.kill("SIGKILL");
    await first.exited;
    const second = startWatch(env, bucket, log);
    await shipped(log, 15);
    for (const { stop } of writers) tables.push(await stop());
    second.kill("SIGTERM");
    endOfWatch = await second.exited;
  }, 90_000);

  afterAll(async () => {
    for (const child of children) child.kill("SIGKILL");
    await s3.stop();
  });

  test("a clean SIGTERM exits 0, and nothing went wrong on the way", () => {
    const complaints = readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => / (error|warn) /.test(line))
      // Nothing held the WALs while nobody watched, so after the kill a comparison may be all that proves anything.
      .filter((line) => !/comparing the whole database .* reason=(wal-restarted|position-unknown)$/.test(line));
    expect(complaints).toEqual([]);
    expect(endOfWatch).toBe(0);
  });

  test("list shows every database under its name", async () => {
    const { status, stdout } = await runBinary(["list", "-b", bucket, "--json"], env);
    expect(status).toBe(0);
    const { databases } = JSON.parse(stdout) as { databases: { name: string; txid: number; snapshots: number }[] };
    expect(databases.map(({ name }) => name)).toEqual(DATABASES.map(({ name }) => name).sort());
    for (const { snapshots, txid } of databases) {
      expect(snapshots).toBeGreaterThanOrEqual(1);
      expect(txid).toBeGreaterThan(10);
    }
  });

  test.each(DATABASES)(
    "$name is restored page by page",
    async ({ path, name, pageSize }) => {
      const output = join(folder, "restored", `${name.replaceAll("/", "-")}.db`);
      const { status, stderr } = await runBinary(
        ["restore", name, "-o", output, "-b", bucket, "--integrity", "full", "--quiet"],
        env,
      );
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      const expected = contentOf(path);
      expect(new DataView(expected.buffer, expected.byteOffset).getUint16(16)).toBe(pageSize === 65536 ? 1 : pageSize);
      expect(differingPages(expected, contentOf(output))).toEqual([]);
    },
    30_000,
  );

  test.each(DATABASES)("$name holds no table of ours", ({ path }) => {
    const i = DATABASES.findIndex((database) => database.path === path);
    expect(tablesOf(path)).toEqual(tables[i]!);
  });

  test("every object passes the public ltx tool", async () => {
    const objects = join(folder, "objects");
    mkdirSync(objects);
    const destination = await openDestination(bucket, { env });
    for await (const { key } of destination.list("")) {
      if (!key.endsWith(".ltx")) continue;
      const body = await destination.read(key);
      const parts: Uint8Array[] = [];
      for await (const chunk of body!.chunks) parts.push(Uint8Array.from(chunk));
      writeFileSync(join(objects, key.replaceAll("/", "-")), Buffer.concat(parts));
    }
    destination.close();
    const files = readdirSync(objects).map((name) => join(objects, name));
    expect(files.length).toBeGreaterThan(10 * DATABASES.length);
    const verified = Bun.spawnSync([ltx!, "verify", ...files]);
    expect(verified.stderr.toString() + verified.stdout.toString()).not.toMatch(/error|invalid|mismatch/i);
    expect(verified.exitCode).toBe(0);
  }, 30_000);

  test("the secret key is in no output", () => {
    expect(readFileSync(log, "utf8")).not.toContain(env.AWS_SECRET_ACCESS_KEY);
  });
});

/** Waits until so many files of each database are shipped. */
async function shipped(log: string, files: number): Promise<void> {
  for (let i = 0; i < 1000; i++, await Bun.sleep(30)) {
    const text = existsSync(log) ? readFileSync(log, "utf8") : "";
    const counts = DATABASES.map(({ name }) => text.split(`shipped database=${name} `).length - 1);
    if (counts.every((count) => count >= files)) return;
  }
  throw new Error(`expected ${files} shipped files of each database within 30 s:\n${readFileSync(log, "utf8")}`);
}

function startWriter(path: string, pageSize: number, writerSeed: number) {
  const program = join(import.meta.dir, "application.ts");
  const child = Bun.spawn([process.execPath, program, path, String(pageSize), String(writerSeed)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  children.push(child);
  let output = "";
  const ready = Promise.withResolvers<void>();
  const ended = (async () => {
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      output += chunk;
      if (output.includes("ready\n")) ready.resolve();
    }
    if ((await child.exited) !== 0) throw new Error(`${path}: the application failed`);
  })();
  ended.catch((error) => ready.reject(error));
  const stop = async (): Promise<string[]> => {
    child.kill("SIGTERM");
    await ended;
    return (JSON.parse(output.trim().split("\n").at(-1)!) as { tables: string[] }).tables;
  };
  return { ready: ready.promise, stop };
}

function startWatch(env: Record<string, string>, bucket: string, log: string) {
  const paths = DATABASES.map(({ path }) => path);
  const args = ["watch", ...paths, "-b", bucket, "--wal-sync-interval", "100ms", "--verbose", "--no-metrics"];
  const child = Bun.spawn([compiledBinary(), ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  children.push(child);
  void (async () => {
    for await (const chunk of child.stderr) appendFileSync(log, chunk);
  })();
  return child;
}
