/** `walsync watch`: replicates databases for as long as it runs. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { onHangup } from "../cli/interrupt.ts";
import type { Watch } from "../engine/watch.ts";
import { WATCH_FLAGS } from "../engine/watch-settings.ts";
import { logEvent } from "../log.ts";
import { openAlerts } from "./watch-alerts.ts";
import { Application, type ApplicationEnd, type Command, conclude, parseCommand } from "./watch-child.ts";
import { openServices } from "./watch-services.ts";

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
    const { Watch } = await import("../engine/watch.ts");
    const { WatchPlan } = await import("../engine/watch-plan.ts");
    const { MemoryTrimmer } = await import("../memory.ts");

    const { flags, origins } = settings;
    let watch: Watch | null = null;
    // From the first moment on: by default it would end the process.
    onHangup(() => watch?.reload());
    const plan = new WatchPlan(positionals.databases, settings);
    const command = flags.exec === undefined ? null : parseCommand(flags.exec, origins.exec);
    const alerts = openAlerts(flags);
    const memory = new MemoryTrimmer();
    watch = await Watch.open(plan, {
      env,
      signal,
      alerts: alerts !== null,
      drills: true,
      replan: async () => new WatchPlan(positionals.databases, await reload()),
      onEvent: (event) => {
        if (event.kind === "alert") alerts?.send(event.alert, event.destination);
        // Reading and sending a whole database leaves garbage behind.
        else if (event.kind === "shipped" && event.file === "snapshot") memory.request();
      },
    });
    const services = await openServices(watch, settings, env).catch(giveUp(watch));
    let ended: ApplicationEnd | null;
    try {
      watch.start();
      memory.request();
      const { length } = watch.fleet.replicators;
      logEvent("info", "watching", { databases: length, destination: watch.destination.url, port: services.port });
      ended = await untilOver(watch, command, signal);
    } catch (error) {
      services.stop();
      await watch.abandon();
      await alerts?.stop(0);
      throw error;
    }
    // The application may have made a database as the last thing it did.
    if (ended !== null) await watch.lookOnce();
    const { shutdownTimeoutMs } = watch;
    const stopped = watch.stop(shutdownTimeoutMs).then(
      () => null,
      (error: unknown) => error,
    );
    await alerts?.stop(shutdownTimeoutMs);
    const failure = await stopped;
    memory.stop();
    services.stop();
    if (ended !== null) conclude(ended, failure);
    else if (failure !== null) throw failure;
  },
});

/** For the first answer of the destination, before the application is started. */
const ANSWER_PATIENCE_MS = 3000;
/** For an application that has to end because replication is over. */
const DISMISSAL_MS = 10_000;

/**
 * Waits until the watch is to be stopped, with the application as its child, if there is one: then until that has ended. Throws
 * what ends replication, once the application has ended, too.
 */
async function untilOver(watch: Watch, command: Command | null, signal: AbortSignal): Promise<ApplicationEnd | null> {
  let application: Application | null = null;
  try {
    if (command !== null) {
      // One that refuses does so soon: then the application is not even started. It does not wait for one that is silent.
      await watch.answered(ANSWER_PATIENCE_MS, signal);
      if (!signal.aborted) application = new Application(command, signal);
    }
    // A definite refusal ends it here; silence of the destination does not.
    await watch.finished(application?.over ?? signal);
  } catch (error) {
    await application?.dismiss(DISMISSAL_MS);
    throw error;
  }
  return (await application?.dismiss(DISMISSAL_MS)) ?? null;
}

function giveUp(watch: Watch): (error: unknown) => Promise<never> {
  return async (error) => {
    await watch.abandon();
    throw error;
  };
}
