/** `walsync watch`: replicates databases for as long as it runs. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineWalsyncCommand } from "../cli/command.ts";
import { onHangup } from "../cli/interrupt.ts";
import { VERSION } from "../cli/version.ts";
import { monotonicMs } from "../clock.ts";
import type { Destination } from "../destination/destination.ts";
import { Gate } from "../destination/limit.ts";
import { retrying } from "../destination/retry.ts";
import { WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import { forgetDatabase } from "../metrics.ts";
import type { MetricsServer } from "../metrics-server.ts";
import type { ControlServer } from "../replication/control-server.ts";
import type { Fleet } from "../replication/fleet.ts";
import type { NamedDatabase } from "../replication/names.ts";
import { destinationOf } from "./destination.ts";
import { openAlerts } from "./watch-alerts.ts";
import type { WatchChanges } from "./watch-changes.ts";
import { Application, conclude, parseCommand } from "./watch-child.ts";
import { openMetrics } from "./watch-metrics.ts";
import type { PlannedDatabase } from "./watch-plan.ts";
import { WATCH_FLAGS } from "./watch-settings.ts";

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
    ["walsync watch app.db -b s3://backups/prod --restore-if-missing --exec 'node server.js'", "In a container"],
    ["walsync watch shop=/data/app.db -b file:///mnt/backup", "Under a name of its own, to a directory"],
  ],
  async run({ positionals, env, signal, reload, ...settings }) {
    const { untilAborted } = await import("../replication/delivery.ts");
    const { Fleet } = await import("../replication/fleet.ts");
    const { FolderEvents } = await import("../replication/folder-events.ts");
    const { keptName, stateFolderOf } = await import("../replication/local-state.ts");
    const { Replicator } = await import("../replication/replicator.ts");
    const { Watcher } = await import("../replication/watcher.ts");
    const { Caretaker } = await import("../upkeep/caretaker.ts");
    const { WatchChanges } = await import("./watch-changes.ts");
    const { WatchPlan } = await import("./watch-plan.ts");
    const { MemoryTrimmer } = await import("../memory.ts");

    const { flags, origins } = settings;
    let changes: WatchChanges | null = null;
    // From the first moment on: by default it would end the process.
    onHangup(() => changes?.reload());
    const plan = new WatchPlan(positionals.databases, settings);
    const command = flags.exec === undefined ? null : parseCommand(flags.exec, origins.exec);
    const stop = new AbortController();
    const destination = await destinationOf(flags, env, stop.signal);
    const folderOf = (path: string) => stateFolderOf(path, flags.stateDir);
    const kept = (path: string) => keptName(folderOf(path), destination.url);
    const databases = plan.require(kept);
    // The application may be about to make it.
    const isAwaited = (path: string) => (flags.restoreIfMissing || command !== null) && !existsSync(path);
    let reaching: Promise<void> | null = null;
    const reached = () => (reaching ??= reach(destination, stop.signal));
    const ready = Promise.withResolvers<boolean>();
    const scans = new Gate(SCANS_AT_ONCE);
    const care = new Caretaker(destination);
    const events = new FolderEvents();
    const memory = new MemoryTrimmer();
    const watcher = new Watcher(events, flags.maxPinned);
    const alerts = openAlerts(flags, destination.url, () => fleet.replicators);
    const fleet = new Fleet<PlannedDatabase>(watcher, {
      create: ({ path, name, settings: { replication, care, mayVanish } }) =>
        new Replicator({
          path,
          name,
          destination,
          layout: care.layout,
          stateFolder: folderOf(path),
          policy: replication,
          mayVanish,
          ready: ready.promise,
          patience: "endless",
          scans,
          onSnapshotShipped: () => memory.request(),
          onDamage: (kind, error) => alerts?.damaged(name, kind, error),
        }),
      onAdopt: (replicator, { path, settings: own }) =>
        care.follow(replicator, join(folderOf(path), "merge"), own.care),
      onAdjust: (replicator, { settings: own }) => {
        replicator.adjust({ policy: own.replication, mayVanish: own.mayVanish });
        care.adjust(replicator, own.care);
      },
      onLeave: (replicator) => care.release(replicator),
      onGone: ({ name }) => forgetDatabase(name),
    });
    try {
      for (const [i, database] of databases.entries()) {
        const replicator = fleet.create(database);
        if (flags.restoreIfMissing && !existsSync(database.path)) {
          await Promise.race([reached(), untilAborted(signal)]);
          signal.throwIfAborted();
          await restoreMissing(destination, database, signal);
        }
        if (isAwaited(database.path)) replicator.openWhenPossible(monotonicMs());
        else replicator.open();
        fleet.enlist(database, replicator);
        // A thousand of them need not be open at once, not even now.
        if (i >= flags.maxPinned) replicator.trySleep();
      }
    } catch (error) {
      await Promise.all(fleet.replicators.map((replicator) => replicator.stop(AbortSignal.abort())));
      throw error;
    }

    // Only now: a destination is not touched for databases that are refused.
    const answered = reached();
    answered.then(
      () => ready.resolve(true),
      () => ready.resolve(false),
    );
    const isPortChosen = origins["metrics-port"] !== "default";
    let metrics: MetricsServer | null = null;
    let control: ControlServer | null = null;
    let application: Application | null = null;
    const follow = new WatchChanges(plan, fleet, events, {
      replan: async () => new WatchPlan(positionals.databases, await reload()),
      keptName: kept,
    });
    try {
      control = await openControl(env, fleet, destination.url);
      metrics = flags.noMetrics ? null : await openMetrics(flags, isPortChosen, fleet);
      alerts?.start();
      fleet.start();
      memory.request();
      const { length } = databases;
      logEvent("info", "watching", { databases: length, destination: destination.url, port: metrics?.port });
      follow.start();
      changes = follow;
      if (command !== null) {
        // One that refuses does so soon: then the application is not even started. It does not wait for one that is silent.
        await Promise.race([answered, Bun.sleep(ANSWER_PATIENCE_MS), untilAborted(signal)]);
        if (!signal.aborted) application = new Application(command, signal);
      }
      const over = application?.over ?? signal;
      // A definite refusal ends it here; silence of the destination does not.
      await Promise.race([answered.then(() => watcher.finished(over)), watcher.finished(over)]);
    } catch (error) {
      await application?.dismiss(DISMISSAL_MS);
      metrics?.stop();
      control?.stop();
      follow.stop();
      await alerts?.stop(0);
      await care.stop();
      await fleet.stop(0).catch(() => {});
      throw error;
    }
    const ended = (await application?.dismiss(DISMISSAL_MS)) ?? null;
    // It may have made a database as the last thing it did.
    if (ended !== null) await follow.lookOnce();
    follow.stop();
    logEvent("info", "stopping", { databases: fleet.replicators.length });
    const { shutdownTimeout } = follow.plan.flags;
    const told = alerts?.stop(shutdownTimeout);
    let failure: unknown = null;
    try {
      await care.stop();
      await fleet.stop(shutdownTimeout);
    } catch (error) {
      failure = error;
    }
    await told;
    memory.stop();
    events.close();
    stop.abort();
    metrics?.stop();
    control?.stop();
    destination.close();
    if (failure === null) logEvent("info", "stopped", { databases: fleet.replicators.length });
    if (ended !== null) conclude(ended, failure);
    else if (failure !== null) throw failure;
  },
});

/** Whole databases read at once: each needs memory and the disk for itself. */
const SCANS_AT_ONCE = 1;
/** For the first answer of the destination, before the application is started. */
const ANSWER_PATIENCE_MS = 3000;
/** For an application that has to end because replication is over. */
const DISMISSAL_MS = 10_000;

/** Null, with a warning, where no socket can be made: status, sync and snapshot do not work then; replication does. */
async function openControl(
  env: Readonly<Record<string, string | undefined>>,
  fleet: Fleet<PlannedDatabase>,
  destination: string,
): Promise<ControlServer | null> {
  const { serveControl } = await import("../replication/control-server.ts");
  const { controlFolder } = await import("../control.ts");
  try {
    return serveControl(controlFolder(env), () => fleet.replicators, { version: VERSION, destination });
  } catch (error) {
    if (!(error instanceof WalsyncError)) throw error;
    logEvent("warn", "no control socket", { code: error.code, error: error.message, hint: error.hint });
    return null;
  }
}

/** Waits until the destination answers, for as long as it takes. Throws if it refuses. */
async function reach(destination: Destination, signal: AbortSignal): Promise<void> {
  let failures = 0;
  await retrying(
    "prepare",
    () => destination.prepare({ signal }),
    {
      attempts: Number.MAX_SAFE_INTEGER,
      baseDelayMs: 500,
      maxDelayMs: 30_000,
      onRetry: ({ attempt, delayMs, error }) => {
        const { code, hint } = error;
        failures++;
        const fields = { destination: destination.url, code, error, attempt, delayMs: Math.round(delayMs), hint };
        logEvent("error", "destination does not answer", fields);
      },
    },
    signal,
  );
  if (failures > 0) logEvent("info", "destination answers again", { destination: destination.url, attempt: failures });
}

/** Does nothing if the destination does not have it either. */
async function restoreMissing(
  destination: Destination,
  { path, name }: NamedDatabase,
  signal: AbortSignal,
): Promise<void> {
  const { restoreDatabase } = await import("../restore/restore.ts");
  try {
    const options = { target: { kind: "newest" }, integrity: "quick", force: false, signal } as const;
    const { txid, sizeBytes } = await restoreDatabase(destination, name, path, options);
    logEvent("info", "restored", { database: name, path, txid, sizeBytes });
  } catch (error) {
    if (!(error instanceof WalsyncError) || error.code !== "E_NOT_FOUND") throw error;
    logEvent("info", "nothing to restore: the destination does not have it either", { database: name, path });
  }
}
