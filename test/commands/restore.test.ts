// Goal: restore gives back, page by page, the state that was asked for, says what it gave, and leaves nothing else behind.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { differingPages } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { expectOneError, s3Access, succeed, treeOf, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const PAGE_SIZES = [512, 4096, 65536];

interface State {
  txid: number;
  content: Uint8Array;
  /** A moment after it was shipped and before the next change. */
  moment: string;
}

/** The states of the database of each page size, oldest first. */
const states = new Map<number, State[]>();
const nameOf = (pageSize: number) => `size${pageSize}`;
const statesOf = (pageSize: number) => states.get(pageSize) ?? [];

/** Growth, change, shrinking, growth: each shipped as a transaction of its own. */
const STEPS = [
  "insert into item (body) select randomblob(700) from generate_series",
  "update item set body = randomblob(600) where id % 3 = 0",
  "delete from item where id > 10",
  "vacuum",
  "insert into item (body) values (randomblob(200000))",
];

beforeAll(async () => {
  await Promise.all(PAGE_SIZES.map(shipStates));
}, 30_000);
afterAll(() => server?.stop());

async function shipStates(pageSize: number): Promise<void> {
  const app = new Database(join(dir, `${nameOf(pageSize)}.db`), { create: true });
  app.run(`pragma page_size = ${pageSize}`);
  app.run("pragma journal_mode = wal");
  app.run("create table item (id integer primary key, body)");
  app.run("create table generate_series (n)");
  for (let n = 0; n < 60; n++) app.run("insert into generate_series values (?)", [n]);
  const shipped: State[] = [];
  states.set(pageSize, shipped);
  for (const step of STEPS) {
    app.run(step);
    const args = ["snapshot", `${nameOf(pageSize)}.db`, "-b", "bucket", "--json"];
    const { txid } = JSON.parse((await succeed(args, { cwd: dir })).stdout) as { txid: number };
    shipped.push({ txid, content: app.serialize(), moment: new Date().toISOString() });
    await Bun.sleep(2);
  }
  app.close();
}

let outputs = 0;
/** Restores into an empty folder, expects nothing but the output there, and gives its bytes and what was said. */
async function restored(name: string, args: string[] = [], env: Record<string, string> = {}, url = ["-b", "bucket"]) {
  const folder = join(dir, `output-${++outputs}`);
  mkdirSync(folder);
  const path = join(folder, "out.db");
  const { stdout, stderr } = await succeed(["restore", name, "-o", path, ...url, ...args], { cwd: dir, env });
  expect(readdirSync(folder)).toEqual(["out.db"]);
  const content = readFileSync(path);
  const database = new Database(path, { readonly: true });
  expect(database.query("pragma integrity_check").values()).toEqual([["ok"]]);
  database.close();
  return { content, stdout, stderr, path };
}

const at = (moment: string | number) => ["--point-in-time", typeof moment === "number" ? `txid:${moment}` : moment];

describe.each(PAGE_SIZES)("a database with pages of %d bytes", (pageSize) => {
  test("comes back as it is now, page by page", async () => {
    expect(statesOf(pageSize).map(({ txid }) => txid)).toEqual([1, 2, 3, 4, 5]);
    const { content } = await restored(nameOf(pageSize));
    expect(differingPages(statesOf(pageSize).at(-1)?.content ?? new Uint8Array(), content)).toEqual([]);
  });

  test("comes back as it was after each transaction, by txid and by time", async () => {
    const different = new Set(statesOf(pageSize).map(({ content }) => Bun.hash(content)));
    expect(different.size).toBe(STEPS.length);
    for (const { txid, content, moment } of statesOf(pageSize)) {
      const asked = [at(txid), at(moment)].map((args) => restored(nameOf(pageSize), [...args, "--json"]));
      for (const { content: bytes, stdout } of await Promise.all(asked)) {
        expect(differingPages(content, bytes)).toEqual([]);
        expect(JSON.parse(stdout)).toMatchObject({ txid });
      }
    }
  });
});

const name = nameOf(4096);
const newest = () => statesOf(4096).at(-1) as State;

test("JSON and text say the same: what was restored, to where, from how much", async () => {
  const asJson = await restored(name, [...at(3), "--json", "--quiet"]);
  expect(asJson.stderr).toBe("");
  const { files, time, ...told } = JSON.parse(asJson.stdout);
  const [before, { txid, content, moment }] = statesOf(4096).slice(1, 3) as [State, State];
  expect(told).toEqual({ name, output: asJson.path, txid, bytes: content.length });
  expect(before.moment < time && time <= moment).toBe(true);
  expect(files).toBeGreaterThan(0);
  const asText = await restored(name, [...at(3), "--quiet"]);
  expect(asText.stdout).toStartWith(
    `${asText.path}: ${name} at txid ${txid} of ${time}, ${content.length / 1024} KiB from `,
  );
  expect(asText.stdout).toMatch(new RegExp(`from ${files} files? \\([0-9.]+ [KM]?i?B\\) in [0-9.]+ m?s\\n$`));
  expect(asText.stdout.trimEnd().split("\n")).toHaveLength(1);
});

test("standard output holds the result alone; what is said on the way is on standard error, as JSON if asked", async () => {
  const { stdout, stderr } = await restored(name, ["--json", "--log-format", "json"]);
  expect(JSON.parse(stdout)).toMatchObject({ name });
  for (const line of stderr.trimEnd().split("\n")) expect(JSON.parse(line)).toMatchObject({ level: "info" });
});

test.each(["UTC", "Asia/Tokyo", "America/New_York"])(
  "a time without a zone is UTC, wherever the machine is: %s",
  async (TZ) => {
    const { moment: time, txid } = statesOf(4096)[1] as State;
    const shifted = new Date(Date.parse(time) + 2 * 3_600_000).toISOString();
    for (const spelling of [
      time.replace("Z", ""),
      time.replace("T", " "),
      time.toLowerCase().replace("t", "T"),
      shifted.replace("Z", "+02:00"),
      shifted.replace("Z", "+0200"),
    ]) {
      const { stdout } = await restored(name, [...at(spelling), "--json"], { TZ });
      expect([spelling, JSON.parse(stdout).txid]).toEqual([spelling, txid]);
    }
  },
);

test("--force replaces a file; without it, or when the restore fails, the file keeps every byte", async () => {
  const folder = join(dir, "forced");
  const path = join(folder, "app.db");
  mkdirSync(folder);
  writeFileSync(path, "precious");
  const before = treeOf(folder);
  const args = ["restore", name, "-b", "bucket", "-o", path];
  expectOneError(
    await walsync(args, { cwd: dir }),
    "E_OUTPUT_EXISTS",
    /app\.db: expected no such file, found one\nhint: .*--force/,
  );
  const damaged = join(dir, "bucket", name, "00000001-00000005.ltx");
  const bytes = readFileSync(damaged);
  const flipped = Buffer.from(bytes);
  const middle = bytes.length >>> 1;
  flipped.writeUInt8(flipped.readUInt8(middle) ^ 1, middle);
  writeFileSync(damaged, flipped);
  try {
    const outcome = await walsync([...args, "--force"], { cwd: dir });
    expect(outcome).toMatchObject({ status: 5, stdout: "" });
    expect(outcome.stderr).toContain(`${name}/00000001-00000005.ltx: `);
  } finally {
    writeFileSync(damaged, bytes);
  }
  expect(treeOf(folder)).toEqual(before);
  await succeed([...args, "--force"], { cwd: dir });
  expect(readdirSync(folder)).toEqual(["app.db"]);
  expect(differingPages(newest().content, readFileSync(path))).toEqual([]);
});

test("folders on the way to the output are made, and a relative output is below the working directory", async () => {
  await succeed(["restore", name, "-b", "bucket", "-o", "new/folders/app.db", "--quiet"], { cwd: dir });
  expect(differingPages(newest().content, readFileSync(join(dir, "new/folders/app.db")))).toEqual([]);
});

test("a restored database is one that can be shipped again under another name and restored from there", async () => {
  const { path } = await restored(name);
  await succeed(["snapshot", `again=${path}`, "-b", "bucket"], { cwd: dir });
  const { content } = await restored("again");
  expect(differingPages(newest().content, content)).toEqual([]);
});

test("a gap is an error for whatever lies behind it, and only for that", async () => {
  const first = statesOf(4096)[0] as State;
  const gap = join(dir, "gap", name);
  mkdirSync(gap, { recursive: true });
  for (const file of ["00000001-00000001.ltx", "00000002-00000002.ltx", "00000004-00000004.ltx"]) {
    writeFileSync(join(gap, file), readFileSync(join(dir, "bucket", name, file)));
  }
  const url = ["-b", "gap"];
  for (const moment of [[], at(4), at("2999-01-01")]) {
    const args = ["restore", name, ...url, "-o", "gap.db", ...moment];
    expectOneError(await walsync(args, { cwd: dir }), "E_CHAIN_GAP", /expected txid 0+3, found 0+4\nhint: /);
  }
  for (const moment of [first.txid, first.moment]) {
    const { content } = await restored(name, at(moment), {}, url);
    expect(differingPages(first.content, content)).toEqual([]);
  }
});

test("--integrity decides what SQLite checks: an index that misses rows is found by full alone", async () => {
  const app = new Database(join(dir, "sick.db"), { create: true });
  app.run("pragma journal_mode = wal");
  app.run("create table item (a)");
  app.run("create index by_a on item (a)");
  for (let n = 10; n < 60; n++) app.run("insert into item values (?)", [`needle-${n}-x`]);
  const { rootpage } = app.query("select rootpage from sqlite_schema where name = 'by_a'").get() as {
    rootpage: number;
  };
  app.close();
  const bytes = readFileSync(join(dir, "sick.db"));
  const place = bytes.indexOf("needle-17-x", (rootpage - 1) * 4096);
  expect(Math.floor(place / 4096)).toBe(rootpage - 1);
  bytes.write("needle-17-y", place);
  writeFileSync(join(dir, "sick.db"), bytes);
  await succeed(["snapshot", "sick.db", "-b", "bucket"], { cwd: dir });
  const restore = (check: string) =>
    walsync(["restore", "sick", "-b", "bucket", "-o", `sick-${check}.db`, "--integrity", check], { cwd: dir });
  expectOneError(
    await restore("full"),
    "E_INTEGRITY",
    /sick: expected PRAGMA integrity_check to say ok, found: .*by_a.*\nhint: /,
  );
  expect(readdirSync(dir).filter((file) => file.startsWith("sick-full"))).toEqual([]);
  for (const check of ["quick", "none"]) expect(await restore(check)).toMatchObject({ status: 0 });
  expect(readFileSync(join(dir, "sick-none.db"))).toEqual(readFileSync(join(dir, "sick-quick.db")));
});

test.skipIf(server === null)(
  "from a bucket, with every detail told, comes the same; and no secret is told",
  async () => {
    const { flags, env } = server === null ? { flags: [], env: {} } : s3Access(server);
    await server?.createBucket("backups");
    const url = ["-b", "s3://backups/prod", ...flags, "--verbose"];
    const source = ["snapshot", `${name}=${name}.db`, ...url, "--state-dir", "s3-state"];
    const shipped = await succeed(source, { cwd: dir, env });
    const { content, stdout, stderr } = await restored(name, [], env, url);
    expect(differingPages(newest().content, content)).toEqual([]);
    const said = shipped.stdout + shipped.stderr + stdout + stderr;
    for (const secret of Object.values(env).slice(1)) expect(said).not.toContain(secret);
    for (const file of readdirSync(join(dir, "s3-state"), { recursive: true, withFileTypes: true })) {
      if (file.isFile())
        expect(readFileSync(join(file.parentPath, file.name)).includes(env.AWS_SECRET_ACCESS_KEY ?? "-")).toBe(false);
    }
  },
);
