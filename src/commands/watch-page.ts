/** The status page of a watch, which is loaded when somebody opens it. */
import { hostname } from "node:os";
import { resolve } from "node:path";
import { VERSION } from "../cli/version.ts";
import { parseDestinationUrl } from "../destination/open.ts";
import { DESTINATION_FLAGS, type DestinationFlags } from "../engine/destination.ts";
import { type EncryptionFlags, isSealed } from "../engine/encryption.ts";
import type { Watch } from "../engine/watch.ts";
import type { WatchSettings } from "../engine/watch-settings.ts";
import type { OtherPaths } from "../metrics-server.ts";
import type { Replicator } from "../replication/replicator.ts";
import type { DatabaseRow } from "../status-page/protocol.ts";
import type { StatusPage } from "../status-page/status-page.ts";

export interface LazyPage {
  answer: OtherPaths;
  stop(): void;
}

/** The page of a watch. Until it is asked for something, nothing of it is in memory. */
export function statusPageOf(
  watch: Watch,
  flags: DestinationFlags & EncryptionFlags & Pick<WatchSettings, "maxLag">,
): LazyPage {
  const startedAt = new Date().toISOString();
  let page: StatusPage | null = null;
  const load = async (): Promise<StatusPage> => {
    const { StatusPage } = await import("../status-page/status-page.ts");
    const { conditionOf } = await import("../status-page/view.ts");
    const { ailmentOf } = await import("../replication/health.ts");
    const { reportOf } = await import("../replication/report.ts");
    const rowOf = (replicator: Replicator): DatabaseRow => {
      const report = reportOf(replicator, watch.drillOf(replicator));
      const ailment = ailmentOf(replicator, flags.maxLag);
      const trouble = ailment === null ? null : { ...ailment, hint: ailment.hint ?? null };
      return { ...report, trouble, condition: conditionOf(report, trouble) };
    };
    // Two requests may have waited for the modules.
    return (page ??= new StatusPage({
      facts: {
        version: VERSION,
        pid: process.pid,
        host: hostname(),
        started_at: startedAt,
        destination: watch.destination.url,
        place: placeOf(flags),
      },
      destination: watch.destination,
      rows: () => watch.fleet.replicators.map(rowOf),
    }));
  };
  return {
    answer: async (request, server) => (page ?? (await load())).answer(request, server),
    stop: () => page?.stop(),
  };
}

/** What `walsync restore` has to be told to find the files of this watch, from any directory. */
export function placeOf(flags: DestinationFlags & EncryptionFlags): string[] {
  const { bucket, endpoint, region, forcePathStyle } = flags;
  const address = parseDestinationUrl(bucket);
  if (address.kind === "directory") return ["-b", resolve(address.path), ...identityOf(flags)];
  const words = ["-b", bucket];
  if (endpoint !== undefined) words.push("--endpoint", endpoint);
  if (region !== DESTINATION_FLAGS.region.default) words.push("--region", region);
  if (forcePathStyle) words.push("--force-path-style");
  return [...words, ...identityOf(flags)];
}

// --- internal ---

/** A watch that has none does not know where whoever restores keeps his: then it is called as in docs/ENCRYPTION.md. */
function identityOf(flags: EncryptionFlags): string[] {
  if (flags.identity !== undefined) return ["--identity", resolve(flags.identity)];
  return isSealed(flags) ? ["--identity", "key.txt"] : [];
}
