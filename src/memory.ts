/**
 * Gives memory back that the work of a moment needed. A watch waits most of its life, on small machines: what only its start,
 * or the scan of a whole database, touched should not stay resident.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { MiB } from "./bytes.ts";
import { releasePages } from "./libc.ts";

/**
 * Keeps the memory of a watch small, for as long as it runs. Pages of the program are let go of every few seconds: those that are
 * used come back, and what only a start, or a scan, ran does not. Garbage is collected when somebody asks, some time later and
 * not too often: what was asked for by then is done in one go.
 */
export class MemoryTrimmer {
  readonly #program = new ProgramPages();
  readonly #release = setInterval(() => this.#program.release(), RELEASE_INTERVAL_MS);
  #collection: ReturnType<typeof setTimeout> | undefined;
  #isStopped = false;

  constructor() {
    this.#release.unref();
  }

  /** Something is over that left much behind. */
  request(): void {
    if (this.#isStopped || this.#collection !== undefined) return;
    this.#collection = setTimeout(() => {
      this.#collection = undefined;
      Bun.gc(true);
    }, COLLECT_DELAY_MS);
    this.#collection.unref();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#collection);
    clearInterval(this.#release);
  }
}

/** Keeps the memory of a long work flat. */
export class WorkMemory {
  readonly #program = new ProgramPages();
  #collectedAt = 0;

  /** Collects garbage, and lets go of pages of the program: what begins needs less of it than what led there. */
  begin(): void {
    this.#collectedAt = 0;
    Bun.gc(true);
    this.#program.release();
  }

  /**
   * Collects garbage each time that so many bytes more have passed: a stream leaves each of its chunks behind, and by itself the
   * engine lets tens of megabytes of them pile up. `passedBytes`: since the beginning; less than before after a failed try.
   */
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
const COLLECT_DELAY_MS = 5000;
/** One release costs 1 to 3 ms, most of it for what comes back: a thousandth of a core at most. */
const RELEASE_INTERVAL_MS = 3000;

class ProgramPages {
  #mappings: ReturnType<typeof unchangedMappings> | null = null;

  /** Lets go of pages of the program itself: those that are used come back from the page cache. */
  release(): void {
    // Once: asking takes longer than letting go, and what is not written to by now never will be.
    this.#mappings ??= programMappings();
    for (const { address, length } of this.#mappings) releasePages(address, length);
  }
}

function programMappings(): { address: bigint; length: number }[] {
  if (process.platform !== "linux") return [];
  try {
    return unchangedMappings(readFileSync("/proc/self/smaps", "utf8"), readlinkSync("/proc/self/exe"));
  } catch {
    return []; // No /proc, as in some sandboxes: nothing is given back, and nothing depends on it.
  }
}
