// Goal: each row of the README's table of exit statuses is true: every code there is provoked with the compiled program, and its
// status is the one of the row. A code that nobody provokes here is a failure of this test.
import { Database } from "bun:sqlite";
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { acquireLock } from "../../src/replication/lock.ts";
import { makeKeys } from "../encryption/make.ts";
import { compiledBinary, type Finished } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";
import { documentedStatus, expectOneError, succeed, walsync } from "./run.ts";

const dir = tempDir();
const readme = readFileSync(resolve(import.meta.dir, "../../README.md"), "utf8");
const env = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test-secret" };

/** A folder with app.db, shipped as app to bucket/ in it: a snapshot and two increments. */
async function makePlace(): Promise<{ folder: string; bucket: string; path: string }> {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  const path = join(folder, "app.db");
  const bucket = join(folder, "bucket");
  const database = new Database(path, { create: true });
  database.run("pragma journal_mode = wal");
  database.run("create table item (body)");
  for (let i = 0; i < 3; i++) {
    database.run("insert into item values (randomblob(5000))");
    await succeed(["snapshot", path, "-b", bucket]);
  }
  database.close();
  return { folder, bucket, path };
}

const flip = (path: string, at: number) => {
  const bytes = readFileSync(path);
  bytes[at]! ^= 1;
  writeFileSync(path, bytes);
};

/** How each code comes about. */
const provoked: Record<string, () => Promise<Finished>> = {
  E_USAGE: () => walsync(["list", "--bukket", "x"]),
  E_CONFIG: () => walsync(["list", "--config", join(dir, "missing.toml")]),
  async E_IDENTITY() {
    const { folder, bucket, path } = await makePlace();
    const { recipient } = await makeKeys(join(folder, "key.txt"));
    await succeed(["snapshot", path, "-b", `${bucket}-encrypted`, "--recipient", recipient]);
    return await walsync(["restore", "app", "-o", join(folder, "out.db"), "-b", `${bucket}-encrypted`]);
  },
  async E_OUTPUT_EXISTS() {
    const { bucket, path } = await makePlace();
    return await walsync(["restore", "app", "-o", path, "-b", bucket]);
  },
  E_UNREACHABLE: () => walsync(["list", "-b", "s3://bucket", "--endpoint", "http://127.0.0.1:9"], { env }),
  E_REFUSED: () => walsync(["list", "-b", "s3://bucket"]),
  async E_NOT_FOUND() {
    const { bucket, folder } = await makePlace();
    return await walsync(["restore", "nobody", "-o", join(folder, "out.db"), "-b", bucket]);
  },
  async E_INTEGRITY() {
    const { bucket } = await makePlace();
    rmSync(join(bucket, "app", "00000002-00000002.ltx"));
    const { status, stderr } = await walsync(["verify", "app", "-b", bucket]);
    return { status, stderr, stdout: "" }; // What it found, before it fails.
  },
  async E_LTX() {
    const { bucket, folder } = await makePlace();
    for (const name of readdirSync(join(bucket, "app"))) {
      if (name.endsWith(".ltx")) flip(join(bucket, "app", name), 200);
    }
    return await walsync(["restore", "app", "-o", join(folder, "out.db"), "-b", bucket]);
  },
  async E_CHAIN_GAP() {
    const { bucket, folder } = await makePlace();
    for (const name of readdirSync(join(bucket, "app"))) {
      if (/^0+1-0+[23]\.ltx$|^0+2-/.test(name)) rmSync(join(bucket, "app", name));
    }
    return await walsync(["restore", "app", "-o", join(folder, "out.db"), "-b", bucket]);
  },
  async E_DRILL() {
    const { bucket } = await makePlace();
    const { status, stderr } = await walsync(["drill", "app", "-b", bucket, "--assert", "SELECT 0"]);
    return { status, stderr, stdout: "" }; // What it found, before it fails.
  },
  async E_LOCKED() {
    const { bucket, folder, path } = await makePlace();
    const lock = acquireLock(join(folder, ".app.db-walsync"), path);
    try {
      return await walsync(["snapshot", path, "-b", bucket]);
    } finally {
      lock.release();
    }
  },
  async E_FENCED() {
    const { bucket, path } = await makePlace();
    const other = await makePlace();
    await succeed(["snapshot", `app=${other.path}`, "-b", bucket]);
    const database = new Database(path);
    database.run("insert into item values (1)");
    database.close();
    const { status, stdout, stderr } = await walsync(["snapshot", path, "-b", bucket]);
    // It is an event as well, since a watch would go on with its other databases.
    return { status, stdout, stderr: stderr.replaceAll(/^\S+Z .*\n/gm, "") };
  },
  E_DATABASE: () => walsync(["snapshot", join(dir, "gone.db"), "-b", join(dir, "b")]),
  async E_DISK() {
    const { folder, bucket, path } = await makePlace();
    writeFileSync(join(folder, "file"), "");
    return await walsync(["snapshot", path, "-b", bucket, "--state-dir", join(folder, "file")]);
  },
};

/** The WAL is damaged under the pin only by force from outside, at a moment that no test of a process can choose. */
const NOT_PROVOKED = ["E_WAL"];

test("every code of the table is provoked here", () => {
  const codes = [...readme.matchAll(/^\| \d .*$/gm)].flatMap(([row]) => row.match(/E_\w+/g) ?? []);
  expect(codes.length).toBeGreaterThan(12);
  expect(codes.toSorted()).toEqual([...Object.keys(provoked), ...NOT_PROVOKED].sort());
});

test.each(Object.keys(provoked))(
  "%s",
  async (code) => {
    const finished = await provoked[code]!();
    expectOneError(finished, code, new RegExp(`^walsync: ${code} `, "m"));
    expect(finished.status).toBe(documentedStatus(code));
  },
  30_000,
);

test("0 is success, and 1 is left to bugs: no row but its own has it", async () => {
  expect((await makePlace()).bucket).toStartWith(dir);
  const rows = [...readme.matchAll(/^\| (\d[\d, ]*?) +\|/gm)].map((match) => match[1]!);
  expect(rows).toEqual(["0", "1", "2", "3", "4", "5", "6", "7", "130, 143"]);
});

const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
afterAll(() => silent.stop(true));

test.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("%s ends a command that waits for a destination with %d", async (signal, status) => {
  const endpoint = `http://127.0.0.1:${silent.port}`;
  const child = Bun.spawn([compiledBinary(), "list", "-b", "s3://bucket", "--endpoint", endpoint], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  });
  await Bun.sleep(700);
  child.kill(signal);
  expect(await child.exited).toBe(status);
});
