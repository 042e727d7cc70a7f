/**
 * Notices when databases may have appeared or vanished in directories and below globs: by events of their directories, and
 * by a slow poll. What goes on in files beside the databases makes nobody look.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { logEvent } from "../log.ts";
import { isSqliteFile } from "../sqlite/database.ts";
import type { FolderEvents } from "./folder-events.ts";
import { foldersOf, isCandidate, type Pattern } from "./sources.ts";

export interface SourceWatchHost {
  /** True for a database that is replicated already. */
  isKnown(path: string): boolean;
  /** It is time to ask again which databases there are. */
  look(): void;
}

export class SourceWatch {
  readonly #events: FolderEvents;
  readonly #host: SourceWatchHost;
  #patterns: readonly Pattern[] = [];
  /** By directory: ends its events. */
  readonly #folders = new Map<string, () => void>();
  /** Where something happened since the last look. Null: anywhere. */
  #touched: Set<string> | null = new Set();
  #firstMs = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #poll: ReturnType<typeof setInterval> | undefined;
  #isTold = false;

  constructor(events: FolderEvents, host: SourceWatchHost) {
    this.#events = events;
    this.#host = host;
  }

  /** Watches for these patterns, in place of any others. Does not look now. */
  follow(patterns: readonly Pattern[]): void {
    this.#patterns = patterns.filter(({ kind }) => kind !== "file");
    clearInterval(this.#poll);
    if (this.#patterns.length > 0) this.#poll = setInterval(() => this.look(), POLL_MS);
    this.#listen();
  }

  /** Looks now. Directories first: what appears in them meanwhile makes an event. */
  look(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#touched = new Set();
    this.#events.revive();
    this.#listen();
    this.#host.look();
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearInterval(this.#poll);
    for (const deaf of this.#folders.values()) deaf();
    this.#folders.clear();
  }

  #listen(): void {
    const wanted = new Set(this.#patterns.flatMap(foldersOf).slice(0, FOLDERS_MAX));
    if (wanted.size === FOLDERS_MAX && !this.#isTold) {
      this.#isTold = true;
      const hint = "Databases that appear elsewhere are noticed by polling. A narrower glob needs fewer directories.";
      logEvent("warn", "too many directories to watch all of them", { files: FOLDERS_MAX, hint });
    }
    for (const [folder, deaf] of this.#folders) {
      if (wanted.has(folder)) continue;
      deaf();
      this.#folders.delete(folder);
    }
    for (const folder of wanted) {
      if (this.#folders.has(folder)) continue;
      this.#folders.set(
        folder,
        this.#events.listen(folder, [], (name) => this.#onEvent(folder, name)),
      );
    }
  }

  #onEvent(folder: string, name: string | null): void {
    if (name === null) this.#touched = null;
    else {
      const path = join(folder, name);
      if (!isCandidate(path)) return;
      this.#touched?.add(path);
    }
    const nowMs = performance.now();
    if (this.#timer === undefined) this.#firstMs = nowMs;
    clearTimeout(this.#timer);
    // A database that is being made is left alone until it is ready, or at least for a second.
    const waitMs = Math.max(0, Math.min(QUIET_MS, this.#firstMs + QUIET_MAX_MS - nowMs));
    this.#timer = setTimeout(() => this.#onQuiet(), waitMs);
  }

  #onQuiet(): void {
    this.#timer = undefined;
    const touched = this.#touched;
    this.#touched = new Set();
    if (touched === null || [...touched].some((path) => this.#matters(path))) this.look();
  }

  /** True if a path that something happened to is a reason to look. */
  #matters(path: string): boolean {
    try {
      const stats = statSync(path, { throwIfNoEntry: false });
      if (stats === undefined) return this.#host.isKnown(path) || this.#folders.has(path);
      if (stats.isDirectory()) return true;
      return !this.#host.isKnown(path) && isSqliteFile(path);
    } catch {
      return true; // Not to be read: the look says so.
    }
  }
}

// --- internal ---

const QUIET_MS = 250;
const QUIET_MAX_MS = 1000;
const POLL_MS = 30_000;
/** Each takes a watch of the system, and some memory. */
const FOLDERS_MAX = 8192;
