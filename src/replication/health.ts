/** Whether a database is replicated as it should be: for /healthz, and for alerts. Decides only. */
import { type ErrorCode, messageOf, WalsyncError } from "../errors.ts";
import { formatDuration } from "../quantities.ts";

/** What is wrong with a database for as long as it lasts. */
export interface Ailment {
  /** "fenced": stopped for good. "failed": not read, or not captured. "lag": not shipped in time. */
  kind: "fenced" | "failed" | "lag";
  /** Stable code of the error behind it; null if there is none. */
  code: ErrorCode | null;
  message: string;
  hint: string | undefined;
}

/** What health depends on: a replicator. */
export interface Patient {
  readonly name: string;
  readonly fencedBy: unknown;
  readonly failure: WalsyncError | null;
  readonly trouble: string | null;
  readonly status: { lagMs: number } | null;
}

/** The worst that is wrong, or null. A lag of `maxLagMs` is no fault yet; 0: none is. */
export function ailmentOf({ fencedBy, failure, trouble, status }: Patient, maxLagMs: number): Ailment | null {
  if (fencedBy !== null) return ailmentBy("fenced", fencedBy);
  if (failure !== null) return ailmentBy("failed", failure);
  if (trouble !== null) return { kind: "failed", code: null, message: trouble, hint: undefined };
  const lagMs = status?.lagMs ?? 0;
  if (maxLagMs === 0 || lagMs <= maxLagMs) return null;
  return {
    kind: "lag",
    code: null,
    message: `not shipped for ${formatDuration(lagMs)}: more than the ${formatDuration(maxLagMs)} of --max-lag`,
    hint: "Is the destination reachable, and fast enough? The log says what it answers.",
  };
}

/** A line for each database that something is wrong with, and `others`; null if there is none. */
export function faultsOf(patients: Iterable<Patient>, maxLagMs: number, others: readonly string[] = []): string | null {
  const lines: string[] = [...others];
  for (const patient of patients) {
    const ailment = ailmentOf(patient, maxLagMs);
    if (ailment !== null) lines.push(`${patient.name}: ${ailment.message}`);
  }
  return lines.length === 0 ? null : lines.join("\n");
}

// --- internal ---

function ailmentBy(kind: Ailment["kind"], error: unknown): Ailment {
  const { code, hint } = error instanceof WalsyncError ? error : { code: null, hint: undefined };
  return { kind, code, message: messageOf(error), hint };
}
