// Goal: whatever happens between an application, walsync and a bucket, every restore point is a state that the database
// had, in order, and the end is never lost. And the simulation would notice: every deliberate bug is found.
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { CANARIES } from "./canaries.ts";

const ROOT = resolve(import.meta.dir, "../..");
const SEEDS = 250;
const STEPS = 60;
/** Enough for each canary to be found, wherever the search begins. */
const CANARY_SEEDS = 1500;
/** As many digits as the program takes. */
const random = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 999_999_999));
const copies: string[] = [];

afterAll(() => {
  for (const copy of copies) rmSync(copy, { recursive: true, force: true });
});

describe("simulated worlds", () => {
  test.concurrent.each([1, random])(
    `${SEEDS} seeds from %p break no law`,
    async (first) => {
      const { status, output } = await simulate(ROOT, first, SEEDS);
      expect(output).toContain("no law broken");
      expect(status).toBe(0);
    },
    300_000,
  );
});

describe("canaries", () => {
  test.concurrent.each(CANARIES)(
    "it is noticed when $name",
    async ({ file, from, to, seed }) => {
      const copy = mkdtempSync(join(tmpdir(), "walsync-canary-"));
      copies.push(copy);
      for (const part of ["src", "test/simulation", "scripts/simulate.ts", "package.json", "tsconfig.json"]) {
        cpSync(join(ROOT, part), join(copy, part), { recursive: true });
      }
      symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
      const text = readFileSync(join(copy, file), "utf8");
      expect(text.split(from).length - 1).toBe(1);
      writeFileSync(join(copy, file), text.replace(from, to));
      const { status, output } = await simulate(copy, seed, CANARY_SEEDS);
      expect(output).toMatch(/^seed \d+, after/m);
      expect(status).toBe(1);
    },
    300_000,
  );
});

test.each(["--seds 500", "--seeds many"])("%s is refused, and not one seed run instead", (flags) => {
  const command = [process.execPath, join(ROOT, "scripts/simulate.ts"), ...flags.split(" ")];
  const { exitCode, stderr } = Bun.spawnSync(command);
  expect(exitCode).toBe(2);
  expect(stderr.toString()).toContain("usage: bun run simulate");
});

async function simulate(root: string, first: number, seeds: number): Promise<{ status: number; output: string }> {
  const args = ["--seed", String(first), "--seeds", String(seeds), "--steps", String(STEPS)];
  const child = Bun.spawn([process.execPath, join(root, "scripts/simulate.ts"), ...args], {
    cwd: root,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { status: await child.exited, output: stdout + stderr };
}
