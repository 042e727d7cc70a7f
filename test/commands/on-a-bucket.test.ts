// Goal: every command does its work with a real S3 server, as a user runs it: the compiled program. And what --json prints is
// what docs/JSON.md says, field by field.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { ResultSchema } from "../../src/cli/result-schema.ts";
import { app } from "../../src/main.ts";
import { compiledBinary } from "../support/binary.ts";
import { onText } from "../support/children.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { schemaFaults } from "../support/json-schema.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { s3Access, succeed, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const URL = "s3://every-command/prod";
const results = new Map<string, ResultSchema>();
for (const [name, { load }] of Object.entries(app.commands)) {
  const { result, flags } = (await load()).table;
  if (result !== undefined) results.set(name, result);
  // A command that has --json says what it prints, and no other does.
  if ("json" in flags !== (result !== undefined)) throw new Error(`${name}: expected --json and its schema together`);
}
/** Commands whose result was held against its schema. */
const proven = new Set<string>();

describe("the validator", () => {
  const schema = results.get("list")!;
  const row = {
    name: "app",
    layout: "walsync",
    txid: 3,
    snapshots: 1,
    increments: 2,
    bytes: 9,
    oldest: null,
    newest: "2026-05-01T12:00:00.000Z",
    error: null,
  };
  test("passes what is right", () => {
    expect(schemaFaults(schema, { databases: [row, { ...row, txid: "18446744073709551615" }] })).toEqual([]);
  });
  test.each<[string, unknown]>([
    ["a field too many", { databases: [{ ...row, extra: 1 }] }],
    ["a field that is missing", { databases: [{ ...row, name: undefined }] }],
    ["another type", { databases: [{ ...row, bytes: "9" }] }],
    ["a number below its least", { databases: [{ ...row, snapshots: -1 }] }],
    ["half a file", { databases: [{ ...row, increments: 0.5 }] }],
    ["a word that is none of the choices", { databases: [{ ...row, layout: "tar" }] }],
    ["null where there is always a value", { databases: [{ ...row, txid: null }] }],
    ["a time that is none", { databases: [{ ...row, newest: "yesterday" }] }],
    ["no list", { databases: null }],
  ])("finds %s", (_law, value) => {
    expect(schemaFaults(schema, JSON.parse(JSON.stringify(value)))).not.toEqual([]);
  });
});

describe.skipIf(server === null)("on a bucket", () => {
  const access = server === null ? { flags: [], env: {} } : s3Access(server);
  const env = { ...access.env, XDG_RUNTIME_DIR: dir };
  const path = join(dir, "app.db");
  let database: Database;
  let watch: Bun.Subprocess<"ignore", "ignore", "pipe">;
  let log = "";

  const place = ["-b", URL, ...access.flags];
  const run = (...args: string[]) => succeed(args, { cwd: dir, env });
  /** Runs with --json, holds the result against the schema, and returns it. */
  async function resultOf<T>(command: string, ...args: string[]): Promise<T> {
    const { stdout } = await run(command, ...args, "--json");
    expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    const value = JSON.parse(stdout);
    expect({ command, faults: schemaFaults(results.get(command)!, value) }).toEqual({ command, faults: [] });
    proven.add(command);
    return value as T;
  }

  beforeAll(async () => {
    await server?.createBucket("every-command");
    mkdirSync(join(dir, "out"));
    database = new Database(path, { create: true });
    database.run("pragma journal_mode = wal");
    database.run("create table item (id integer primary key, body)");
    database.run("insert into item (body) values (randomblob(9000))");
    watch = Bun.spawn([compiledBinary(), "watch", "app.db", ...place, "--no-metrics"], {
      cwd: dir,
      env: { PATH: process.env.PATH ?? "", ...env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    onText(watch.stderr, (text) => {
      log += text;
    });
    for (let i = 0; i < 1000 && !log.includes("snapshot shipped"); i++) await Bun.sleep(20);
    expect(log).toContain("snapshot shipped");
  });
  afterAll(async () => {
    watch?.kill("SIGKILL");
    database?.close();
    await server?.stop();
  });

  test("status and sync ask the watch", async () => {
    database.run("insert into item (body) values (randomblob(9000))");
    const { databases } = await resultOf<{ databases: { name: string; txid: number }[] }>("sync", "--wait");
    expect(databases).toEqual([{ name: "app", txid: 2 }]);
    const { watches } = await resultOf<{ watches: { destination: string; databases: object[] }[] }>("status");
    expect(watches).toMatchObject([{ destination: URL, databases: [{ name: "app", state: "live", shipped_txid: 2 }] }]);
  });

  test("drill restores what the watch shipped, and learns from it that nothing is missing", async () => {
    const { ok, databases } = await resultOf<{ ok: boolean; databases: object[] }>("drill", "app", ...place);
    expect(ok).toBe(true);
    expect(databases).toEqual([expect.objectContaining({ rpo_seconds: 0, missing_transactions: 0, faults: [] })]);
  });

  test("snapshot goes through the watch", async () => {
    database.run("insert into item (body) values (randomblob(9000))");
    expect(await resultOf<object>("snapshot", "app.db", ...place)).toEqual({ name: "app", txid: 3 });
  });

  test("list, verify, compact and explain say what is there", async () => {
    const { databases } = await resultOf<{ databases: object[] }>("list", ...place);
    expect(databases).toMatchObject([{ name: "app", txid: 3, snapshots: 2 }]);
    const verified = await resultOf<{ databases: { ok: boolean; proven: number }[] }>("verify", "app", ...place);
    expect(verified.databases).toMatchObject([{ ok: true, proven: 3 }]);
    const compacted = await resultOf<{ deleted: boolean; databases: object[] }>("compact", "app", ...place);
    expect(compacted).toMatchObject({ deleted: false, databases: [{ name: "app", deleted: { files: 0 } }] });
    const explained = await resultOf<{ settings: { walSyncInterval: number } }>("explain", "app.db", ...place);
    expect(explained.settings.walSyncInterval).toBe(1000);
  });

  test("doctor finds nothing wrong while the watch runs, and leaves nothing behind", async () => {
    const { checks } = await resultOf<{ checks: { check: string; result: string; message: string }[] }>(
      "doctor",
      "app.db",
      ...place,
    );
    expect(checks.filter(({ result }) => result !== "ok")).toEqual([]);
    expect(checks.find(({ check }) => check === "watcher")?.message).toContain(`process ${watch.pid}`);
    expect(checks.map(({ check }) => check)).toContain("upload in parts");
    expect(await server!.openUploads("every-command")).toEqual([]);
    const { databases } = await resultOf<{ databases: object[] }>("list", "-b", "s3://every-command", ...access.flags);
    expect(databases).toMatchObject([{ name: "prod/app" }]);
  });

  test("replicate and restore return what the watch shipped, also after it has stopped", async () => {
    database.run("insert into item (body) values (randomblob(9000))");
    watch.kill("SIGTERM");
    expect(await watch.exited).toBe(0);
    const copy = join(dir, "out", "copy.db");
    const replica = await resultOf<object>("replicate", `${URL}/app`, "--local", copy, "--once", ...access.flags);
    expect(replica).toMatchObject({ name: "prod/app", txid: 4, reason: "bootstrap" });
    const output = join(dir, "out", "restored.db");
    expect(await resultOf<object>("restore", "app", "-o", output, ...place)).toMatchObject({ name: "app", txid: 4 });
    const expected = contentOf(path);
    expect(differingPages(expected, contentOf(output))).toEqual([]);
    // The change counter on page 1 of a read copy is its own.
    expect(differingPages(expected, contentOf(copy)).filter((pgno) => pgno !== 1)).toEqual([]);
    const old = join(dir, "out", "old.db");
    const { txid } = await resultOf<{ txid: number }>(
      "restore",
      "app",
      "-o",
      old,
      ...place,
      "--point-in-time",
      "txid:2",
    );
    expect(txid).toBe(2);
  });

  test("migrate copies what the watch shipped into the other layout", async () => {
    const to = "s3://every-command/converted";
    const { converted } = await resultOf<{ converted: object }>("migrate", "--convert", "app", ...place, "--to", to);
    expect(converted).toMatchObject({
      from: "walsync",
      layout: "litestream",
      txid: 4,
      points: 4,
      files: { existing: 0 },
    });
    const output = join(dir, "out", "converted.db");
    await run("restore", "app", "-o", output, "-b", to, ...access.flags);
    expect(differingPages(contentOf(path), contentOf(output))).toEqual([]);
  });

  test("completion needs no bucket", async () => {
    const { stdout } = await run("completion", "bash");
    for (const name of Object.keys(app.commands)) expect(stdout).toContain(`    ${name})\n`);
  });

  test("a bucket that is not there is refused by every command that needs one", async () => {
    const missing = ["-b", "s3://nobody-made-this", ...access.flags];
    const commands = [
      ["list"],
      ["verify", "app"],
      ["compact", "app"],
      ["restore", "app", "-o", "x.db"],
      ["drill", "app"],
      ["doctor"],
    ];
    for (const command of commands) {
      const { status } = await walsync([...command, ...missing], { cwd: dir, env });
      expect([command, status]).toEqual([command, 3]);
    }
  });
  test("every command with --json was held against its schema", () => {
    expect([...proven].sort()).toEqual([...results.keys()].sort());
  });
});
