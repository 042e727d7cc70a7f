/**
 * Makes what the npm package consists of, in dist/package: the library and the command as modules for Bun, and the types of the
 * library. Runs before `bun pm pack` and `npm pack`; other packages stay imports.
 */
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import packageJson from "../package.json" with { type: "json" };
import { currentCommit } from "./build.ts";

const root = join(import.meta.dir, "..");
const target = join(root, "dist", "package");
const LIBRARY = "library/index.d.ts";

rmSync(target, { recursive: true, force: true });
await bundle();
makeExecutable(join(target, "main.js"));
copyTypes();

/** Both entries share their chunks; what a command needs is loaded by that command, as in the executable. */
async function bundle(): Promise<void> {
  await Bun.build({
    entrypoints: [join(root, "src/main.ts"), join(root, "src/library/index.ts")],
    root: join(root, "src"),
    outdir: target,
    target: "bun",
    format: "esm",
    splitting: true,
    packages: "external",
    define: {
      WALSYNC_VERSION: JSON.stringify(packageJson.version),
      WALSYNC_COMMIT: JSON.stringify(currentCommit()),
    },
  });
}

/** Node's package managers start a bin by its first line. */
function makeExecutable(path: string): void {
  const text = readFileSync(path, "utf8").replace(/^#!.*\n/, "");
  writeFileSync(path, `#!/usr/bin/env bun\n${text}`);
  chmodSync(path, 0o755);
}

/** The declarations that the library's own lead to, and no others: what is not exported is no promise. */
function copyTypes(): void {
  const folder = mkdtempSync(join(tmpdir(), "walsync-types-"));
  try {
    const { exitCode } = Bun.spawnSync(
      [
        process.execPath,
        join(root, "node_modules/typescript/bin/tsc"),
        "-p",
        "scripts/tsconfig.types.json",
        "--outDir",
        folder,
      ],
      { cwd: root, stdout: 2, stderr: "inherit" },
    );
    if (exitCode !== 0) throw new Error(`tsc: expected declarations, found exit status ${exitCode}`);
    for (const path of reachable(folder, LIBRARY)) {
      mkdirSync(dirname(join(target, path)), { recursive: true });
      copyFileSync(join(folder, path), join(target, path));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function reachable(folder: string, entry: string): Set<string> {
  const found = new Set([entry]);
  for (const path of found) {
    const text = readFileSync(join(folder, path), "utf8");
    for (const [, imported] of text.matchAll(/\b(?:from |import\()"(\.[^"]+)\.ts"/g)) {
      found.add(relative(folder, join(folder, dirname(path), `${imported}.d.ts`)));
    }
  }
  return found;
}
