/** The metrics port of a watch. */
import { COMMIT, VERSION } from "../cli/version.ts";
import { WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { MetricsServer } from "../metrics-server.ts";
import type { Replicator } from "../replication/replicator.ts";

/** Null if the default port is taken: a second walsync on one host replicates all the same. A chosen port must be free. */
export async function openMetrics(
  flags: { metricsPort: number; metricsListen: string; maxLag: number },
  isPortChosen: boolean,
  fleet: { readonly replicators: readonly Replicator[]; readonly refusals: readonly string[] },
): Promise<MetricsServer | null> {
  const { serveMetrics } = await import("../metrics-server.ts");
  const { measureProcess } = await import("../process-metrics.ts");
  const { measure } = await import("../replication/metrics.ts");
  const { faultsOf } = await import("../replication/health.ts");
  measureProcess({ version: VERSION, commit: COMMIT });
  measure(() => fleet.replicators);
  try {
    return serveMetrics(flags.metricsListen, flags.metricsPort, () =>
      faultsOf(fleet.replicators, flags.maxLag, fleet.refusals),
    );
  } catch (error) {
    if (isPortChosen || !(error instanceof WalsyncError)) throw error;
    logEvent("warn", "metrics are off", { port: flags.metricsPort, error: error.message, hint: error.hint });
    return null;
  }
}
