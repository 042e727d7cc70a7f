/** What is checked in a restored database, and what came of it: the words between a drill and the child that looks. */

export type Check = { kind: "integrity" } | { kind: "assertion"; sql: string };

/** "untrue": looked at, and not as it must be. "error": could not be asked. "timeout": did not end in time. */
export interface CheckResult {
  result: "ok" | "untrue" | "error" | "timeout";
  /** What was found; empty if it is ok. */
  found: string;
}

/** What the child reads from standard input, as JSON. It answers with the result of each check, as a line of JSON. */
export interface CheckRequest {
  /** The restored file. */
  path: string;
  checks: readonly Check[];
  /** For each assertion, in whole seconds. */
  limitSeconds: number;
}

/** Makes the program that child: its only argument. */
export const CHECK_ARGUMENT = "check-restored";
