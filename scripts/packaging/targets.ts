/** The machines that a release has a binary for. */

export interface Target {
  /** As in the names of archives, and as scripts/install.sh finds out: system, processor, and "musl" where libc is that. */
  name: string;
  /** What `bun build --target` calls it. */
  bunTarget: string;
  /** The npm package that holds Bun for it. */
  runtimePackage: string;
}

/**
 * Windows is not among them: Bun compiles for it, but walsync locks with flock(2) and makes names durable by fsync of their
 * folders, and Windows has neither.
 */
export const TARGETS: readonly Target[] = [
  target("linux-x64", "linux-x64"),
  target("linux-x64-musl", "linux-x64-musl"),
  target("linux-arm64", "linux-aarch64"),
  target("linux-arm64-musl", "linux-aarch64-musl"),
  target("darwin-x64", "darwin-x64"),
  target("darwin-arm64", "darwin-aarch64"),
];

/** File name of a target's archive. It has no version in it, so that ".../releases/latest/download/" leads to it. */
export function archiveName(name: string): string {
  return `walsync-${name}.tar.gz`;
}

// --- internal ---

function target(name: string, bunName: string): Target {
  return { name, bunTarget: `bun-${name}`, runtimePackage: `@oven/bun-${bunName}` };
}
