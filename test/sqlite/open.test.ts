// Goal: what is no live WAL database is refused with a reason and a way out, and left exactly as it was.
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { WalsyncError } from "../../src/errors.ts";
import { isSqliteFile, PinnedDatabase } from "../../src/sqlite/database.ts";
import { copyDatabase, SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";

const root = tempDir();
const other = new SqliteProcess();
afterAll(() => other.stop());

const pins: PinnedDatabase[] = [];
afterEach(() => {
  for (const pin of pins.splice(0)) pin.close();
});

function pinned(path: string, enableWal = false): PinnedDatabase {
  const pin = PinnedDatabase.open(path, { enableWal });
  pins.push(pin);
  return pin;
}

let folderCount = 0;
/** An empty folder, so that anything left beside a refused database shows. */
function freshFolder(): string {
  const folder = join(root, String(++folderCount));
  mkdirSync(folder);
  return folder;
}

/** Every file of a folder with its bytes; a folder or pipe counts as its name. */
function contentOf(folder: string): Record<string, string> {
  const entries = readdirSync(folder).map((name): [string, string] => {
    const path = join(folder, name);
    const isFile = existsSync(path) && statSync(path).isFile();
    return [name, isFile ? readFileSync(path).toString("base64") : "not a file"];
  });
  return Object.fromEntries(entries);
}

function refusalOf(path: string, enableWal = false): WalsyncError {
  try {
    PinnedDatabase.open(path, { enableWal }).close();
  } catch (error) {
    if (error instanceof WalsyncError) return error;
    throw error;
  }
  throw new Error(`${path}: expected it to be refused`);
}

/** A database in DELETE mode, closed. */
async function deleteModeDatabase(path: string, pageSize = 4096): Promise<void> {
  await other.open({ path, pageSize, journalMode: "delete" });
  await other.run("create table t (body)");
  await other.run("insert into t values (randomblob(5000))");
  await other.close();
}

/** A database in WAL mode, closed: without -wal and -shm. */
async function walDatabase(path: string): Promise<void> {
  await other.open({ path, journalMode: "wal" });
  await other.run("create table t (body)");
  await other.close();
}

const magic = Buffer.from("SQLite format 3\0");
const wrongHeader = (pageSize: number) => {
  const bytes = Buffer.alloc(8192, 0x55);
  magic.copy(bytes);
  bytes.writeUInt16BE(pageSize, 16);
  return bytes;
};

describe("refused, and left as it was:", () => {
  test.each<[string, (path: string) => unknown, RegExp, RegExp]>([
    ["a missing file", () => {}, /found nothing$/, /Check the path/],
    ["a link to nowhere", (path) => symlinkSync(`${path}.gone`, path), /found nothing$/, /Check the path/],
    ["an empty file", (path) => writeFileSync(path, ""), /found an empty file$/, /created its tables/],
    [
      "a text file",
      (path) => writeFileSync(path, "not a database\n".repeat(500)),
      /found other bytes$/,
      /Check the path/,
    ],
    ["a file of one byte", (path) => writeFileSync(path, "S"), /found 1 bytes$/, /Check the path/],
    ["the first words of a database alone", (path) => writeFileSync(path, magic), /found 16 bytes$/, /Check the path/],
    [
      "an impossible page size",
      (path) => writeFileSync(path, wrongHeader(1000)),
      /found other bytes$/,
      /Check the path/,
    ],
    [
      "noise behind a right beginning",
      (path) => writeFileSync(path, wrongHeader(4096)),
      /not a database$/,
      /integrity_check/,
    ],
    ["a folder", (path) => mkdirSync(path), /found something else$/, /the database file itself/],
    ["a pipe", (path) => Bun.spawnSync(["mkfifo", path]), /found something else$/, /the database file itself/],
    ["a database in DELETE mode", deleteModeDatabase, /expected journal mode WAL, found DELETE$/, /--enable-wal/],
    ["one with the largest pages", (path) => deleteModeDatabase(path, 65536), /found DELETE$/, /journal_mode=WAL/],
  ])("%s", async (_what, make, message, hint) => {
    const folder = freshFolder();
    const path = join(folder, "app.db");
    await make(path);
    const before = contentOf(folder);
    for (const enable of message.source.includes("DELETE") ? [false] : [false, true]) {
      const error = refusalOf(path, enable);
      expect(error.code).toBe("E_DATABASE");
      expect(error.message).toStartWith(`${path}: `);
      expect(error.message).toMatch(message);
      expect(error.hint ?? "").toMatch(hint);
      expect(contentOf(folder)).toEqual(before);
    }
  });

  test("a database that another process keeps for itself", async () => {
    const path = join(freshFolder(), "app.db");
    await walDatabase(path);
    await other.open({ path });
    await other.run("pragma locking_mode = exclusive");
    await other.run("insert into t values (1)");
    const error = refusalOf(path);
    expect(error.code).toBe("E_DATABASE");
    expect(error.message).toStartWith(`${path}: `);
    expect(error.hint).toContain("locking_mode=EXCLUSIVE");
    await other.close();
  });

  test("a refusal leaves no lock and no descriptor behind", async () => {
    const path = join(freshFolder(), "app.db");
    await deleteModeDatabase(path);
    const open = () => readdirSync("/proc/self/fd").length;
    const before = process.platform === "linux" ? open() : 0;
    for (let i = 0; i < 20; i++) refusalOf(path);
    if (process.platform === "linux") expect(open()).toBe(before);
    await other.open({ path, busyTimeoutMs: 0 });
    await other.run("pragma locking_mode = exclusive");
    await other.run("insert into t values (1)");
    await other.close();
  });
});

describe("--enable-wal:", () => {
  test("switches a database to WAL, and changes nothing else", async () => {
    const path = join(freshFolder(), "app.db");
    await deleteModeDatabase(path);
    await other.open({ path });
    const rows = await other.rows("select hex(body) from t");
    const schema = await other.rows("select * from sqlite_schema");
    await other.close();
    pinned(path, true);
    await other.open({ path });
    expect(await other.rows("pragma journal_mode")).toEqual([["wal"]]);
    expect(await other.rows("select hex(body) from t")).toEqual(rows);
    expect(await other.rows("select * from sqlite_schema")).toEqual(schema);
    // From now on it is WAL for everybody.
    await other.run("insert into t values (1)");
    await other.close();
    pinned(path);
  });

  test("leaves a database that is in WAL mode as it is", async () => {
    const path = join(freshFolder(), "app.db");
    await walDatabase(path);
    const before = readFileSync(path);
    PinnedDatabase.open(path, { enableWal: true }).close();
    expect(Buffer.compare(readFileSync(path), before)).toBe(0);
  });

  test("gives up while the application is in the way", async () => {
    const folder = freshFolder();
    const path = join(folder, "app.db");
    await deleteModeDatabase(path);
    await other.open({ path });
    await other.run("begin");
    await other.rows("select count(*) from t");
    const before = readFileSync(path);
    const error = refusalOf(path, true);
    expect(error.code).toBe("E_DATABASE");
    expect(error.message).toBe(`${path}: expected journal mode WAL, found DELETE`);
    expect(error.hint).toContain("stop the application");
    await other.run("commit");
    await other.close();
    expect(contentOf(folder)).toEqual({ "app.db": before.toString("base64") });
  });
});

describe("opened:", () => {
  test("a database in WAL mode that nobody has open", async () => {
    const path = join(freshFolder(), "app.db");
    await walDatabase(path);
    const before = readFileSync(path);
    const pin = pinned(path);
    expect(pin.walIndex()).toMatchObject({ pageSize: 4096, commit: 2, frameCount: 0, backfilled: 0 });
    expect(pin.isReplaced()).toBe(false);
    pins.pop()!.close();
    expect(Buffer.compare(readFileSync(path), before)).toBe(0);
  });

  test("a database that a crash left with its WAL: SQLite recovers it, and all of it is there", async () => {
    const folder = freshFolder();
    const path = join(folder, "crashed.db");
    const live = join(folder, "live.db");
    await other.open({ path: live, journalMode: "wal", autocheckpoint: 0 });
    await other.run("create table t (body)");
    await other.run("insert into t values (randomblob(50000))");
    const { frameCount, commit, salt1 } = await other.state();
    copyDatabase(live, path);
    expect(pinned(path).walIndex()).toMatchObject({ frameCount, commit, salt1, backfilled: 0 });
  });
});

test("isSqliteFile tells databases from other files by their first bytes", async () => {
  const folder = freshFolder();
  const path = join(folder, "app.db");
  await walDatabase(path);
  expect(isSqliteFile(path)).toBe(true);
  const text = join(folder, "text");
  writeFileSync(text, "SQLite format 3, or so");
  expect(isSqliteFile(text)).toBe(false);
  writeFileSync(text, magic.subarray(0, -1));
  expect(isSqliteFile(text)).toBe(false);
  expect(isSqliteFile(folder)).toBe(false);
});

// --- Permissions. They do not bind root, who therefore becomes nobody: in a process of its own, for there is no way back.

const NOBODY = 65534;
const isRoot = process.getuid?.() === 0;

/** How a process without privileges fares: "opened", or what it is told. */
function openedByNobody(path: string): { code?: string; message: string; hint?: string } {
  const script = `
    import { PinnedDatabase } from "${join(import.meta.dir, "../../src/sqlite/database.ts")}";
    if (${isRoot}) process.setuid(${NOBODY});
    try {
      PinnedDatabase.open(process.argv.at(-1)).close();
      console.log(JSON.stringify({ message: "opened" }));
    } catch ({ code, message, hint }) {
      console.log(JSON.stringify({ code, message, hint }));
    }`;
  const { stdout } = Bun.spawnSync([process.execPath, "-e", script, path], { stderr: "inherit" });
  return JSON.parse(stdout.toString());
}

async function databaseOfNobody(fileMode: number, folderMode: number): Promise<{ folder: string; path: string }> {
  const folder = freshFolder();
  const path = join(folder, "app.db");
  await walDatabase(path);
  chmodSync(root, 0o755);
  chmodSync(path, fileMode);
  if (isRoot) for (const owned of [folder, path]) chownSync(owned, NOBODY, NOBODY);
  chmodSync(folder, folderMode);
  return { folder, path };
}

describe("without permission:", () => {
  test.each([
    ["a file that may not be read", 0o200, 0o700],
    ["a file that may not be written", 0o400, 0o700],
    ["a folder that may not be written, so that no -shm can be made", 0o600, 0o500],
    ["a folder that may not be entered", 0o600, 0o000],
  ])("%s", async (_what, fileMode, folderMode) => {
    const { folder, path } = await databaseOfNobody(fileMode, folderMode);
    const { code, message, hint } = openedByNobody(path);
    chmodSync(folder, 0o700);
    expect(readdirSync(folder)).toEqual(["app.db"]);
    expect(code).toBe("E_DATABASE");
    expect(message).toStartWith(`${path}: `);
    expect(message).toMatch(/no permission \(\w+\)$/);
    expect(hint).toContain("read and write access");
  });

  test("(with all permissions it is opened)", async () => {
    const { path } = await databaseOfNobody(0o600, 0o700);
    expect(openedByNobody(path)).toEqual({ message: "opened" });
  });
});
