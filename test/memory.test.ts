// Goal: memory that only the start needed is given back, nothing else is touched, and the program goes on as before.
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "../src/bytes.ts";
import { unchangedMappings, WorkMemory } from "../src/memory.ts";
import { compiledBinary } from "./support/binary.ts";
import { tempDir } from "./support/temp.ts";

const dir = tempDir();

/** One mapping as the kernel tells it. */
const mapping = (range: string, flags: string, file: string, { anonymous = 0, dirty = 0 } = {}) =>
  [
    `${range} ${flags} 00000000 fe:00 1234                             ${file}`,
    "Size:                132 kB",
    `Private_Dirty:        ${dirty} kB`,
    `Anonymous:            ${anonymous} kB`,
    "VmFlags: rd ex mr mw me",
    "",
  ].join("\n");

test("garbage is collected at the beginning, and after each 16 MiB that passed, also if a try failed", async () => {
  const memory = new WorkMemory();
  const leave = () => new WeakRef(new Uint8Array(MiB));
  const isGoneAfter = async (passedBytes: number | null): Promise<boolean> => {
    const left = Array.from({ length: 8 }, leave);
    await Bun.sleep(1); // A WeakRef keeps what it leads to for the rest of the turn.
    if (passedBytes === null) memory.begin();
    else memory.passed(passedBytes);
    return left.every((ref) => ref.deref() === undefined);
  };
  expect(await isGoneAfter(null)).toBe(true);
  expect(await isGoneAfter(15 * MiB)).toBe(false);
  expect(await isGoneAfter(16 * MiB)).toBe(true);
  expect(await isGoneAfter(31 * MiB)).toBe(false);
  expect(await isGoneAfter(40 * MiB)).toBe(true);
  expect(await isGoneAfter(1 * MiB)).toBe(false);
  expect(await isGoneAfter(17 * MiB)).toBe(true);
  expect(await isGoneAfter(null)).toBe(true);
  expect(await isGoneAfter(1 * MiB)).toBe(false);
});

test("only unchanged pages of the program's own file can be let go of", () => {
  const smaps = [
    mapping("00400000-00421000", "r--p", "/usr/bin/walsync"),
    // Written to the disk a moment ago: of the file, not of this process.
    mapping("00421000-02421000", "r-xp", "/usr/bin/walsync", { dirty: 4 }),
    mapping("02421000-02422000", "r--p", "/usr/bin/walsync", { anonymous: 4, dirty: 4 }),
    mapping("02422000-02423000", "r--p", "/usr/bin/walsync", { anonymous: 4 }),
    mapping("02423000-02424000", "rw-p", "/usr/bin/walsync"),
    mapping("02424000-02425000", "r-xs", "/usr/bin/walsync"),
    mapping("7f0000000000-7f0000001000", "r-xp", "/usr/bin/walsync (deleted)"),
    mapping("7f0000001000-7f0000002000", "r-xp", "/lib/libc.so.6"),
    mapping("7f0000002000-7f0000003000", "r-xp", ""),
  ].join("");
  expect(unchangedMappings(smaps, "/usr/bin/walsync")).toEqual([
    { address: 0x400000n, length: 0x21000 },
    { address: 0x421000n, length: 0x2000000 },
  ]);
  expect(unchangedMappings("", "/usr/bin/walsync")).toEqual([]);
});

test.skipIf(process.platform !== "linux")(
  "a watch gives back what it needed for its start, and for work that is over, and goes on",
  async () => {
    const folder = join(dir, "watched");
    mkdirSync(folder);
    const app = new Database(join(folder, "app.db"), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (body)");
    const args = ["watch", join(folder, "app.db"), "-b", join(dir, "bucket"), "--no-metrics"];
    const child = Bun.spawn([compiledBinary(), ...args], { env: { PATH: "" }, stdout: "ignore", stderr: "ignore" });
    try {
      const rss = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]);
      const settled = async (limit: number): Promise<number> => {
        for (let i = 0; i < 100 && rss() > limit; i++) await Bun.sleep(100);
        return rss();
      };
      let early = 0;
      for (let i = 0; i < 20; i++) {
        await Bun.sleep(100);
        early = Math.max(early, rss());
      }
      expect(await settled(early * 0.6)).toBeLessThan(early * 0.6);
      let busy = 0;
      for (let i = 0; i < 20; i++) {
        app.run("insert into item values (randomblob(5000))");
        await Bun.sleep(100);
        busy = Math.max(busy, rss());
      }
      expect(await settled(busy * 0.8)).toBeLessThan(busy * 0.8);
      app.run("insert into item values (randomblob(5000))");
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
      expect(existsSync(join(dir, "bucket/app/00000002-00000002.ltx"))).toBe(true);
    } finally {
      child.kill("SIGKILL");
      app.close();
    }
  },
  30_000,
);
