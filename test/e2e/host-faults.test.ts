// Goal: a disk that is full or read-only, a process that may open too few files, an upload killed in the middle: nothing is
// lost, the error says what to do, and everything goes on by itself when the fault is over. Real file systems, real limits.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeKeys } from "../encryption/make.ts";
import { compiledBinary, runBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw, type Versitygw } from "../support/versitygw.ts";

const MiB = 1024 * 1024;
const dir = tempDir();
const children = ownChildren();

/** A mount that only one process and its children see needs no root, but a kernel that allows it. */
const canMount = Bun.spawnSync(["unshare", "-rm", "true"]).success;
if (!canMount) console.warn("SKIPPED: tests of full and read-only disks, because this kernel allows no private mounts");

interface Place {
  folder: string;
  path: string;
  bucket: string;
  app: Database;
}

function makePlace(): Place {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(join(folder, "disk"), { recursive: true });
  const path = join(folder, "app.db");
  const app = new Database(path, { create: true });
  app.run("pragma journal_mode = wal");
  app.run("create table item (id integer primary key, body)");
  return { folder, path, bucket: join(folder, "bucket"), app };
}

const insert = ({ app }: Place, bytes: number) => app.run("insert into item (body) values (randomblob(?))", [bytes]);

interface Started {
  child: Bun.Subprocess;
  log: () => string;
}

function start(command: readonly string[], env: Record<string, string> = {}): Started {
  const child = Bun.spawn([...command], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  children.push(child);
  const log = textOf(child.stderr);
  return { child, log };
}

/**
 * The program with a small file system at `folder`/disk, which is mounted anew with the options in each file
 * `folder`/remount-N as it appears. The file `folder`/stop is its SIGTERM: signals do not reach into its namespace.
 */
function withDisk(folder: string, size: string, ...args: string[]): string[] {
  const script = `
    mount -t tmpfs -o size=${size} tmpfs "$0/disk" || exit 99
    "$@" & program=$!
    (n=1; while sleep 0.05; do
       if [ -e "$0/remount-$n" ]; then
         mount -o "remount,$(cat "$0/remount-$n")" "$0/disk" && touch "$0/done-$n" && n=$((n + 1))
       fi
       if [ -e "$0/stop" ]; then kill -TERM $program; exit; fi
     done) &
    wait $program; status=$?
    ls -A "$0/disk" > "$0/left"
    exit $status`;
  const namespace = ["unshare", "-rm", "--pid", "--fork", "--kill-child"];
  return [...namespace, "sh", "-c", script, folder, compiledBinary(), ...args];
}

async function stop({ folder }: Place, { child, log }: Started): Promise<void> {
  writeFileSync(join(folder, "stop"), "");
  expect({ status: await child.exited, log: log() }).toMatchObject({ status: 0 });
  expect(log()).not.toMatch(/bug|E_FENCED|E_INTEGRITY/);
}

async function remount({ folder }: Place, n: number, options: string): Promise<void> {
  writeFileSync(join(folder, `remount-${n}.tmp`), options);
  Bun.spawnSync(["mv", join(folder, `remount-${n}.tmp`), join(folder, `remount-${n}`)]);
  await until(() => existsSync(join(folder, `done-${n}`)));
}

async function until(condition: () => boolean, tell: () => string = () => ""): Promise<void> {
  for (let i = 0; i < 1500; i++) {
    if (condition()) return;
    await Bun.sleep(20);
  }
  throw new Error(`waited in vain: ${tell()}`);
}

async function expectRestored({ folder, path, bucket }: Place, env: Record<string, string> = {}, ...flags: string[]) {
  const output = join(folder, "restored.db");
  rmSync(output, { force: true });
  const restore = ["restore", "app", "-o", output, "-b", bucket, "--integrity", "full", ...flags];
  expect(await runBinary(restore, env)).toMatchObject({ status: 0 });
  expect(differingPages(contentOf(path), contentOf(output))).toEqual([]);
}

const objectsOf = ({ bucket }: Place) => readdirSync(join(bucket, "app")).filter((name) => name.endsWith(".ltx"));

describe.skipIf(!canMount)("a disk", () => {
  test("that fills up under the outbox: capture waits for room, then goes on", async () => {
    const place = makePlace();
    insert(place, 1000);
    const state = join(place.folder, "disk", "state");
    const args = ["watch", place.path, "-b", place.bucket, "--state-dir", state, "--no-metrics"];
    const started = start(withDisk(place.folder, "2m", ...args, "--wal-sync-interval", "0.1"));
    const { log } = started;
    await until(() => log().includes("snapshot shipped"), log);
    // More than the disk holds, and then ordinary commits, which may not overtake it.
    insert(place, 8 * MiB);
    await until(() => log().includes("E_DISK"), log);
    expect(log()).toMatch(/disk is full/i);
    for (let i = 0; i < 5; i++) insert(place, 5000);
    await Bun.sleep(500);
    expect(objectsOf(place)).toEqual(["00000001-00000001.ltx"]);
    await remount(place, 1, "size=200m");
    await until(() => objectsOf(place).length > 1, log);
    await stop(place, started);
    await expectRestored(place);
  }, 60_000);

  test("that shrinks under the state, and grows again", async () => {
    const place = makePlace();
    insert(place, 1000);
    const state = join(place.folder, "disk", "state");
    const args = ["watch", place.path, "-b", place.bucket, "--state-dir", state, "--no-metrics"];
    const started = start(withDisk(place.folder, "50m", ...args, "--wal-sync-interval", "0.1"));
    const { log } = started;
    await until(() => log().includes("snapshot shipped"), log);
    await remount(place, 1, "size=64k");
    insert(place, MiB);
    await until(() => log().includes("E_DISK"), log);
    await remount(place, 2, "size=50m");
    await until(() => objectsOf(place).length > 1, log);
    await stop(place, started);
    await expectRestored(place);
  }, 60_000);

  test("that is full where a restore writes: nothing is left, and what was there stays", async () => {
    const place = makePlace();
    insert(place, 8 * MiB);
    expect(await runBinary(["snapshot", place.path, "-b", place.bucket])).toMatchObject({ status: 0 });
    const output = join(place.folder, "disk", "restored.db");
    const { child, log } = start(withDisk(place.folder, "2m", "restore", "app", "-o", output, "-b", place.bucket));
    expect(await child.exited).toBe(7);
    expect(log()).toMatch(/E_DISK .*ENOSPC/);
    expect(log()).toMatch(/hint: .*disk is full/i);
    expect(readFileSync(join(place.folder, "left"), "utf8")).toBe("");
  }, 30_000);

  test("that holds what waits, and not a second copy: it is encrypted all the same, by a snapshot and by a watch", async () => {
    const place = makePlace();
    const keys = await makeKeys(join(place.folder, "key.txt"));
    insert(place, 5 * MiB);
    const state = ["--state-dir", join(place.folder, "disk", "state"), "--recipient", keys.recipient];
    const once = start(withDisk(place.folder, "8m", "snapshot", place.path, "-b", place.bucket, ...state));
    expect([await once.child.exited, once.log()]).toEqual([0, expect.not.stringContaining("E_")]);
    rmSync(place.bucket, { recursive: true });
    const args = ["watch", place.path, "-b", place.bucket, ...state, "--no-metrics", "--wal-sync-interval", "0.1"];
    const started = start(withDisk(place.folder, "8m", ...args));
    await until(() => started.log().includes("snapshot shipped"), started.log);
    insert(place, 5 * MiB);
    await until(() => objectsOf(place).length > 1, started.log);
    await stop(place, started);
    expect(started.log()).not.toContain("E_DISK");
    await expectRestored(place, {}, "--identity", keys.identityFile);
  }, 30_000);

  test("that is full where a snapshot waits to be encrypted and sent: the file, and what to do", async () => {
    const place = makePlace();
    const keys = await makeKeys(join(place.folder, "key.txt"));
    insert(place, 8 * MiB);
    const state = ["--state-dir", join(place.folder, "disk", "state"), "--recipient", keys.recipient];
    const { child, log } = start(withDisk(place.folder, "2m", "snapshot", place.path, "-b", place.bucket, ...state));
    expect(await child.exited).toBe(7);
    expect(log()).toMatch(/E_DISK .*outbox.*ENOSPC.*\n.*hint: .*disk is full/i);
  }, 30_000);

  test("that is read-only: each command says so, and no state is made", async () => {
    const place = makePlace();
    insert(place, 1000);
    expect(await runBinary(["snapshot", place.path, "-b", place.bucket])).toMatchObject({ status: 0 });
    const disk = join(place.folder, "disk");
    const readOnly = (...args: string[]) => {
      const script = 'mount -t tmpfs -o ro tmpfs "$0/disk" && shift 0 && exec "$@"';
      return start(["unshare", "-rm", "sh", "-c", script, place.folder, compiledBinary(), ...args]);
    };
    for (const args of [
      ["restore", "app", "-o", join(disk, "out.db"), "-b", place.bucket],
      ["snapshot", place.path, "-b", place.bucket, "--state-dir", join(disk, "state")],
      ["watch", place.path, "-b", place.bucket, "--state-dir", join(disk, "state"), "--no-metrics"],
      ["snapshot", `other=${place.path}`, "-b", join(disk, "bucket")],
    ]) {
      const { child, log } = readOnly(...args);
      expect({ args, status: await child.exited, log: log() }).toMatchObject({
        status: args.includes(join(disk, "bucket")) ? 3 : 7,
        log: expect.stringContaining("EROFS"),
      });
    }
  }, 30_000);
});

test("too few file descriptors for all databases is told at once, with what to do; with enough all go on", async () => {
  const folder = join(dir, "many");
  mkdirSync(folder);
  for (let i = 0; i < 30; i++) {
    const app = new Database(join(folder, `db${i}.db`), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id integer primary key)");
    app.close();
  }
  const bucket = join(dir, "many-bucket");
  const watch = ["watch", folder, "-b", bucket, "--no-metrics"];
  for (const limit of [40, 60, 100, 150, 200]) {
    const { child, log } = start(["sh", "-c", `ulimit -n ${limit}; exec "$@"`, "sh", compiledBinary(), ...watch]);
    expect(await child.exited).toBe(7);
    await until(() => log().includes("hint: "), log);
    expect(log()).toMatch(/descriptor|EMFILE/);
    expect(log()).toContain("ulimit -n");
  }
  const { child, log } = start([compiledBinary(), ...watch]);
  await until(() => (log().match(/snapshot shipped/g)?.length ?? 0) === 30, log);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
}, 60_000);

describe("an upload in parts", () => {
  let server: Versitygw | null = null;

  beforeAll(async () => {
    server = await startVersitygw();
    await server?.createBucket("parts");
  }, 60_000);
  afterAll(async () => await server?.stop());

  test("that is killed in the middle shows no object; the next start ships the whole", async () => {
    if (server === null) return;
    const place = makePlace();
    for (let i = 0; i < 12; i++) insert(place, 10 * MiB);
    const env = { AWS_ACCESS_KEY_ID: server.accessKeyId, AWS_SECRET_ACCESS_KEY: server.secretAccessKey };
    const bucket = "s3://parts/prod";
    const args = ["watch", place.path, "-b", bucket, "--endpoint", server.endpoint, "--no-metrics"];
    const list = async () =>
      JSON.parse(
        (await runBinary(["list", "-b", bucket, "--endpoint", server!.endpoint, "--json"], env)).stdout,
      ) as unknown;
    const empty = await list();
    const first = start([compiledBinary(), ...args], env);
    for (let i = 0; i < 2000 && (await server.openUploads("parts")).length === 0; i++) await Bun.sleep(10);
    expect(await server.openUploads("parts")).toEqual(["prod/app/00000001-00000001.ltx"]);
    first.child.kill("SIGKILL");
    await first.child.exited;
    expect(await list()).toEqual(empty);
    const second = start([compiledBinary(), ...args, "--verbose"], env);
    await until(() => second.log().includes("snapshot shipped"), second.log);
    insert(place, 1000);
    second.child.kill("SIGTERM");
    expect(await second.child.exited).toBe(0);
    expect(second.log()).not.toMatch(/ error /);
    await expectRestored({ ...place, bucket }, env, "--endpoint", server.endpoint);
  }, 90_000);
});
