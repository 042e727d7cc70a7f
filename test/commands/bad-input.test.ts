// Goal: whatever is wrong with what a user asks for, one clear error says who, what was expected, what was found and what
// to do, with the exit status of its class; nothing is changed, and no secret is shown.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compiledBinary } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw, type Versitygw } from "../support/versitygw.ts";

const dir = tempDir();
const SECRET = "hunter2-hunter2-hunter2";
const TOKEN = "session-token-of-nobody";
let gateway: Versitygw | null;

beforeAll(async () => {
  gateway = await startVersitygw();
  makeDatabase("app.db", "wal");
  makeDatabase("delete.db", "delete");
  makeDatabase("other.db", "wal");
  makeDatabase("locked.db", "wal");
  writeFileSync(join(dir, "text.db"), "This is a text that somebody gave the name of a database. ".repeat(20));
  writeFileSync(join(dir, "half.db"), readFileSync(join(dir, "delete.db")).subarray(0, 50));
  writeFileSync(join(dir, "empty.db"), "");
  writeFileSync(join(dir, "precious.db"), "precious");
  mkdirSync(join(dir, "folder"));
  await run(["snapshot", "app.db", "-b", "bucket"]);
}, 60_000);
afterAll(() => gateway?.stop());

function makeDatabase(name: string, mode: string): void {
  const database = new Database(join(dir, name), { create: true });
  database.run(`pragma journal_mode = ${mode}`);
  database.run("create table item (id integer primary key, body)");
  database.run("insert into item (body) values (randomblob(5000))");
  database.close();
}

interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

async function run(args: string[], env: Record<string, string> = {}, prefix: string[] = []): Promise<Outcome> {
  const child = Bun.spawn([...prefix, prefix.length > 0 ? join(dir, "bin", "walsync") : compiledBinary(), ...args], {
    cwd: dir,
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: 20_000,
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { status: await child.exited, stdout, stderr };
}

/** Every file below the folder, with its size, time of change and content. */
function everything(): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of readdirSync(dir, { recursive: true }) as string[]) {
    const { size, mtimeMs, mode } = statSync(join(dir, name));
    const content = statSync(join(dir, name)).isFile() ? Bun.hash(readFileSync(join(dir, name))) : "";
    found.set(name, `${size} ${mtimeMs} ${mode} ${content}`);
  }
  return found;
}

/** One error, without a stack, of one code and status; and everything is as it was. */
async function expectRefused(
  args: string[],
  {
    code,
    status,
    says,
    env,
    prefix,
  }: { code: string; status: number; says: RegExp; env?: Record<string, string>; prefix?: string[] },
): Promise<void> {
  const before = everything();
  const outcome = await run(args, env, prefix);
  const lines = outcome.stderr.trimEnd().split("\n");
  expect(outcome.stderr).toMatch(says);
  expect(lines.filter((line) => line.startsWith("walsync: "))).toHaveLength(1);
  expect(lines.find((line) => line.startsWith("walsync: "))).toStartWith(`walsync: ${code} `);
  expect(lines.length).toBeLessThan(6);
  expect(outcome.stderr).not.toMatch(/^\s+at |\.ts:\d+|bug/m);
  expect(outcome.stdout).toBe("");
  expect(outcome.status).toBe(status);
  expect(everything()).toEqual(before);
  for (const secret of [SECRET, TOKEN, gateway?.secretAccessKey ?? SECRET]) {
    expect(outcome.stderr).not.toContain(secret);
  }
}

describe("a database that is none", () => {
  const cases: [string, string, RegExp][] = [
    ["a text", "text.db", /text\.db: expected a SQLite database, found other bytes/],
    ["half a header", "half.db", /half\.db: expected a SQLite database/],
    ["an empty file", "empty.db", /empty\.db: expected a SQLite database, found an empty file/],
    ["missing", "missing.db", /missing\.db: expected a database file, found nothing/],
    ["in a folder that is missing", "nowhere/app.db", /nowhere\/app\.db: expected a database file, found nothing/],
    ["in DELETE mode", "delete.db", /delete\.db: expected journal mode WAL, found DELETE\nhint: .*--enable-wal/],
  ];
  for (const command of ["watch", "snapshot"]) {
    test.each(cases)(`${command}: %s`, async (_, name, says) => {
      await expectRefused([command, name, "-b", "bucket"], { code: "E_DATABASE", status: 7, says });
    });
  }

  test("a folder without databases", async () => {
    await expectRefused(["watch", "folder", "-b", "bucket"], { code: "E_USAGE", status: 2, says: /found none/ });
  });

  test("one of several: none is touched", async () => {
    const says = /text\.db: expected a SQLite database/;
    await expectRefused(["watch", "delete.db", "text.db", "-b", "bucket"], {
      code: "E_DATABASE",
      status: 7,
      says: /E_DATABASE/,
    });
    await expectRefused(["watch", "text.db", "-b", "bucket", "--enable-wal"], { code: "E_DATABASE", status: 7, says });
  });

  test("unreadable", async () => {
    // Root may read everything: then the program runs as nobody, from a place that nobody can reach.
    const isRoot = process.getuid?.() === 0;
    chmodSync(join(dir, "locked.db"), 0);
    mkdirSync(join(dir, "bin"));
    copyFileSync(compiledBinary(), join(dir, "bin", "walsync"));
    chmodSync(join(dir, "bin", "walsync"), 0o755);
    if (isRoot) chmodSync(dir, 0o755);
    const prefix = isRoot ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : ["env"];
    const says = /locked\.db: expected to read and lock it, found no permission \(EACCES\)/;
    await expectRefused(["watch", "locked.db", "-b", "bucket"], { code: "E_DATABASE", status: 7, says, prefix });
  });
});

describe("a command line", () => {
  test.each<[string, string[], RegExp]>([
    ["without a command", [], /a command is missing\nhint: Commands: watch/],
    ["with an unknown command", ["wacth", "app.db"], /wacth: no such command\nhint: Did you mean watch\?/],
    [
      "with an unknown flag",
      ["watch", "app.db", "--bukcet", "x"],
      /--bukcet: no such flag\nhint: Did you mean --bucket\?/,
    ],
    ["with a flag of another command", ["list", "-b", "bucket", "--force"], /--force: no such flag/],
    ["without a value", ["watch", "app.db", "-b"], /--bucket|-b/],
    ["without a destination", ["watch", "app.db"], /--bucket is missing/],
    ["without a database", ["watch", "-b", "bucket"], /E_USAGE/],
    ["without an output", ["restore", "app", "-b", "bucket"], /--output/],
    ["with an extra argument", ["list", "app", "shop", "-b", "bucket"], /shop/],
    ["with a scheme that is none", ["watch", "app.db", "-b", "ftp://x/y"], /ftp:\/\/x\/y.*found the scheme "ftp"/],
    [
      "with an interval that is none",
      ["watch", "app.db", "-b", "bucket", "--wal-sync-interval", "soon"],
      /--wal-sync-interval: expected a duration.*"soon"/,
    ],
    [
      "with a time that is none",
      ["restore", "app", "-b", "bucket", "-o", "out.db", "--point-in-time", "yesterday"],
      /--point-in-time: expected a time.*"yesterday"/,
    ],
    [
      "with a txid that is none",
      ["restore", "app", "-b", "bucket", "-o", "out.db", "--point-in-time", "txid:x"],
      /--point-in-time: expected.*"txid:x"/,
    ],
    [
      "with one name for two",
      ["watch", "a=app.db", "a=precious.db", "-b", "bucket"],
      /expected two names, found "a" for both/,
    ],
    ["with a name that cannot be", ["watch", "../a=app.db", "-b", "bucket"], /name "\.\.\/a"/],
  ])("%s", async (_, args, says) => {
    await expectRefused(args, { code: "E_USAGE", status: 2, says });
  });
});

describe("a restore", () => {
  const restore = (...args: string[]) => ["restore", ...args, "-b", "bucket"];

  test("over an existing output", async () => {
    const says = /precious\.db: expected no such file, found one\nhint: .*--force/;
    await expectRefused(restore("app", "-o", "precious.db"), { code: "E_OUTPUT_EXISTS", status: 2, says });
  });

  test("of an unknown name", async () => {
    const says = /ap: expected a database of this name in .*, found none\nhint: There is: app/;
    await expectRefused(restore("ap", "-o", "out.db"), { code: "E_NOT_FOUND", status: 4, says });
  });

  test("to a time before the first snapshot", async () => {
    const says = /at or before 2001-01-01T00:00:00\.000Z, found the first at 20\d\d-.*\nhint: The oldest point is/;
    const args = restore("app", "-o", "out.db", "--point-in-time", "2001-01-01T00:00:00Z");
    await expectRefused(args, { code: "E_NOT_FOUND", status: 4, says });
  });

  test("to a txid that is none", async () => {
    const says = /expected a restore point at txid 99, found none\nhint: The nearest/;
    await expectRefused(restore("app", "-o", "out.db", "--point-in-time", "txid:99"), {
      code: "E_NOT_FOUND",
      status: 4,
      says,
    });
  });

  test("of a damaged object", async () => {
    const [name] = readdirSync(join(dir, "bucket", "app")).filter((one) => one.endsWith(".ltx"));
    const path = join(dir, "bucket", "app", name!);
    const bytes = readFileSync(path);
    const damaged = Buffer.from(bytes);
    damaged[200]! ^= 1;
    writeFileSync(path, damaged);
    await expectRefused(restore("app", "-o", "out.db"), {
      code: "E_LTX",
      status: 5,
      says: /app\/00000001-00000001\.ltx: /,
    });
    writeFileSync(path, bytes);
  });
});

describe("a destination", () => {
  test("that is a missing directory, for a reader", async () => {
    const says = /nobucket: expected a directory, found that it does not exist/;
    await expectRefused(["list", "-b", "nobucket"], { code: "E_REFUSED", status: 3, says });
    await expectRefused(["restore", "app", "-b", "nobucket", "-o", "out.db"], { code: "E_REFUSED", status: 3, says });
  });

  test("that is a file", async () => {
    await expectRefused(["list", "-b", "precious.db"], { code: "E_REFUSED", status: 3, says: /precious\.db/ });
  });

  const s3 = (bucket: string, secret?: string) => ({
    args: ["-b", `s3://${bucket}`, "--endpoint", gateway!.endpoint, "--region", gateway!.region],
    env: {
      AWS_ACCESS_KEY_ID: gateway!.accessKeyId,
      AWS_SECRET_ACCESS_KEY: secret ?? gateway!.secretAccessKey,
    },
  });

  test("without credentials", async () => {
    const says = /credentials/i;
    await expectRefused(["list", "-b", "s3://bucket", "--endpoint", "http://127.0.0.1:1"], {
      code: "E_REFUSED",
      status: 3,
      says,
    });
  });

  test("that does not answer", async () => {
    const env = { AWS_ACCESS_KEY_ID: "key", AWS_SECRET_ACCESS_KEY: SECRET, AWS_SESSION_TOKEN: TOKEN };
    const args = ["restore", "app", "-b", "s3://bucket", "--endpoint", "http://127.0.0.1:1", "-o", "out.db"];
    await expectRefused(args, { code: "E_UNREACHABLE", status: 3, says: /127\.0\.0\.1:1/, env });
  }, 30_000);

  for (const command of [
    ["list"],
    ["restore", "app", "-o", "out.db"],
    ["snapshot", "other.db"],
    ["watch", "other.db"],
  ]) {
    test(`with a wrong bucket: ${command[0]}`, async () => {
      if (gateway === null) return;
      const { args, env } = s3("no-such-bucket");
      await expectRefused([...command, ...args], { code: "E_REFUSED", status: 3, says: /no-such-bucket/, env });
    }, 30_000);

    test(`with a wrong secret: ${command[0]}`, async () => {
      if (gateway === null) return;
      await gateway.createBucket("here").catch(() => {});
      const { args, env } = s3("here", SECRET);
      await expectRefused([...command, ...args], { code: "E_REFUSED", status: 3, says: /credential|secret|key/i, env });
    }, 30_000);
  }
});

describe("local files", () => {
  test("a state directory that cannot be made", async () => {
    const args = ["watch", "app.db", "-b", "bucket", "--state-dir", "precious.db/state"];
    await expectRefused(args, { code: "E_DISK", status: 7, says: /precious\.db\/state/ });
  });

  test("an output below a file", async () => {
    const args = ["restore", "app", "-b", "bucket", "-o", "precious.db/out.db"];
    await expectRefused(args, { code: "E_DISK", status: 7, says: /precious\.db\/out\.db/ });
  });
});
