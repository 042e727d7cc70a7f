/** What `drill --json` says: the words in which a watch hears from its drills, too. */
import type { ErrorCode } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import type { CheckResult } from "./check.ts";
import type { Assertion, DrillOutcome } from "./verdict.ts";

/** Its fields are described in docs/JSON.md. Times are ISO 8601. */
export interface DatabaseDrill<T = Txid> {
  name: string;
  ok: boolean;
  rto_seconds: number | null;
  rpo_seconds: number | null;
  restored: { txid: T; time: string; files: number; fetched_bytes: number; bytes: number } | null;
  newest: { txid: T; time: string; age_seconds: number } | null;
  missing_transactions: T | null;
  integrity: CheckResult | null;
  assertions: readonly Assertion[];
  faults: readonly DrillFault[];
}

export interface DrillFault {
  code: ErrorCode;
  message: string;
  hint: string | null;
}

export function reportOf({
  name,
  restored,
  rtoMs,
  recovery,
  integrity,
  assertions,
  faults,
}: DrillOutcome): DatabaseDrill {
  return {
    name,
    ok: faults.length === 0,
    rto_seconds: rtoMs === null ? null : secondsOf(rtoMs),
    rpo_seconds: recovery === null ? null : secondsOf(recovery.rpoMs),
    restored: restored && {
      txid: restored.txid,
      time: isoOf(restored.timestampMs),
      files: restored.fileCount,
      fetched_bytes: restored.fetchedBytes,
      bytes: restored.sizeBytes,
    },
    newest: recovery && {
      txid: recovery.newest.txid,
      time: isoOf(recovery.newest.timestampMs),
      age_seconds: secondsOf(recovery.ageMs),
    },
    missing_transactions: recovery?.missing ?? null,
    integrity,
    assertions,
    faults: faults.map(({ code, message, hint }) => ({ code, message, hint: hint ?? null })),
  };
}

// --- internal ---

/** To the millisecond. */
function secondsOf(durationMs: number): number {
  return Math.round(durationMs) / 1000;
}

function isoOf(timestampMs: number): string {
  return new Date(timestampMs).toISOString();
}
