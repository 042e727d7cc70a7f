// Goal: what a release hands out is complete, runs, is what SHA256SUMS says, is installed by its own installer, and is the same
// bytes when it is built again.
import { Database } from "bun:sqlite";
import { beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { tarGz } from "../../scripts/packaging/archive.ts";
import { unpackRuntime } from "../../scripts/packaging/runtime.ts";
import { archiveName, TARGETS } from "../../scripts/packaging/targets.ts";
import { buildProgram } from "../../scripts/release.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const ROOT = resolve(import.meta.dir, "../..");
const BUILD_WITHIN_MS = 240_000;
const isLinuxX64 = process.platform === "linux" && process.arch === "x64";
const dir = tempDir();
const out = join(dir, "release");
const musl = join(dir, "musl");

if (!isLinuxX64)
  console.warn("SKIPPED: tests of a release, because its programs that can be run are those for Linux on x86-64");
describe.skipIf(!isLinuxX64)("a release", () => {
  beforeAll(async () => {
    await Promise.all([
      build(["linux-x64", "--out", out, "--releases-url", "https://example.com/walsync/releases"]),
      build(["linux-x64-musl", "--out", musl]),
    ]);
    run(["tar", "-xzf", join(out, archiveName("linux-x64")), "-C", dir]);
    run(["tar", "-xzf", join(musl, archiveName("linux-x64-musl")), "-C", dir]);
  }, BUILD_WITHIN_MS);

  test("holds the archives, the bill of materials, the installer and the sums of them all, and nothing else", () => {
    const names = ["SHA256SUMS", "install.sh", archiveName("linux-x64"), "walsync.cdx.json"];
    expect(readdirSync(out).sort()).toEqual(names.sort());
    const sums = readFileSync(join(out, "SHA256SUMS"), "utf8").trim().split("\n");
    expect(sums.map((line) => line.split("  ")[1]!)).toEqual(names.filter((name) => name !== "SHA256SUMS").sort());
    for (const line of sums) {
      const [sum, name] = line.split("  ") as [string, string];
      expect(
        createHash("sha256")
          .update(readFileSync(join(out, name)))
          .digest("hex"),
      ).toBe(sum);
    }
    expect(readdirSync(join(dir, "walsync-linux-x64")).sort()).toEqual(["LICENSE", "README.md", "walsync"]);
    expect(readFileSync(join(out, "install.sh"), "utf8")).toContain(
      "\nRELEASES_URL=https://example.com/walsync/releases\n",
    );
  });

  test("the program for linux-x64 ships and restores", () => {
    expectToWork([join(dir, "walsync-linux-x64", "walsync")], "linux-x64");
  });

  test("the program for linux-x64-musl ships and restores under musl", () => {
    const runner = requireTool("musl-run");
    if (runner !== null) expectToWork([runner, join(dir, "walsync-linux-x64-musl", "walsync")], "musl");
  });

  test("the installer of the release installs the program for this machine", async () => {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: ({ url }) => new Response(Bun.file(join(out, new URL(url).pathname))),
    });
    const folder = join(dir, "bin");
    const env = { ...process.env, WALSYNC_BASE_URL: server.url.origin };
    const installed = Bun.spawn(["sh", join(out, "install.sh"), folder], { env, stdin: "ignore", stderr: "ignore" });
    expect(await installed.exited).toBe(0);
    await server.stop(true);
    const built = readFileSync(join(dir, "walsync-linux-x64", "walsync"));
    expect(Bun.hash(readFileSync(join(folder, "walsync")))).toBe(Bun.hash(built));
  });

  test(
    "the same commit gives the same bytes, wherever it is built",
    () => {
      const target = TARGETS.find(({ name }) => name === "linux-x64-musl")!;
      const again = buildProgram(target, join(dir, "elsewhere", "again"));
      expect(Bun.hash(again)).toBe(Bun.hash(readFileSync(join(dir, "walsync-linux-x64-musl", "walsync"))));
      const members = [{ name: "walsync", bytes: again.subarray(0, 100_000), isExecutable: true }];
      const archives = [1, 2].map(() => tarGz("walsync", members, 1_000_000_000));
      expect(archives[0]).toEqual(archives[1]!);
      expect(tarGz("walsync", members, 1_000_000_001)).not.toEqual(archives[0]!);
    },
    BUILD_WITHIN_MS,
  );

  test("the bill of materials has what an installation without development packages has, and Bun", () => {
    const sbom = JSON.parse(readFileSync(join(out, "walsync.cdx.json"), "utf8")) as Sbom;
    const installed = join(dir, "production");
    mkdirSync(installed);
    for (const name of ["package.json", "bun.lock"])
      writeFileSync(join(installed, name), readFileSync(join(ROOT, name)));
    run([process.execPath, "install", "--production", "--frozen-lockfile", "--ignore-scripts"], installed);
    const expected = [
      ...packagesBelow(join(installed, "node_modules")),
      `@oven/bun-linux-x64@${packageJson.devDependencies.bun}`,
    ];
    expect(sbom.components.map(({ name, version }) => `${name}@${version}`).sort()).toEqual(expected.sort());
    const refs = new Set(sbom.components.map((component) => component["bom-ref"]));
    expect(refs.size).toBe(sbom.components.length);
    for (const { purl, licenses, hashes } of sbom.components) {
      expect(purl).toMatch(/^pkg:npm\/(%40[\w.-]+\/)?[\w.-]+@\d[\w.-]*$/);
      expect(licenses[0]?.expression).toMatch(/^(0BSD|Apache-2\.0|BSD-3-Clause|ISC|MIT)$/);
      expect(hashes[0]).toEqual({ alg: "SHA-512", content: expect.stringMatching(/^[0-9a-f]{128}$/) });
    }
    for (const { dependsOn } of sbom.dependencies) for (const ref of dependsOn) expect(refs.has(ref)).toBe(true);
  });
});

test("a runtime whose bytes are not those of bun.lock is not used, and not kept", () => {
  const cache = join(dir, "cache");
  mkdirSync(cache);
  const packed = join(cache, "oven-bun-linux-x64-1.0.0.tgz");
  writeFileSync(packed, tarGz("package", [{ name: "bin/bun", bytes: Buffer.from("evil"), isExecutable: true }], 0));
  const lock = {
    workspaces: {},
    packages: { "@oven/bun-linux-x64": ["@oven/bun-linux-x64@1.0.0", "", {}, "sha512-AAAA"] },
  };
  const folder = join(dir, "runtime");
  expect(() => unpackRuntime(lock, "@oven/bun-linux-x64", cache, folder)).toThrow(
    "expected sha512-AAAA, found sha512-",
  );
  expect([existsSync(packed), existsSync(folder)]).toEqual([false, false]);
});

test("an unknown target is refused", () => {
  const refused = Bun.spawnSync([
    process.execPath,
    join(ROOT, "scripts/release.ts"),
    "windows-x64",
    "--out",
    join(dir, "no"),
  ]);
  expect([refused.exitCode, existsSync(join(dir, "no"))]).toEqual([2, false]);
  expect(refused.stderr.toString()).toStartWith("E_USAGE release: expected one of linux-x64, ");
});

test("a mistyped flag is refused, and --help says what there is", () => {
  const run = (flag: string) => Bun.spawnSync([process.execPath, join(ROOT, "scripts/release.ts"), flag]);
  expect(run("--ot")).toMatchObject({ exitCode: 2 });
  expect(run("--ot").stderr.toString()).toStartWith("E_USAGE release: Unknown option '--ot'");
  expect(run("--help").stdout.toString()).toContain("linux-x64-musl");
});

// --- internal ---

interface Sbom {
  components: {
    "bom-ref": string;
    name: string;
    version: string;
    purl: string;
    licenses: { expression: string }[];
    hashes: object[];
  }[];
  dependencies: { ref: string; dependsOn: string[] }[];
}

async function build(args: string[]): Promise<void> {
  const command = [process.execPath, join(ROOT, "scripts/release.ts"), ...args];
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const complaint = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")}: expected exit 0, found: ${complaint}`);
}

/** Returns what the command printed. Throws with what it complained about. */
function run(command: string[], cwd = dir, env: Record<string, string> = {}): string {
  const done = Bun.spawnSync(command, { cwd, env: { ...process.env, ...env }, stdin: "ignore" });
  if (!done.success) throw new Error(`${command.join(" ")}: expected exit 0, found ${done.exitCode}: ${done.stderr}`);
  return done.stdout.toString();
}

/** From --version to a verified restore; and its bytecode is used, not only there. */
function expectToWork(command: string[], folder: string): void {
  const work = join(dir, "work", folder);
  mkdirSync(work, { recursive: true });
  const database = sampleDatabase(join(work, "app.db"));
  const version = Bun.spawnSync([...command, "--version"], { env: { ...process.env, BUN_JSC_verboseDiskCache: "1" } });
  expect(version.stdout.toString()).toContain(`walsync ${packageJson.version} (`);
  expect(version.stdout.toString() + version.stderr).toContain("Cache hit for sourceCode");
  const url = `file://${join(work, "backup")}`;
  run([...command, "snapshot", "app.db", "-b", url], work);
  run([...command, "restore", "app", "-o", "restored.db", "-b", url], work);
  expect(Bun.hash(readFileSync(join(work, "restored.db")))).toBe(Bun.hash(readFileSync(database)));
  expect(run([...command, "verify", "app", "-b", url], work)).toContain("1 of 1 restore point proven");
}

/** Makes a database in WAL mode whose file alone is its whole state; returns its path. */
function sampleDatabase(path: string): string {
  const database = new Database(path);
  database.run("pragma journal_mode = wal");
  database.run("create table entry (body blob)");
  const insert = database.query("insert into entry values (randomblob(?))");
  for (let i = 0; i < 100; i++) insert.run(1000);
  database.run("pragma wal_checkpoint(truncate)");
  database.close();
  return path;
}

/** "name@version" of every package in a node_modules, at whatever depth. */
function packagesBelow(folder: string): string[] {
  const found = new Set<string>();
  for (const path of new Bun.Glob("**/package.json").scanSync({ cwd: folder })) {
    // Only a package's own: packages have folders with a package.json of their own in them.
    if (!/(?:^|\/node_modules\/)(?:@[^/]+\/)?[^/]+\/package\.json$/.test(`/node_modules/${path}`)) continue;
    const { name, version } = JSON.parse(readFileSync(join(folder, path), "utf8")) as { name: string; version: string };
    found.add(`${name}@${version}`);
  }
  return [...found];
}
