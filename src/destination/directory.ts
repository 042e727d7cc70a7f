/**
 * A directory as a destination: a local disk, or a network file system.
 *
 * A key is a path below the root. Files appear complete or not at all (see `directory-files.ts`). Symbolic links below
 * the root are not followed: whoever may write there must not be able to point walsync at other files. The root itself
 * may be one. Only `prepare` and `write` make folders.
 *
 * Against other processes: "absent" needs no lock, since `link` fails if the name exists. Replacing takes a lock file
 * beside the key for the moment of looking at the old file and renaming the new one over it. `remove` takes none.
 */
import { close, constants, fstat, open as openCallback, read, type Stats } from "node:fs";
import { type FileHandle, readdir, rmdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { KiB } from "../bytes.ts";
import { DestinationError, errnoOf, messageOf, WalsyncError } from "../errors.ts";
import { readOnce, resolveRange } from "./chunks.ts";
import type {
  Capabilities,
  Destination,
  ListOptions,
  ObjectBody,
  ObjectHead,
  ObjectInfo,
  ReadOptions,
  WriteOptions,
  WriteResult,
  WriteSource,
} from "./destination.ts";
import {
  etagOf,
  lstatOrNull,
  probeFolder,
  removeStaleTemporaries,
  syncFolder,
  unlinkIfThere,
  writeAtomically,
} from "./directory-files.ts";
import { compareKeys, isOwnFileName, requireKey, requirePrefix } from "./keys.ts";
import { openSource } from "./source.ts";

const openFd = promisify(openCallback) as (path: string, flags: number) => Promise<number>;
const fstatFd = promisify(fstat) as (fd: number) => Promise<Stats>;
const readFd = promisify(read) as (
  fd: number,
  buffer: Buffer,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesRead: number }>;
const closeFd = promisify(close);

const CHUNK_SIZE = 256 * KiB;

export class DirectoryDestination implements Destination {
  readonly url: string;
  readonly capabilities: Capabilities = { metadata: false, levelFolders: "directory" };
  readonly #root: string;
  /** Folders that were cleared of stale temporary files: once in a process is enough. */
  readonly #cleared = new Set<string>();

  /** `rootPath` is created at the first write or by `prepare`, not here. */
  constructor(rootPath: string) {
    this.#root = resolve(rootPath);
    this.url = this.#root;
  }

  async prepare(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    options.signal?.throwIfAborted();
    try {
      await probeFolder(this.#root);
    } catch (error) {
      throw this.#fault(error, "", "a directory that can be written to");
    }
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    requirePrefix(this.url, prefix);
    options.signal?.throwIfAborted();
    await this.#requireRoot();
    yield* this.#listFolder(prefix, options);
  }

  async *listFolders(prefix: string, options: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<string> {
    requirePrefix(this.url, prefix);
    options.signal?.throwIfAborted();
    await this.#requireRoot();
    for (const entry of await this.#entries(prefix)) {
      options.signal?.throwIfAborted();
      // A folder is one only if there is a key in it, as in a bucket.
      if (entry.isFolder && (await this.#holdsKeys(`${prefix}${entry.sortName}`))) yield entry.sortName.slice(0, -1);
    }
  }

  async head(key: string, options: { signal?: AbortSignal | undefined } = {}): Promise<ObjectHead | null> {
    requireKey(this.url, key);
    options.signal?.throwIfAborted();
    const stats = await this.#statKey(key);
    if (stats === null) return null;
    return { ...infoOf(key, stats), metadata: {} };
  }

  async read(key: string, options: ReadOptions = {}): Promise<ObjectBody | null> {
    requireKey(this.url, key);
    const { signal } = options;
    signal?.throwIfAborted();
    const stats = await this.#statKey(key);
    if (stats === null) return null;
    const { first, end } = resolveRange(options.range, stats.size);
    let position = first;
    let fd: number | null = null;
    let buffer: Buffer | null = null;
    const chunks = readOnce(
      async () => {
        signal?.throwIfAborted();
        if (position >= end) return null;
        try {
          // Opened only now, and without a `FileHandle`: a body that nobody begins must hold nothing, and one that
          // nobody ends must not throw from the garbage collector.
          fd ??= await this.#openUnchanged(key, stats);
          buffer ??= Buffer.allocUnsafeSlow(Math.min(CHUNK_SIZE, end - first));
          const wanted = Math.min(buffer.length, end - position);
          const { bytesRead } = await readFd(fd, buffer, 0, wanted, position);
          if (bytesRead === 0) throw this.#changed(key, `${stats.size} bytes`, `that it ends at ${position}`);
          position += bytesRead;
          return buffer.subarray(0, bytesRead);
        } catch (error) {
          throw this.#fault(error, key, "a file that can be read");
        }
      },
      async () => {
        if (fd !== null) await closeFd(fd);
      },
    );
    return { ...infoOf(key, stats), metadata: {}, chunks };
  }

  async write(key: string, source: WriteSource, options: WriteOptions = {}): Promise<WriteResult> {
    requireKey(this.url, key);
    const { signal } = options;
    signal?.throwIfAborted();
    try {
      await this.#refuseLinkedFolders(key);
      const folder = dirname(this.#path(key));
      if (!this.#cleared.has(folder)) {
        await removeStaleTemporaries(folder);
        this.#cleared.add(folder);
      }
      const stats = await writeAtomically(this.#path(key), options, (file) => copyInto(file, source, options));
      return stats === null ? { kind: "refused" } : { kind: "written", etag: etagOf(stats) };
    } catch (error) {
      if (signal?.aborted && error === signal.reason) throw error;
      throw this.#fault(error, key, "a file that can be written");
    }
  }

  async remove(keys: readonly string[], options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    for (const key of keys) requireKey(this.url, key);
    await this.#requireRoot();
    const folders = new Set<string>();
    for (const key of keys) {
      options.signal?.throwIfAborted();
      try {
        await this.#refuseLinkedFolders(key);
        await unlinkIfThere(this.#path(key));
      } catch (error) {
        throw this.#fault(error, key, "a file that can be removed");
      }
      folders.add(dirname(this.#path(key)));
    }
    for (const folder of folders) await this.#removeIfEmpty(folder);
  }

  close(): void {
    // Nothing stays open between calls.
  }

  // --- internal ---

  #path(key: string): string {
    return join(this.#root, key);
  }

  #name(key: string): string {
    return key === "" ? this.url : join(this.url, key);
  }

  #fault(error: unknown, key: string, expected: string): Error {
    if (error instanceof WalsyncError || errnoOf(error) === undefined) return error as Error;
    const errno = errnoOf(error) ?? "";
    return new DestinationError(`${this.#name(key)}: expected ${expected}, found ${messageOf(error)}`, {
      retryable: MAY_HEAL.has(errno),
      hint: HINTS[errno],
      cause: error,
    });
  }

  #changed(key: string, expected: string, found: string): DestinationError {
    return new DestinationError(`${this.#name(key)}: expected ${expected}, found ${found}`, { retryable: true });
  }

  /** Opens the file that `stats` were taken of; an error if another one has its name now. */
  async #openUnchanged(key: string, stats: Stats): Promise<number> {
    let fd: number;
    try {
      fd = await openFd(this.#path(key), constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw this.#changed(key, "the file that was there a moment ago", "that it is gone");
    }
    const opened = await fstatFd(fd);
    if (etagOf(opened) === etagOf(stats)) return fd;
    await closeFd(fd);
    throw this.#changed(key, "the file that was there a moment ago", "that it was replaced");
  }

  async #requireRoot(): Promise<void> {
    let stats: Stats;
    try {
      stats = await stat(this.#root);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw this.#fault(error, "", "a directory that can be read");
      throw new DestinationError(`${this.url}: expected a directory, found that it does not exist`, {
        retryable: false,
        hint: "Check the path; the directory is created by the first upload.",
        cause: error,
      });
    }
    if (!stats.isDirectory()) {
      throw new DestinationError(`${this.url}: expected a directory, found something else`, { retryable: false });
    }
  }

  /** Throws if a folder on the way from the root to `key` is a symbolic link. Folders may be missing. */
  async #refuseLinkedFolders(key: string): Promise<void> {
    for (let slash = key.indexOf("/"); slash !== -1; slash = key.indexOf("/", slash + 1)) {
      const folder = key.slice(0, slash);
      const stats = await lstatOrNull(this.#path(folder));
      if (stats === null) return;
      if (stats.isSymbolicLink()) throw this.#linkFault(folder);
    }
  }

  #linkFault(key: string): DestinationError {
    return new DestinationError(`${this.#name(key)}: expected a file or folder, found a symbolic link`, {
      retryable: false,
      hint: "Links inside a destination are not followed; make the destination itself the link instead.",
    });
  }

  async #statKey(key: string): Promise<Stats | null> {
    try {
      await this.#refuseLinkedFolders(key);
      const stats = await lstatOrNull(this.#path(key));
      if (stats === null) {
        await this.#requireRoot();
        return null;
      }
      if (stats.isSymbolicLink()) throw this.#linkFault(key);
      return stats.isFile() ? stats : null; // "a" is no key where "a/b" is one.
    } catch (error) {
      throw this.#fault(error, key, "a file that can be read");
    }
  }

  /** Files and folders directly in `prefix`, sorted as the keys they begin: "a.b" is before "a/b", "a0" behind it. */
  async #entries(prefix: string): Promise<Entry[]> {
    try {
      await this.#refuseLinkedFolders(prefix);
      const found = await readdir(join(this.#root, prefix), { withFileTypes: true });
      const entries: Entry[] = [];
      for (const entry of found) {
        if (isOwnFileName(entry.name)) continue;
        if (entry.isFile()) entries.push({ sortName: entry.name, isFolder: false });
        else if (entry.isDirectory()) entries.push({ sortName: `${entry.name}/`, isFolder: true });
      }
      return entries.sort((a, b) => compareKeys(a.sortName, b.sortName));
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOENT" || errno === "ENOTDIR") return []; // No such prefix, or removed since we looked.
      throw this.#fault(error, prefix, "a directory that can be read");
    }
  }

  async *#listFolder(prefix: string, options: ListOptions): AsyncGenerator<ObjectInfo> {
    const { startAfter, signal } = options;
    for (const entry of await this.#entries(prefix)) {
      signal?.throwIfAborted();
      const key = `${prefix}${entry.sortName}`;
      const isBehind = startAfter === undefined || compareKeys(key, startAfter) > 0;
      if (entry.isFolder) {
        if (isBehind || startAfter?.startsWith(key)) yield* this.#listFolder(key, options);
      } else if (isBehind) {
        let stats: Stats | null;
        try {
          stats = await lstatOrNull(this.#path(key));
        } catch (error) {
          throw this.#fault(error, key, "a file that can be read");
        }
        if (stats?.isFile()) yield infoOf(key, stats);
      }
    }
  }

  async #holdsKeys(prefix: string): Promise<boolean> {
    const entries = await this.#entries(prefix);
    if (entries.some((entry) => !entry.isFolder)) return true;
    for (const entry of entries) if (await this.#holdsKeys(`${prefix}${entry.sortName}`)) return true;
    return false;
  }

  /** Removes folders that became empty, up to the root: a bucket has no empty folders. */
  async #removeIfEmpty(startFolder: string): Promise<void> {
    for (let folder = startFolder; ; folder = dirname(folder)) {
      const isRoot = folder === this.#root;
      try {
        if (!isRoot) {
          await rmdir(folder);
          continue;
        }
      } catch (error) {
        if (errnoOf(error) === "ENOENT") continue; // Somebody else was faster.
      }
      try {
        // Still in use, as far as anybody can tell: what was removed inside it must stay removed.
        await syncFolder(folder);
        return;
      } catch (error) {
        if (isRoot || errnoOf(error) !== "ENOENT") throw this.#fault(error, "", "a directory that can be synced");
      }
    }
  }
}

interface Entry {
  /** The name; a folder's ends with "/", so that sorting entries sorts keys. */
  sortName: string;
  isFolder: boolean;
}

/** Errors that may pass without anybody changing anything here: a busy or absent disk or server, somebody tidying up. */
const MAY_HEAL = new Set([
  ..."EAGAIN EBUSY EDQUOT EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN ENETUNREACH ENFILE ENOMEM".split(" "),
  ..."ENOSPC ENOTCONN ESTALE ETIMEDOUT ETXTBSY".split(" "),
]);

const HINTS: Partial<Record<string, string>> = {
  EACCES: "Give this user the right to read and write there.",
  EPERM: "Give this user the right to read and write there.",
  EROFS: "The file system is mounted read-only.",
  ENOSPC: "Free some space there.",
  EDQUOT: "Free some space there, or raise the quota.",
  EEXIST: "There is a file of this name; choose another path.",
  ENOTDIR: "A part of the path is a file; choose another path.",
};

function infoOf(key: string, stats: Stats): ObjectInfo {
  return { key, sizeBytes: stats.size, modifiedAt: stats.mtime, storedAt: stats.ctime, etag: etagOf(stats) };
}

async function copyInto(file: FileHandle, source: WriteSource, options: WriteOptions): Promise<void> {
  if (source.kind === "bytes") {
    await writeFully(file, source.bytes);
    options.onProgress?.(source.bytes.length);
    return;
  }
  const from = await openSource(source);
  try {
    const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_SIZE, from.sizeBytes));
    for (let position = 0; position < from.sizeBytes; ) {
      options.signal?.throwIfAborted();
      const chunk = buffer.subarray(0, Math.min(buffer.length, from.sizeBytes - position));
      await from.read(chunk);
      await writeFully(file, chunk);
      position += chunk.length;
      options.onProgress?.(position);
    }
  } finally {
    await from.close();
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let offset = 0; offset < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, offset, bytes.length - offset, null);
    offset += bytesWritten;
  }
}
