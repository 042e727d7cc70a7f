/** What can be wrong with a database that is watched, and saying it once. */
import { statSync } from "node:fs";
import { DestinationError, errnoOf, messageOf, WalsyncError } from "../errors.ts";
import { type LogFields, type LogLevel, logEvent } from "../log.ts";
import { damages } from "./metrics.ts";

/** What was found damaged: pages of the database, files at the destination, files that wait for it. */
export type DamageKind = "database" | "destination" | "outbox";
export type DamageListener = (kind: DamageKind, error: WalsyncError) => void;

/** Reports the faults of one database: each when it begins, not at every try. */
export class FaultLog {
  readonly #name: string;
  readonly #path: string;
  readonly #onDamage: DamageListener | undefined;
  /** What was reported last. */
  #last = "";

  constructor(name: string, path: string, onDamage: DamageListener | undefined) {
    this.#name = name;
    this.#path = path;
    this.#onDamage = onDamage;
  }

  report(event: string, error: unknown): void {
    const { code, hint } = error instanceof WalsyncError ? error : { code: undefined, hint: undefined };
    const message = messageOf(error);
    this.#reportOnce(message, event, { path: this.#path, code, error: message, hint });
  }

  /** The database will be made by somebody else: no fault yet. */
  reportAwaited(): void {
    const event = "waiting for the database";
    this.#reportOnce(event, event, { path: this.#path }, "info");
  }

  /** Damage is counted and told on at every find. */
  reportDamage(kind: DamageKind, error: WalsyncError): void {
    damages.add({ database: this.#name, kind });
    this.report(DAMAGE_EVENTS[kind], error);
    this.#onDamage?.(kind, error);
  }

  /** Returns what it says. */
  reportFull(sizeBytes: number, totalBytes: number): string {
    const event = "capture pauses: the outbox is full";
    this.#reportOnce(event, event, { sizeBytes, totalBytes });
    return event;
  }

  /** Things go well again: the next fault is news. */
  clear(): void {
    this.#last = "";
  }

  #reportOnce(what: string, event: string, fields: LogFields, level: LogLevel = "error"): void {
    if (what === this.#last) return;
    this.#last = what;
    logEvent(level, event, { database: this.#name, ...fields });
  }
}

/** True if there is no file, or one without a first page: that of a database whose first transaction is under way. */
export function isNotYetMade(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0;
}

export function replaced(path: string): WalsyncError {
  return new WalsyncError("E_DATABASE", `${path}: expected the file that was opened, found another one or none`, {
    hint: "walsync opens the new file and compares it with what was shipped.",
  });
}

/** Pages are not what the transactions of the WAL made of them. */
export function changed(path: string): WalsyncError {
  return new WalsyncError("E_INTEGRITY", `${path}: expected the pages that were captured, found others`, {
    hint: "Something wrote to the file without SQLite, or the disk is failing: run PRAGMA integrity_check. What differs is shipped.",
  });
}

/** Files that the destination had acknowledged are not there any more. */
export function missing(name: string, reason: string): WalsyncError {
  return new WalsyncError(
    "E_INTEGRITY",
    `${name}: expected the files that were acknowledged, found some missing: ${reason}`,
    {
      hint: "Somebody or something deleted objects at the destination. A snapshot follows; walsync verify tells what else is missing.",
    },
  );
}

/** Stopping was given too little time, or the destination never answered: what was committed last is not captured. */
export function unfinished(path: string): WalsyncError {
  return new DestinationError(
    `${path}: expected to capture and ship everything at the end, found no time left for it`,
    {
      retryable: true,
      hint: "Nothing is lost: the next start compares the database with what was shipped. See --shutdown-timeout.",
    },
  );
}

/** The watch was stopped while somebody waited for it. */
export function letGo(name: string): WalsyncError {
  return new DestinationError(`${name}: expected what is committed to be shipped, found that the watch has stopped`, {
    retryable: true,
    hint: "Nothing is lost: the next start ships what is left.",
  });
}

/** Captures wait for the destination. */
export function noRoom(path: string, reason: string): WalsyncError {
  return new WalsyncError("E_DISK", `${path}: expected to capture what is committed, found: ${reason}`, {
    hint: "The database keeps it until the destination has taken what waits. See --max-outbox.",
  });
}

/** A fault of SQLite or of the file system as E_DATABASE. Throws what is neither: that is a bug. */
export function asFault(path: string, error: unknown): WalsyncError {
  if (error instanceof WalsyncError) return error;
  if (errnoOf(error) === undefined) throw error;
  return new WalsyncError("E_DATABASE", `${path}: cannot be read: ${messageOf(error)}`, { cause: error });
}

// --- internal ---

const DAMAGE_EVENTS: Record<DamageKind, string> = {
  database: "the database changed behind the WAL",
  destination: "files are missing at the destination: a snapshot follows",
  outbox: "the outbox is damaged: the chain goes on with a comparison",
};
