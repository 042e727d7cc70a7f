/** What the tests of this folder share: databases, and programs that use the library in a process of their own. */
import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Watcher, WatcherEvents } from "../../src/library/index.ts";

export const LIBRARY = resolve(import.meta.dir, "../../src/library/index.ts");

/** A database in WAL mode with one table of `rows` rows. Close it. */
export function makeDatabase(folder: string, name: string, rows = 1): Database {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  const database = new Database(path);
  database.run("PRAGMA journal_mode=WAL");
  database.run("CREATE TABLE t (x INTEGER PRIMARY KEY, y BLOB)");
  for (let i = 0; i < rows; i++) addRow(database);
  return database;
}

export function addRow(database: Database): void {
  database.run("INSERT INTO t (y) VALUES (randomblob(300))");
}

export function rowsOf(path: string): number {
  using database = new Database(path);
  return database.query<{ n: number }, []>("SELECT count(*) AS n FROM t").get()!.n;
}

/** Resolves at the next event of this name that `isMeant`. */
export function eventOf<K extends keyof WatcherEvents>(
  watcher: Watcher,
  name: K,
  isMeant: (event: WatcherEvents[K]) => boolean = () => true,
): Promise<WatcherEvents[K]> {
  return new Promise((resolve) => {
    const off = watcher.on(name, (event) => {
      if (!isMeant(event)) return;
      off();
      resolve(event);
    });
  });
}

/** Code of the `WalsyncError` that `action` rejects with; anything else is thrown on. */
export async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (typeof code === "string" && code.startsWith("E_")) return code;
    throw error;
  }
  return "no error";
}

/** Starts a program that uses the library. What it imports is to be written into `script`. */
export function runScript(script: string, cwd: string): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  return Bun.spawn([process.execPath, "-e", script], { cwd, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}
