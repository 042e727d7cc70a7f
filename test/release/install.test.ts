// Goal: install.sh puts a program in place that is what SHA256SUMS says and runs, or leaves everything as it was.
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { tarGz } from "../../scripts/packaging/archive.ts";
import { archiveName, TARGETS } from "../../scripts/packaging/targets.ts";
import { installerFor } from "../../scripts/release.ts";
import { tempDir } from "../support/temp.ts";

const INSTALLER = resolve(import.meta.dir, "../../scripts/install.sh");
const OLD = "the walsync that was there";
const dir = tempDir();

/** What the server answers, by path; anything else is 404. */
const files = new Map<string, () => Response>();
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request) => files.get(new URL(request.url).pathname)?.() ?? new Response("no such file", { status: 404 }),
});
const cutter = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: { data: (socket) => void socket.end("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this") },
});
afterAll(() => {
  server.stop(true);
  cutter.stop(true);
});

let folder: string;
let count = 0;
beforeEach(() => {
  folder = join(dir, `bin${count++}`);
  mkdirSync(folder);
  writeFileSync(join(folder, "walsync"), OLD);
  files.clear();
});

describe("a release that is whole", () => {
  test("is installed, executable, and nothing else is left", async () => {
    const program = Buffer.from("#!/bin/sh\necho walsync 9.9.9\n");
    serve(hostTarget(), program);
    const { status, stderr } = await install();
    expect([status, stderr]).toEqual([0, expect.stringContaining(`as ${folder}/walsync`)]);
    expect(readdirSync(folder)).toEqual(["walsync"]);
    expect(readFileSync(join(folder, "walsync"))).toEqual(program);
    expect(statSync(join(folder, "walsync")).mode & 0o777).toBe(0o755);
    expect(stderr).toContain("is not on the PATH");
  });

  test("goes to ~/.local/bin, and comes from the release that the installer belongs to", async () => {
    serve(hostTarget(), Buffer.from("#!/bin/sh\necho walsync 9.9.9\n"), "/releases/latest/download");
    const stamped = join(dir, "stamped.sh");
    writeFileSync(stamped, installerFor(`http://127.0.0.1:${server.port}/releases/`));
    const { status } = await run(["sh", stamped], { HOME: dir });
    expect([status, readdirSync(join(dir, ".local", "bin"))]).toEqual([0, ["walsync"]]);
    const version = await run(["sh", stamped, folder], { WALSYNC_VERSION: "v1.2.3" });
    expect([version.status, version.stderr]).toEqual([
      1,
      expect.stringContaining("/releases/download/v1.2.3/SHA256SUMS"),
    ]);
    expectUntouched();
  });
});

describe("nothing is installed, and what was there stays,", () => {
  const script = (text: string) => Buffer.from(`#!/bin/sh\n${text}\n`);
  const good = () => tarGz(`walsync-${hostTarget()}`, [member(script("echo walsync 9.9.9"))], 0);
  const path = () => `/${archiveName(hostTarget())}`;

  test.each<[law: string, damage: () => void, complaint: string]>([
    ["if the archive is not what SHA256SUMS says", () => answer(path(), flipped(good())), "expected the SHA-256"],
    ["if the archive is cut short", () => answer(path(), good().subarray(0, 100)), "expected the SHA-256"],
    ["if the connection breaks", () => files.set(path(), breaksOff), "could not be downloaded"],
    ["if the archive is missing", () => files.delete(path()), "could not be downloaded"],
    ["if SHA256SUMS is missing", () => files.delete("/SHA256SUMS"), "could not be downloaded"],
    ["if SHA256SUMS is empty", () => answer("/SHA256SUMS", Buffer.alloc(0)), "SHA256SUMS has no"],
    ["if the archive is no archive", () => serveArchive(path(), Buffer.from("x")), "could not be unpacked"],
    ["if the program does not run here", () => serve(hostTarget(), script("exit 127")), "does not run on this machine"],
  ])("%s", async (_law, damage, complaint) => {
    serveArchive(path(), good());
    damage();
    const { status, stderr } = await install();
    expect([status, stderr]).toEqual([1, expect.stringContaining(complaint)]);
    expectUntouched();
  });

  test("by a copy of the installer that belongs to no release", async () => {
    const { status, stderr } = await run(["sh", INSTALLER, folder]);
    expect([status, stderr]).toEqual([1, expect.stringContaining("set WALSYNC_BASE_URL")]);
    expectUntouched();
  });

  test("by an installer that was itself cut short, wherever", async () => {
    serveArchive(path(), good());
    const lines = readFileSync(INSTALLER, "utf8").split("\n");
    for (let kept = 1; kept < lines.length - 2; kept += 5) {
      const cut = join(dir, "cut.sh");
      writeFileSync(cut, lines.slice(0, kept).join("\n"));
      await run(["sh", cut, folder], { WALSYNC_BASE_URL: baseUrl() });
      expectUntouched();
    }
  });
});

test.each<[machine: string, commands: Record<string, string>, target: string]>([
  ["Debian on x86-64", { uname: "Linux x86_64", getconf: "glibc 2.36" }, "linux-x64"],
  ["Debian on ARM64", { uname: "Linux aarch64", getconf: "glibc 2.36" }, "linux-arm64"],
  ["Alpine on x86-64", { uname: "Linux x86_64", ls: "/lib/ld-musl-x86_64.so.1" }, "linux-x64-musl"],
  ["Alpine on ARM64", { uname: "Linux aarch64", ls: "/lib/ld-musl-aarch64.so.1" }, "linux-arm64-musl"],
  ["macOS on Intel", { uname: "Darwin x86_64", sysctl: "0" }, "darwin-x64"],
  ["macOS on Apple silicon", { uname: "Darwin arm64" }, "darwin-arm64"],
  ["macOS on Apple silicon, in a shell under Rosetta", { uname: "Darwin x86_64", sysctl: "1" }, "darwin-arm64"],
])("on %s the build for it is downloaded", async (machine, commands, target) => {
  expect(TARGETS.map(({ name }) => name)).toContain(target);
  const tools = machineTools(machine, commands);
  const { stderr } = await run(["sh", INSTALLER, folder], {
    WALSYNC_BASE_URL: baseUrl(),
    PATH: `${tools}:${process.env.PATH}`,
  });
  expect(stderr).toContain(`Downloading ${archiveName(target)} from`);
  expectUntouched();
});

// --- internal ---

function hostTarget(): string {
  return `${process.platform}-${process.arch}`;
}

function baseUrl(): string {
  return `http://127.0.0.1:${server.port}`;
}

function install() {
  return run(["sh", INSTALLER, folder], { WALSYNC_BASE_URL: baseUrl() });
}

/** Not synchronous: the server is in this process. */
async function run(command: string[], env: Record<string, string> = {}): Promise<{ status: number; stderr: string }> {
  const child = Bun.spawn(command, {
    env: { PATH: process.env.PATH ?? "", HOME: dir, ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const stderr = await new Response(child.stderr).text();
  return { status: await child.exited, stderr };
}

function member(bytes: Uint8Array) {
  return { name: "walsync", bytes, isExecutable: true };
}

/** A whole release with one program. */
function serve(target: string, program: Uint8Array, below = ""): void {
  serveArchive(`${below}/${archiveName(target)}`, tarGz(`walsync-${target}`, [member(program)], 0));
}

/** A whole release with one archive: it, and beside it the sums. */
function serveArchive(path: string, archive: Uint8Array): void {
  const sum = createHash("sha256").update(archive).digest("hex");
  const [below, name] = [path.slice(0, path.lastIndexOf("/")), path.slice(path.lastIndexOf("/") + 1)];
  answer(path, archive);
  answer(`${below}/SHA256SUMS`, Buffer.from(`${"0".repeat(64)}  other-${name}\n${sum}  ${name}\n`));
}

function answer(path: string, bytes: Uint8Array): void {
  files.set(path, () => new Response(bytes));
}

/** Leads to a server that promises more bytes than it sends. */
function breaksOff(): Response {
  return Response.redirect(`http://127.0.0.1:${cutter.port}/`);
}

function flipped(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[copy.length >> 1]! ^= 1;
  return copy;
}

function expectUntouched(): void {
  expect(readdirSync(folder)).toEqual(["walsync"]);
  expect(readFileSync(join(folder, "walsync"), "utf8")).toBe(OLD);
}

/** A folder of commands that answer as on another machine; those that are not named fail. */
function machineTools(machine: string, commands: Record<string, string>): string {
  const tools = join(dir, machine.replaceAll(" ", "-"));
  mkdirSync(tools);
  const { uname = "", ...others } = commands;
  const [system, processor] = uname.split(" ");
  const scripts: Record<string, string> = {
    uname: `case $1 in -s) echo ${system} ;; -m) echo ${processor} ;; esac`,
    ...Object.fromEntries(["getconf", "ls", "sysctl"].map((name) => [name, "exit 1"])),
    ...Object.fromEntries(Object.entries(others).map(([name, answer]) => [name, `echo "${answer}"`])),
  };
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(tools, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(tools, name), 0o755);
  }
  return tools;
}
