/** Has a restored database checked by a child of this program, which is as good as its limits. */
import { dirname } from "node:path";
import { formatDuration } from "../log.ts";
import { selfCommand } from "../self.ts";
import { CHECK_ARGUMENT, type Check, type CheckRequest, type CheckResult } from "./check.ts";

export interface ChecksOptions {
  /** For each assertion, in ms; rounded up to whole seconds. */
  limitMs: number;
  signal: AbortSignal;
}

/**
 * The result of each check of the file at `path`, in order. A check that takes the child down with it has that as its result, and
 * another child goes on with the next one. Throws the reason of `signal`, and what keeps a child from being started.
 */
export async function runChecks(
  path: string,
  checks: readonly Check[],
  { limitMs, signal }: ChecksOptions,
): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  const limitSeconds = Math.max(1, Math.ceil(limitMs / 1000));
  while (results.length < checks.length) {
    signal.throwIfAborted();
    const left = checks.slice(results.length);
    const end = await askChild({ path, checks: left, limitSeconds }, signal);
    signal.throwIfAborted();
    results.push(...end.results);
    if (end.results.length < left.length) results.push(resultOfEnd(end, limitSeconds));
  }
  return results;
}

// --- internal ---

interface ChildEnd {
  results: CheckResult[];
  status: number;
  killedBy: string | null;
  stderr: string;
}

async function askChild(request: CheckRequest, signal: AbortSignal): Promise<ChildEnd> {
  const child = Bun.spawn(selfCommand(CHECK_ARGUMENT), {
    stdin: new Blob([JSON.stringify(request)]),
    stdout: "pipe",
    stderr: "pipe",
    // Nothing else: no credentials. What SQLite sorts goes where the restored file is, and away with it.
    env: { SQLITE_TMPDIR: dirname(request.path) },
    signal,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const status = await child.exited;
  // What is behind the last line break was cut off.
  const lines = stdout.split("\n").slice(0, -1);
  const results = lines.map((line) => JSON.parse(line) as CheckResult);
  return { results, status, killedBy: child.signalCode === null ? null : String(child.signalCode), stderr };
}

function resultOfEnd({ status, killedBy, stderr }: ChildEnd, limitSeconds: number): CheckResult {
  if (killedBy === "SIGALRM") {
    return { result: "timeout", found: `no end within ${formatDuration(limitSeconds * 1000)}` };
  }
  const how = killedBy === null ? `ended with status ${status}` : `was killed by ${killedBy}`;
  return { result: "error", found: `the process that looked ${how} ${stderr.trim()}`.trim() };
}
