/**
 * Runs simulated worlds: `bun run simulate [--seed S] [--seeds N] [--steps N] [--trace]`. Prints the seed and the trace of
 * the first one that breaks a law, and exits 1.
 */
import { World } from "../test/simulation/world.ts";

const args = process.argv.slice(2);
const number = (name: string, otherwise: number): number => {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? otherwise : Number(args[at + 1]);
};
const seeds = number("seeds", 1);
const first = number("seed", 1);
const steps = number("steps", 60);

const totals: Record<string, number> = {};
const startedMs = performance.now();
for (let seed = first; seed < first + seeds; seed++) {
  const outcome = await new World(seed).run(steps);
  for (const [what, count] of Object.entries(outcome.counts)) totals[what] = (totals[what] ?? 0) + count;
  if (outcome.failure !== null || args.includes("--trace")) console.log(outcome.trace.join("\n"));
  if (outcome.failure === null) continue;
  console.log(`seed ${seed}, after ${outcome.steps} steps: ${outcome.failure}`);
  process.exit(1);
}
const seconds = (performance.now() - startedMs) / 1000;
console.log(`${seeds} seeds from ${first}, ${steps} steps each, no law broken, ${seconds.toFixed(1)} s`);
console.log(
  Object.entries(totals)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([what, count]) => `${what} ${count}`)
    .join(", "),
);
process.exit(0);
