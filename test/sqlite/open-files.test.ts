// Goal: whoever asks what a file is never drops the locks that hold a pin, by whatever name the file is called.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { closeSync, linkSync, openSync, renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { isSqliteFile, PinnedDatabase } from "../../src/sqlite/database.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();

function makeDatabase(): string {
  const path = join(dir, `${crypto.randomUUID()}.db`);
  const app = new Database(path, { create: true });
  app.run("pragma journal_mode = wal");
  app.run("create table item (body)");
  app.run("insert into item values (randomblob(1000))");
  app.close();
  return path;
}

/** Whether a TRUNCATE of another process is kept from the WAL. */
function isPinned(path: string): boolean {
  const script = `
    const { Database } = require("bun:sqlite");
    const app = new Database(${JSON.stringify(path)});
    app.run("insert into item values (1)");
    console.log(JSON.stringify(app.query("pragma wal_checkpoint(truncate)").get()));`;
  const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", script]);
  const text = stdout.toString();
  if (text === "") throw new Error(stderr.toString());
  return (JSON.parse(text) as { busy: number }).busy === 1;
}

describe("a file that is open here", () => {
  test("is a database under its own path alone, and keeps its pin whoever asks", () => {
    const path = makeDatabase();
    const pinned = PinnedDatabase.open(path);
    linkSync(path, `${path}.hard`);
    symlinkSync(path, `${path}.soft`);
    linkSync(`${path}-shm`, `${path}.index`);
    const asked = [path, `${path}.hard`, `${path}.soft`, `${path}-wal`, `${path}-shm`, `${path}.index`];
    expect(asked.map(isSqliteFile)).toEqual([true, false, false, false, false, false]);
    expect(isPinned(path)).toBe(true);
    pinned.close();
    expect(asked.slice(0, 3).map(isSqliteFile)).toEqual([true, true, true]);
    expect(isPinned(path)).toBe(false);
  });

  test("stays closed to questions under a new name until it is let go of", () => {
    const path = makeDatabase();
    const pinned = PinnedDatabase.open(path);
    renameSync(path, `${path}.moved`);
    expect(isSqliteFile(path)).toBe(false);
    expect(isSqliteFile(`${path}.moved`)).toBe(false);
    pinned.close();
    expect(isSqliteFile(`${path}.moved`)).toBe(true);
  });

  test("would lose its pin to a short look (so the tests above can fail)", () => {
    const path = makeDatabase();
    const pinned = PinnedDatabase.open(path);
    closeSync(openSync(`${path}-shm`, "r"));
    expect(isPinned(path)).toBe(false);
    pinned.close();
  });
});
