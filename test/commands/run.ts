/** What the tests of this folder share: the compiled program in a folder of its own, and the laws of every refusal. */
import { expect } from "bun:test";
import { chmodSync, copyFileSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { openDestination } from "../../src/destination/open.ts";
import { compiledBinary, type Finished } from "../support/binary.ts";
import type { Versitygw } from "../support/versitygw.ts";

export interface RunOptions {
  cwd?: string;
  /** All there is in the environment, beside PATH and a folder for control sockets. */
  env?: Record<string, string>;
  /** What the program is started by: `nobodyPrefix`. Default: nothing. */
  prefix?: readonly string[];
}

/** Runs the program to its end; kills it after 20 seconds, which shows as status 143. */
export async function walsync(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const command = options.prefix === undefined ? [compiledBinary()] : [...options.prefix];
  const child = Bun.spawn([...command, ...args], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { PATH: process.env.PATH ?? "", XDG_RUNTIME_DIR: RUNTIME, ...options.env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: 20_000,
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { status: await child.exited, stdout, stderr };
}

/** Runs the program and expects success. */
export async function succeed(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const finished = await walsync(args, options);
  expect({ args, ...finished }).toMatchObject({ status: 0 });
  return finished;
}

/**
 * How to start the program as somebody who may not read everything, from a copy in `folder` that nobody can reach. Null,
 * with a warning, where root cannot become nobody.
 */
export function nobodyPrefix(folder: string): string[] | null {
  if (process.getuid?.() !== 0) return [compiledBinary()];
  const become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  if (Bun.which("setpriv") === null || !Bun.spawnSync([...become, "true"]).success) {
    console.warn("SKIPPED: tests of missing permissions, because they run as root and setpriv does not work");
    return null;
  }
  const program = join(folder, "walsync");
  copyFileSync(compiledBinary(), program);
  chmodSync(program, 0o755);
  chmodSync(folder, 0o755);
  return [...become, program];
}

/**
 * Every file and folder below `folder`: type, mode, size, time of change, content. Of a -shm, which SQLite writes through
 * memory, what the header and the index of frames say: which read marks its readers used is no change of the database.
 */
export function treeOf(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  const visit = (path: string): void => {
    for (const name of readdirSync(join(folder, path)).sort()) {
      const child = join(path, name);
      const stats = lstatSync(join(folder, child));
      const time = name.endsWith("-shm") ? "" : stats.mtimeMs;
      found[child] = `${stats.mode} ${time} ${stats.isFile() ? stats.size : ""}`;
      // Whoever is not root cannot look into what the tests made unreadable.
      if ((stats.mode & 0o400) === 0) continue;
      if (stats.isDirectory()) visit(child);
      else if (stats.isFile()) found[child] += ` ${Bun.hash(contentOf(join(folder, child)))}`;
    }
  };
  visit("");
  return found;
}

/** Flags and environment that reach a bucket of the server. */
export function s3Access(server: Versitygw): { flags: string[]; env: Record<string, string> } {
  return {
    flags: ["--endpoint", server.endpoint, "--region", server.region],
    env: { AWS_ACCESS_KEY_ID: server.accessKeyId, AWS_SECRET_ACCESS_KEY: server.secretAccessKey },
  };
}

/** Every object of a bucket with size and time of change. */
export async function objectsOf(server: Versitygw, bucket: string): Promise<Record<string, string>> {
  const { endpoint, region } = server;
  const destination = await openDestination(`s3://${bucket}`, { endpoint, region, env: s3Access(server).env });
  const found: Record<string, string> = {};
  for await (const { key, sizeBytes, modifiedAt } of destination.list("")) {
    found[key] = `${sizeBytes} ${modifiedAt.toISOString()}`;
  }
  destination.close();
  return found;
}

/** The exit status that the README promises for a code. */
export function documentedStatus(code: string): number {
  const row = README.split("\n").find((line) => /^\| \d/.test(line) && line.includes(`\`${code}\``));
  if (row === undefined) throw new Error(`README.md: expected an exit status for ${code}, found none`);
  return Number(/^\| (\d+)/.exec(row)?.[1]);
}

/** The shape of every refusal: one error of this code with its documented status, on standard error, and no stack. */
export function expectOneError({ status, stdout, stderr }: Finished, code: string, says: RegExp): void {
  const lines = stderr.trimEnd().split("\n");
  const errors = lines.filter((line) => line.startsWith("walsync: "));
  expect(stderr).toMatch(says);
  expect(errors).toHaveLength(1);
  expect(errors[0]).toStartWith(`walsync: ${code} `);
  const others = lines.filter((line) => !/^(walsync|because|hint): \S|^\S+Z (info|debug) /.test(line));
  expect(others).toEqual([]);
  expect(lines.filter((line) => line.startsWith("hint: ")).length).toBeLessThan(2);
  expect(stderr).not.toMatch(/\bbug\b|undefined|\[object|NaN/);
  expect(stdout).toBe("");
  expect(status).toBe(documentedStatus(code));
}

/** A secret shows in none of the spellings that a URL, a header or a form would give it. */
export function expectHidden(output: string, secrets: readonly string[]): void {
  for (const secret of secrets) {
    for (const spelling of [secret, encodeURIComponent(secret), Buffer.from(secret).toString("base64")]) {
      expect(output.includes(spelling) ? output : "").toBe("");
    }
  }
}

// --- internal ---

function contentOf(path: string): Buffer {
  const bytes = readFileSync(path);
  return path.endsWith("-shm") ? bytes.fill(0, READ_MARKS.start, READ_MARKS.end) : bytes;
}

/** Watches that others run on this machine are none of the tests' business. */
const RUNTIME = mkdtempSync(join(tmpdir(), "walsync-runtime-"));
process.on("exit", () => rmSync(RUNTIME, { recursive: true, force: true }));

const README = readFileSync(resolve(import.meta.dir, "../../README.md"), "utf8");
/** Bytes of the -shm: https://www.sqlite.org/walformat.html#the_wal_index_header */
const READ_MARKS = { start: 100, end: 120 };
