/**
 * Which files this process holds open as a database, its WAL or its index. Closing any descriptor of such a file drops every
 * POSIX lock of the process on it, SQLite's included, so nobody may open one of them for a short look.
 */
import { fstatSync, statSync } from "node:fs";

/** What stat(2) says of a file, whatever its name. */
export interface FileIdentity {
  dev: bigint;
  ino: bigint;
}

/**
 * Notes that `descriptors` belong to the database at `path`; `databaseFd` is the one among them, if any, of the database file
 * itself. Call the result when they are closed.
 */
export function noteOpenFiles(path: string, descriptors: readonly number[], databaseFd: number | null): () => void {
  const ids = descriptors.map((fd) => idOf(fstatSync(fd, { bigint: true })));
  ids.forEach((id, i) => {
    owners.set(id, [...(owners.get(id) ?? []), { path, isDatabase: descriptors[i] === databaseFd }]);
  });
  return () => {
    for (const id of ids) {
      const left = [...(owners.get(id) ?? [])];
      left.splice(
        left.findIndex((owner) => owner.path === path),
        1,
      );
      if (left.length > 0) owners.set(id, left);
      else owners.delete(id);
    }
  };
}

/** True if the path leads to this very file, which is open. */
export function isAt(path: string, { dev, ino }: { dev: number; ino: number }): boolean {
  const now = statSync(path, { throwIfNoEntry: false });
  return now !== undefined && now.ino === ino && now.dev === dev;
}

/**
 * What a file at `path` is to this process: the database that it has open under this path, or a file that it holds for
 * another one. Null: not open here.
 */
export function openFileAt(path: string, file: FileIdentity): "database" | "other" | null {
  const found = owners.get(idOf(file));
  if (found === undefined) return null;
  return found.some((owner) => owner.isDatabase && owner.path === path) ? "database" : "other";
}

// --- internal ---

interface Owner {
  path: string;
  isDatabase: boolean;
}

/** By device and inode. Two paths may lead to one file. */
const owners = new Map<string, readonly Owner[]>();

function idOf({ dev, ino }: FileIdentity): string {
  return `${dev}:${ino}`;
}
