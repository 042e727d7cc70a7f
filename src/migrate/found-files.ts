/** The databases that Litestream finds in a directory: files with SQLite's header whose name matches, hidden ones included. */
import { statSync } from "node:fs";
import { join, sep } from "node:path";
import { isSqliteFile } from "../sqlite/database.ts";

/** Relative to `folder`, with "/" between, in order. None if there is no such folder. */
export function sqliteFilesBelow(folder: string, pattern: string, recursive: boolean): string[] {
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) return [];
  const glob = new Bun.Glob(recursive ? `**/${pattern}` : pattern);
  return [...glob.scanSync({ cwd: folder, dot: true, onlyFiles: true })]
    .filter((file) => isSqliteFile(join(folder, file)))
    .map((file) => file.split(sep).join("/"))
    .sort();
}
