// Goal: whatever is wrong with what a user asks for, one clear error says who, what was expected, what was found and what
// to do, with the exit status of its class; nothing is changed, here or at the destination, and no secret is shown.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Finished } from "../support/binary.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw, type Versitygw } from "../support/versitygw.ts";
import { expectHidden, expectOneError, nobodyPrefix, objectsOf, s3Access, succeed, treeOf, walsync } from "./run.ts";

const dir = tempDir();
const other = tempDir();
const SECRET = "hunter2/hunter2+hunter2";
const TOKEN = "session/token+of==nobody";
const application = new SqliteProcess();
const server: Versitygw | null = await startVersitygw();
const nobody = nobodyPrefix(other);
/** Takes some seconds of retries, so it runs beside everything else. */
let unanswered: Promise<Finished>;

beforeAll(async () => {
  unanswered = walsync(
    ["restore", "app", "-b", "s3://bucket", "--endpoint", "http://127.0.0.1:1", "-o", "out.db", "--verbose"],
    { cwd: other, env: { AWS_ACCESS_KEY_ID: "key", AWS_SECRET_ACCESS_KEY: SECRET, AWS_SESSION_TOKEN: TOKEN } },
  );
  await server?.createBucket("here");
  for (const [name, journalMode] of [
    ["app", "wal"],
    ["delete", "delete"],
    ["closed", "wal"],
    ["locked", "wal"],
    ["live", "wal"],
  ] as const) {
    await application.open({ path: join(dir, `${name}.db`), journalMode });
    await application.run("create table item (id integer primary key, body)");
    await application.run("insert into item (body) values (randomblob(5000))");
  }
  // live.db stays open, with a WAL that holds everything; crashed.db is what a crash of its application leaves.
  copyDatabase(join(dir, "live.db"), join(dir, "crashed.db"));
  writeFileSync(join(dir, "text.db"), "This is a text that somebody gave the name of a database. ".repeat(20));
  writeFileSync(join(dir, "half.db"), readFileSync(join(dir, "delete.db")).subarray(0, 50));
  writeFileSync(join(dir, "empty.db"), "");
  writeFileSync(join(dir, "precious.db"), "precious");
  for (const name of ["folder", "sealed", "readonly"]) mkdirSync(join(dir, name));
  for (const [name, mode] of [
    ["locked.db", 0],
    ["sealed", 0],
    ["readonly", 0o555],
  ] as const)
    chmodSync(join(dir, name), mode);
  chmodSync(dir, 0o755);
  await succeed(["snapshot", "app.db", "-b", "bucket"], { cwd: dir });
}, 30_000);

afterAll(async () => {
  await application.stop();
  await server?.stop();
});

interface Refusal {
  code: string;
  says: RegExp;
  env?: Record<string, string>;
  prefix?: readonly string[];
}

/** One error of one code with its documented status; and everything is as it was. */
async function expectRefused(args: string[], { code, says, ...options }: Refusal): Promise<void> {
  const files = treeOf(dir);
  // The port of the metrics belongs to the machine: another test may have it.
  const given = args[0] === "watch" ? ["watch", "--no-metrics", ...args.slice(1)] : args;
  const outcome = await walsync(given, { cwd: dir, ...options });
  expectOneError(outcome, code, says);
  expect(treeOf(dir)).toEqual(files);
  if (server !== null && args.includes("s3://here")) expect(await objectsOf(server, "here")).toEqual({});
  expectHidden(outcome.stdout + outcome.stderr, [SECRET, TOKEN, server?.secretAccessKey ?? SECRET]);
}

describe("a database that is none", () => {
  const cases: [string, string, RegExp][] = [
    ["a text", "text.db", /text\.db: expected a SQLite database, found other bytes\nhint: Check the path/],
    ["half a header", "half.db", /half\.db: expected a SQLite database, found 50 bytes\nhint: /],
    ["an empty file", "empty.db", /empty\.db: expected a SQLite database, found an empty file\nhint: /],
    ["missing", "missing.db", /missing\.db: expected a database file, found nothing\n(because: .*\n)?hint: /],
    ["in a folder that is missing", "nowhere/app.db", /nowhere\/app\.db: expected a database file, found nothing/],
    ["in DELETE mode", "delete.db", /delete\.db: expected journal mode WAL, found DELETE\nhint: .*--enable-wal/],
  ];
  for (const command of ["watch", "snapshot"]) {
    test.each(cases)(`${command}: %s`, async (_, name, says) => {
      await expectRefused([command, name, "-b", "bucket"], { code: "E_DATABASE", says });
    });
  }

  test("--enable-wal makes no database of what is none", async () => {
    const says = /text\.db: expected a SQLite database/;
    await expectRefused(["watch", "text.db", "-b", "bucket", "--enable-wal"], { code: "E_DATABASE", says });
  });

  test.each([["live.db"], ["closed.db"], ["delete.db"]])("one of two refused: %s is not touched", async (name) => {
    const says = /^walsync: E_DATABASE \S+(text|delete)\.db: /m;
    await expectRefused(["watch", name, "text.db", "-b", "bucket"], { code: "E_DATABASE", says });
  });

  test("refused beside one whose application crashed: nothing of its WAL is lost", async () => {
    const [crashed, copy] = [join(dir, "crashed.db"), join(other, "copy.db")];
    copyDatabase(crashed, copy);
    const expected = contentOf(copy);
    const outcome = await walsync(["watch", "--no-metrics", "crashed.db", "text.db", "-b", "bucket"], { cwd: dir });
    expectOneError(outcome, "E_DATABASE", /text\.db: /);
    copyDatabase(crashed, copy);
    expect(differingPages(expected, contentOf(copy))).toEqual([]);
    expect(readdirSync(dir).filter((name) => name.startsWith(".crashed"))).toEqual([]);
  });

  test("a hint names no flag that the command does not know", async () => {
    const { stderr } = await walsync(["snapshot", "missing.db", "-b", "bucket"], { cwd: dir });
    const { stdout: help } = await succeed(["snapshot", "--help"]);
    for (const [flag] of stderr.matchAll(/--[a-z][a-z-]+/g)) expect(help).toContain(flag);
  });
});

describe.skipIf(nobody === null)("without permission", () => {
  const prefix = nobody ?? [];
  afterAll(() => chmodSync(join(dir, "sealed"), 0o700));

  test.each([["watch"], ["snapshot"]])("%s: the database", async (command) => {
    const says = /locked\.db: expected to read and lock it, found no permission \(EACCES\)\n(because: .*\n)?hint: /;
    await expectRefused([command, "locked.db", "-b", "bucket"], { code: "E_DATABASE", says, prefix });
  });

  test("its folder", async () => {
    const says = /sealed\/app\.db: expected to look for databases there, found: EACCES.*\nhint: /;
    await expectRefused(["watch", "sealed/app.db", "-b", "bucket"], { code: "E_DATABASE", says, prefix });
  });

  test("the destination, for a reader", async () => {
    const says = /sealed: expected a directory that can be read, found EACCES.*\nhint: /;
    await expectRefused(["list", "-b", "sealed"], { code: "E_REFUSED", says, prefix });
  });

  test("the folder of the output", async () => {
    chmodSync(join(dir, "bucket"), 0o755);
    chmodSync(join(dir, "bucket/app"), 0o755);
    for (const name of readdirSync(join(dir, "bucket/app"))) chmodSync(join(dir, "bucket/app", name), 0o644);
    const says = /readonly\/new\/out\.db: cannot be written: EACCES/;
    const args = ["restore", "app", "-b", "bucket", "-o", "readonly/new/out.db"];
    await expectRefused(args, { code: "E_DISK", says, prefix });
  });

  test("the state directory, and the destination, for a writer", async () => {
    const mine = join(other, "mine");
    mkdirSync(mine);
    for (const suffix of ["", "-wal"]) {
      await Bun.write(join(mine, `app.db${suffix}`), Bun.file(join(dir, `crashed.db${suffix}`)));
      chmodSync(join(mine, `app.db${suffix}`), 0o666);
    }
    chmodSync(mine, 0o777);
    const state = ["watch", join(mine, "app.db"), "-b", join(mine, "bucket"), "--state-dir", "readonly/state"];
    const stateSays =
      /state\/app\.db-\w+\/\w+: cannot be written: EACCES.*\nhint: Give walsync permission.*--state-dir/;
    await expectRefused(state, { code: "E_DISK", says: stateSays, prefix });
    const bucket = ["snapshot", join(mine, "app.db"), "-b", "readonly/bucket"];
    const bucketSays = /readonly\/bucket: expected a directory that can be written to, found EACCES.*\nhint: /;
    await expectRefused(bucket, { code: "E_REFUSED", says: bucketSays, prefix });
    expect(readdirSync(mine).filter((name) => !name.startsWith("app.db"))).toEqual([]);
  });
});

describe("a command line", () => {
  const b = ["-b", "bucket"];
  const restore = (...args: string[]) => ["restore", "app", ...b, ...args];
  const at = (text: string) => restore("-o", "out.db", `--point-in-time=${text}`);
  const time = (text: string) => new RegExp(`--point-in-time: expected a time like .* or txid:N, found "${text}"`);
  test.each<[string, string[], RegExp]>([
    ["without a command", [], /a command is missing\nhint: Commands: watch, .*--help/],
    ["with an unknown command", ["wacth", "app.db"], /wacth: no such command\nhint: Did you mean watch\?/],
    ["with a command that objects have", ["constructor"], /constructor: no such command\nhint: Commands: watch/],
    ["with a flag before the command", ["--json", "list", ...b], /--json: a flag stands behind its command\nhint: /],
    ["with an unknown flag", ["watch", "app.db", "--bukcet", "x"], /--bukcet: no such flag\nhint: .*mean --bucket\?/],
    ["with an unknown flag and value", ["list", ...b, `--sercet=${SECRET}`], /--sercet: no such flag\nhint: /],
    ["with a flag of another command", ["list", ...b, "--force"], /--force: no such flag\nhint: /],
    ["with a flag twice", ["list", ...b, ...b], /--bucket is given twice\nhint: /],
    ["with a dash of a text program", ["list", ...b, "–json"], /–json starts with a dash that is not "-"\nhint: /],
    ["without a value", ["watch", "app.db", "-b"], /-b needs a value: .*s3:\/\//],
    ["with a flag for a value", ["list", "-b", "--json"], /-b needs a value: .*found the flag --json\nhint: .*=--json/],
    ["with an empty value", restore("-o", ""), /-o needs a value: file to write/],
    ["with a value for a switch", ["list", ...b, "--json=yes"], /--json takes no value, found "yes"/],
    ["without a destination", ["watch", "app.db"], /--bucket is missing: .*\nhint: /],
    ["without a database", ["watch", ...b], /DATABASES is missing: expected databases/],
    ["without a name", ["restore", ...b, "-o", "out.db"], /NAME is missing: name of the database/],
    ["without an output", restore(), /--output is missing: file to write\nhint: /],
    ["with an extra argument", ["list", "app", "shop", ...b], /expected no arguments, found "app" "shop"/],
    ["with two databases for one", ["snapshot", "app.db", "closed.db", ...b], /behind DATABASE, found "closed\.db"/],
    ["with a glob for one database", ["snapshot", "c*.db", ...b], /c\*\.db: expected one database, found 2/],
    ["with a folder without databases", ["watch", "folder", ...b], /folder: .*found none\nhint: /],
    ["with a scheme that is none", ["list", "-b", "ftp://x/y"], /ftp:\/\/x\/y: .*the scheme "ftp"\nhint: Use s3:/],
    ["with an endpoint for a bucket", ["list", "-b", "https://x/y"], /found the scheme "https"\nhint: .*--endpoint/],
    ["without a bucket's name", ["list", "-b", "s3:///prefix"], /found no bucket\nhint: Write s3:\/\/bucket/],
    ["with an endpoint that is none", ["list", "-b", "s3://aa", "--endpoint", "ftp://x"], /endpoint: .*"ftp:"\nhint: /],
    ["with an interval that is none", ["watch", "app.db", ...b, "--wal-sync-interval=soon"], /a duration.*"soon"/],
    ["with a negative interval", ["watch", "app.db", ...b, "--wal-sync-interval=-1"], /a duration.*"-1"/],
    ["with a size that is none", ["watch", "app.db", ...b, "--max-outbox", "lots"], /--max-outbox: .*a size.*"lots"/],
    ["with too small a number", ["watch", "app.db", ...b, "--min-checkpoint-pages", "0"], /of at least 1, found "0"/],
    ["with a word for a time", at("yesterday"), time("yesterday")],
    ["with an hour that is none", at("2026-05-01T25:00:00Z"), time("2026-05-01T25:00:00Z")],
    ["with a zone that is none", at("2026-05-01T12:00:00 CEST"), time("2026-05-01T12:00:00 CEST")],
    ["with a txid that is no number", at("txid:x"), time("txid:x")],
    ["with txid 0", at("txid:0"), time("txid:0")],
    ["with one name for two", ["watch", "a=app.db", "a=closed.db", ...b], /two names, found "a" for both\nhint: /],
    ["with a name for several", ["watch", "a=.", ...b], /a=\.: .*found a name for several files\nhint: /],
    ["with a name that cannot be", ["watch", "../a=app.db", ...b], /name "\.\.\/a": expected .*"\.\."\nhint: /],
  ])("%s", async (_, args, says) => {
    await expectRefused(args, { code: "E_USAGE", says });
  });

  test.each([["2026-02-30"], ["2026-04-31T12:00:00Z"]])("with a day that is none: %s", async (text) => {
    await expectRefused(at(text), { code: "E_USAGE", says: time(text) });
  });

  test.each([["../app"], ["/app"], ["app/"], [""]])("with an impossible name: %p", async (name) => {
    await expectRefused(["restore", name, ...b, "-o", "out.db"], { code: "E_USAGE", says: /name/ });
  });
});

describe("a restore", () => {
  const restore = (...args: string[]) => ["restore", ...args, "-b", "bucket"];

  test("over an existing output", async () => {
    const says = /precious\.db: expected no such file, found one\nhint: .*--force/;
    await expectRefused(restore("app", "-o", "precious.db"), { code: "E_OUTPUT_EXISTS", says });
  });

  test.each([[[]], [["--force"]]])("over a database in use %p", async (flags) => {
    const says = /live\.db: expected no leftover files beside it, found .*live\.db-wal\nhint: /;
    await expectRefused(restore("app", "-o", "live.db", ...flags), { code: "E_OUTPUT_EXISTS", says });
  });

  test("of an unknown name", async () => {
    const says = /ap: expected a database of this name in .*bucket, found none\nhint: There is: app/;
    await expectRefused(restore("ap", "-o", "out.db"), { code: "E_NOT_FOUND", says });
  });

  test.each([["2001-01-01T00:00:00Z"], ["2001-01-01"]])("to a time before the first snapshot: %s", async (time) => {
    const says = /at or before 2001-01-01T00:00:00\.000Z, found the first at 20\d\d-.*\nhint: The oldest point is/;
    await expectRefused(restore("app", "-o", "out.db", "--point-in-time", time), { code: "E_NOT_FOUND", says });
  });

  test.each([["99"], ["18446744073709551615"], ["99999999999999999999"]])("to no txid: %s", async (txid) => {
    const says = new RegExp(`expected a restore point at txid ${txid}, found none\nhint: The nearest`);
    const args = restore("app", "-o", "out.db", "--point-in-time", `txid:${txid}`);
    await expectRefused(args, { code: "E_NOT_FOUND", says });
  });

  test("of a damaged object, and of one that is cut short", async () => {
    const path = join(dir, "bucket/app/00000001-00000001.ltx");
    const bytes = readFileSync(path);
    const flipped = Buffer.from(bytes);
    flipped.writeUInt8(flipped.readUInt8(200) ^ 1, 200);
    try {
      for (const damaged of [flipped, bytes.subarray(0, 50), bytes.subarray(0, -1), Buffer.alloc(0)]) {
        writeFileSync(path, damaged);
        const says = /^walsync: E_LTX app\/00000001-00000001\.ltx: .+ \(at byte \d+\)$/m;
        await expectRefused(restore("app", "-o", "out.db"), { code: "E_LTX", says });
      }
    } finally {
      writeFileSync(path, bytes);
    }
  });

  test("to an output below a file", async () => {
    const says = /precious\.db\/out\.db: cannot be written: (ENOTDIR|EEXIST)/;
    await expectRefused(restore("app", "-o", "precious.db/out.db"), { code: "E_DISK", says });
  });
});

describe("a destination", () => {
  test.each([[["list"]], [["restore", "app", "-o", "out.db"]]])("that is missing, for a reader: %p", async (args) => {
    const says = /nobucket: expected a directory, found that it does not exist\n(because: .*\n)?hint: /;
    await expectRefused([...args, "-b", "nobucket"], { code: "E_REFUSED", says });
  });

  test.each([[["list"]], [["watch", "live.db"]], [["snapshot", "closed.db"]]])("that is a file: %p", async (args) => {
    const says = /precious\.db: expected a directory.*, found (something else|ENOTDIR.*\nhint: )/;
    await expectRefused([...args, "-b", "precious.db"], { code: "E_REFUSED", says });
  });

  test("without credentials", async () => {
    const says = /credentials .*found no AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY\nhint: /;
    await expectRefused(["list", "-b", "s3://bucket"], { code: "E_REFUSED", says });
  });

  test("that does not answer", async () => {
    const outcome = await unanswered;
    const says = /s3:\/\/bucket: expected .*, found .*\n(because: .*\n)?hint: .*127\.0\.0\.1:1/;
    expectOneError(outcome, "E_UNREACHABLE", says);
    expect(outcome.stderr).toContain("debug request is tried again");
    expect(readdirSync(other).filter((name) => name.startsWith("out"))).toEqual([]);
    expectHidden(outcome.stderr, [SECRET, TOKEN]);
  }, 20_000);

  const { flags, env } = server === null ? { flags: [], env: {} } : s3Access(server);
  const commands = ["list", "restore app -o out.db", "snapshot closed.db", "watch live.db"];
  test.skipIf(server === null).each(commands)("with a wrong bucket, secret, key or token: %s", async (command) => {
    const wrong: [string, RegExp, Record<string, string>][] = [
      ["no-such-bucket", /no-such-bucket: expected .*NoSuchBucket.*\nhint: There is no bucket/, {}],
      ["here", /s3:\/\/here: .*SignatureDoesNotMatch.*\nhint: .*SECRET_ACCESS_KEY/, { AWS_SECRET_ACCESS_KEY: SECRET }],
      ["here", /s3:\/\/here: expected .*\nhint: .*AWS_ACCESS_KEY_ID/, { AWS_ACCESS_KEY_ID: "nobody" }],
      ["here", /s3:\/\/here: .*Token.*\nhint: .*AWS_SESSION_TOKEN/, { AWS_SESSION_TOKEN: TOKEN }],
    ];
    for (const [bucket, says, change] of wrong) {
      const args = [...command.split(" "), "-b", `s3://${bucket}`, ...flags, "--verbose"];
      await expectRefused(args, { code: "E_REFUSED", says, env: { ...env, ...change } });
    }
  });
});

describe("a secret in the wrong place", () => {
  const shown = async (...args: string[]) => {
    const outcome = await walsync(args, { cwd: dir });
    expect(outcome.status).toBe(2);
    return outcome.stdout + outcome.stderr;
  };

  test.each([
    [["list", "-b", "s3://key:hunter2@bucket/prefix"]],
    [["list", "-b", "https://key:hunter2@host/bucket"]],
    [["list", "-b", "s3://bucket/prefix?secret=hunter2"]],
    [["list", "-b", "s3://bucket", "--endpoint", "https://key:hunter2@host"]],
    [["list", "-b", "bucket", "--secret-access-key=hunter2"]],
  ])("is not repeated: %p", async (args) => expectHidden(await shown(...args), ["hunter2"]));

  test.each([
    [["list", "-b", "s3://key:hun/ter2@bucket/prefix"]],
    [["list", "-b", "https://key:hun/ter2@host/bucket"]],
    [["list", "-b", "s3://bucket", "--endpoint", "https://key:hun/ter2@host"]],
    [["list", "-b", "s3:key:hunter2@bucket"]],
  ])("is not repeated: %p", async (args) => expectHidden(await shown(...args), ["hun/ter2", "hunter2"]));
});

test.each([["precious.db"], ["precious.db/state"]])("a state directory that cannot be one: %s", async (path) => {
  for (const command of ["watch", "snapshot"]) {
    const says = new RegExp(`${path}/live\\.db-\\w+: cannot be written: ENOTDIR`);
    await expectRefused([command, "live.db", "-b", "bucket", "--state-dir", path], { code: "E_DISK", says });
  }
});
