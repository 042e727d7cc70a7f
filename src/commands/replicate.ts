/** `walsync replicate`: a local read copy of a database at a destination, kept current. */
import { basename } from "node:path";
import { defineWalsyncCommand } from "../cli/command.ts";
import { requireName } from "../destination/layout.ts";
import { parseDestinationUrl } from "../destination/open.ts";
import { sleep } from "../destination/retry.ts";
import { WalsyncError } from "../errors.ts";
import { logEvent, print, printJson } from "../log.ts";
import { defineGauge } from "../metrics.ts";
import type { FollowStep } from "../restore/follow.ts";
import { DESTINATION_FLAGS, destinationOf } from "./destination.ts";
import { REPLICATE_RESULT } from "./results.ts";

const { bucket: _bucket, ...PLACE_FLAGS } = DESTINATION_FLAGS;

export default defineWalsyncCommand({
  meta: { name: "replicate", description: "Keep a local read copy of a database current" },
  positionals: {
    source: { required: true, description: "s3://bucket/name or a directory: destination and name in one" },
  },
  flags: {
    local: { type: "string", required: true, placeholder: "FILE", description: "the copy; made if it is not there" },
    interval: { type: "duration", default: "5", description: "time between two looks at the destination" },
    once: { type: "boolean", description: "bring the copy up to date once, and end" },
    "metrics-port": { type: "integer", min: 1, max: 65535, description: "serve /metrics and /healthz on 127.0.0.1" },
    ...PLACE_FLAGS,
    json: { type: "boolean", description: "with --once: print the result as JSON" },
  },
  examples: [
    [
      "walsync replicate s3://backups/prod/app --local copy.db",
      "Until it is stopped, never more than 5 s behind what is shipped",
    ],
    ["walsync replicate s3://backups/prod/app --local copy.db --once", "Once, for example from cron"],
  ],
  result: REPLICATE_RESULT,
  async run({ flags, positionals, env, signal }) {
    const { bucket, name } = splitSource(positionals.source);
    requireName(name);
    const destination = await destinationOf({ ...flags, bucket }, env, signal);
    const { acquireLock } = await import("../replication/lock.ts");
    const { Follower, replicaFolder } = await import("../restore/follow.ts");
    const lock = acquireLock(replicaFolder(flags.local), flags.local);
    try {
      const follower = new Follower(destination, name, flags.local);
      try {
        if (flags.once) {
          const step = await follower.step(signal);
          if (flags.json) printJson({ name, local: flags.local, ...summary(step) });
          else print(`${flags.local}: ${name} at txid ${step.txid} of ${new Date(step.timestampMs).toISOString()}`);
          return;
        }
        await followOn(() => follower.step(signal), name, flags, signal);
      } finally {
        follower.close();
      }
    } finally {
      lock.release();
      destination.close();
    }
  },
});

/** Faults that end it: nothing heals them but a person. */
const FINAL: ReadonlySet<string> = new Set(["E_OUTPUT_EXISTS", "E_DATABASE", "E_REFUSED", "E_USAGE"]);

/** A name may have slashes, and a prefix too: everything behind the bucket, or below the directory, is the name. */
function splitSource(source: string): { bucket: string; name: string } {
  const address = parseDestinationUrl(source);
  if (address.kind === "s3") {
    const [place, query] = source.split("?", 2);
    const bucket = `s3://${address.bucket}${query === undefined ? "" : `?${query}`}`;
    if (address.prefix === "") throw withoutName(place!);
    return { bucket, name: address.prefix };
  }
  const path = address.path.replace(/\/+$/, "");
  const name = basename(path);
  if (name === "") throw withoutName(source);
  return { bucket: path.slice(0, -name.length) || ".", name };
}

function withoutName(source: string): WalsyncError {
  return new WalsyncError("E_USAGE", `${source}: expected the name of a database behind the destination, found none`, {
    hint: "Write s3://bucket/prefix/name. walsync list shows the names.",
  });
}

async function followOn(
  step: () => Promise<FollowStep>,
  name: string,
  flags: { interval: number; metricsPort: number | undefined; local: string },
  signal: AbortSignal,
): Promise<void> {
  let last: FollowStep | null = null;
  let currentAtMs = 0;
  let fault: string | null = "no state yet";
  const labels = { database: name };
  defineGauge("walsync_replica_txid", "Transaction that the copy is at.", () => [[labels, Number(last?.txid ?? 0n)]]);
  defineGauge(
    "walsync_replica_lag_seconds",
    "Time since the copy was last known to be at the end of the chain.",
    () => [[labels, currentAtMs === 0 ? 0 : (Date.now() - currentAtMs) / 1000]],
  );
  const { serveMetrics } = await import("../metrics-server.ts");
  const metrics = flags.metricsPort === undefined ? null : serveMetrics("127.0.0.1", flags.metricsPort, () => fault);
  let failures = 0;
  try {
    while (!signal.aborted) {
      try {
        const reached = await step();
        if (reached.kind !== "current" || last === null) {
          logEvent(reached.kind === "increments" ? "debug" : "info", "copy is current", {
            database: name,
            ...summary(reached),
          });
        }
        if (failures > 0) logEvent("info", "copy is current again", { database: name });
        last = reached;
        currentAtMs = Date.now();
        fault = null;
        failures = 0;
      } catch (error) {
        if (signal.aborted) break;
        if (!(error instanceof WalsyncError) || FINAL.has(error.code)) throw error;
        fault = error.message;
        // Loud at once, then ever more rarely; readers keep the state before.
        if ((failures & ++failures) === 0) {
          const { code, hint } = error;
          logEvent("error", "copy is not brought up to date", { database: name, code, error, attempt: failures, hint });
        }
      }
      await sleep(flags.interval, signal).catch(() => {});
    }
  } finally {
    metrics?.stop();
  }
}

function summary({ txid, kind, fileCount }: FollowStep) {
  return { txid, reason: kind, files: fileCount };
}
