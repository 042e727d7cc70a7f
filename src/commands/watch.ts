/** `walsync watch`: replicates databases for as long as it runs. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineWalsyncCommand } from "../cli/command.ts";
import { VERSION } from "../cli/version.ts";
import { monotonicMs } from "../clock.ts";
import type { Destination } from "../destination/destination.ts";
import { Gate } from "../destination/limit.ts";
import { retrying } from "../destination/retry.ts";
import { WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { MetricsServer } from "../metrics-server.ts";
import type { ControlServer } from "../replication/control-server.ts";
import type { NamedDatabase } from "../replication/names.ts";
import type { Replicator } from "../replication/replicator.ts";
import { destinationOf } from "./destination.ts";
import type { WatchedDatabase } from "./watch-databases.ts";
import { carePolicyOf, replicationPolicyOf, WATCH_FLAGS } from "./watch-settings.ts";

export default defineWalsyncCommand({
  meta: { name: "watch", description: "Replicate live databases continuously" },
  positionals: {
    databases: {
      variadic: true,
      isPath: true,
      description: "database files, name=file, directories of databases, or quoted globs",
    },
  },
  flags: WATCH_FLAGS,
  examples: [
    ["walsync watch app.db -b s3://backups/prod", "One database"],
    ["walsync watch 'tenants/*/app.db' -b s3://backups/prod", "Every tenant's database, named by its path"],
    ["walsync watch shop=/data/app.db -b file:///mnt/backup", "Under a name of its own, to a directory"],
  ],
  async run({ flags, positionals, origins, env, config, flagsWith, signal }) {
    const { databasesOf } = await import("./watch-databases.ts");
    const { untilAborted } = await import("../replication/delivery.ts");
    const { keptName, stateFolderOf } = await import("../replication/local-state.ts");
    const { Replicator } = await import("../replication/replicator.ts");
    const { Watcher } = await import("../replication/watcher.ts");
    const { Caretaker } = await import("../upkeep/caretaker.ts");

    const carePolicy = carePolicyOf(flags);
    const stop = new AbortController();
    const destination = await destinationOf(flags, env, stop.signal);
    const folderOf = (path: string) => stateFolderOf(path, flags.stateDir);
    const kept = (path: string) => keptName(folderOf(path), destination.url);
    const databases = databasesOf(positionals.databases, config, kept);
    const settingsOf = ({ layer }: WatchedDatabase) => (layer === null ? flags : flagsWith(layer));
    let reaching: Promise<void> | null = null;
    const reached = () => (reaching ??= reach(destination, stop.signal));
    const ready = Promise.withResolvers<boolean>();
    const scans = new Gate(SCANS_AT_ONCE);
    const create = (database: WatchedDatabase): Replicator =>
      new Replicator({
        path: database.path,
        name: database.name,
        destination,
        stateFolder: folderOf(database.path),
        policy: replicationPolicyOf(settingsOf(database)),
        ready: ready.promise,
        patience: "endless",
        scans,
      });

    const care = new Caretaker(destination);
    const replicators: Replicator[] = [];
    try {
      for (const database of databases) {
        const replicator = create(database);
        if (!flags.restoreIfMissing || existsSync(database.path)) replicator.open();
        else {
          await Promise.race([reached(), untilAborted(signal)]);
          signal.throwIfAborted();
          if (await restoreMissing(destination, database, signal)) replicator.open();
          else replicator.openWhenPossible(monotonicMs());
        }
        replicators.push(replicator);
        const policy = database.layer === null ? carePolicy : carePolicyOf(settingsOf(database));
        care.follow(replicator, join(folderOf(database.path), "merge"), policy);
      }
    } catch (error) {
      await Promise.all(replicators.map((replicator) => replicator.stop(AbortSignal.abort())));
      throw error;
    }

    // Only now: a destination is not touched for databases that are refused.
    const answered = reached();
    answered.then(
      () => ready.resolve(true),
      () => ready.resolve(false),
    );
    const isPortChosen = origins["metrics-port"] !== "default";
    const watcher = new Watcher(replicators);
    let metrics: MetricsServer | null = null;
    let control: ControlServer | null = null;
    try {
      control = await openControl(env, replicators, destination.url);
      metrics = flags.noMetrics ? null : await openMetrics(flags, isPortChosen, replicators);
      watcher.start();
      const { length } = replicators;
      logEvent("info", "watching", { databases: length, destination: destination.url, port: metrics?.port });
      // A definite refusal ends it here; silence of the destination does not.
      await Promise.race([answered.then(() => watcher.finished(signal)), watcher.finished(signal)]);
    } catch (error) {
      metrics?.stop();
      control?.stop();
      await care.stop();
      await watcher.stop(0).catch(() => {});
      throw error;
    }
    logEvent("info", "stopping", { databases: replicators.length });
    await care.stop();
    await watcher.stop(flags.shutdownTimeout);
    stop.abort();
    metrics?.stop();
    control?.stop();
    destination.close();
    logEvent("info", "stopped", { databases: replicators.length });
  },
});

/** Whole databases read at once: each needs memory and the disk for itself. */
const SCANS_AT_ONCE = 1;

/** Null, with a warning, where no socket can be made: status, sync and snapshot do not work then; replication does. */
async function openControl(
  env: Readonly<Record<string, string | undefined>>,
  replicators: readonly Replicator[],
  destination: string,
): Promise<ControlServer | null> {
  const { serveControl } = await import("../replication/control-server.ts");
  const { controlFolder } = await import("../control.ts");
  try {
    return serveControl(controlFolder(env), () => replicators, { version: VERSION, destination });
  } catch (error) {
    if (!(error instanceof WalsyncError)) throw error;
    logEvent("warn", "no control socket", { code: error.code, error: error.message, hint: error.hint });
    return null;
  }
}

/** Null if the default port is taken: a second walsync on one host replicates all the same. A chosen port must be free. */
async function openMetrics(
  flags: { metricsPort: number; metricsListen: string },
  isPortChosen: boolean,
  replicators: readonly Replicator[],
): Promise<MetricsServer | null> {
  const { serveMetrics } = await import("../metrics-server.ts");
  const { measure } = await import("../replication/metrics.ts");
  measure(replicators);
  try {
    return serveMetrics(flags.metricsListen, flags.metricsPort, () => faultOf(replicators));
  } catch (error) {
    if (isPortChosen || !(error instanceof WalsyncError)) throw error;
    logEvent("warn", "metrics are off", { port: flags.metricsPort, error: error.message, hint: error.hint });
    return null;
  }
}

/** One line for each database that is not replicated, or null. */
function faultOf(replicators: readonly Replicator[]): string | null {
  const faults = replicators.flatMap(({ name, trouble }) => (trouble === null ? [] : [`${name}: ${trouble}`]));
  return faults.length === 0 ? null : faults.join("\n");
}

/** Waits until the destination answers, for as long as it takes. Throws if it refuses. */
async function reach(destination: Destination, signal: AbortSignal): Promise<void> {
  await retrying(
    "prepare",
    () => destination.prepare({ signal }),
    {
      attempts: Number.MAX_SAFE_INTEGER,
      baseDelayMs: 500,
      maxDelayMs: 30_000,
      onRetry: ({ attempt, delayMs, error }) => {
        const { code, hint } = error;
        const fields = { destination: destination.url, code, error, attempt, delayMs: Math.round(delayMs), hint };
        logEvent("error", "destination does not answer", fields);
      },
    },
    signal,
  );
}

/** False if the destination does not have it either. */
async function restoreMissing(
  destination: Destination,
  { path, name }: NamedDatabase,
  signal: AbortSignal,
): Promise<boolean> {
  const { restoreDatabase } = await import("../restore/restore.ts");
  try {
    const options = { target: { kind: "newest" }, integrity: "quick", force: false, signal } as const;
    const { txid, sizeBytes } = await restoreDatabase(destination, name, path, options);
    logEvent("info", "restored", { database: name, path, txid, sizeBytes });
    return true;
  } catch (error) {
    if (!(error instanceof WalsyncError) || error.code !== "E_NOT_FOUND") throw error;
    logEvent("info", "waiting for the database: it is neither here nor at the destination", { database: name, path });
    return false;
  }
}
