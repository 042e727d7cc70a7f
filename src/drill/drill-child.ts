/**
 * A drill that a watch has run by a child of its own program. In the process of the watch it would hold up captures: restoring
 * 414 MB there kept the event loop busy for up to 1.7 s at a time, and 2.4 s with PRAGMA integrity_check (99th percentile 50 ms);
 * beside a child with a low priority the longest pause was 11 ms (idle: 4 ms), and the memory goes with the child.
 */
import { setPriority } from "node:os";
import { awaitChild } from "../children.ts";
import { errnoOf, isErrorCode, messageOf } from "../errors.ts";
import { selfCommand } from "../self.ts";
import type { DatabaseDrill } from "./report.ts";

/** What a child said of its database. */
export type ChildDrill = DatabaseDrill<number | string>;

/** Runs `walsync drill` for one database with these flags. When `signal` aborts it is asked to clean up and end, and null is returned. */
export async function runDrillChild(
  name: string,
  flags: readonly string[],
  signal: AbortSignal,
): Promise<ChildDrill | null> {
  // The settings are those of the watch, whatever walsync.toml says by now.
  const common = ["--config", "/dev/null", "--quiet", "--log-format", "json", "--json"];
  let child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  try {
    child = Bun.spawn(selfCommand("drill", ...common, ...flags, "--", name), {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return readResult(name, "", "", `that it cannot be started: ${messageOf(error)}`);
  }
  awaitChild(child);
  beNice(child.pid);
  let killer: NodeJS.Timeout | undefined;
  const end = () => {
    child.kill("SIGTERM");
    killer = setTimeout(() => child.kill("SIGKILL"), CLEANING_MS);
  };
  // Whatever ends this process: nobody would read what it says.
  const onExit = () => child.kill("SIGTERM");
  signal.addEventListener("abort", end);
  process.on("exit", onExit);
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const status = await child.exited;
  signal.removeEventListener("abort", end);
  process.off("exit", onExit);
  clearTimeout(killer);
  if (signal.aborted) return null;
  return readResult(name, stdout, stderr, child.signalCode === null ? `status ${status}` : String(child.signalCode));
}

/** The result of `name` in what the child wrote; what kept it from writing one is a fault. Pure. */
export function readResult(name: string, stdout: string, stderr: string, how: string): ChildDrill {
  const report = parse(stdout) as { databases: ChildDrill[] } | null;
  const found = report?.databases.find((drill) => drill.name === name);
  if (found !== undefined) return found;
  const { code, error, hint } = (parse(stderr.trimEnd().split("\n").at(-1) ?? "") ?? {}) as Record<string, unknown>;
  const message = typeof error === "string" ? error : `${name}: expected a drill to end with a result, found ${how}`;
  return {
    name,
    ok: false,
    rto_seconds: null,
    rpo_seconds: null,
    restored: null,
    newest: null,
    missing_transactions: null,
    integrity: null,
    assertions: [],
    faults: [{ code: isErrorCode(code) ? code : "E_DRILL", message, hint: typeof hint === "string" ? hint : null }],
  };
}

// --- internal ---

/** Whatever else wants the processor comes first. */
const NICENESS = 10;
/** For a child that was asked to end. */
const CLEANING_MS = 2000;

function beNice(pid: number): void {
  try {
    setPriority(pid, NICENESS);
  } catch {
    // It has ended already, or the system has no such thing: nothing depends on it.
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
