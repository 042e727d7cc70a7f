/**
 * Compiles src/main.ts into one executable: `bun build.ts [OUTFILE] [JIT_POLICY]`, by default dist/walsync. Works from any
 * directory. scripts/bench.ts compares policies, and compiles a program of its own.
 */
import { mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import packageJson from "../package.json" with { type: "json" };

/**
 * How reluctant the JIT is: 1 is Bun's default, more is later. Late compilation costs speed and saves memory in a program that
 * mostly waits. `bun run bench jit --rounds 2`, 20 databases, RSS settled and under load, and CPU per object: 1 75.2 and 94.7 MB,
 * 8.95 ms; 50 48.7 and 78.1 MB, 10.1 ms; 1000 47.7 and 68.0 MB, 11.8 ms; 100000 47.6 and 67.1 MB, 12.3 ms.
 */
const JIT_POLICY = 50;

const root = join(import.meta.dir, "..");

export interface CompileOptions {
  /** The program's first module; by default that of walsync. */
  entry?: string;
  /** Where the executable goes; by default dist/walsync. */
  outfile?: string | undefined;
  jitPolicy?: number | undefined;
  /** The Bun that becomes a part of the executable; by default the one that compiles. */
  runtime?: Runtime | undefined;
}

/** A Bun for some machine, not necessarily this one. */
export interface Runtime {
  /** What `bun build --target` calls it. */
  target: string;
  /** Path of the program. */
  path: string;
}

/** Compiles a program as walsync is compiled; returns the compiler's exit status. */
export function compile({ entry, outfile, jitPolicy, runtime }: CompileOptions = {}): number {
  const target = resolve(outfile ?? join(root, "dist", "walsync"));
  mkdirSync(dirname(target), { recursive: true });
  // Bun leaves a second copy of each source map beside the executable.
  const workshop = mkdtempSync(join(dirname(target), ".build-"));
  const made = join(workshop, basename(target));
  const build = Bun.spawnSync(
    [
      process.execPath,
      "build",
      "--compile",
      "--minify",
      "--bytecode",
      "--format=esm",
      // Each command in a chunk of its own: what another one needs is not even parsed. And what a module names at its top stays
      // a constant: in one large file it is a variable that may change, and the loops over bytes took a fifth longer.
      "--splitting",
      // A bug's stack trace names source lines. 1.8 MB in the executable, read only when a stack is printed.
      "--sourcemap=inline",
      `--compile-jit-policy=${jitPolicy ?? JIT_POLICY}`,
      // A .env or bunfig.toml in the directory where walsync happens to run is none of its business.
      "--no-compile-autoload-dotenv",
      "--no-compile-autoload-bunfig",
      `--define=WALSYNC_VERSION=${JSON.stringify(packageJson.version)}`,
      `--define=WALSYNC_COMMIT=${JSON.stringify(currentCommit())}`,
      ...(runtime === undefined ? [] : [`--target=${runtime.target}`, `--compile-executable-path=${runtime.path}`]),
      `--outfile=${made}`,
      entry ?? join("src", "main.ts"),
    ],
    // What the compiler says is no result of whoever compiles.
    { cwd: root, stdin: "ignore", stdout: 2, stderr: "inherit" },
  );
  if (build.exitCode === 0) renameSync(made, target);
  rmSync(workshop, { recursive: true });
  return build.exitCode;
}

/** Short hash of the checked-out commit, with "-dirty" behind it if files were changed since; "unknown" outside git. */
export function currentCommit(): string {
  try {
    const git = (...args: string[]) => Bun.spawnSync(["git", "-C", root, ...args], { stderr: "ignore" });
    const commit = git("rev-parse", "--short", "HEAD");
    if (!commit.success) return "unknown";
    const dirty = git("status", "--porcelain", "--untracked-files=no").stdout.length > 0;
    return `${commit.stdout.toString().trim()}${dirty ? "-dirty" : ""}`;
  } catch {
    // No git program: a source archive builds, too.
    return "unknown";
  }
}

if (import.meta.main) {
  const [, , outfile, jitPolicy] = process.argv;
  process.exit(compile({ outfile, jitPolicy: jitPolicy === undefined ? undefined : Number(jitPolicy) }));
}
