/** A command of a document as its reader gives it: to a shell. */
import { expect } from "bun:test";

/** Runs it in `cwd` to its end, with nothing but `env` in its environment, and expects success. Returns what it printed. */
export async function runShell(
  command: string,
  { cwd, env }: { cwd: string; env: Record<string, string | undefined> },
): Promise<string> {
  const child = Bun.spawn(["bash", "-c", command], { cwd, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  expect({ command, status: await child.exited, stdout, stderr }).toMatchObject({ status: 0 });
  return stdout;
}
