// Goal: one run of snapshot ships one database completely, a second one without a change ships nothing, and the database
// and its application notice neither.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { openDestination } from "../../src/destination/open.ts";
import { nameOf, requireOneSource, takeSnapshot } from "../../src/engine/snapshot.ts";
import { WalsyncError } from "../../src/errors.ts";
import { rejection } from "../conformance/helpers.ts";
import { compiledBinary } from "../support/binary.ts";
import { contentOf, differingPages, tablesOf } from "../support/databases.ts";
import { copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { expectHidden, expectOneError, s3Access, succeed, treeOf, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const ltx = requireTool("ltx");
const application = new SqliteProcess();
afterAll(async () => {
  await application.stop();
  await server?.stop();
});

/** A folder with app.db, which the application has open and keeps open. */
async function makePlace({
  journalMode = "wal",
  pageSize = 4096,
}: {
  journalMode?: "wal" | "delete";
  pageSize?: number;
} = {}) {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  await application.open({ path: join(folder, "app.db"), journalMode, pageSize });
  await application.run("create table item (id integer primary key, body)");
  await insert();
  return folder;
}

const insert = () => application.run("insert into item (body) values (randomblob(9000))");
const snapshot = (cwd: string, ...flags: string[]) =>
  succeed(["snapshot", "app.db", "-b", "bucket", ...flags], { cwd });
const objects = (folder: string, name = "app") => readdirSync(join(folder, "bucket", name)).sort();

async function expectRestorable(folder: string, name = "app"): Promise<void> {
  const [copy, output] = [join(folder, "copy.db"), join(folder, `${crypto.randomUUID()}.db`)];
  copyDatabase(join(folder, "app.db"), copy);
  await succeed(["restore", name, "-b", "bucket", "-o", output, "--integrity", "full"], { cwd: folder });
  expect(differingPages(contentOf(copy), contentOf(output))).toEqual([]);
}

test.each([512, 4096, 65536])(
  "a database with pages of %d bytes, in use, is shipped whole by one run",
  async (pageSize) => {
    const folder = await makePlace({ pageSize });
    const { stdout } = await snapshot(folder);
    expect(stdout).toMatch(/^app: snapshot at txid 1 in .*\/bucket, in \d+(\.\d+)? m?s\n$/);
    expect(objects(folder)).toEqual(["00000001-00000001.ltx", "manifest.json"]);
    await expectRestorable(folder);
    if (ltx === null) return;
    const verified = Bun.spawnSync([ltx, "verify", join(folder, "bucket/app/00000001-00000001.ltx")]);
    expect({ status: verified.exitCode, said: verified.stderr.toString() }).toEqual({ status: 0, said: "" });
  },
);

test("a second run without a change ships nothing, and says the same", async () => {
  const folder = await makePlace();
  const first = JSON.parse((await snapshot(folder, "--json")).stdout);
  expect(first).toEqual({ name: "app", txid: 1 });
  const before = treeOf(join(folder, "bucket"));
  expect(JSON.parse((await snapshot(folder, "--json")).stdout)).toEqual(first);
  await application.checkpoint("TRUNCATE", 1000);
  expect(JSON.parse((await snapshot(folder, "--json")).stdout)).toEqual(first);
  expect(treeOf(join(folder, "bucket"))).toEqual(before);
});

test("after a change it ships the increment and a snapshot, and every state before stays what it was", async () => {
  const folder = await makePlace();
  await snapshot(folder);
  const first = treeOf(join(folder, "bucket/app"));
  for (const txid of [2, 3]) {
    await insert();
    expect(JSON.parse((await snapshot(folder, "--json", "--quiet")).stdout)).toEqual({ name: "app", txid });
    await expectRestorable(folder);
  }
  expect(objects(folder)).toEqual([
    "00000001-00000001.ltx",
    "00000001-00000002.ltx",
    "00000001-00000003.ltx",
    "00000002-00000002.ltx",
    "00000003-00000003.ltx",
    "manifest.json",
  ]);
  expect(treeOf(join(folder, "bucket/app"))["00000001-00000001.ltx"]).toBe(first["00000001-00000001.ltx"] ?? "");
});

test("the database and its WAL keep every byte, and no table of ours is in it", async () => {
  const folder = await makePlace();
  const isDatabase = ([name]: [string, string]) => name.startsWith("app.db");
  const before = Object.fromEntries(Object.entries(treeOf(folder)).filter(isDatabase));
  expect(Object.keys(before)).toEqual(["app.db", "app.db-shm", "app.db-wal"]);
  for (let run = 0; run < 2; run++) await snapshot(folder);
  expect(Object.fromEntries(Object.entries(treeOf(folder)).filter(isDatabase))).toEqual(before);
  expect(await application.checkpoint("TRUNCATE")).toMatchObject({ busy: false });
  expect(tablesOf(join(folder, "app.db"))).toEqual(["item"]);
});

test("only its owner can read what walsync keeps, which is where --state-dir says", async () => {
  const folder = await makePlace();
  await snapshot(folder, "--state-dir", "state");
  expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  const [own] = readdirSync(join(folder, "state"));
  for (const path of ["state", `state/${own}`])
    expect([path, statSync(join(folder, path)).mode & 0o077]).toEqual([path, 0]);
  await snapshot(folder);
  expect(readdirSync(folder)).toContain(".app.db-walsync");
  expect(statSync(join(folder, ".app.db-walsync")).mode & 0o777).toBe(0o700);
});

test("a name once used is kept; another name is another chain", async () => {
  const folder = await makePlace();
  await succeed(["snapshot", "tenants/7=app.db", "-b", "bucket"], { cwd: folder });
  expect(JSON.parse((await snapshot(folder, "--json")).stdout)).toEqual({ name: "tenants/7", txid: 1 });
  expect(readdirSync(join(folder, "bucket"))).toEqual(["tenants"]);
  await succeed(["snapshot", "shop=app.db", "-b", "bucket"], { cwd: folder });
  expect(readdirSync(join(folder, "bucket")).sort()).toEqual(["shop", "tenants"]);
  for (const name of ["tenants/7", "shop"]) await expectRestorable(folder, name);
});

test("each destination has its own chain", async () => {
  const folder = await makePlace();
  await snapshot(folder);
  await insert();
  const args = ["snapshot", "app.db", "-b", "second", "--json"];
  expect(JSON.parse((await succeed(args, { cwd: folder })).stdout)).toEqual({ name: "app", txid: 1 });
  expect(JSON.parse((await snapshot(folder, "--json")).stdout)).toEqual({ name: "app", txid: 2 });
});

test("without the local state an unchanged database continues its chain without a new upload", async () => {
  const folder = await makePlace();
  await snapshot(folder);
  const before = objects(folder);
  expect(JSON.parse((await snapshot(folder, "--state-dir", "elsewhere", "--json")).stdout)).toEqual({
    name: "app",
    txid: 1,
  });
  expect(objects(folder)).toEqual(before);
});

test("--enable-wal is the only way to a change of the journal mode", async () => {
  const folder = await makePlace({ journalMode: "delete" });
  await application.close();
  const before = treeOf(folder);
  const refused = await walsync(["snapshot", "app.db", "-b", "bucket"], { cwd: folder });
  expectOneError(refused, "E_DATABASE", /app\.db: expected journal mode WAL, found DELETE\nhint: .*--enable-wal/);
  expect(treeOf(folder)).toEqual(before);
  await snapshot(folder, "--enable-wal");
  await application.open({ path: join(folder, "app.db") });
  expect(await application.rows("pragma journal_mode")).toEqual([["wal"]]);
  await expectRestorable(folder);
});

describe("while another process watches the database", () => {
  const sockets = (folder: string) => ({ XDG_RUNTIME_DIR: folder });

  /** Runs `action` while `watch` replicates app.db of a new place; expects the watcher to end well. */
  async function watched(action: (folder: string, pid: number) => Promise<void>): Promise<void> {
    const folder = await makePlace();
    const watch = Bun.spawn([compiledBinary(), "watch", "app.db", "-b", "bucket", "--no-metrics"], {
      cwd: folder,
      env: { PATH: process.env.PATH ?? "", ...sockets(folder) },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    try {
      let log = "";
      for await (const chunk of watch.stderr.pipeThrough(new TextDecoderStream())) {
        log += chunk;
        if (log.includes("snapshot shipped")) break;
      }
      await action(folder, watch.pid);
      watch.kill("SIGTERM");
      expect(await watch.exited).toBe(0);
    } finally {
      watch.kill("SIGKILL");
    }
    await expectRestorable(folder);
  }

  test("that takes the snapshot, through its control socket", async () => {
    await watched(async (folder) => {
      await insert();
      const { stdout } = await succeed(["snapshot", "app.db", "-b", "bucket", "--json"], {
        cwd: folder,
        env: sockets(folder),
      });
      const { name, txid } = JSON.parse(stdout) as { name: string; txid: number };
      expect(name).toBe("app");
      const key = `00000001-${String(txid).padStart(8, "0")}.ltx`;
      expect(readdirSync(join(folder, "bucket", "app"))).toContain(key);
    });
  });

  test("to another destination, or as another user would, it is refused, names that process, and harms nothing", async () => {
    await watched(async (folder, pid) => {
      const says = new RegExp(`app\\.db.*\\b${pid}\\b.*\nhint: `);
      const elsewhere = await walsync(["snapshot", "app.db", "-b", "elsewhere"], { cwd: folder, env: sockets(folder) });
      expectOneError(elsewhere, "E_LOCKED", says);
      const alone = await walsync(["snapshot", "app.db", "-b", "bucket"], {
        cwd: folder,
        env: { XDG_RUNTIME_DIR: dir },
      });
      expectOneError(alone, "E_LOCKED", says);
      await insert();
    });
  });

  test("with another --state-dir it is that process, too", async () => {
    await watched(async (folder) => {
      await insert();
      const args = ["snapshot", "app.db", "-b", "bucket", "--state-dir", "elsewhere"];
      const outcome = await walsync(args, { cwd: folder, env: { XDG_RUNTIME_DIR: dir } });
      expectOneError(outcome, "E_LOCKED", /app\.db/);
    });
  });
});

describe.skipIf(server === null)("to a bucket", () => {
  const { flags, env } = server === null ? { flags: [], env: {} } : s3Access(server);
  beforeAll(() => server?.createBucket("backups"));

  test("every object carries the sha256 of its bytes, and no secret is written or told", async () => {
    const folder = await makePlace();
    const args = ["snapshot", "app.db", "-b", "s3://backups/prod", ...flags, "--verbose", "--log-format", "json"];
    let said = "";
    for (let run = 0; run < 2; run++) {
      const { stdout, stderr } = await succeed(args, { cwd: folder, env });
      said += stdout + stderr;
      await insert();
    }
    const destination = await openDestination("s3://backups/prod", { endpoint: server?.endpoint, env });
    const keys: string[] = [];
    for await (const { key } of destination.list("")) {
      keys.push(key);
      const body = await destination.read(key);
      const hash = createHash("sha256");
      for await (const chunk of body?.chunks ?? []) {
        hash.update(chunk);
        said += Buffer.from(chunk).toString("latin1");
      }
      if (key.endsWith(".ltx")) expect([key, body?.metadata.sha256]).toEqual([key, hash.digest("hex")]);
    }
    destination.close();
    const files = ["00000001-00000001.ltx", "00000001-00000002.ltx", "00000002-00000002.ltx", "manifest.json"];
    expect(keys).toEqual(files.map((file) => `app/${file}`));
    for (const file of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (file.isFile() && file.parentPath.includes("-walsync"))
        said += readFileSync(join(file.parentPath, file.name), "latin1");
    }
    expectHidden(said, [env.AWS_SECRET_ACCESS_KEY ?? "-"]);
  });
});

test.each([
  ["walsync", "litestream"],
  ["litestream", "walsync"],
])("a name that exists in the %s layout is not written to in the %s one", async (there, asked) => {
  const folder = await makePlace();
  await snapshot(folder, "--layout", there);
  const before = treeOf(join(folder, "bucket"));
  await insert();
  const refused = await walsync(["snapshot", "app.db", "-b", "bucket", "--layout", asked], { cwd: folder });
  expectOneError(
    refused,
    "E_CONFIG",
    new RegExp(`expected the ${asked} layout .* found ${there}\n.*--layout ${there}`),
  );
  expect(treeOf(join(folder, "bucket"))).toEqual(before);
  // What is known of the one layout is not taken for the other: the chain goes on.
  await snapshot(folder, "--layout", there);
  await expectRestorable(folder);
});

test("the litestream layout has the snapshot twice, and nothing beside it", async () => {
  const folder = await makePlace();
  await snapshot(folder, "--layout", "litestream");
  const file = "0000000000000001-0000000000000001.ltx";
  const found = Object.keys(treeOf(join(folder, "bucket", "app")));
  expect(found.sort()).toEqual(["ltx", "ltx/0", `ltx/0/${file}`, "ltx/9", `ltx/9/${file}`]);
  await expectRestorable(folder);
});

test("a fault of this host's disk while it is sent is what the command ends with, not that time ran out", async () => {
  const folder = await makePlace();
  const fault = new WalsyncError("E_DISK", "outbox/1.ltx: expected a file that can be read, found EIO");
  const destination = new (class extends DirectoryDestination {
    override async write(...args: Parameters<DirectoryDestination["write"]>) {
      if (args[0].endsWith(".ltx")) throw fault;
      return await super.write(...args);
    }
  })(join(folder, "bucket"));
  const database = nameOf(requireOneSource(join(folder, "app.db")), destination.url, undefined);
  const options = { layout: "walsync", stateDir: undefined, enableWal: false } as const;
  const { signal } = new AbortController();
  expect(await rejection(takeSnapshot(destination, database, { ...options, env: {}, signal }))).toBe(fault);
  // Nothing is lost: the next run ships it.
  await snapshot(folder);
  await expectRestorable(folder);
});
