/**
 * The page as one text with everything in it, and its Content-Security-Policy. Runs as a macro, when walsync is compiled or its
 * source is loaded: what is left in the program is two strings.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface PageAssets {
  html: string;
  policy: string;
}

/** Throws what the bundler says if the page cannot be built. */
export function buildPage(): PageAssets {
  const folder = join(import.meta.dir, "client");
  const style = bundle(join(folder, "page.css"));
  const script = bundle(join(folder, "main.ts"));
  const template = readFileSync(join(folder, "page.html"), "utf8");
  const html = template
    .replace("<!-- style -->", () => `<style>${style}</style>`)
    .replace("<!-- script -->", () => `<script type="module">${script}</script>`);
  return { html, policy: policyOf(style, script) };
}

// --- internal ---

/** Bun.build cannot run inside of a macro: https://bun.com/docs/bundler/macros */
function bundle(entry: string): string {
  const command = [process.execPath, "build", "--minify", "--target=browser", entry];
  const { success, stdout, stderr } = Bun.spawnSync(command, { stdin: "ignore" });
  const text = stdout.toString().trim();
  if (!success || text === "") throw new Error(`${entry}: ${stderr.toString()}`);
  if (/<\/(script|style)|<!--/i.test(text)) throw new Error(`${entry}: would end its own element`);
  return text;
}

/** Nothing but what is in the page may run, style it or be shown, and it talks to nobody but its watch. */
function policyOf(style: string, script: string): string {
  const hash = (text: string): string => `'sha256-${new Bun.CryptoHasher("sha256").update(text).digest("base64")}'`;
  return [
    "default-src 'none'",
    `script-src ${hash(script)}`,
    `style-src ${hash(style)}`,
    "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; ");
}
