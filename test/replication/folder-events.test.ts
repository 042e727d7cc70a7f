// Goal: a directory that cannot be watched is told for what it is, once: one that is gone is no limit of the system, and is heard
// of again when it was made anew.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type LogEntry, listenToLog } from "../../src/log.ts";
import { FolderEvents } from "../../src/replication/folder-events.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
let events: FolderEvents;
let told: LogEntry[];
let deaf: () => void;

beforeEach(() => {
  events = new FolderEvents();
  told = [];
  deaf = listenToLog((entry) => told.push(entry));
});
afterEach(() => {
  deaf();
  events.close();
});

test("one that was removed is said to be gone, without advice about limits, and heard of when it is back", async () => {
  const path = join(dir, "tenant");
  mkdirSync(path);
  const heard: (string | null)[] = [];
  events.listen(path, [], (name) => heard.push(name));
  rmSync(path, { recursive: true });
  for (let i = 0; i < 3; i++) events.revive();
  expect(told.map(({ level, event, fields }) => [level, event, fields])).toEqual([
    ["info", "directory is not there", { path }],
  ]);
  mkdirSync(path);
  events.revive();
  for (let i = 0; i < 100 && !heard.includes("new.db"); i++) {
    writeFileSync(join(path, "new.db"), String(i));
    await Bun.sleep(20);
  }
  expect(heard).toContain("new.db");
  rmSync(path, { recursive: true });
  events.revive();
  expect(told).toHaveLength(2);
});

test("one that is not there yet is said to be missing, also where a file is in its way", () => {
  writeFileSync(join(dir, "file"), "");
  for (const path of [join(dir, "later"), join(dir, "file", "below")]) events.listen(path, ["a"], () => {});
  expect(told.map(({ event }) => event)).toEqual(["directory is not there", "directory is not there"]);
});

test("one that cannot be read is a warning with the reason, and none about limits", () => {
  const path = join(dir, "loop");
  symlinkSync(path, path);
  events.listen(path, [], () => {});
  const [only, ...others] = told;
  expect(others).toEqual([]);
  expect([only!.level, only!.event]).toEqual(["warn", "directory cannot be watched"]);
  expect(String(only!.fields.error)).toContain("ELOOP");
  expect(String(only!.fields.hint)).toBe("Changes are noticed by polling, within seconds.");
});
