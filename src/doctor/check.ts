/** Checks as data: each is a name and a small function that says how things are and what to do about it. */
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";

/** What a check found. Whatever is not in order comes with what to do. */
export type Verdict =
  | { result: "ok" | "skipped"; message: string }
  | { result: "warning" | "failed"; message: string; hint: string };

export interface Check<Context> {
  check: string;
  /** Checks of the same group without which this one means nothing: it is skipped if one of them is not "ok" or "warning". */
  needs?: readonly string[];
  /** An error of the world that it throws is a failure, with its own hint. */
  run(context: Context): Verdict | Promise<Verdict>;
}

export interface CheckResult {
  /** What was looked at: "host", the path of a database, the URL of a destination. */
  subject: string;
  check: string;
  result: Verdict["result"];
  message: string;
  hint: string | null;
}

/** Checks of one subject, in order. */
export interface CheckGroup<Context> {
  subject: string;
  checks: readonly Check<Context>[];
  context: Context;
}

/** Runs the checks one after the other. Throws only for bugs, and the reason of a signal that a check was given. */
export async function runChecks<Context>(group: CheckGroup<Context>): Promise<CheckResult[]> {
  const { subject, checks, context } = group;
  const results: CheckResult[] = [];
  for (const check of checks) {
    const missing = check.needs?.find((name) => !holds(results.find((result) => result.check === name)));
    const verdict = missing === undefined ? await verdictOf(check, context) : skipped(`needs: ${missing}`);
    const { result, message } = verdict;
    results.push({ subject, check: check.check, result, message, hint: "hint" in verdict ? verdict.hint : null });
  }
  return results;
}

export function ok(message: string): Verdict {
  return { result: "ok", message };
}

export function skipped(message: string): Verdict {
  return { result: "skipped", message };
}

export function warning(message: string, hint: string): Verdict {
  return { result: "warning", message, hint };
}

export function failed(message: string, hint: string): Verdict {
  return { result: "failed", message, hint };
}

// --- internal ---

const NO_HINT = "Run walsync doctor with --verbose, and look at the message.";

function holds(result: CheckResult | undefined): boolean {
  return result?.result === "ok" || result?.result === "warning";
}

async function verdictOf<Context>(check: Check<Context>, context: Context): Promise<Verdict> {
  try {
    return await check.run(context);
  } catch (error) {
    if (error instanceof WalsyncError) return failed(messageOf(error), error.hint ?? NO_HINT);
    if (errnoOf(error) !== undefined) return failed(messageOf(error), NO_HINT);
    throw error;
  }
}
