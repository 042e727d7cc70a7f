/**
 * What happens in directories: one fs.watch for all who ask about one. Files are not watched themselves: -wal and -shm files
 * come and go. An event is a hint; some are swallowed, and some file systems have none.
 */
import { type FSWatcher, statSync, watch } from "node:fs";
import { errnoOf } from "../errors.ts";
import { logEvent } from "../log.ts";

/** `name` is null if the system does not say which. `renamed`: perhaps it appeared, vanished or became another file. */
export type FolderListener = (name: string | null, renamed: boolean) => void;

export class FolderEvents {
  readonly #folders = new Map<string, WatchedFolder>();

  /** Calls `listener` for events of these names in the directory, or of all if there are none. The result ends it. */
  listen(path: string, names: readonly string[], listener: FolderListener): () => void {
    let folder = this.#folders.get(path);
    if (folder === undefined) {
      folder = new WatchedFolder(path);
      this.#folders.set(path, folder);
    }
    const keys = names.length === 0 ? [ANY] : names;
    for (const key of keys) folder.add(key, listener);
    return () => {
      for (const key of keys) folder.remove(key, listener);
      if (!folder.isIdle || this.#folders.get(path) !== folder) return;
      folder.close();
      this.#folders.delete(path);
    };
  }

  /** Watches again what could not be watched, and directories that were made anew. */
  revive(): void {
    for (const folder of this.#folders.values()) folder.revive();
  }

  close(): void {
    for (const folder of this.#folders.values()) folder.close();
    this.#folders.clear();
  }
}

// --- internal ---

/** No file can be called this. */
const ANY = "/";
const GONE: ReadonlySet<string> = new Set(["ENOENT", "ENOTDIR"]);
const POLLED = "Changes are noticed by polling, within seconds.";
/** What the system says when one of its limits is reached: inotify_add_watch(2), inotify_init(2). */
const LIMITS: ReadonlyMap<string, string> = new Map([
  ["ENOSPC", "max_user_watches"],
  ["EMFILE", "max_user_instances"],
]);

class WatchedFolder {
  readonly #path: string;
  readonly #listeners = new Map<string, Set<FolderListener>>();
  #watcher: FSWatcher | null = null;
  /** The directory that is watched, whatever its path leads to by now. */
  #inode = 0;
  #reported = false;

  constructor(path: string) {
    this.#path = path;
    this.revive();
  }

  get isIdle(): boolean {
    return this.#listeners.size === 0;
  }

  add(name: string, listener: FolderListener): void {
    const known = this.#listeners.get(name);
    if (known === undefined) this.#listeners.set(name, new Set([listener]));
    else known.add(listener);
  }

  remove(name: string, listener: FolderListener): void {
    const known = this.#listeners.get(name);
    known?.delete(listener);
    if (known?.size === 0) this.#listeners.delete(name);
  }

  /** Until it succeeds, polls do what they can. */
  revive(): void {
    try {
      const { ino } = statSync(this.#path);
      if (this.#watcher !== null && ino === this.#inode) return;
      this.close();
      this.#inode = ino;
      this.#watcher = watch(this.#path, { persistent: true }, (event, name) =>
        this.#onEvent(typeof name === "string" ? name : null, event === "rename"),
      );
      this.#watcher.on("error", (error) => this.#onError(error));
      this.#reported = false;
    } catch (error) {
      this.#onError(error);
    }
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = null;
  }

  #onEvent(name: string | null, renamed: boolean): void {
    if (name === null) {
      for (const listener of new Set([...this.#listeners.values()].flatMap((set) => [...set]))) listener(null, true);
      return;
    }
    for (const key of [name, ANY])
      for (const listener of [...(this.#listeners.get(key) ?? [])]) listener(name, renamed);
  }

  #onError(error: unknown): void {
    this.close();
    if (this.#reported) return;
    this.#reported = true;
    const errno = errnoOf(error) ?? "";
    // Nothing is wrong with the watching: whoever removed it may make it anew.
    if (GONE.has(errno)) logEvent("info", "directory is not there", { path: this.#path });
    else {
      const hint = LIMITS.has(errno) ? `${POLLED} On Linux, raise fs.inotify.${LIMITS.get(errno)}.` : POLLED;
      logEvent("warn", "directory cannot be watched", { path: this.#path, error, hint });
    }
  }
}
