/** Bun for other machines: fetched once from the npm registry, and never used unless it is what bun.lock says it is. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { WalsyncError } from "../../src/errors.ts";
import { type Lockfile, lockedPackage } from "./lockfile.ts";

/**
 * Puts the Bun of an npm package into `folder`, which is emptied first, and returns its path. The package is kept in
 * `cache`; its bytes are compared with the SHA-512 in bun.lock at every use. Throws E_INTEGRITY if they differ,
 * E_UNREACHABLE if npm cannot get it.
 */
export function unpackRuntime(lock: Lockfile, packageName: string, cache: string, folder: string): string {
  const { name, version, integrity } = lockedPackage(lock, packageName);
  const packed = join(cache, `${name.replace("@", "").replace("/", "-")}-${version}.tgz`);
  if (!existsSync(packed)) fetchPackage(`${name}@${version}`, packed);
  const found = integrityOf(packed);
  if (found !== integrity) {
    rmSync(packed, { force: true });
    throw new WalsyncError("E_INTEGRITY", `${name}@${version}: expected ${integrity}, found ${found}`, {
      hint: "The package was removed from the cache. If a new try finds the same, do not use that registry.",
    });
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  run(["tar", "-xzf", packed, "-C", folder, "package/bin/bun"], folder);
  return join(folder, "package", "bin", "bun");
}

// --- internal ---

/** In a folder of its own until it is whole: two releases may be built at once. */
function fetchPackage(id: string, packed: string): void {
  mkdirSync(dirname(packed), { recursive: true });
  const folder = mkdtempSync(`${packed}.tmp-`);
  try {
    run(["npm", "pack", "--silent", "--pack-destination", folder, id], folder);
    renameSync(join(folder, basename(packed)), packed);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function integrityOf(path: string): string {
  return `sha512-${createHash("sha512").update(readFileSync(path)).digest("base64")}`;
}

function run(command: string[], cwd: string): void {
  let outcome: { success: boolean; stderr: Buffer };
  try {
    outcome = Bun.spawnSync(command, { cwd, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  } catch (cause) {
    throw new WalsyncError("E_UNREACHABLE", `${command[0]}: expected a program, found none`, {
      hint: "Install Node.js with npm (https://nodejs.org), and tar.",
      cause,
    });
  }
  if (!outcome.success) {
    throw new WalsyncError("E_UNREACHABLE", `${command.join(" ")}: expected success, found: ${outcome.stderr}`);
  }
}
