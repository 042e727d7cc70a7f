/**
 * Gives memory back that the work of a moment needed. A watch waits most of its life, on small machines: what only its start,
 * or the scan of a whole database, touched should not stay resident.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { MiB } from "./bytes.ts";
import { releasePages } from "./libc.ts";

/** Trims some time after it was last asked to, and not too often: what was asked for by then is trimmed in one go. */
export class MemoryTrimmer {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isStopped = false;

  request(): void {
    if (this.#isStopped || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      trimMemory();
    }, TRIM_DELAY_MS);
    this.#timer.unref();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }
}

/**
 * Collects garbage each time that so many bytes more have passed: a stream leaves each of its chunks behind, and by itself the
 * engine lets tens of megabytes of them pile up.
 */
export class GarbageCollection {
  #collectedAt = 0;

  /** `passedBytes`: since the beginning of one work; less than before means that another has begun. */
  passed(passedBytes: number): void {
    if (passedBytes < this.#collectedAt) this.#collectedAt = 0;
    if (passedBytes - this.#collectedAt < COLLECT_EVERY) return;
    this.#collectedAt = passedBytes;
    Bun.gc(true);
  }
}

/**
 * Where this program's file is mapped without being changed, in the text of /proc/<pid>/smaps: only such pages can be had again.
 * Spec: proc_pid_smaps(5).
 */
export function unchangedMappings(smaps: string, program: string): { address: bigint; length: number }[] {
  const found: { address: bigint; length: number }[] = [];
  for (const part of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ \d+ +(.+)\n/.exec(part);
    if (match === null || match[3] !== program) continue;
    // What was changed here is anonymous. Pages of a file that was written a moment ago count as dirty, and are not.
    if (!/^Anonymous: +0 kB$/m.test(part)) continue;
    const [first, end] = [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)];
    found.push({ address: first, length: Number(end - first) });
  }
  return found;
}

// --- internal ---

const COLLECT_EVERY = 16 * MiB;
/** Long enough for what follows a start or a scan to be over. */
const TRIM_DELAY_MS = 5000;

/** Collects garbage, and lets go of pages of the program itself: those that are used come back from the page cache. */
function trimMemory(): void {
  Bun.gc(true);
  for (const { address, length } of programMappings()) releasePages(address, length);
}

function programMappings(): { address: bigint; length: number }[] {
  if (process.platform !== "linux") return [];
  try {
    return unchangedMappings(readFileSync("/proc/self/smaps", "utf8"), readlinkSync("/proc/self/exe"));
  } catch {
    return []; // No /proc, as in some sandboxes: nothing is given back, and nothing depends on it.
  }
}
