// Goal: a drill leaves nothing behind, however it ended; the folder of one that was killed goes with the next one, and nothing else
// is touched that looks like it.
import { expect, test } from "bun:test";
import { chownSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { DrillPlace } from "../../src/drill/place.ts";
import { configureLog } from "../../src/log.ts";
import { acquireLock } from "../../src/replication/lock.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
configureLog({ sink: () => {} });

function makeParent(): string {
  const parent = join(dir, crypto.randomUUID());
  mkdirSync(parent);
  return parent;
}

/** What a drill leaves that is killed: its folder with a file and its lock, which nobody holds any more. */
function leave(parent: string, name = `walsync-drill-${crypto.randomUUID()}`): string {
  const folder = join(parent, name);
  mkdirSync(join(folder, "1"), { recursive: true });
  writeFileSync(join(folder, "lock"), "walsync, process 1\n");
  writeFileSync(join(folder, "1", "restored.db"), "half");
  return folder;
}

test("the file is gone once it was used, the folder once it is closed, whatever was thrown", async () => {
  const parent = makeParent();
  const place = new DrillPlace(parent);
  const seen = await place.withFile(async (path) => {
    mkdirSync(dirname(path));
    for (const suffix of ["", "-wal", ".tmp-restore"]) writeFileSync(path + suffix, "x");
    expect(statSync(dirname(dirname(path))).mode & 0o777).toBe(0o700);
    return path;
  });
  expect(existsSync(dirname(seen))).toBe(false);
  const failing = place.withFile((path) => {
    mkdirSync(dirname(path));
    writeFileSync(path, "x");
    return Promise.reject(new RangeError("on purpose"));
  });
  expect(failing).rejects.toThrow("on purpose");
  await failing.catch(() => {});
  expect(readdirSync(join(parent, readdirSync(parent)[0]!))).toEqual(["lock"]);
  place.close();
  expect(readdirSync(parent)).toEqual([]);
});

test("what drills left that were killed is removed, also without a lock or a file, and by several at once", () => {
  const parent = makeParent();
  leave(parent);
  leave(parent);
  mkdirSync(join(parent, `walsync-drill-${crypto.randomUUID()}`));
  const places = [new DrillPlace(parent), new DrillPlace(parent)];
  expect(readdirSync(parent)).toHaveLength(2);
  for (const place of places) place.close();
  expect(readdirSync(parent)).toEqual([]);
});

test("a drill that is under way keeps what it has", () => {
  const parent = makeParent();
  const folder = leave(parent);
  const lock = acquireLock(folder, folder);
  new DrillPlace(parent).close();
  expect(existsSync(join(folder, "1", "restored.db"))).toBe(true);
  lock.release();
  new DrillPlace(parent).close();
  expect(readdirSync(parent)).toEqual([]);
});

test("what only looks like one is not touched: another name, a file, a link, the folder of somebody else", () => {
  const parent = makeParent();
  const elsewhere = makeParent();
  writeFileSync(join(elsewhere, "precious"), "x");
  leave(parent, "walsync-drill-mine");
  leave(parent, `x-walsync-drill-${crypto.randomUUID()}`);
  writeFileSync(join(parent, `walsync-drill-${crypto.randomUUID()}`), "a file");
  symlinkSync(elsewhere, join(parent, `walsync-drill-${crypto.randomUUID()}`));
  if (process.getuid?.() === 0) chownSync(leave(parent), 65534, 65534);
  const before = readdirSync(parent, { recursive: true }).sort();
  new DrillPlace(parent).close();
  expect(readdirSync(parent, { recursive: true }).sort()).toEqual(before);
  expect(readdirSync(elsewhere)).toEqual(["precious"]);
});

test("a folder that is not there, and one without room, are said to be so", () => {
  expect(() => new DrillPlace(join(dir, "nowhere"))).toThrow(
    expect.objectContaining({ code: "E_DISK", hint: expect.stringContaining("--temp-dir") }),
  );
  const parent = makeParent();
  const place = new DrillPlace(parent);
  place.requireRoom(1);
  expect(() => place.requireRoom(2 ** 60)).toThrow(
    expect.objectContaining({ code: "E_DISK", message: expect.stringMatching(/for a database of 1024 PiB, found/) }),
  );
  place.close();
});
