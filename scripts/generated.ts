/** Documents that are made in part of the program's own tables: what stands above the mark is written by hand. */
import { join, resolve } from "node:path";

export const ROOT = resolve(import.meta.dir, "..");

/** The document at `path` in the repository as it is when `part` stands below the mark. */
export async function withPart(path: string, part: string): Promise<string> {
  const text = await Bun.file(join(ROOT, path)).text();
  return `${text.slice(0, text.indexOf(MARK))}${MARK}\n\n${part}`;
}

// --- internal ---

const MARK = "<!-- From here on: bun run docs -->";
