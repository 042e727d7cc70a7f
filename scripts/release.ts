/**
 * Builds what a release consists of: `scripts/release [TARGET...] [--out FOLDER] [--releases-url URL]`. For each target an
 * archive with the program, licence and README; the bill of materials; with --releases-url the installer that downloads
 * from there; and SHA256SUMS of them all. The same commit gives the same bytes. docs/RELEASES.md says more.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import lock from "../bun.lock";
import packageJson from "../package.json" with { type: "json" };
import { exitStatus, messageOf, WalsyncError } from "../src/errors.ts";
import { table } from "../src/log.ts";
import { compile } from "./build.ts";
import { tarGz } from "./packaging/archive.ts";
import { withoutStaleSignature } from "./packaging/macho.ts";
import { unpackRuntime } from "./packaging/runtime.ts";
import { sbomOf } from "./packaging/sbom.ts";
import { archiveName, TARGETS, type Target } from "./packaging/targets.ts";

export interface ReleaseOptions {
  targets: readonly Target[];
  /** Emptied first. */
  out: string;
  /** Address of a project's releases, ".../releases" on GitHub; null: no installer. */
  releasesUrl: string | null;
}

export interface Built {
  target: Target;
  /** Of the program, and of its archive. */
  programBytes: number;
  archiveBytes: number;
}

/** The program for a target, made in `folder`. The same commit gives the same bytes, whatever the folder. */
export function buildProgram(target: Target, folder: string): Buffer {
  const runtime = unpackRuntime(lock, target.runtimePackage, join(ROOT, ".cache", "runtimes"), join(folder, "bun"));
  // A program knows the name that it was built under: the same for every target and folder.
  const program = join(folder, "walsync");
  if (compile({ outfile: program, runtime: { target: target.bunTarget, path: runtime } }) !== 0) {
    throw new WalsyncError("E_INTEGRITY", `${target.name}: expected walsync to compile, found that it does not`, {
      hint: "What the compiler said is above.",
    });
  }
  return withoutStaleSignature(readFileSync(program));
}

/** scripts/install.sh with the address that it downloads from. */
export function installerFor(releasesUrl: string): string {
  // It becomes a word of a shell script.
  if (!/^https?:\/\/[\w.:/-]+$/.test(releasesUrl)) {
    throw new WalsyncError("E_USAGE", `--releases-url: expected https://HOST/PATH, found ${releasesUrl}`);
  }
  const source = readFileSync(join(ROOT, "scripts", INSTALLER), "utf8");
  const stamped = source.replace(/^RELEASES_URL=.*$/m, `RELEASES_URL=${releasesUrl.replace(/\/+$/, "")}`);
  if (stamped === source) throw new Error(`${INSTALLER}: expected a line RELEASES_URL=, found none`);
  return stamped;
}

// --- internal ---

/** Throws WalsyncError if a runtime cannot be had or a program does not compile. */
function buildRelease({ targets, out, releasesUrl }: ReleaseOptions): Built[] {
  const timestamp = commitTime();
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const built = targets.map((target) => buildArchive(target, out, timestamp));
  writeFileSync(
    join(out, SBOM),
    sbomOf({ lock, program: packageJson, runtimes: runtimesOf(targets), licenseOf, timestamp }),
  );
  if (releasesUrl !== null) writeFileSync(join(out, INSTALLER), installerFor(releasesUrl), { mode: 0o755 });
  writeFileSync(join(out, "SHA256SUMS"), sumsOf(out));
  return built;
}

const ROOT = join(import.meta.dir, "..");
const SBOM = "walsync.cdx.json";
const INSTALLER = "install.sh";

function buildArchive(target: Target, out: string, timestamp: number): Built {
  const work = join(out, `${target.name}.tmp-build`);
  const bytes = buildProgram(target, work);
  const file = (name: string) => ({ name, bytes: readFileSync(join(ROOT, name)), isExecutable: false });
  const members = [{ name: "walsync", bytes, isExecutable: true }, file("LICENSE"), file("README.md")];
  const archive = tarGz(`walsync-${target.name}`, members, timestamp);
  writeFileSync(join(out, archiveName(target.name)), archive);
  rmSync(work, { recursive: true });
  return { target, programBytes: bytes.length, archiveBytes: archive.length };
}

function runtimesOf(targets: readonly Target[]): string[] {
  return targets.map(({ runtimePackage }) => runtimePackage);
}

function licenseOf(place: string): string {
  // "a/@s/b" of bun.lock is a/node_modules/@s/b on disk.
  const folder = place.replace(/(?:@[^/]+\/)?[^/]+/g, "node_modules/$&");
  return (JSON.parse(readFileSync(join(ROOT, folder, "package.json"), "utf8")) as { license: string }).license;
}

/** In the format of sha256sum, by name. */
function sumsOf(folder: string): string {
  const sumOf = (name: string) =>
    createHash("sha256")
      .update(readFileSync(join(folder, name)))
      .digest("hex");
  return readdirSync(folder)
    .sort()
    .map((name) => `${sumOf(name)}  ${name}\n`)
    .join("");
}

/** Of the checked-out commit, in seconds since 1970. SOURCE_DATE_EPOCH wins; 0 outside git. */
function commitTime(): number {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) return Number(given);
  try {
    const git = Bun.spawnSync(["git", "-C", ROOT, "log", "-1", "--format=%ct"], { stderr: "ignore" });
    return git.success ? Number(git.stdout.toString()) : 0;
  } catch {
    // No git program: a source archive builds, too.
    return 0;
  }
}

function targetNamed(name: string): Target {
  const found = TARGETS.find((target) => target.name === name);
  if (found !== undefined) return found;
  throw new WalsyncError(
    "E_USAGE",
    `release: expected one of ${TARGETS.map(({ name }) => name).join(", ")}, found ${name}`,
  );
}

const HELP = `usage: scripts/release [TARGET...] [--out FOLDER] [--releases-url URL]

  TARGET              ${TARGETS.map(({ name }) => name).join(", ")}; all by default
  --out FOLDER        emptied first; dist/release by default
  --releases-url URL  where the installer downloads from, ".../releases" on GitHub; without, there is no installer`;

function readArguments(args: string[]) {
  const options = { out: { type: "string" }, "releases-url": { type: "string" }, help: { type: "boolean" } } as const;
  try {
    return parseArgs({ args, allowPositionals: true, options });
  } catch (error) {
    throw new WalsyncError("E_USAGE", `release: ${messageOf(error)}`, { hint: "See scripts/release --help." });
  }
}

function main(args: string[]): void {
  const { values, positionals } = readArguments(args);
  if (values.help) {
    console.log(HELP);
    return;
  }
  const out = resolve(values.out ?? join(ROOT, "dist", "release"));
  const targets = positionals.length === 0 ? TARGETS : positionals.map(targetNamed);
  const built = buildRelease({ targets, out, releasesUrl: values["releases-url"] ?? null });
  const megabytes = (sizeBytes: number) => `${(sizeBytes / 1e6).toFixed(1)} MB`;
  const rows = built.map(({ target, programBytes, archiveBytes }) => [
    target.name,
    megabytes(programBytes),
    megabytes(archiveBytes),
  ]);
  console.log(table([["TARGET", "PROGRAM", "ARCHIVE"], ...rows], [1, 2]));
  console.log(`in ${out}`);
}

if (import.meta.main) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof WalsyncError)) throw error;
    console.error(`${error.code} ${error.message}${error.hint === undefined ? "" : `\nhint: ${error.hint}`}`);
    process.exit(exitStatus(error));
  }
}
