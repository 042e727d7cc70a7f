/**
 * Checks what neither the compiler nor the linter knows: imports point one way, every source file is in use, named and
 * introduced as the project does it. Prints file:line of each finding; exits 1 if there is any.
 */
import { dirname, join, normalize } from "node:path";

/** What each layer may import, itself aside. "root" is the files directly in src/, but for main.ts. */
const LAYERS: Record<string, readonly string[]> = {
  main: ["cli", "commands", "drill", "root"],
  library: ["engine", "replication", "restore", "upkeep", "destination", "sqlite", "root"],
  commands: [
    "cli",
    "engine",
    "doctor",
    "drill",
    "migrate",
    "replication",
    "restore",
    "upkeep",
    "status-page",
    "chain",
    "destination",
    "sqlite",
    "ltx",
    "root",
  ],
  "status-page": ["chain", "destination", "root"],
  cli: ["root"],
  // What the commands and the library share: whole tasks, without a process around them.
  engine: ["drill", "replication", "restore", "upkeep", "chain", "destination", "sqlite", "ltx", "root"],
  drill: ["replication", "restore", "chain", "destination", "sqlite", "ltx", "root"],
  doctor: ["replication", "destination", "sqlite", "ltx", "root"],
  replication: ["chain", "destination", "sqlite", "ltx", "root"],
  // From one configuration to another: whatever touches files at a destination is upkeep.
  migrate: ["destination", "sqlite", "root"],
  // Pruning and verifying ask the restore planner what a kept restore point needs.
  upkeep: ["restore", "chain", "destination", "sqlite", "ltx", "root"],
  restore: ["chain", "destination", "sqlite", "ltx", "root"],
  chain: ["destination", "ltx", "root"],
  destination: ["ltx", "root"],
  sqlite: ["root"],
  ltx: ["root"],
  root: [],
};
const ENTRY = "src/main.ts";
/** Where a walk over the imports begins. The LTX codec is complete by itself: merging files is a part of it. The
 * script of the status page is what a browser loads. */
const ROOTS = [ENTRY, "src/library/index.ts", "src/ltx/compactor.ts", "src/status-page/client/main.ts"];
const MAX_LINES = 500;
/** Only these may write to the console, the rest goes through them. */
const MAY_PRINT = /^src\/(cli\/|log\.ts$)/;

const root = join(import.meta.dir, "..");
const files = (await Array.fromAsync(new Bun.Glob("{src,test,scripts}/**/*.ts").scan({ cwd: root }))).sort();
const texts = new Map<string, string>();
for (const file of files) texts.set(file, await Bun.file(join(root, file)).text());

const findings: string[] = [];
const imports = new Map(files.map((file) => [file, importsOf(file)]));
for (const file of files) {
  checkName(file);
  for (const { line, path } of imports.get(file)!) checkImport(file, line, path);
  if (file.startsWith("src/")) checkSource(file);
}
checkReachable();

for (const finding of findings) console.error(finding);
if (findings.length > 0) console.error(`tidy: ${findings.length} findings in ${files.length} files`);
process.exit(findings.length > 0 ? 1 : 0);

interface Import {
  line: number;
  /** Relative imports: path from the repository. Packages: their name. */
  path: string;
}

/** Static, dynamic and type-only imports, whatever their layout; comments and other strings are not looked at. */
function importsOf(file: string): Import[] {
  const found: Import[] = [];
  for (const [index, text] of texts.get(file)!.split("\n").entries()) {
    const match =
      /^\s*(?:import|export)\b.*?\bfrom\s+"([^"]+)"/.exec(text) ??
      /^\s*}\s*from\s+"([^"]+)"/.exec(text) ??
      /^\s*import\s+"([^"]+)"/.exec(text) ??
      /^(?!\s*(?:\*|\/[/*])).*\bimport\("([^"]+)"\)/.exec(text);
    if (match === null) continue;
    const target = match[1]!;
    found.push({ line: index + 1, path: target.startsWith(".") ? normalize(join(dirname(file), target)) : target });
  }
  return found;
}

function checkImport(file: string, line: number, path: string): void {
  if (!/^(src|test|scripts)\//.test(path)) return;
  if (!/\.\w+$/.test(path)) report(file, line, `imports ${path} without its extension .ts`);
  if (!file.startsWith("src/")) return;
  const [from, to] = [layerOf(file), layerOf(path)];
  if (!path.startsWith("src/")) report(file, line, `source imports ${path}, which is not source`);
  else if (LAYERS[from] === undefined)
    report(file, line, `folder ${from} has no place in the layers of scripts/tidy.ts`);
  else if (from !== to && !LAYERS[from].includes(to)) report(file, line, `${from} must not import ${to}: ${path}`);
}

function checkName(file: string): void {
  for (const part of file.split("/")) {
    if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.test)?(\.ts)?$/.test(part)) report(file, 1, `${part} is not kebab-case`);
  }
}

function checkSource(file: string): void {
  const text = texts.get(file)!;
  const lines = text.trimEnd().split("\n");
  if (!text.startsWith("/** ") && !text.startsWith("/**\n"))
    report(file, 1, "does not open with a /** comment that says what it is");
  if (lines.length > MAX_LINES)
    report(file, MAX_LINES, `has ${lines.length} lines, more than ${MAX_LINES}: look for a second concept`);
  if (MAY_PRINT.test(file)) return;
  for (const [index, line] of lines.entries()) {
    if (/^(?!\s*(?:\*|\/[/*])).*\bconsole\.\w+\(/.test(line))
      report(file, index + 1, "writes to the console: use src/log.ts");
  }
}

/** A file that nothing on the way from the entry imports is dead, and tests do not make it alive. */
function checkReachable(): void {
  const reached = new Set<string>();
  const queue = [...ROOTS];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (reached.has(file)) continue;
    reached.add(file);
    for (const { path } of imports.get(file) ?? []) if (imports.has(path)) queue.push(path);
  }
  for (const file of files) {
    if (file.startsWith("src/") && !reached.has(file)) report(file, 1, `is not reachable from ${ENTRY}`);
  }
}

function layerOf(path: string): string {
  if (path === ENTRY) return "main";
  const [, folder, below] = path.split("/");
  return below === undefined ? "root" : folder!;
}

function report(file: string, line: number, message: string): void {
  findings.push(`${file}:${line} ${message}`);
}
