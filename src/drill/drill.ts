/** A restore drill of one database: restores it, has it checked, and measures what a real loss would have cost. */
import { readChain, readTimeOf } from "../chain/chain.ts";
import { restorePoints } from "../chain/plan.ts";
import { monotonicMs } from "../clock.ts";
import type { Destination } from "../destination/destination.ts";
import { asDiskError } from "../durable.ts";
import { errnoOf, WalsyncError } from "../errors.ts";
import { restoreDatabase } from "../restore/restore.ts";
import type { RestoreTarget } from "../restore/restore-target.ts";
import type { Check } from "./check.ts";
import { runChecks } from "./checks.ts";
import type { LiveDatabases } from "./live.ts";
import type { DrillPlace } from "./place.ts";
import { type RestorePoint, recoveryOf } from "./recovery.ts";
import { type Assertion, type DrillOutcome, type DrillPolicy, faultsOf } from "./verdict.ts";

export interface DrillOptions {
  target: RestoreTarget;
  policy: DrillPolicy;
  place: DrillPlace;
  live: LiveDatabases;
  signal: AbortSignal;
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** Whatever is wrong in the world is part of the outcome. Throws the reason of `signal`, and bugs. Leaves nothing in `place`. */
export async function drillDatabase(
  destination: Destination,
  name: string,
  options: DrillOptions,
): Promise<DrillOutcome> {
  const { place, signal } = options;
  try {
    return await place.withFile((path) => drillInto(path, destination, name, options));
  } catch (error) {
    signal.throwIfAborted();
    const fault = errnoOf(error) === undefined ? error : asDiskError(name, error);
    if (!(fault instanceof WalsyncError)) throw fault;
    return { name, restored: null, rtoMs: null, recovery: null, integrity: null, assertions: [], faults: [fault] };
  }
}

// --- internal ---

async function drillInto(
  path: string,
  destination: Destination,
  name: string,
  { target, policy, place, live, signal, onProgress }: DrillOptions,
): Promise<DrillOutcome> {
  const atMs = Date.now();
  const liveState = await live.find(name);
  const startedMs = monotonicMs();
  const restored = await restoreDatabase(destination, name, path, {
    target,
    // What SQLite says of it is asked afterwards: a restore that is needed would not wait for the whole check.
    integrity: "none",
    force: false,
    signal,
    onSize: (sizeBytes) => place.requireRoom(sizeBytes),
    onProgress,
  });
  const rtoMs = monotonicMs() - startedMs;
  const newest = target.kind === "newest" ? restored : await newestPoint(destination, name, signal);
  const checks: Check[] = [
    { kind: "integrity" },
    ...policy.assertions.map((sql): Check => ({ kind: "assertion", sql })),
  ];
  const [integrity, ...others] = await runChecks(path, checks, { limitMs: policy.assertTimeoutMs, signal });
  const assertions = policy.assertions.map((sql, i): Assertion => ({ sql, ...others[i]! }));
  const recovery = recoveryOf(newest, liveState, atMs);
  const found = { name, restored, rtoMs, recovery, integrity: integrity!, assertions };
  return { ...found, faults: faultsOf(found, policy) };
}

async function newestPoint(destination: Destination, name: string, signal: AbortSignal): Promise<RestorePoint> {
  const { files } = await readChain(destination, name, signal);
  const txid = restorePoints(files).at(-1)!;
  return { txid, timestampMs: await readTimeOf(destination, files, txid, signal) };
}
