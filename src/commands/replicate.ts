/** `walsync replicate`: a local read copy of a database at a destination, kept current. */
import { mkdirSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { defineWalsyncCommand } from "../cli/command.ts";
import { COMMIT, VERSION } from "../cli/version.ts";
import { monotonicMs } from "../clock.ts";
import { requireListedName, UNNAMED } from "../destination/layout.ts";
import { parseDestinationUrl } from "../destination/open.ts";
import { sleep } from "../destination/retry.ts";
import { asDiskError } from "../durable.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
import { WalsyncError } from "../errors.ts";
import { isToldOf, logEvent, print, printJson, progress } from "../log.ts";
import { measureProcess } from "../process-metrics.ts";
import type { FollowStep } from "../restore/follow.ts";
import { failures as failedSteps, measureReplica, steps } from "../restore/metrics.ts";
import { REPLICATE_RESULT } from "./results.ts";

const { bucket: _bucket, ...PLACE_FLAGS } = DESTINATION_FLAGS;

export default defineWalsyncCommand({
  meta: { name: "replicate", description: "Keep a local read copy of a database current" },
  positionals: {
    source: {
      required: true,
      description:
        "s3://bucket/name or a directory: destination and name in one; a bucket alone is the replica at its root",
    },
  },
  flags: {
    local: { type: "string", required: true, placeholder: "FILE", description: "the copy; made if it is not there" },
    interval: { type: "duration", default: "5s", description: "time between two looks at the destination" },
    once: { type: "boolean", description: "bring the copy up to date once, and end" },
    "metrics-port": { type: "integer", min: 1, max: 65535, description: "serve /metrics and /healthz on 127.0.0.1" },
    ...PLACE_FLAGS,
    ...ENCRYPTION_FLAGS,
    json: { type: "boolean", description: "with --once: print the result as JSON" },
  },
  examples: [
    [
      "walsync replicate s3://backups/prod/app --local copy.db",
      "Until it is stopped, never more than 5 s behind what is shipped",
    ],
    [
      "walsync replicate s3://backups/prod/app --local copy.db --interval 1m --metrics-port 16768",
      "A look a minute, which costs one request; how far behind it is at http://127.0.0.1:16768/metrics",
    ],
    ["walsync replicate s3://backups/prod/app --local copy.db --once --json", "Once, for example from cron"],
  ],
  result: REPLICATE_RESULT,
  async run({ flags, positionals, env, signal }) {
    const { bucket, name } = splitSource(positionals.source);
    requireListedName(name);
    const destination = await destinationOf({ ...flags, bucket }, env, signal);
    const { acquireLock } = await import("../replication/lock.ts");
    const { Follower } = await import("../restore/follow.ts");
    const { replicaFolder } = await import("../restore/replica-state.ts");
    makeFolderOf(flags.local);
    const lock = acquireLock(replicaFolder(flags.local), flags.local);
    const shown = restoreProgress(name);
    try {
      const follower = new Follower(destination, name, flags.local, { onProgress: shown.update });
      const step = (): Promise<FollowStep> => follower.step(signal).finally(shown.end);
      try {
        if (flags.once) tell(await step(), name, flags);
        else await followOn(step, name, flags, signal);
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
/** Faults of what is at the destination: each attempt may fetch all of it in vain. */
const COSTLY: ReadonlySet<string> = new Set(["E_LTX", "E_INTEGRITY", "E_CHAIN_GAP"]);
const COSTLY_DELAY_MAX_MS = 300_000;

function tell(step: FollowStep, name: string, { local, json }: { local: string; json: boolean }): void {
  const { txid, kind, fileCount, timestampMs } = step;
  const time = new Date(timestampMs).toISOString();
  if (json) printJson({ name, local, txid, time, reason: kind, files: fileCount });
  else print(`${local}: ${name} at txid ${txid} of ${time}`);
}

/** Readers of the copy may be other users: unlike the folder of its state, its own is an ordinary one. */
function makeFolderOf(local: string): void {
  try {
    mkdirSync(dirname(resolve(local)), { recursive: true });
  } catch (error) {
    throw asDiskError(local, error);
  }
}

function restoreProgress(name: string) {
  let shown: ReturnType<typeof progress> | undefined;
  return {
    update: (doneBytes: number, totalBytes: number): void => {
      shown ??= progress(`restore ${name}`, totalBytes);
      shown.update(doneBytes);
    },
    end: (): void => {
      shown?.end();
      shown = undefined;
    },
  };
}

/**
 * A name may have slashes, and a prefix too: everything behind the bucket, or below the directory, is the name. Nothing behind
 * the bucket is the database whose files lie right there.
 */
function splitSource(source: string): { bucket: string; name: string } {
  const address = parseDestinationUrl(source);
  if (address.kind === "s3") {
    const query = source.split("?", 2)[1];
    const bucket = `s3://${address.bucket}${query === undefined ? "" : `?${query}`}`;
    return { bucket, name: address.prefix === "" ? UNNAMED : address.prefix };
  }
  const path = address.path.replace(/\/+$/, "");
  const name = basename(path);
  if (name === "") {
    throw new WalsyncError("E_USAGE", `${source}: expected the folder of a database, found none`, {
      hint: "Write the destination and the name in one: /backups/app. walsync list shows the names.",
    });
  }
  return { bucket: path.slice(0, -name.length) || ".", name };
}

async function followOn(
  step: () => Promise<FollowStep>,
  name: string,
  flags: { interval: number; metricsPort: number | undefined; local: string },
  signal: AbortSignal,
): Promise<void> {
  let last: FollowStep | null = null;
  let currentAtMs: number | null = null;
  let fault: string | null = "no state yet";
  measureProcess({ version: VERSION, commit: COMMIT });
  measureReplica(name, () => ({ txid: last?.txid ?? null, capturedAtMs: last?.timestampMs ?? null, currentAtMs }));
  const { serveMetrics } = await import("../metrics-server.ts");
  const metrics = flags.metricsPort === undefined ? null : serveMetrics("127.0.0.1", flags.metricsPort, () => fault);
  let failures = 0;
  let delayMs = flags.interval;
  try {
    while (!signal.aborted) {
      const startedMs = monotonicMs();
      try {
        const reached = await step();
        steps.observe({ database: name, kind: reached.kind }, monotonicMs() - startedMs);
        if (reached.kind !== "current" || last === null || failures > 0) {
          const { txid, kind: reason, fileCount: files } = reached;
          logEvent("info", "copy is current", { database: name, txid, reason, files });
        }
        last = reached;
        currentAtMs = Date.now();
        fault = null;
        failures = 0;
        delayMs = flags.interval;
      } catch (error) {
        if (signal.aborted) break;
        if (!(error instanceof WalsyncError) || FINAL.has(error.code)) throw error;
        fault = error.message;
        failedSteps.add({ database: name, code: error.code });
        // Readers keep the state before.
        if (isToldOf(++failures)) logFailure(name, error, failures);
        if (COSTLY.has(error.code)) delayMs = Math.max(flags.interval, Math.min(delayMs * 2, COSTLY_DELAY_MAX_MS));
        else delayMs = flags.interval;
      }
      await sleep(delayMs, signal).catch(() => {});
    }
  } finally {
    metrics?.stop();
  }
}

function logFailure(name: string, error: WalsyncError, attempt: number): void {
  const { code, hint } = error;
  const fields = { database: name, code, error, attempt, hint };
  if (code === "E_NOT_FOUND") logEvent("warn", "waiting for the first snapshot", fields);
  else logEvent("error", "copy is not brought up to date", fields);
}
