/** Writes docs/CONFIG.md from the tables that read walsync.toml: `bun run docs`. test/docs.test.ts compares. */
import { join, resolve } from "node:path";
import { WATCH_FLAGS } from "../src/commands/watch-settings.ts";
import { formatReference } from "../src/config-reference.ts";

const PATH = join(resolve(import.meta.dir, ".."), "docs/CONFIG.md");
const MARK = "<!-- From here on: bun run docs -->";

export async function configDocument(): Promise<string> {
  const text = await Bun.file(PATH).text();
  return `${text.slice(0, text.indexOf(MARK))}${MARK}\n\n${formatReference(WATCH_FLAGS)}`;
}

if (import.meta.main) await Bun.write(PATH, await configDocument());
