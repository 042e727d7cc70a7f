/**
 * Where drills put what they restore: a private folder in one that the user chose, locked for as long as its process lives, so
 * that the folder of a process that was killed is known, and removed by the next.
 */
import { lstatSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { join, resolve } from "node:path";
import { MiB } from "../bytes.ts";
import { messageOf, WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import { formatBytes } from "../quantities.ts";
import { acquireLock, type HeldLock, LOCK_FILE } from "../replication/lock.ts";

export class DrillPlace {
  readonly #folder: string;
  readonly #lock: HeldLock;
  #count = 0;

  /** Makes a folder in `parent`, which must exist, and removes what drills that were killed left there. Throws E_DISK. */
  constructor(parent: string) {
    removeLeftovers(parent);
    this.#folder = join(resolve(parent), PREFIX + crypto.randomUUID());
    this.#lock = acquireLock(this.#folder, this.#folder);
  }

  /** Calls `action` with the path of a file that does not exist, in a folder for it and what belongs to it, which is removed afterwards. */
  async withFile<T>(action: (path: string) => Promise<T>): Promise<T> {
    const folder = join(this.#folder, String(++this.#count));
    try {
      return await action(join(folder, "restored.db"));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /**
   * Throws E_DISK unless there is room for a file of this size, and some more: others who write to this file system, such as the
   * databases themselves, must not find it full.
   */
  requireRoom(sizeBytes: number): void {
    const { bavail, bsize } = statfsSync(this.#folder);
    const neededBytes = sizeBytes + Math.max(SPARE_BYTES, sizeBytes * SPARE_SHARE);
    if (bavail * bsize >= neededBytes) return;
    throw new WalsyncError(
      "E_DISK",
      `${this.#folder}: expected ${formatBytes(neededBytes)} free for a database of ${formatBytes(sizeBytes)}, found ${formatBytes(bavail * bsize)}`,
      { hint: "Free some space, or choose a folder on another disk with --temp-dir." },
    );
  }

  close(): void {
    empty(this.#folder, this.#lock);
  }
}

// --- internal ---

const PREFIX = "walsync-drill-";
const FOLDER_NAME = new RegExp(`^${PREFIX}[0-9a-f-]{36}$`);
/** Left free beside a restored database, for those who write to the same disk meanwhile. */
const SPARE_BYTES = 16 * MiB;
const SPARE_SHARE = 0.1;

function removeLeftovers(parent: string): void {
  let names: string[];
  try {
    names = readdirSync(parent).filter((name) => FOLDER_NAME.test(name));
  } catch (error) {
    throw new WalsyncError("E_DISK", `${parent}: expected a folder to restore into, found: ${messageOf(error)}`, {
      hint: "Choose another one with --temp-dir.",
      cause: error,
    });
  }
  for (const name of names) removeLeftover(join(resolve(parent), name));
}

/** What cannot be removed is told, and hinders nobody. */
function removeLeftover(folder: string): void {
  if (!isOurs(folder)) return;
  try {
    empty(folder, acquireLock(folder, folder));
    logEvent("info", "leftover of a drill that was killed is removed", { path: folder });
  } catch (error) {
    // A drill is under way there.
    if (error instanceof WalsyncError && error.code === "E_LOCKED") return;
    logEvent("warn", "leftover of a drill cannot be removed", { path: folder, error: messageOf(error) });
  }
}

/** In a folder that others may write to, a name proves nothing. */
function isOurs(folder: string): boolean {
  const stats = lstatSync(folder, { throwIfNoEntry: false });
  return stats?.isDirectory() === true && (process.getuid === undefined || stats.uid === process.getuid());
}

/** Removes everything, the lock as the last thing: a folder with something in it always has one. */
function empty(folder: string, lock: HeldLock): void {
  for (const name of readdirSync(folder)) {
    if (name !== LOCK_FILE) rmSync(join(folder, name), { recursive: true, force: true });
  }
  lock.release();
}
