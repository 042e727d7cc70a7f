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
  const ageMs = Date.now() - Number(ctimeNs / 1_000_000n);
  return boot === null || ageMs < AGE_MS ? null : `${boot}:${dev}:${ino}:${size}:${ctimeNs}`;
}

// --- internal ---

/** Far more than the step of any file system's clock (FAT: 2 s). */
const AGE_MS = 3000;

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
