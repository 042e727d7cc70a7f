/** What bun.lock says: packages by their place in the tree, and which of them a program is made of. */
import { WalsyncError } from "../../src/errors.ts";

/** The parts of bun.lock that are read here. */
export interface Lockfile {
  workspaces: Record<string, { dependencies?: Record<string, string> }>;
  packages: Record<string, unknown[]>;
}

export interface LockedPackage {
  /** Place in the tree: the name, or "parent/name" where a parent has a version of its own. */
  place: string;
  name: string;
  version: string;
  /** "sha512-" and base64, as npm has it. */
  integrity: string;
  /** Places of what it depends on. */
  dependsOn: string[];
}

/** Everything that the root's production dependencies lead to, sorted by place. */
export function productionPackages(lock: Lockfile): LockedPackage[] {
  const found = new Map<string, LockedPackage>();
  const queue = productionRoots(lock);
  for (let place = queue.pop(); place !== undefined; place = queue.pop()) {
    if (found.has(place)) continue;
    const locked = lockedPackage(lock, place);
    found.set(place, locked);
    queue.push(...locked.dependsOn);
  }
  return [...found.values()].sort((a, b) => (a.place < b.place ? -1 : 1));
}

/** Places of the root's own production dependencies. */
export function productionRoots(lock: Lockfile): string[] {
  return Object.keys(lock.workspaces[""]?.dependencies ?? {}).map((name) => resolvePlace(lock, "", name));
}

/** Throws E_INTEGRITY if bun.lock has no such package, or no SHA-512 of it. */
export function lockedPackage(lock: Lockfile, place: string): LockedPackage {
  const [id, , meta, integrity] = lock.packages[place] ?? [];
  const at = typeof id === "string" ? id.lastIndexOf("@") : -1;
  if (typeof id !== "string" || at <= 0 || typeof integrity !== "string" || !integrity.startsWith("sha512-")) {
    throw new WalsyncError("E_INTEGRITY", `bun.lock: expected a package ${place} with its sha512, found none`, {
      hint: "Run bun install, and look at what changed in bun.lock.",
    });
  }
  const { dependencies = {}, optionalDependencies = {} } = meta as Dependencies;
  const needed = Object.keys(dependencies).map((name) => resolvePlace(lock, place, name));
  // What is optional may not be there: for another machine, or left out.
  const optional = Object.keys(optionalDependencies)
    .map((name) => findPlace(lock, place, name))
    .filter((found) => found !== null);
  return {
    place,
    name: id.slice(0, at),
    version: id.slice(at + 1),
    integrity,
    dependsOn: [...new Set([...needed, ...optional])].sort(),
  };
}

// --- internal ---

interface Dependencies {
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

/** The nearest package of this name as seen from `from`, as a module loader looks for it: own, then each parent's, then the root's. */
function findPlace(lock: Lockfile, from: string, name: string): string | null {
  for (let parent = from; parent !== ""; parent = parentOf(parent)) {
    if (lock.packages[`${parent}/${name}`] !== undefined) return `${parent}/${name}`;
  }
  return lock.packages[name] === undefined ? null : name;
}

function resolvePlace(lock: Lockfile, from: string, name: string): string {
  const place = findPlace(lock, from, name);
  if (place === null) {
    throw new WalsyncError("E_INTEGRITY", `bun.lock: expected ${name}, which ${from || "the root"} needs, found none`);
  }
  return place;
}

/** "a/@s/b" -> "a", "a" -> "": a scope is a part of its name. */
function parentOf(place: string): string {
  const parts = place.split("/");
  parts.pop();
  if (parts.at(-1)?.startsWith("@")) parts.pop();
  return parts.join("/");
}
