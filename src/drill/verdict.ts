/** What a drill found, and whether that is good enough. Pure. */
import { type ErrorCode, exitStatus, WalsyncError } from "../errors.ts";
import { formatDuration } from "../quantities.ts";
import type { RestoreResult } from "../restore/restore.ts";
import type { CheckResult } from "./check.ts";
import type { Recovery } from "./recovery.ts";

/** What is asked of a drill. */
export interface DrillPolicy {
  /** Queries whose rows must all begin with something true, at least one of them. */
  assertions: readonly string[];
  /** For each of these. */
  assertTimeoutMs: number;
  /** What a restore may take, and what may be lost; 0: anything. */
  maxRtoMs: number;
  maxRpoMs: number;
}

export interface Assertion extends CheckResult {
  sql: string;
}

/** What a drill of one database came to know. Null: it did not get so far. */
export interface DrillOutcome {
  name: string;
  restored: RestoreResult | null;
  /** From the first listing to the file that is proven and durable. */
  rtoMs: number | null;
  recovery: Recovery | null;
  integrity: CheckResult | null;
  assertions: readonly Assertion[];
  /** Empty: the drill went well. */
  faults: readonly WalsyncError[];
}

/** What is wrong with a restore that took place. */
export function faultsOf(
  { name, rtoMs, recovery, integrity, assertions }: Omit<DrillOutcome, "faults">,
  { maxRtoMs, maxRpoMs }: DrillPolicy,
): WalsyncError[] {
  const faults: WalsyncError[] = [];
  if (integrity !== null && integrity.result !== "ok") faults.push(notWhole(name, integrity));
  for (const { sql, result, found } of assertions) {
    if (result !== "ok") faults.push(drillFault(name, `this to be true: ${sql}`, found));
  }
  const limits = [
    ["a restore within", maxRtoMs, rtoMs, "--max-rto"],
    ["nothing to be lost that is older than", maxRpoMs, recovery?.rpoMs ?? null, "--max-rpo"],
  ] as const;
  for (const [expected, limitMs, foundMs, flag] of limits) {
    if (limitMs === 0 || foundMs === null || foundMs <= limitMs) continue;
    faults.push(drillFault(name, `${expected} ${formatDuration(limitMs)} (${flag})`, formatDuration(foundMs)));
  }
  return faults;
}

/** The one that decides on the exit status; null if there is none. */
export function worstOf<F extends { code: ErrorCode }>(faults: readonly F[]): F | null {
  const rank = ({ code }: F): number => BY_WEIGHT.indexOf(exitStatus(new WalsyncError(code, "")));
  return faults.reduce<F | null>((worst, fault) => (worst === null || rank(fault) < rank(worst) ? fault : worst), null);
}

// --- internal ---

/** Exit statuses, the worst first: the copy is bad, there is none, it cannot be reached; then what this host is to blame for. */
const BY_WEIGHT = [5, 4, 3, 7, 6, 2];

function notWhole(name: string, { result, found }: CheckResult): WalsyncError {
  return new WalsyncError("E_INTEGRITY", `${name}: expected PRAGMA integrity_check to say ok, found: ${found}`, {
    hint:
      result === "untrue"
        ? "The source was damaged already when it was captured: run PRAGMA integrity_check there."
        : "Restore it with walsync restore --integrity full, and look at the file.",
  });
}

function drillFault(name: string, expected: string, found: string): WalsyncError {
  return new WalsyncError("E_DRILL", `${name}: expected ${expected}, found ${found}`, {
    hint: "The restore itself went well. Look at what it gives with: walsync restore",
  });
}
