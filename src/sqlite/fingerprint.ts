/** What tells whether anybody has written to a database file, without reading it. */
import { type BigIntStats, readFileSync } from "node:fs";

/**
 * Identity and time of the last change of a file, and the boot that saw it. The same again means that nobody has written to the
 * file since.
 *
 * Null if it changed a moment ago: file systems count time in steps, and a later change might fall into the same one. Null as
 * well if the boot is not known. After a loss of power a file may have new content and an old time: SQLite syncs what a checkpoint
 * copied back with fdatasync(2) where there is one, which need not write the time.
 */
export function fingerprintOf({ dev, ino, size, ctimeNs }: BigIntStats): string | null {
  const boot = bootId();
  return boot === null || isYoung(ctimeNs) ? null : `${boot}:${dev}:${ino}:${size}:${ctimeNs}`;
}

/**
 * Identity, size and time of the last write of a WAL; of an empty one, or none, no time. The same again means that nothing was
 * committed to it since. Null if it was written to a moment ago.
 */
export function walMarkOf(stats: BigIntStats | undefined): string | null {
  if (stats === undefined) return "none";
  const { dev, ino, size, mtimeNs } = stats;
  if (size === 0n) return `${dev}:${ino}:empty`;
  return isYoung(mtimeNs) ? null : `${dev}:${ino}:${size}:${mtimeNs}`;
}

// --- internal ---

/** Far more than the step of any file system's clock (FAT: 2 s). */
const AGE_MS = 3000;

function isYoung(timeNs: bigint): boolean {
  return Date.now() - Number(timeNs / 1_000_000n) < AGE_MS;
}

let known: string | null | undefined;

/** Names the time since the kernel started; null if Linux does not tell. Elsewhere SQLite syncs with fsync(2): one name is enough. */
function bootId(): string | null {
  if (known === undefined) known = process.platform === "linux" ? readBootId() : process.platform;
  return known;
}

function readBootId(): string | null {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim() || null;
  } catch {
    return null;
  }
}
