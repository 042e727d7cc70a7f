/** One database to a destination, once: by its own hand, or by that of a watch that has it open already. */
import { type RunningWatch, requestOf, runningWatches } from "../control.ts";
import type { Destination } from "../destination/destination.ts";
import { Gate } from "../destination/limit.ts";
import { DestinationError, WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import { untilAborted } from "../replication/delivery.ts";
import { NO_SNAPSHOTS } from "../replication/due.ts";
import { keptName, stateFolderOf } from "../replication/local-state.ts";
import { findSources, type NamedDatabase, nameSources } from "../replication/names.ts";
import { Replicator } from "../replication/replicator.ts";
import type { Source } from "../replication/sources.ts";
import type { WatchSettings } from "./watch-settings.ts";

export interface SnapshotOptions extends Pick<WatchSettings, "layout" | "stateDir" | "enableWal"> {
  /** Where the sockets of running watches are. */
  env: Readonly<Record<string, string | undefined>>;
  signal: AbortSignal;
  /** The database is read, then sent. */
  onProgress?: ((stage: "read" | "upload", doneBytes: number, totalBytes: number) => void) | undefined;
}

/** The one database that `argument` means: a file, or name=file. Throws E_USAGE if it means several. */
export function requireOneSource(argument: string): Source {
  const sources = findSources([argument]);
  if (sources.length === 1) return sources[0]!;
  throw new WalsyncError("E_USAGE", `${argument}: expected one database, found ${sources.length}`);
}

/** What it is called there. Throws E_USAGE for what is no name. */
export function nameOf(source: Source, destinationUrl: string, stateDir: string | undefined): NamedDatabase {
  const [named] = nameSources([source], (path) => keptName(stateFolderOf(path, stateDir), destinationUrl));
  return named!;
}

/**
 * Ships a snapshot of what is committed now, and the increments that lead to it; resolves with its txid when the destination has
 * acknowledged everything. A database that a watch of this user ships there is left to that. Throws E_LOCKED, E_DATABASE,
 * E_DISK, E_FENCED, E_UNREACHABLE or E_REFUSED, and the signal's reason.
 */
export async function takeSnapshot(
  destination: Destination,
  { path, name }: NamedDatabase,
  { layout, stateDir, enableWal, env, signal, onProgress }: SnapshotOptions,
): Promise<{ name: string; txid: Txid }> {
  const never = Number.POSITIVE_INFINITY;
  const replicator = new Replicator({
    path,
    name,
    destination,
    layout,
    stateFolder: stateFolderOf(path, stateDir),
    policy: {
      syncIntervalMs: 0,
      snapshot: NO_SNAPSHOTS,
      validationIntervalMs: 0,
      checkpoint: { minFrames: never, intervalMs: never, fenceFrames: never },
      maxOutboxBytes: never,
      enableWal,
    },
    ready: Promise.resolve(true),
    patience: "once",
    scans: new Gate(1),
    onScanProgress: (doneBytes, totalBytes) => onProgress?.("read", doneBytes, totalBytes),
    onUploadProgress: (sentBytes, totalBytes) => onProgress?.("upload", sentBytes, totalBytes),
  });
  try {
    const watch = await openOrFindWatch(replicator, destination.url, env);
    if (watch !== null) {
      const { txid } = await requestOf(watch.watch, "snapshot", watch.name, { wait: true, signal });
      return { name: watch.name, txid: BigInt(txid) };
    }
    await destination.prepare({ signal });
    replicator.begin();
    const taken = replicator.requests.snapshot();
    taken.catch(() => {}); // Perhaps nobody waits for it any more.
    await Promise.race([taken, untilAborted(signal)]);
    signal.throwIfAborted();
    const txid = await taken;
    const left = await replicator.stop(signal);
    signal.throwIfAborted();
    if (left > 0) throw replicator.failure ?? notShipped(destination.url, left);
    return { name, txid };
  } finally {
    await replicator.stop(AbortSignal.abort());
  }
}

// --- internal ---

/**
 * Opens the database; or, if a running watch has it and ships it to the same destination, finds that: it takes the snapshot.
 * Throws what opening throws.
 */
async function openOrFindWatch(
  replicator: Replicator,
  destinationUrl: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<{ watch: RunningWatch; name: string } | null> {
  try {
    replicator.open();
    return null;
  } catch (error) {
    if (!(error instanceof WalsyncError) || error.code !== "E_LOCKED") throw error;
    for (const watch of await runningWatches(env)) {
      const database = watch.databases.find(({ path }) => path === replicator.path);
      if (database !== undefined && watch.destination === destinationUrl) return { watch, name: database.name };
    }
    throw error;
  }
}

function notShipped(url: string, files: number): DestinationError {
  return new DestinationError(`${url}: expected to ship everything, found ${files} files left`, {
    retryable: true,
    hint: "Nothing is lost: the outbox keeps them. Run the command again.",
  });
}
