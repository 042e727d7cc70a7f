/** Has a restored database checked by a child of this program, which is as good as its limits. */
import { dirname } from "node:path";
import { errnoOf, messageOf } from "../errors.ts";
import { formatDuration } from "../quantities.ts";
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
  /** The kernel ended it because a check took too long. */
  isTimeout: boolean;
  /** How it ended, in words. */
  how: string;
}

async function askChild(request: CheckRequest, signal: AbortSignal): Promise<ChildEnd> {
  let child: Bun.Subprocess<Blob, "pipe", "pipe">;
  try {
    child = Bun.spawn(selfCommand(CHECK_ARGUMENT), {
      stdin: new Blob([JSON.stringify(request)]),
      stdout: "pipe",
      stderr: "pipe",
      // Nothing else: no credentials. What SQLite sorts goes where the restored file is, and away with it.
      env: { SQLITE_TMPDIR: dirname(request.path) },
      signal,
      killSignal: "SIGKILL",
    });
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return { results: [], isTimeout: false, how: `cannot be started: ${messageOf(error)}` };
  }
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const status = await child.exited;
  const { signalCode } = child;
  // What is behind the last line break was cut off.
  const lines = stdout.split("\n").slice(0, -1);
  const how = signalCode === null ? `ended with status ${status}` : `was killed by ${signalCode}`;
  return {
    results: lines.map((line) => JSON.parse(line) as CheckResult),
    isTimeout: String(signalCode) === "SIGALRM",
    how: `${how} ${stderr.trim()}`.trim(),
  };
}

function resultOfEnd({ isTimeout, how }: ChildEnd, limitSeconds: number): CheckResult {
  if (isTimeout) return { result: "timeout", found: `no end within ${formatDuration(limitSeconds * 1000)}` };
  return { result: "error", found: `the process that looks ${how}` };
}
