/** What a watch offers beside replicating: its control socket and its metrics port with the status page. */
import type { CommandSettings } from "../cli/command.ts";
import { COMMIT, VERSION } from "../cli/version.ts";
import type { Watch } from "../engine/watch.ts";
import type { WATCH_FLAGS, WatchSettings } from "../engine/watch-settings.ts";
import { WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { MetricsServer } from "../metrics-server.ts";
import type { ControlServer } from "../replication/control-server.ts";
import type { Replicator } from "../replication/replicator.ts";
import { statusPageOf } from "./watch-page.ts";

export interface WatchServices {
  /** Of the metrics; undefined if there are none. */
  readonly port: number | undefined;
  stop(): void;
}

/** Opens both. Throws E_CONFIG if a metrics port that was chosen is taken. */
export async function openServices(
  watch: Watch,
  { flags, origins }: Pick<CommandSettings<typeof WATCH_FLAGS>, "flags" | "origins">,
  env: Readonly<Record<string, string | undefined>>,
): Promise<WatchServices> {
  const control = await openControl(watch, env);
  try {
    const metrics = flags.noMetrics ? null : await openMetrics(watch, flags, origins["metrics-port"] !== "default");
    return {
      port: metrics?.port,
      stop: () => {
        metrics?.stop();
        control?.stop();
      },
    };
  } catch (error) {
    control?.stop();
    throw error;
  }
}

// --- internal ---

/** Null, with a warning, where no socket can be made: status, sync and snapshot do not work then; replication does. */
async function openControl(
  watch: Watch,
  env: Readonly<Record<string, string | undefined>>,
): Promise<ControlServer | null> {
  const { serveControl } = await import("../replication/control-server.ts");
  const { controlFolder } = await import("../control.ts");
  try {
    const about = { version: VERSION, destination: watch.destination.url };
    const drillOf = (replicator: Replicator) => watch.drillOf(replicator);
    return serveControl(controlFolder(env), () => watch.fleet.replicators, about, drillOf);
  } catch (error) {
    if (!(error instanceof WalsyncError)) throw error;
    logEvent("warn", "no control socket", { code: error.code, error: error.message, hint: error.hint });
    return null;
  }
}

/** Null if the default port is taken: a second walsync on one host replicates all the same. A chosen port must be free. */
async function openMetrics(watch: Watch, flags: WatchSettings, isPortChosen: boolean): Promise<MetricsServer | null> {
  const { serveMetrics } = await import("../metrics-server.ts");
  const { measureProcess } = await import("../process-metrics.ts");
  const { measure } = await import("../replication/metrics.ts");
  const { faultsOf } = await import("../replication/health.ts");
  const { fleet } = watch;
  measureProcess({ version: VERSION, commit: COMMIT });
  measure(() => fleet.replicators);
  const page = statusPageOf(watch, flags);
  const faults = () => faultsOf(fleet.replicators, flags.maxLag, fleet.refusals);
  try {
    const server = serveMetrics(flags.metricsListen, flags.metricsPort, faults, page.answer);
    const stop = () => {
      page.stop();
      server.stop();
    };
    return { port: server.port, stop };
  } catch (error) {
    if (isPortChosen || !(error instanceof WalsyncError)) throw error;
    logEvent("warn", "metrics are off", { port: flags.metricsPort, error: error.message, hint: error.hint });
    return null;
  }
}
