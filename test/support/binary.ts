/** The compiled executable, as a user runs it. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";

const REPOSITORY = resolve(import.meta.dir, "../..");

/** Path of dist/walsync. scripts/test builds it before the tests; on its own, `bun run build` does. */
export function compiledBinary(): string {
  const path = join(REPOSITORY, "dist", "walsync");
  if (!existsSync(path)) throw new Error(`${path}: expected the compiled program, found none; run: bun run build`);
  return path;
}

export interface Finished {
  status: number;
  stdout: string;
  stderr: string;
}

/** Runs the program to its end. Only `env` is in its environment, beside PATH. */
export async function runBinary(args: readonly string[], env: Record<string, string> = {}): Promise<Finished> {
  const child = Bun.spawn([compiledBinary(), ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { status: await child.exited, stdout, stderr };
}
