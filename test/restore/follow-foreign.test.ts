// Goal: what is not the copy as it was left is never overwritten, whatever happened to it and whenever, and is told at the next
// look, not at the next change.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Follower } from "../../src/restore/follow.ts";
import { tempDir } from "../support/temp.ts";
import { change, changePageSize, expectState, pairsIn } from "./make-copy.ts";

const dir = tempDir();
const { signal } = new AbortController();
const { makePair } = pairsIn(dir);

/** A database of somebody else. */
function writeOther(path: string, pageSize: number): Buffer {
  rmSync(path, { force: true });
  const other = new Database(path, { create: true });
  other.run(`pragma page_size = ${pageSize}`);
  other.run("create table precious (body)");
  other.close();
  return readFileSync(path);
}

const refused = expect.objectContaining({ code: "E_OUTPUT_EXISTS" });

describe("what is not a copy of this database at the start", () => {
  test("is refused, and stays", async () => {
    const { local, follower } = await makePair();
    writeFileSync(local, "somebody else's");
    expect(follower).toThrow(refused);
    expect(readFileSync(local, "utf8")).toBe("somebody else's");
    expect(existsSync(join(local, "..", ".copy.db-walsync-replica"))).toBe(false);
  });

  test("a copy of another database is refused, and told as such", async () => {
    const { destination, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    one.close();
    expect(() => new Follower(destination, "other", local)).toThrow(/a copy of app/);
  });

  test.each(["-wal", "-shm", "-journal"])("beside a leftover %s it is refused", async (suffix) => {
    const { local, follower } = await makePair();
    writeFileSync(`${local}${suffix}`, "");
    expect(follower).toThrow(refused);
  });

  test("a link in its place is refused: SQLite would look for the journal elsewhere", async () => {
    const { local, host, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    one.close();
    renameSync(local, `${local}.moved`);
    symlinkSync(`${local}.moved`, local);
    await change(host, 0);
    expect(follower).toThrow(refused);
  });
});

describe("a copy that is one no longer", () => {
  test.each([512, 4096])("a database of somebody else with pages of %p bytes in its place", async (pageSize) => {
    const { host, local, follower } = await makePair(512);
    const one = follower();
    await one.step(signal);
    one.close();
    const precious = writeOther(local, pageSize);
    await change(host, 0);
    await expect(follower().step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    expect(readFileSync(local).equals(precious)).toBe(true);
  });

  test("what is no database any longer is told as such, and stays", async () => {
    const { local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    one.close();
    writeFileSync(
      local,
      "somebody else's words, more of them than a header has bytes, so many that SQLite reads on".repeat(9),
    );
    const content = readFileSync(local);
    await expect(follower().step(signal)).rejects.toMatchObject({ code: "E_DATABASE" });
    expect(readFileSync(local).equals(content)).toBe(true);
  });

  test("replaced while it is followed", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const precious = writeOther(local, 512);
    await change(host, 0);
    await expect(one.step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    expect(readFileSync(local).equals(precious)).toBe(true);
    expect(existsSync(`${local}-journal`)).toBe(false);
  });

  test("removed while it is followed: it is made anew", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    rmSync(local);
    await change(host, 0);
    expect(await one.step(signal)).toMatchObject({ kind: "bootstrap" });
    expectState(local, host.content());
  });

  test.each([
    ["somebody wrote to it", "create table mine (body)"],
    ["somebody set another journal mode", "pragma journal_mode = wal"],
  ])("%s: told at the next look, with nothing to apply, and nothing is lost", async (_how, sql) => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    const writer = new Database(local);
    writer.run(sql);
    writer.run("create table also_mine (body)");
    await expect(one.step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    one.close();
    await expect(follower().step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    await change(host, 0);
    await expect(follower().step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    writer.close();
    const reader = new Database(local, { readonly: true });
    expect(reader.query("select name from sqlite_schema where name = 'also_mine'").values()).toEqual([["also_mine"]]);
    reader.close();
  });

  test("somebody wrote to it, and the source changes its page size", async () => {
    const { host, local, follower } = await makePair(512);
    const one = follower();
    await one.step(signal);
    const writer = new Database(local);
    writer.run("create table mine (body)");
    writer.close();
    const content = readFileSync(local);
    await changePageSize(host, 4096);
    await expect(one.step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
    expect(readFileSync(local).equals(content)).toBe(true);
  });

  test("a -wal beside it, which SQLite would read", async () => {
    const { host, local, follower } = await makePair();
    const one = follower();
    await one.step(signal);
    copyFileSync(`${host.path}-wal`, `${local}-wal`);
    await change(host, 0);
    await expect(one.step(signal)).rejects.toMatchObject({ code: "E_OUTPUT_EXISTS" });
  });
});
