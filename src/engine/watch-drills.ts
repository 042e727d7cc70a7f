/** The restore drills of a watch: each database in its turn, one at a time for the whole process, in a child. */
import type { DrillSummary } from "../control.ts";
import { type ChildDrill, runDrillChild } from "../drill/drill-child.ts";
import { type DrillRecord, drillFailures, measureDrills } from "../drill/metrics.ts";
import { NOT_READY_MS, nextDrillMs } from "../drill/rota.ts";
import { type DrillPolicy, worstOf } from "../drill/verdict.ts";
import { logEvent } from "../log.ts";
import type { Alert } from "../replication/alerts.ts";
import type { Replicator } from "../replication/replicator.ts";
import { Schedule } from "../schedule.ts";
import type { DestinationFlags } from "./destination.ts";
import { drillPolicyOf } from "./drill-settings.ts";
import type { WatchSettings } from "./watch-settings.ts";

/** How one database is drilled. */
export interface DrillPlan {
  /** 0: never. */
  intervalMs: number;
  policy: DrillPolicy;
  tempDir: string | undefined;
}

export function drillPlanOf(settings: WatchSettings): DrillPlan {
  const { drillInterval, drillAssert, drillAssertTimeout, drillMaxRto, drillMaxRpo, drillTempDir } = settings;
  return {
    intervalMs: drillInterval,
    policy: drillPolicyOf({
      assert: drillAssert,
      assertTimeout: drillAssertTimeout,
      maxRto: drillMaxRto,
      maxRpo: drillMaxRpo,
    }),
    tempDir: drillTempDir,
  };
}

/** The flags with which a child finds the destination of the watch. */
export function drillFlagsOf({ bucket, endpoint, region, forcePathStyle }: DestinationFlags): string[] {
  return [
    `--bucket=${bucket}`,
    `--region=${region}`,
    ...(endpoint === undefined ? [] : [`--endpoint=${endpoint}`]),
    ...(forcePathStyle ? ["--force-path-style"] : []),
  ];
}

export class WatchDrills {
  readonly #destination: readonly string[];
  readonly #tell: (alert: Alert) => void;
  readonly #schedule = new Schedule<Replicator>();
  readonly #plans = new Map<Replicator, DrillPlan>();
  readonly #records = new Map<string, DrillRecord>();
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | null = null;
  #isStarted = false;

  /** `destination`: see `drillFlagsOf`. Nothing happens before `start`. */
  constructor(destination: readonly string[], tell: (alert: Alert) => void) {
    this.#destination = destination;
    this.#tell = tell;
  }

  /** Drills a database from now on by this plan. */
  follow(replicator: Replicator, plan: DrillPlan): void {
    const isMoved = this.#plans.get(replicator)?.intervalMs !== plan.intervalMs;
    this.#plans.set(replicator, plan);
    if (isMoved) this.#setNext(replicator);
    this.#setTimer();
  }

  /** Leaves it alone. A drill of it that is under way has no consequence. */
  release(replicator: Replicator): void {
    this.#plans.delete(replicator);
    this.#records.delete(replicator.name);
    this.#schedule.set(replicator, Number.POSITIVE_INFINITY);
  }

  start(): void {
    this.#isStarted = true;
    measureDrills(() => this.#records.values());
    this.#setTimer();
  }

  /** Ends the one that is under way; its child removes what it restored. */
  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#working;
  }

  /** Null before the first drill. */
  summaryOf(name: string): DrillSummary | null {
    const record = this.#records.get(name);
    if (record === undefined) return null;
    const { atMs, error, rtoSeconds, rpoSeconds } = record;
    return { at: new Date(atMs).toISOString(), error, rto_seconds: rtoSeconds, rpo_seconds: rpoSeconds };
  }

  #setNext(replicator: Replicator): void {
    const intervalMs = this.#plans.get(replicator)?.intervalMs ?? 0;
    const dueMs = intervalMs === 0 ? Number.POSITIVE_INFINITY : nextDrillMs(replicator.name, intervalMs, Date.now());
    this.#schedule.set(replicator, dueMs);
  }

  #setTimer(): void {
    clearTimeout(this.#timer);
    const { nextDueMs } = this.#schedule;
    if (!this.#isStarted || this.#stop.signal.aborted || this.#working !== null || !Number.isFinite(nextDueMs)) return;
    const delayMs = Math.min(TIMER_MAX_MS, Math.max(0, nextDueMs - Date.now()));
    this.#timer = setTimeout(() => {
      this.#working = this.#work().finally(() => {
        this.#working = null;
        this.#setTimer();
      });
    }, delayMs);
  }

  async #work(): Promise<void> {
    for (;;) {
      const replicator = this.#schedule.takeDue(Date.now());
      if (replicator === undefined || this.#stop.signal.aborted) return;
      const plan = this.#plans.get(replicator)!;
      // Before its first snapshot there is nothing to restore.
      if ((replicator.position?.snapshotTxid ?? 0n) === 0n) {
        this.#schedule.set(replicator, Date.now() + Math.min(plan.intervalMs, NOT_READY_MS));
        continue;
      }
      const drill = await runDrillChild(replicator.name, [...this.#destination, ...flagsOf(plan)], this.#stop.signal);
      if (drill === null || !this.#plans.has(replicator)) continue;
      this.#record(drill);
      this.#setNext(replicator);
    }
  }

  #record(drill: ChildDrill): void {
    const { name, restored, rto_seconds, rpo_seconds, faults } = drill;
    const before = this.#records.get(name);
    const atMs = Date.now();
    const worst = worstOf(faults);
    this.#records.set(name, {
      name,
      atMs,
      successAtMs: worst === null ? atMs : (before?.successAtMs ?? null),
      rtoSeconds: rto_seconds,
      rpoSeconds: rpo_seconds,
      error: worst?.message ?? null,
    });
    const alert = { database: name, atMs };
    if (worst === null) {
      const durationMs = rto_seconds === null ? undefined : rto_seconds * 1000;
      logEvent("info", "restore drill went well", { database: name, sizeBytes: restored?.bytes, durationMs });
      if (before !== undefined && before.error !== null) {
        const message = "well again after: drill";
        this.#tell({ ...alert, event: "recovered", code: null, message, hint: undefined });
      }
      return;
    }
    const { code, message } = worst;
    const hint = worst.hint ?? undefined;
    drillFailures.add({ database: name, code });
    for (const fault of faults) {
      const fields = { database: name, code: fault.code, error: fault.message, hint: fault.hint ?? undefined };
      logEvent("error", "restore drill failed", fields);
    }
    if ((before?.error ?? null) === null) this.#tell({ ...alert, event: "drill", code, message, hint });
  }
}

// --- internal ---

const TIMER_MAX_MS = 60 * 60_000;

function flagsOf({ policy, tempDir }: DrillPlan): string[] {
  const { assertions, assertTimeoutMs, maxRtoMs, maxRpoMs } = policy;
  return [
    ...assertions.map((sql) => `--assert=${sql}`),
    `--assert-timeout=${assertTimeoutMs}ms`,
    `--max-rto=${maxRtoMs}ms`,
    `--max-rpo=${maxRpoMs}ms`,
    ...(tempDir === undefined ? [] : [`--temp-dir=${tempDir}`]),
  ];
}
