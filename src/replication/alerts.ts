/**
 * What somebody should be told about: each thing that goes wrong with a database once, and once that all is well again. What
 * comes and goes is told of as one trouble until the database was well for a while, so nobody is flooded.
 */
import type { ErrorCode, WalsyncError } from "../errors.ts";
import type { DamageKind } from "./faults.ts";
import { type Ailment, ailmentOf, type Patient } from "./health.ts";

export const ALERT_EVENTS = ["fenced", "failed", "integrity", "lag", "drill", "recovered"] as const;
export type AlertEvent = (typeof ALERT_EVENTS)[number];

export interface Alert {
  event: AlertEvent;
  database: string;
  code: ErrorCode | null;
  message: string;
  hint: string | undefined;
  /** Wall time. */
  atMs: number;
}

/** What was told about one database and is not over. */
export interface Raised {
  /** "lag", "failed E_DISK", "integrity outbox": told of already. */
  readonly told: readonly string[];
  /** Since when it has been well again; null while it is not. */
  readonly wellSinceMs: number | null;
}

export interface Watched extends Patient {
  readonly state: string;
}

/**
 * Decides what to tell after a look at a database. `raised` is what the look before returned; null if all was well. A database is
 * well again when nothing was wrong with it for `holdMs`. Pure.
 */
export function planAlert(
  raised: Raised | null,
  ailment: Ailment | null,
  isLive: boolean,
  nowMs: number,
  holdMs: number,
): { raised: Raised | null; tell: "ailment" | "recovered" | null } {
  if (ailment !== null) {
    const what = ailment.code === null ? ailment.kind : `${ailment.kind} ${ailment.code}`;
    const { raised: now, isNew } = withTold(raised, what);
    return { raised: now, tell: isNew ? "ailment" : null };
  }
  if (raised === null) return { raised: null, tell: null };
  if (!isLive) return { raised: { ...raised, wellSinceMs: null }, tell: null };
  const wellSinceMs = raised.wellSinceMs ?? nowMs;
  if (nowMs - wellSinceMs >= holdMs) return { raised: null, tell: "recovered" };
  return { raised: { ...raised, wellSinceMs }, tell: null };
}

export interface AlertSetup {
  /** Those that are watched now. */
  databases: () => Iterable<Watched>;
  /** 0: no lag is too long. */
  maxLagMs: number;
  send: (alert: Alert) => void;
}

/** Looks at all databases every few seconds, and is told of damage. */
export class AlertMonitor {
  readonly #setup: AlertSetup;
  readonly #holdMs: number;
  #raised = new Map<string, Raised>();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(setup: AlertSetup) {
    this.#setup = setup;
    this.#holdMs = setup.maxLagMs === 0 ? HOLD_MAX_MS : Math.min(HOLD_MAX_MS, setup.maxLagMs);
  }

  start(): void {
    const { maxLagMs } = this.#setup;
    const intervalMs = maxLagMs === 0 ? LOOK_MAX_MS : Math.min(LOOK_MAX_MS, Math.max(LOOK_MIN_MS, maxLagMs / 4));
    this.#timer = setInterval(() => this.look(), intervalMs);
  }

  /** Damage was found in `database`. It is told of once until the database is well again. */
  damaged(database: string, kind: DamageKind, { code, message, hint }: WalsyncError): void {
    const { raised, isNew } = withTold(this.#raised.get(database) ?? null, `integrity ${kind}`);
    this.#raised.set(database, raised);
    if (isNew) this.#setup.send({ event: "integrity", database, code, message, hint, atMs: Date.now() });
  }

  look(): void {
    const { databases, maxLagMs, send } = this.#setup;
    const atMs = Date.now();
    const before = this.#raised;
    // Only what is still watched is kept.
    this.#raised = new Map();
    for (const database of databases()) {
      const { name } = database;
      const known = before.get(name) ?? null;
      const ailment = ailmentOf(database, maxLagMs);
      const { raised, tell } = planAlert(known, ailment, database.state === "live", atMs, this.#holdMs);
      if (raised !== null) this.#raised.set(name, raised);
      if (tell === "recovered") {
        const message = `well again after: ${known!.told.join(", ")}`;
        send({ event: "recovered", database: name, code: null, message, hint: undefined, atMs });
      } else if (tell === "ailment") {
        const { kind, code, message, hint } = ailment!;
        send({ event: kind, database: name, code, message, hint, atMs });
      }
    }
  }

  /** Looks once more. */
  stop(): void {
    clearInterval(this.#timer);
    this.look();
  }
}

// --- internal ---

/** A database that was well for this long, or for as long as the longest lag if that is less, is well again. */
const HOLD_MAX_MS = 60_000;
const LOOK_MIN_MS = 250;
const LOOK_MAX_MS = 5000;

/** `raised` once `what` is told of, and whether it was not yet. */
function withTold(raised: Raised | null, what: string): { raised: Raised; isNew: boolean } {
  const told = raised?.told ?? [];
  const isNew = !told.includes(what);
  return { raised: { told: isNew ? [...told, what] : told, wellSinceMs: null }, isNew };
}
