/** The restore drills of a watch: each database in its turn, one at a time for the whole process, in a child. */
import type { DrillSummary } from "../control.ts";
import { type ChildDrill, runDrillChild } from "../drill/drill-child.ts";
import { drillFailures, measureDrills } from "../drill/metrics.ts";
import { type DrillRecord, readDrillRecord, writeDrillRecord } from "../drill/record.ts";
import { NOT_READY_MS, nextDrillMs } from "../drill/rota.ts";
import { type DrillPolicy, worstOf } from "../drill/verdict.ts";
import { WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { Alert } from "../replication/alerts.ts";
import type { Replicator } from "../replication/replicator.ts";
import { Schedule } from "../schedule.ts";
import type { DestinationFlags } from "./destination.ts";
import { drillPolicyOf } from "./drill-settings.ts";
import { type EncryptionFlags, isSealed } from "./encryption.ts";
import type { WatchSettings } from "./watch-settings.ts";

/** How one database is drilled. */
export interface DrillPlan {
  /** 0: never. */
  intervalMs: number;
  policy: DrillPolicy;
  tempDir: string | undefined;
}

/** Throws E_IDENTITY for drills that could not read what is shipped. */
export function drillPlanOf(settings: WatchSettings): DrillPlan {
  const { drillInterval, drillAssert, drillAssertTimeout, drillMaxRto, drillMaxRpo, drillTempDir } = settings;
  if (drillInterval > 0 && isSealed(settings)) throw unreadable();
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

/** The flags with which a child finds the destination of the watch, and reads what is encrypted there. */
export function drillFlagsOf(flags: DestinationFlags & EncryptionFlags): string[] {
  const { bucket, endpoint, region, forcePathStyle, recipient = [], recipientsFile, identity } = flags;
  return [
    `--bucket=${bucket}`,
    `--region=${region}`,
    ...(endpoint === undefined ? [] : [`--endpoint=${endpoint}`]),
    ...(forcePathStyle ? ["--force-path-style"] : []),
    ...recipient.map((one) => `--recipient=${one}`),
    ...(recipientsFile === undefined ? [] : [`--recipients-file=${recipientsFile}`]),
    ...(identity === undefined ? [] : [`--identity=${identity}`]),
  ];
}

export class WatchDrills {
  readonly #url: string;
  readonly #destination: readonly string[];
  readonly #tell: (alert: Alert) => void;
  readonly #schedule = new Schedule<Replicator>();
  readonly #drilled = new Map<Replicator, Drilled>();
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | null = null;
  #isStarted = false;

  /** `url` is that of the destination, for `destination` see `drillFlagsOf`. Nothing happens before `start`. */
  constructor(url: string, destination: readonly string[], tell: (alert: Alert) => void) {
    this.#url = url;
    this.#destination = destination;
    this.#tell = tell;
  }

  /** Drills a database from now on by this plan. The results are kept in the file `path`, whose folder is that of its state. */
  follow(replicator: Replicator, plan: DrillPlan, path: string): void {
    const record = plan.intervalMs === 0 ? null : readDrillRecord(path, replicator.name, this.#url);
    this.#drilled.set(replicator, { plan, path, record });
    this.#setNext(replicator);
    this.#setTimer();
  }

  /** Another plan holds for it from now on. */
  adjust(replicator: Replicator, plan: DrillPlan): void {
    const drilled = this.#drilled.get(replicator);
    if (drilled === undefined || Bun.deepEquals(drilled.plan, plan)) return;
    this.follow(replicator, plan, drilled.path);
  }

  /** Leaves it alone. A drill of it that is under way has no consequence. */
  release(replicator: Replicator): void {
    this.#drilled.delete(replicator);
    this.#schedule.set(replicator, Number.POSITIVE_INFINITY);
  }

  start(): void {
    this.#isStarted = true;
    measureDrills(() => this.#records());
    this.#setTimer();
  }

  /** Ends the one that is under way; its child removes what it restored. */
  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#working;
  }

  /** Null before the first drill. */
  summaryOf(replicator: Replicator): DrillSummary | null {
    const record = this.#drilled.get(replicator)?.record ?? null;
    if (record === null) return null;
    const { atMs, error, rtoSeconds, rpoSeconds } = record;
    return { at: new Date(atMs).toISOString(), error, rto_seconds: rtoSeconds, rpo_seconds: rpoSeconds };
  }

  #records(): DrillRecord[] {
    return [...this.#drilled.values()].map(({ record }) => record).filter((record) => record !== null);
  }

  #setNext(replicator: Replicator): void {
    const { plan, record } = this.#drilled.get(replicator)!;
    const { intervalMs } = plan;
    const dueMs =
      intervalMs === 0
        ? Number.POSITIVE_INFINITY
        : nextDrillMs(replicator.name, intervalMs, record?.atMs ?? null, Date.now());
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
      const { plan } = this.#drilled.get(replicator)!;
      // Before its first snapshot there is nothing to restore.
      if ((replicator.position?.snapshotTxid ?? 0n) === 0n) {
        this.#schedule.set(replicator, Date.now() + Math.min(plan.intervalMs, NOT_READY_MS));
        continue;
      }
      const drill = await runDrillChild(replicator.name, [...this.#destination, ...flagsOf(plan)], this.#stop.signal);
      const drilled = this.#drilled.get(replicator);
      if (drill === null || drilled === undefined) continue;
      this.#record(drilled, drill);
      this.#setNext(replicator);
    }
  }

  #record(drilled: Drilled, drill: ChildDrill): void {
    const { name, restored, rto_seconds, rpo_seconds, faults } = drill;
    const before = drilled.record;
    const atMs = Date.now();
    const worst = worstOf(faults);
    drilled.record = {
      name,
      destination: this.#url,
      atMs,
      successAtMs: worst === null ? atMs : (before?.successAtMs ?? null),
      rtoSeconds: rto_seconds,
      rpoSeconds: rpo_seconds,
      error: worst?.message ?? null,
    };
    writeDrillRecord(drilled.path, drilled.record);
    const alert = { database: name, atMs };
    if (worst === null) {
      const durationMs = rto_seconds === null ? undefined : rto_seconds * 1000;
      logEvent("info", "restore drill went well", { database: name, sizeBytes: restored?.bytes, durationMs });
      if (before !== null && before.error !== null) {
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

interface Drilled {
  plan: DrillPlan;
  path: string;
  record: DrillRecord | null;
}

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

function unreadable(): WalsyncError {
  return new WalsyncError(
    "E_IDENTITY",
    "--drill-interval: expected an identity that reads what is encrypted, found none",
    {
      hint: "Give --identity, or leave out the drills here and run walsync drill where the identity is.",
    },
  );
}
