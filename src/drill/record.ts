/**
 * What is known of the drills of one database: drill.json in its state folder, so that neither the time of its next drill nor what
 * the metrics say depends on restarts of the watch.
 */
import { readFileSync } from "node:fs";
import { asDiskError, writeFileDurably } from "../durable.ts";
import { logEvent } from "../log.ts";

export interface DrillRecord {
  /** Of the database at the destination. */
  readonly name: string;
  /** URL of the destination. */
  readonly destination: string;
  /** When the last one ended. */
  readonly atMs: number;
  /** When the last one that went well ended; null if none did. */
  readonly successAtMs: number | null;
  /** Of the last one; null if it did not get so far. */
  readonly rtoSeconds: number | null;
  readonly rpoSeconds: number | null;
  /** Why the last one failed; null if it did not. */
  readonly error: string | null;
}

/** Null if there is none of this name and destination. One that cannot be read is none: the next drill writes another. */
export function readDrillRecord(path: string, name: string, destination: string): DrillRecord | null {
  try {
    const record = JSON.parse(readFileSync(path, "utf8")) as DrillRecord;
    return record.name === name && record.destination === destination && isWhole(record) ? record : null;
  } catch {
    return null;
  }
}

/** If it cannot be written, that is told, and what the drill found counts all the same. */
export function writeDrillRecord(path: string, record: DrillRecord): void {
  try {
    writeFileDurably(path, Buffer.from(`${JSON.stringify(record)}\n`));
  } catch (error) {
    const { code, message, hint } = asDiskError(path, error);
    logEvent("warn", "result of a drill cannot be kept", { database: record.name, code, error: message, hint });
  }
}

// --- internal ---

function isWhole({ atMs, successAtMs, rtoSeconds, rpoSeconds, error }: DrillRecord): boolean {
  const isNumberOrNull = (value: unknown) => value === null || Number.isFinite(value);
  return (
    Number.isFinite(atMs) &&
    [successAtMs, rtoSeconds, rpoSeconds].every(isNumberOrNull) &&
    (error === null || typeof error === "string")
  );
}
