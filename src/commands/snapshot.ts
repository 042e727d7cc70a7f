/** `walsync snapshot`: one database to a destination, once. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { type RunningWatch, requestOf, runningWatches } from "../control.ts";
import { Gate } from "../destination/limit.ts";
import { DestinationError, WalsyncError } from "../errors.ts";
import { formatDuration, print, printJson, progress } from "../log.ts";
import type { Replicator } from "../replication/replicator.ts";
import { DESTINATION_FLAGS, destinationOf } from "./destination.ts";
import { SNAPSHOT_RESULT } from "./results.ts";
import { LAYOUT_FLAG, STATE_FLAGS } from "./watch-settings.ts";

export default defineWalsyncCommand({
  meta: { name: "snapshot", description: "Ship a snapshot of one database, and what led to it" },
  positionals: { database: { required: true, isPath: true, description: "the database file, or name=file" } },
  flags: {
    ...DESTINATION_FLAGS,
    ...LAYOUT_FLAG,
    ...STATE_FLAGS,
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync snapshot app.db -b s3://backups/prod", "One snapshot, for example from cron"],
    ["walsync snapshot shop=app.db -b s3://backups/prod", "The same under another name"],
  ],
  result: SNAPSHOT_RESULT,
  async run({ flags, positionals, env, signal }) {
    const { findSources, nameSources } = await import("../replication/names.ts");
    const { keptName, stateFolderOf } = await import("../replication/local-state.ts");
    const { NO_SNAPSHOTS } = await import("../replication/due.ts");
    const { Replicator } = await import("../replication/replicator.ts");
    const startedMs = Date.now();
    const sources = findSources([positionals.database]);
    if (sources.length !== 1) {
      throw new WalsyncError("E_USAGE", `${positionals.database}: expected one database, found ${sources.length}`);
    }
    const destination = await destinationOf(flags, env, signal);
    const [database] = nameSources(sources, (path) => keptName(stateFolderOf(path, flags.stateDir), destination.url));
    const { path, name } = database!;
    const bar = new StageBar();
    const replicator = new Replicator({
      path,
      name,
      destination,
      layout: flags.layout,
      stateFolder: stateFolderOf(path, flags.stateDir),
      policy: {
        syncIntervalMs: 0,
        snapshot: NO_SNAPSHOTS,
        validationIntervalMs: 0,
        checkpoint: {
          minFrames: Number.POSITIVE_INFINITY,
          intervalMs: Number.POSITIVE_INFINITY,
          fenceFrames: Number.POSITIVE_INFINITY,
        },
        maxOutboxBytes: Number.POSITIVE_INFINITY,
        enableWal: flags.enableWal,
      },
      ready: Promise.resolve(true),
      patience: "once",
      scans: new Gate(1),
      onScanProgress: (doneBytes, totalBytes) => bar.show(`read ${name}`, doneBytes, totalBytes),
      onUploadProgress: (sentBytes, totalBytes) => bar.show(`upload ${name}`, sentBytes, totalBytes),
    });
    const done = (txid: bigint | number): void => {
      const took = formatDuration(Date.now() - startedMs);
      if (flags.json) printJson({ name, txid });
      else print(`${name}: snapshot at txid ${txid} in ${destination.url}, in ${took}`);
    };
    try {
      const watch = await openOrFindWatch(replicator, destination.url, env);
      if (watch !== null) {
        const { txid } = await requestOf(watch.watch, "snapshot", watch.name, { wait: true, signal });
        done(txid);
        return;
      }
      await destination.prepare({ signal });
      replicator.begin();
      const txid = await replicator.snapshot();
      const left = await replicator.stop(signal);
      bar.end();
      signal.throwIfAborted();
      if (left > 0) throw replicator.failure ?? notShipped(destination.url, left);
      done(txid);
    } finally {
      bar.end();
      await replicator.stop(AbortSignal.abort());
      destination.close();
    }
  },
});

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

/** One bar after the other: reading, then uploading. */
class StageBar {
  #label = "";
  #bar: ReturnType<typeof progress> | undefined;

  show(label: string, doneBytes: number, totalBytes: number): void {
    if (label !== this.#label) {
      this.end();
      this.#label = label;
      this.#bar = progress(label, totalBytes);
    }
    this.#bar?.update(doneBytes);
  }

  end(): void {
    this.#bar?.end();
    this.#bar = undefined;
  }
}

function notShipped(url: string, files: number): DestinationError {
  return new DestinationError(`${url}: expected to ship everything, found ${files} files left`, {
    retryable: true,
    hint: "Nothing is lost: the outbox keeps them. Run the command again.",
  });
}
