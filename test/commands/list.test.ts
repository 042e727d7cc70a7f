// Goal: list tells what can be restored, the same in its table and as JSON, and what it tells can be asked for.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { LIST_RESULT } from "../../src/commands/results.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { listDatabases } from "../../src/engine/list.ts";
import { DestinationError } from "../../src/errors.ts";
import { formatBytes } from "../../src/quantities.ts";
import { schemaFaults } from "../support/json-schema.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { s3Access, succeed, walsync } from "./run.ts";

const dir = tempDir();
const bucket = join(dir, "bucket");
const server = await startVersitygw();
/** Name at the destination and how many transactions are shipped under it. */
const DATABASES: [name: string, snapshots: number][] = [
  ["app", 3],
  ["größe 1", 1],
  ["tenants/7", 2],
];

interface Listed {
  name: string;
  layout: string;
  txid: number;
  snapshots: number;
  increments: number;
  bytes: number;
  /** Null only where something is damaged. */
  oldest: string;
  newest: string;
  error: { code: string; message: string; hint: string | null } | null;
}

beforeAll(async () => {
  for (const [i, [name, snapshots]] of DATABASES.entries()) {
    const app = new Database(join(dir, `${i}.db`), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id integer primary key, body)");
    for (let n = 0; n < snapshots; n++) {
      app.run("insert into item (body) values (randomblob(?))", [3000 * (i + 1)]);
      await succeed(["snapshot", `${name}=${i}.db`, "-b", "bucket"], { cwd: dir });
    }
    app.close();
  }
}, 20_000);
afterAll(() => server?.stop());

async function listed(
  url: string,
  options: Parameters<typeof succeed>[1] = {},
  flags: string[] = [],
): Promise<Listed[]> {
  const { stdout, stderr } = await succeed(["list", "-b", url, "--json", ...flags], { cwd: dir, ...options });
  expect(stderr).toBe("");
  expect(stdout.trimEnd().split("\n")).toHaveLength(1);
  const parsed = JSON.parse(stdout) as { databases: Listed[] };
  expect(Object.keys(parsed)).toEqual(["databases"]);
  return parsed.databases;
}

/** The cells of the table, by the columns that its header gives. */
async function tableOf(url: string): Promise<Record<string, string>[]> {
  const { stdout, stderr } = await succeed(["list", "-b", url], { cwd: dir });
  expect(stderr).toBe("");
  const [header = "", ...lines] = stdout.trimEnd().split("\n");
  const names = header.split(/ {2,}/);
  return lines.map((line) => {
    const cells = line.split(/ {2,}/);
    expect(cells).toHaveLength(names.length);
    return Object.fromEntries(names.map((name, i) => [name, cells[i] ?? ""]));
  });
}

test("JSON has the promised fields, and says what the destination holds", async () => {
  const databases = await listed("bucket");
  expect(databases.map(({ name }) => name)).toEqual(DATABASES.map(([name]) => name));
  for (const [i, database] of databases.entries()) {
    const fields = ["bytes", "error", "increments", "layout", "name", "newest", "oldest", "snapshots", "txid"];
    expect(Object.keys(database).sort()).toEqual(fields);
    const files = readdirSync(join(bucket, database.name)).filter((name) => name.endsWith(".ltx"));
    const snapshots = files.filter((name) => name.startsWith("00000001-"));
    expect(database).toMatchObject({
      layout: "walsync",
      txid: DATABASES[i]?.[1],
      snapshots: snapshots.length,
      increments: files.length - snapshots.length,
      bytes: files.reduce((sum, name) => sum + statSync(join(bucket, database.name, name)).size, 0),
    });
    expect(snapshots.length).toBe(DATABASES[i]?.[1] ?? 0);
    for (const time of [database.oldest, database.newest]) expect(new Date(time).toISOString()).toBe(time);
    expect(database.oldest === database.newest).toBe(database.txid === 1);
    expect(database.oldest <= database.newest).toBe(true);
  }
});

test("the table says the same as JSON, cell by cell, in columns", async () => {
  const [databases, rows] = [await listed("bucket"), await tableOf("bucket")];
  expect(rows.map(({ OLDEST: _, NEWEST: __, ...row }) => row)).toEqual(
    databases.map((database) => ({
      NAME: database.name,
      LAYOUT: database.layout,
      TXID: String(database.txid),
      SNAPSHOTS: String(database.snapshots),
      INCREMENTS: String(database.increments),
      SIZE: formatBytes(database.bytes),
    })),
  );
  for (const [i, { OLDEST = "", NEWEST = "" }] of rows.entries()) {
    for (const [cell, time = ""] of [
      [OLDEST, databases[i]?.oldest],
      [NEWEST, databases[i]?.newest],
    ] as const) {
      expect(cell).toBe(time);
    }
    expect(OLDEST <= NEWEST).toBe(true);
  }
  const lines = (await succeed(["list", "-b", "bucket"], { cwd: dir })).stdout.trimEnd().split("\n");
  const ends = (pattern: RegExp) =>
    new Set(lines.map((line) => (pattern.exec(line)?.index ?? -1) + (pattern.exec(line)?.[0].length ?? 0)));
  expect(new Set(lines.map((line) => line.search(/LAYOUT|walsync/))).size).toBe(1);
  expect(ends(/(LAYOUT|walsync) +\S+/).size).toBe(1);
  expect(lines.filter((line) => line !== line.trimEnd())).toEqual([]);
});

test("a file URL, a path with / behind it and an absolute path mean the same", async () => {
  const expected = await listed("bucket");
  for (const url of ["bucket/", "./bucket", bucket, `file://${bucket}`]) expect(await listed(url)).toEqual(expected);
});

test("a folder of the destination lists what is below it, under the names that restore takes there", async () => {
  const [seven] = await listed("bucket/tenants");
  expect(seven?.name).toBe("7");
  await succeed(["restore", "7", "-b", "bucket/tenants", "-o", "seven.db"], { cwd: dir });
});

test("what JSON tells can be asked for: oldest is the first restore point, newest the last", async () => {
  for (const { name, txid, oldest, newest } of await listed("bucket")) {
    for (const [time, expected] of [
      [oldest, 1],
      [newest, txid],
    ] as const) {
      const output = `${crypto.randomUUID()}.db`;
      const args = ["restore", name, "-b", "bucket", "-o", output, "--point-in-time", time, "--json"];
      expect(JSON.parse((await succeed(args, { cwd: dir })).stdout)).toMatchObject({ txid: expected, time });
    }
  }
});

test("what the table tells can be asked for, too", async () => {
  for (const { NAME = "", TXID = "", OLDEST = "", NEWEST = "" } of await tableOf("bucket")) {
    for (const [time, txid] of [
      [OLDEST, 1],
      [NEWEST, Number(TXID)],
    ] as const) {
      const output = `${crypto.randomUUID()}.db`;
      const args = ["restore", NAME, "-b", "bucket", "-o", output, "--point-in-time", time, "--json"];
      expect(JSON.parse((await succeed(args, { cwd: dir })).stdout)).toMatchObject({ txid });
    }
  }
});

test("files of others and files that are half written are not databases", async () => {
  const expected = await listed("bucket");
  mkdirSync(join(bucket, "notes"));
  for (const path of [
    "README.txt",
    "notes/a.txt",
    "notes/1-1.ltx",
    "app/.tmp-0123456789abcdef",
    "app/notes.md",
    "app/000000001-00000009.ltx",
  ]) {
    writeFileSync(join(bucket, path), "somebody else's");
  }
  expect(await listed("bucket")).toEqual(expected);
});

test("nothing is written, whatever is listed", async () => {
  const before = (readdirSync(dir, { recursive: true }) as string[]).sort();
  await listed("bucket");
  await tableOf("bucket");
  expect((readdirSync(dir, { recursive: true }) as string[]).sort()).toEqual(before);
});

test("an empty destination has no databases, and that is no error", async () => {
  mkdirSync(join(dir, "empty"));
  expect(await listed("empty")).toEqual([]);
  const { stdout } = await succeed(["list", "-b", "empty"], { cwd: dir });
  expect(stdout).toBe(`${join(dir, "empty")}: no databases\n`);
});

describe("a destination with damage", () => {
  const damaged = join(dir, "damaged");
  const fileOf = (name: string, file: string) => join(damaged, name, `${file}.ltx`);
  const snapshot = (txid: number) => `00000001-${String(txid).padStart(8, "0")}`;

  beforeEach(() => {
    rmSync(damaged, { recursive: true, force: true });
    cpSync(bucket, damaged, { recursive: true });
  });

  /** Lists it as JSON and as a table: both go on, say the same, and end with the status of damage. */
  async function listedDamaged(): Promise<{ databases: Listed[]; lines: string[] }> {
    const json = await walsync(["list", "-b", "damaged", "--json"], { cwd: dir });
    const table = await walsync(["list", "-b", "damaged"], { cwd: dir });
    const parsed = JSON.parse(json.stdout) as { databases: Listed[] };
    expect(schemaFaults(LIST_RESULT, parsed)).toEqual([]);
    for (const { status, stderr } of [json, table]) {
      expect(status).toBe(5);
      expect(stderr).toMatch(
        /^walsync: E_(LTX|INTEGRITY) \S.*: expected every database .* damaged\n(because: .*\n)+hint: .*\n$/,
      );
      for (const { error } of parsed.databases)
        if (error !== null) expect(stderr).toContain(`because: ${error.message}\n`);
    }
    const lines = table.stdout.trimEnd().split("\n");
    // A script may take the first word of each for a name.
    expect(lines.slice(1).map((line) => line.split(/ {2,}/)[0])).toEqual(parsed.databases.map(({ name }) => name));
    return { databases: parsed.databases, lines };
  }

  test("a file whose header is damaged is told of its database, never as a wrong time; the others are as ever", async () => {
    const before = await listed("bucket");
    truncateSync(fileOf("app", snapshot(3)), 60);
    const { databases, lines } = await listedDamaged();
    const [app, ...others] = databases;
    expect(others).toEqual(before.slice(1));
    expect(app).toMatchObject({ name: "app", txid: 3, oldest: before[0]!.oldest, newest: null });
    expect(app!.error).toMatchObject({ code: "E_LTX", message: expect.stringMatching(/app\/.*: .*found 60/) });
    expect(lines[1]).toMatch(/^app +walsync .* \S+Z +damaged$/);
    expect(lines.filter((line) => line.includes("damaged"))).toHaveLength(1);
  });

  test("every database is damaged: every one is told", async () => {
    for (const [name, last] of DATABASES) for (const txid of [1, last]) truncateSync(fileOf(name, snapshot(txid)), 50);
    const { databases } = await listedDamaged();
    expect(databases).toMatchObject(
      DATABASES.map(([name]) => ({ name, oldest: null, newest: null, error: { code: "E_LTX" } })),
    );
  });

  test("files of two layouts below one name are its fault alone", async () => {
    const [, ...before] = await listed("bucket");
    const other = join(damaged, "app", "0000", `${"1".padStart(16, "0")}-${"1".padStart(16, "0")}.ltx`);
    mkdirSync(dirname(other), { recursive: true });
    writeFileSync(other, "another tool's");
    const { databases } = await listedDamaged();
    expect(databases[0]).toMatchObject({ name: "app", oldest: null, newest: null, error: { code: "E_INTEGRITY" } });
    expect(databases.slice(1)).toEqual(before);
  });
});

describe("of very many databases", () => {
  const many = join(dir, "many");
  const names = Array.from({ length: 40 }, (_, i) => `db${i}`);

  beforeAll(() => {
    for (const name of names) cpSync(join(bucket, "app"), join(many, name), { recursive: true });
  });

  /** What is listed where `read` is asked for every file. */
  async function listThrough(read: (key: string) => Promise<void>) {
    const inner = await openDestination(many);
    const destination: Destination = {
      url: inner.url,
      capabilities: inner.capabilities,
      prepare: () => inner.prepare(),
      list: (prefix, options) => inner.list(prefix, options),
      listFolders: (prefix, options) => inner.listFolders(prefix, options),
      head: (key, options) => inner.head(key, options),
      write: (...args) => inner.write(...args),
      remove: (...args) => inner.remove(...args),
      close: () => inner.close(),
      read: async (key, options) => {
        await read(key);
        return await inner.read(key, options);
      },
    };
    return await listDatabases(destination, new AbortController().signal);
  }

  test("a few are looked at at a time, and each has its line, by name", async () => {
    let underWay = 0;
    let most = 0;
    const found = await listThrough(async () => {
      most = Math.max(most, ++underWay);
      await Bun.sleep(1);
      underWay--;
    });
    expect(found.map(({ name }) => name)).toEqual(names.toSorted());
    expect(found.every(({ fault, oldestMs, newestMs }) => fault === null && oldestMs! < newestMs!)).toBe(true);
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(8);
  });

  test("a destination that gives no answer is no damage of one of them: there is no list", async () => {
    const listing = listThrough(async (key) => {
      if (key.startsWith("db7/")) throw new DestinationError("no answer", { retryable: true });
    });
    await expect(listing).rejects.toMatchObject({ code: "E_UNREACHABLE" });
  });
});

describe.skipIf(server === null)("a bucket", () => {
  const { flags, env } = server === null ? { flags: [], env: {} } : s3Access(server);

  test("is listed as a directory is: empty, with several databases, and below a prefix", async () => {
    await server?.createBucket("backups");
    expect(await listed("s3://backups", { env }, flags)).toEqual([]);
    expect((await succeed(["list", "-b", "s3://backups/prod", ...flags], { env })).stdout).toBe(
      "s3://backups/prod: no databases\n",
    );
    for (const name of ["b", "größe 1", "a/b"]) {
      await succeed(["snapshot", `${name}=0.db`, "-b", "s3://backups/prod", ...flags, "--state-dir", name], {
        cwd: dir,
        env,
      });
    }
    const databases = await listed("s3://backups/prod/", { env }, flags);
    expect(databases.map(({ name }) => name)).toEqual(["a/b", "b", "größe 1"]);
    for (const database of databases) expect(database).toMatchObject({ txid: 1, snapshots: 1, increments: 0 });
    const whole = await listed("s3://backups", { env: { ...env, AWS_ENDPOINT_URL_S3: server?.endpoint ?? "" } });
    expect(whole).toEqual(databases.map((database) => ({ ...database, name: `prod/${database.name}` })));
    expect(await listed("s3://backups/pro", { env }, flags)).toEqual([]);
  });
});
