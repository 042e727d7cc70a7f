/**
 * Closing raw descriptors of databases in a process that is not walsync's alone. Closing any descriptor of a file drops every
 * POSIX lock that the process has on it, so where the application has the same database open, its connection would be without
 * locks from then on: another process could take the WAL away from under it. Such descriptors are put aside until nobody else
 * in the process has the file open. SQLite does the same with its own: https://www.sqlite.org/src/file/src/os_unix.c
 */
import { type BigIntStats, closeSync, fstatSync, openSync, readdirSync, statSync } from "node:fs";

/** From now on the application may have databases open that walsync looks at. It stays so. */
export function shareProcess(): void {
  isShared = true;
}

/** Opens a file of a database for raw reads. One that waits to be closed is taken again, so that few ever wait. */
export function openDescriptor(path: string): number {
  if (aside.length > 0) {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    const at = stats === undefined ? -1 : aside.findIndex(({ file }) => file === nameOf(stats));
    if (at !== -1) return aside.splice(at, 1)[0]!.fd;
  }
  return openSync(path, "r");
}

/** Closes descriptors of files of a database: at once, or when nobody else in the process has the file open any more. */
export function closeDescriptors(descriptors: readonly number[]): void {
  if (!isShared) for (const fd of descriptors) closeSync(fd);
  else {
    for (const fd of descriptors) aside.push({ fd, file: idOf(fd) });
    closeFree();
  }
}

// --- internal ---

/** That an application closed its connection is found out by looking. */
const LOOK_INTERVAL_MS = 5000;

let isShared = false;
/** Descriptors that walsync is done with. */
let aside: { fd: number; file: string | null }[] = [];
let timer: ReturnType<typeof setInterval> | undefined;

function closeFree(): void {
  const own = new Set(aside.map(({ fd }) => fd));
  const inUse = filesOfOthers(own);
  aside = aside.filter(({ fd, file }) => {
    if (inUse === null || (file !== null && inUse.has(file))) return true;
    closeSync(fd);
    return false;
  });
  if (aside.length === 0) {
    clearInterval(timer);
    timer = undefined;
  } else if (timer === undefined) {
    timer = setInterval(closeFree, LOOK_INTERVAL_MS);
    timer.unref();
  }
}

/** The files that the process has open by descriptors other than `own`; null if this system does not tell. */
function filesOfOthers(own: ReadonlySet<number>): ReadonlySet<string> | null {
  let names: string[];
  try {
    names = readdirSync(process.platform === "linux" ? "/proc/self/fd" : "/dev/fd");
  } catch {
    return null;
  }
  const found = new Set<string>();
  for (const name of names) {
    const fd = Number(name);
    const file = own.has(fd) ? null : idOf(fd);
    if (file !== null) found.add(file);
  }
  return found;
}

/** Null if it was closed meanwhile, as the one that reads the folder is. */
function idOf(fd: number): string | null {
  try {
    return nameOf(fstatSync(fd, { bigint: true }));
  } catch {
    return null;
  }
}

function nameOf({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}
