/** Folders that may not exist yet, and that a check must leave as they were. */
import { existsSync, rmdirSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** `path` itself if it exists, else the nearest folder above it that does. */
export function existingAncestor(path: string): string {
  let folder = resolve(path);
  while (!existsSync(folder) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

/** The folders that would have to be made for `path`, itself first. */
export function missingFolders(path: string): string[] {
  const missing: string[] = [];
  for (let folder = resolve(path); !existsSync(folder) && dirname(folder) !== folder; folder = dirname(folder)) {
    missing.push(folder);
  }
  return missing;
}

/** Removes those of `folders`, the deepest first, that are there and empty. */
export function removeEmptyFolders(folders: readonly string[]): void {
  for (const folder of folders) {
    try {
      rmdirSync(folder);
    } catch {
      return; // Never made, or somebody put something into it.
    }
  }
}
