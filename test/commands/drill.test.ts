// Goal: a drill restores what a restore would, says what is wrong with it and ends by that, never runs anything for longer than it
// may, changes nothing, and leaves nothing behind. The compiled program, against an S3 server and a directory.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DRILL_RESULT } from "../../src/commands/results.ts";
import type { DatabaseDrill } from "../../src/drill/report.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { schemaFaults } from "../support/json-schema.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { expectOneError, s3Access, succeed, treeOf, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const children = ownChildren();
setDefaultTimeout(30_000);
afterAll(() => server?.stop());

/** Ends only with its process. */
const ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

/** A place for whoever changes nothing. */
const shared = makePlace();

type Report = { ok: boolean; databases: DatabaseDrill<number>[]; point_in_time: string | null; destination: string };

interface Place {
  folder: string;
  bucket: string;
  /** Where drills restore. */
  temp: string;
  app: Database;
}

/** A folder with app.db, shipped as app: a snapshot and two increments. */
async function makePlace(name = "app"): Promise<Place> {
  const folder = join(dir, crypto.randomUUID());
  const place = { folder, bucket: join(folder, "bucket"), temp: join(folder, "temp") };
  mkdirSync(place.temp, { recursive: true });
  const app = new Database(join(folder, `${name}.db`), { create: true });
  app.run("pragma journal_mode = wal");
  app.run("create table users (id integer primary key, body)");
  for (let i = 0; i < 3; i++) {
    app.run("insert into users (body) values (randomblob(9000))");
    await succeed(["snapshot", join(folder, `${name}.db`), "-b", place.bucket]);
  }
  return { ...place, app };
}

const argsOf = ({ bucket, temp }: Place, ...args: string[]) => [
  "drill",
  ...args,
  "-b",
  bucket,
  "--temp-dir",
  temp,
  "-q",
];

/** Runs a drill with --json: what it printed, and its status. It has cleaned up, and printed what it is documented to. */
async function drill(place: Place, ...args: string[]) {
  const { status, stdout, stderr } = await walsync([...argsOf(place, ...args), "--json"]);
  const report = JSON.parse(stdout) as Report;
  expect(schemaFaults(DRILL_RESULT, report)).toEqual([]);
  expect(readdirSync(place.temp)).toEqual([]);
  expect(report.ok).toBe(status === 0);
  return { status, stderr, report, only: report.databases[0]! };
}

describe.each(["directory", "bucket"])("at a %s", (kind) => {
  const skipped = kind === "bucket" && server === null;
  const access = server !== null && kind === "bucket" ? s3Access(server) : { flags: [], env: {} };
  const url = kind === "bucket" ? "s3://drill/prod" : join(dir, "backups");
  const at = ["-b", url, ...access.flags];
  const temp = join(dir, `temp-${kind}`);
  const options = { cwd: dir, env: access.env };

  beforeAll(async () => {
    if (skipped) return;
    if (kind === "bucket") await server?.createBucket("drill");
    mkdirSync(temp);
    for (const name of ["app", "tenants/7"]) {
      const path = join(dir, `${kind}-${name.replace("/", "-")}.db`);
      const app = new Database(path, { create: true });
      app.run("pragma journal_mode = wal");
      app.run("create table users (id integer primary key, body)");
      app.run("insert into users (body) values (randomblob(20000))");
      await succeed(["snapshot", `${name}=${path}`, ...at], options);
      app.close();
    }
  });

  test.skipIf(skipped)(
    "all of them, several at a time: a table, a report on the disk, and the folder empty",
    async () => {
      const output = join(dir, `${kind}.json`);
      const args = ["drill", "--all", ...at, "--temp-dir", temp, "--parallel", "2", "-o", output, "-q"];
      const sql = "SELECT count(*) = 1 FROM users";
      const { stdout } = await succeed([...args, "--assert", sql], options);
      const [head, ...rows] = stdout.trimEnd().split("\n");
      expect(head).toMatch(/^NAME +RESULT +TXID +TIME +SIZE +FILES +FETCHED +RTO +RPO +CHECKS$/);
      expect(rows).toHaveLength(2);
      for (const row of rows) {
        expect(row).toMatch(/^(app|tenants\/7) +ok +1 +\S+Z +\d+ KiB +1 +[\d.]+ KiB +[\d.]+ m?s +[\d.]+ m?s +2 of 2$/);
        expect(row).toHaveLength(head!.length);
      }
      const report = JSON.parse(readFileSync(output, "utf8")) as Report;
      expect(schemaFaults(DRILL_RESULT, report)).toEqual([]);
      expect(report.databases.map(({ name, ok }) => [name, ok])).toEqual([
        ["app", true],
        ["tenants/7", true],
      ]);
      expect(report.databases[0]!.assertions).toEqual([{ sql, result: "ok", found: "" }]);
      expect(statSync(output).mode & 0o777).toBe(0o600);
      expect(readdirSync(temp)).toEqual([]);
    },
  );
});

describe("what is restored", () => {
  test("is the newest state, or the one that was asked for; what would be lost is about the newest", async () => {
    const place = await makePlace();
    const newest = await drill(place, "app");
    expect(newest.status).toBe(0);
    expect(newest.only).toMatchObject({ restored: { txid: 3 }, newest: { txid: 3 }, missing_transactions: null });
    expect(newest.only.rpo_seconds).toBe(newest.only.newest!.age_seconds);
    expect(newest.only.rpo_seconds).toBeGreaterThan(0);
    const sql = "SELECT count(*) = 1 FROM users";
    const past = await drill(place, "app", "--point-in-time", "txid:1", "--assert", sql);
    expect(past.only).toMatchObject({ ok: true, restored: { txid: 1 }, newest: { txid: 3 } });
    expect(past.report.point_in_time).toBe("txid:1");
    expect((await drill(place, "app", "--assert", sql)).status).toBe(5);
  });

  test("costs nothing where a watch has shipped everything, and what it has not where files are gone", async () => {
    const place = await makePlace();
    const env = { XDG_RUNTIME_DIR: place.folder };
    const path = join(place.folder, "app.db");
    const watch = ["watch", path, "-b", place.bucket, "--no-metrics", "--merge", "none"];
    const child = Bun.spawn([compiledBinary(), ...watch], { env, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    children.push(child);
    const log = textOf(child.stderr);
    while (!log().includes("watching")) await Bun.sleep(20);
    place.app.run("insert into users (body) values ('new')");
    await succeed(["sync", "app", "--wait"], { env });
    const args = [...argsOf(place, "app"), "--json", "--max-rpo", "1ms"];
    const there = JSON.parse((await succeed(args, { env })).stdout) as Report;
    expect(there.databases[0]).toMatchObject({ rpo_seconds: 0, missing_transactions: 0, newest: { txid: 4 } });
    expect(there.databases[0]!.newest!.age_seconds).toBeGreaterThan(0);
    expect((await succeed(argsOf(place, "app"), { env })).stdout).toMatch(/ none +1 of 1\n$/);
    rmSync(join(place.bucket, "app", "00000004-00000004.ltx"));
    const gone = await walsync(args, { env });
    expect(gone.status).toBe(5);
    const [only] = (JSON.parse(gone.stdout) as Report).databases;
    expect(only).toMatchObject({ missing_transactions: 1, newest: { txid: 3 }, faults: [{ code: "E_DRILL" }] });
    expect(only!.rpo_seconds).toBe(only!.newest!.age_seconds);
  });
});

describe("a destination that is not in order", () => {
  test.each([
    ["a flipped bit", "E_LTX", (key: string) => writeFileSync(key, flipped(readFileSync(key)))],
    ["a missing file", "E_CHAIN_GAP", (key: string) => rmSync(key)],
  ])("%s: status 5, and nothing is left", async (_, code, damage) => {
    const place = await makePlace();
    const files = join(place.bucket, "app");
    for (const name of readdirSync(files)) if (/^00000001-0000000[23]/.test(name)) rmSync(join(files, name));
    damage(join(files, "00000002-00000002.ltx"));
    const { status, only, stderr } = await drill(place, "app");
    expect(status).toBe(5);
    expect(only).toMatchObject({ ok: false, restored: null, rto_seconds: null, faults: [{ code }] });
    expect(stderr).toStartWith(`walsync: ${code} `);
  });

  test("a database that was damaged when it was captured: the restore is exact, and integrity_check says it", async () => {
    const place = await makePlace("bad");
    const path = join(place.folder, "bad.db");
    place.app.run("insert into users (body) values ('needle-in-both')");
    place.app.run("create index by_body on users (body)");
    place.app.close();
    // The newer page is that of the index: what it says is not what the table says, and no page is malformed.
    const bytes = readFileSync(path);
    bytes.write("nettle", bytes.lastIndexOf("needle-in-both"));
    writeFileSync(path, bytes);
    await succeed(["snapshot", path, "-b", place.bucket]);
    await succeed(["restore", "bad", "-o", join(place.folder, "out.db"), "-b", place.bucket, "--integrity", "quick"]);
    const { status, only } = await drill(place, "bad");
    expect(status).toBe(5);
    expect(only).toMatchObject({
      restored: { txid: 4 },
      integrity: { result: "untrue" },
      faults: [{ code: "E_INTEGRITY" }],
    });
  });

  test("of several databases the worst decides, and each has its line", async () => {
    const place = await makePlace();
    const { status, stdout, stderr } = await walsync(argsOf(place, "nobody", "app"));
    expect(status).toBe(4);
    // What was found is said once, where the result goes; the end of the run says that it was.
    const [, said] = /^error E_NOT_FOUND (.*)$/m.exec(stdout)!;
    expect(`${stdout}${stderr}`.split(said!)).toHaveLength(2);
    expect(stdout).toMatch(/^hint: There is: app$/m);
    expect(stderr).toStartWith("walsync: E_NOT_FOUND nobody: ");
    expect(stdout).toMatch(/^nobody +FAILED +- .*\napp +ok +3 .*\nerror E_NOT_FOUND nobody: .*\nhint: .*\n$/m);
    const worse = await walsync(argsOf(place, "nobody", "app", "--assert", "SELECT 0"));
    expect(worse.status).toBe(5);
    expect(worse.stderr).toMatch(/^walsync: E_DRILL nobody, app: .* found 2 of 2 that did not$/m);
    expectOneError(
      await walsync(["drill", "--all", "-b", place.temp, "-q"]),
      "E_NOT_FOUND",
      /databases to restore, found none/,
    );
  });

  test("limits that are missed", async () => {
    const place = await makePlace();
    expect((await drill(place, "app", "--max-rto", "1m", "--max-rpo", "1h")).status).toBe(0);
    const { status, only } = await drill(place, "app", "--max-rto", "1ms", "--max-rpo", "1ms");
    expect([status, only.faults.map(({ code }) => code)]).toEqual([5, ["E_DRILL", "E_DRILL"]]);
  });
});

describe("an assertion", () => {
  test.each([
    ["true", "SELECT count(*) > 0 FROM users;", "ok", /^$/],
    ["true in every row", "SELECT id FROM users ORDER BY id -- ids", "ok", /^$/],
    ["untrue", "SELECT count(*) > 3 FROM users", "untrue", /^not true$/],
    ["null", "SELECT NULL", "untrue", /^not true$/],
    ["text that is no number", "SELECT 'yes'", "untrue", /^not true$/],
    ["untrue in one row of three", "SELECT id <> 2 FROM users", "untrue", /^1 of 3 rows not true$/],
    ["true only behind the first column", "SELECT 0, 1", "untrue", /^not true$/],
    ["without rows", "SELECT 1 FROM users WHERE id > 99", "untrue", /^no rows$/],
    ["about a table that is not there", "SELECT count(*) FROM orders", "error", /no such table: orders/],
    ["that is no SQL", "SELECT FROM", "error", /syntax error/],
    ["of two statements", "SELECT 1; SELECT 1", "error", /syntax error/],
    ["that writes", "DELETE FROM users", "error", /gives no rows/],
    ["that writes and gives rows", "DELETE FROM users RETURNING 1", "error", /syntax error/],
    ["that makes a file", "VACUUM INTO 'stolen.db'", "error", /gives no rows/],
    ["that loads code", "SELECT load_extension('x')", "error", /not authorized/],
  ])("%s", async (_, sql, result, found) => {
    const place = await shared;
    const before = treeOf(place.bucket);
    const { status, only } = await drill(place, "app", `--assert=${sql}`, "--assert", "SELECT 1");
    expect(only.assertions).toEqual([
      { sql, result: result as "ok", found: expect.stringMatching(found) },
      { sql: "SELECT 1", result: "ok", found: "" },
    ]);
    expect(status).toBe(result === "ok" ? 0 : 5);
    expect(treeOf(place.bucket)).toEqual(before);
  });

  test("that never ends is ended, and the next one is asked all the same", async () => {
    const place = await shared;
    const both = ["--assert", ENDLESS, "--assert", "SELECT 1"];
    const { status, only } = await drill(place, "app", ...both, "--assert-timeout", "1");
    expect(status).toBe(5);
    expect(only.assertions.map(({ result }) => result)).toEqual(["timeout", "ok"]);
    expect(only.faults[0]!.message).toEndWith("found no end within 1 s");
  });

  test("stands in walsync.toml, for all or for one; and one of nothing is refused", async () => {
    const place = await shared;
    const config = join(place.folder, "walsync.toml");
    const run = async (toml: string, ...args: string[]) => {
      writeFileSync(config, toml);
      return await walsync([...argsOf(place, "app", ...args), "--json", "--config", config]);
    };
    const assertionsOf = ({ stdout }: { stdout: string }) =>
      (JSON.parse(stdout) as Report).databases[0]!.assertions.map(({ sql }) => sql);
    const all = '[drill]\nassert = ["SELECT 1"]\n';
    const one = `${all}[[databases]]\npath = "x.db"\nname = "app"\ndrill = { assert = ["SELECT 2", "SELECT 3"] }\n`;
    expect(assertionsOf(await run(all))).toEqual(["SELECT 1"]);
    expect(assertionsOf(await run(one))).toEqual(["SELECT 2", "SELECT 3"]);
    expect(assertionsOf(await run(one, "--assert", "SELECT 4"))).toEqual(["SELECT 4"]);
    // Without a name it is called after its file.
    const alone = one.replace('name = "app"\n', "");
    expect(assertionsOf(await run(alone.replace("x.db", "app.db")))).toEqual(["SELECT 2", "SELECT 3"]);
    expect(assertionsOf(await run(alone))).toEqual(["SELECT 1"]);
    expectOneError(
      await run('[drill]\nassert = [" "]\n'),
      "E_CONFIG",
      /walsync\.toml:2: drill\.assert: expected texts/,
    );
    expectOneError(await run("[drill]\nassert = [1]\n"), "E_CONFIG", /drill\.assert: expected a list of texts/);
  });

  test("of a file that is shipped under another name than its own is found by that, as a watch keeps it", async () => {
    const place = await makePlace("x");
    await succeed(["snapshot", `app=${join(place.folder, "x.db")}`, "-b", place.bucket]);
    const config = join(place.folder, "walsync.toml");
    writeFileSync(config, '[[databases]]\npath = "x.db"\ndrill = { assert = ["SELECT 2"] }\n');
    const { only } = await drill(place, "app", "--config", config);
    expect(only.assertions.map(({ sql }) => sql)).toEqual(["SELECT 2"]);
  });
});

describe("a drill that is interrupted", () => {
  const start = (place: Place, ...args: string[]) => {
    const command = [compiledBinary(), ...argsOf(place, "app", "--assert", ENDLESS, ...args)];
    const child = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "pipe", env: {} });
    children.push(child);
    return child;
  };
  /** The process that looks at what was restored in `temp`, once it does. */
  const checker = async (temp: string): Promise<number> => {
    for (let i = 0; i < 500; i++) {
      const found = readdirSync("/proc").find((pid) => /^\d+$/.test(pid) && opensIn(pid, temp));
      if (found !== undefined) return Number(found);
      await Bun.sleep(20);
    }
    throw new Error("waited in vain for the child of a drill");
  };
  const isAlive = (pid: number) => {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  };
  const isLinux = process.platform === "linux";

  test.skipIf(!isLinux)("by SIGTERM cleans up: nobody runs on, nothing is left", async () => {
    const place = await makePlace();
    const child = start(place);
    const pid = await checker(place.temp);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(143);
    expect(readdirSync(place.temp)).toEqual([]);
    expect(isAlive(pid)).toBe(false);
  });

  test.skipIf(!isLinux)(
    "by a kill: its check ends within its limit, and the next drill removes what is left",
    async () => {
      const place = await makePlace();
      const child = start(place, "--assert-timeout", "1");
      const pid = await checker(place.temp);
      child.kill("SIGKILL");
      await child.exited;
      expect(readdirSync(place.temp)).toEqual([expect.stringMatching(/^walsync-drill-/)]);
      for (let i = 0; i < 200 && isAlive(pid); i++) await Bun.sleep(20);
      expect(isAlive(pid)).toBe(false);
      expect((await drill(place, "app")).status).toBe(0);
    },
  );
});

test("a disk that is too small: nothing is written to it, and the hint says what to do", async () => {
  if (!Bun.spawnSync(["unshare", "-rm", "true"]).success) {
    console.warn("SKIPPED: a drill on a small disk, because this kernel allows no private mounts");
    return;
  }
  const place = await makePlace();
  const script = 'mount -t tmpfs -o size=2m tmpfs "$0" && "$@"; status=$?; ls -A "$0" >&2; exit $status';
  const command = ["unshare", "-rm", "sh", "-c", script, place.temp, compiledBinary(), ...argsOf(place, "app")];
  const child = Bun.spawnSync(command, { stdin: "ignore" });
  expect(child.exitCode).toBe(7);
  expect(child.stdout.toString()).toMatch(
    /^error E_DISK .* expected 16(\.\d+)? MiB free for a database of \d+ KiB, found 2 MiB\nhint: .*--temp-dir\.\n$/m,
  );
  // Behind it nothing: the folder is empty.
  expect(child.stderr.toString()).toMatch(/^walsync: E_DISK app: expected its drill to go well, .*\nhint: .*\n$/);
});

test("names and --all, neither, an unknown flag, and a report that cannot be written are refused at once", async () => {
  const place = await shared;
  for (const args of [[], ["app", "--all"]]) {
    expectOneError(await walsync(argsOf(place, ...args)), "E_USAGE", /expected names or --all/);
  }
  expectOneError(await walsync(argsOf(place, "app", "--asert", "SELECT 1")), "E_USAGE", /--assert\?/);
  expectOneError(await walsync(argsOf(place, "app", "-o", join(dir, "no", "x.json"))), "E_DISK", /x\.json/);
  expectOneError(await walsync(argsOf(place, "app", "--point-in-time", "noon")), "E_USAGE", /--point-in-time/);
  expect(readdirSync(place.temp)).toEqual([]);
});

// --- internal ---

function flipped(bytes: Buffer): Buffer {
  bytes[bytes.length >> 1]! ^= 4;
  return bytes;
}

/** True for a child that looks at a file below `folder`. */
function opensIn(pid: string, folder: string): boolean {
  try {
    const isDrill = readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("check-restored");
    return isDrill && linksOf(pid).some((path) => path.startsWith(folder));
  } catch {
    return false; // It has ended.
  }
}

function linksOf(pid: string): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return ""; // It was closed meanwhile.
    }
  });
}
