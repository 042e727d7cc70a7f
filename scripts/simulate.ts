/**
 * Runs simulated worlds: `bun run simulate [--seed S] [--seeds N] [--steps N] [--trace]`. At the first one that breaks a law
 * it prints the seed, and the trace of as few steps as break it; exits 1.
 */
import { type Outcome, World } from "../test/simulation/world.ts";

const args = process.argv.slice(2);
const number = (name: string, otherwise: number): number => {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? otherwise : Number(args[at + 1]);
};
const seeds = number("seeds", 1);
const first = number("seed", 1);
const steps = number("steps", 60);
const PROGRESS_EVERY = 1000;

const totals: Record<string, number> = {};
const startedMs = performance.now();
for (let seed = first; seed < first + seeds; seed++) {
  const outcome = await new World(seed).run(steps);
  for (const [what, count] of Object.entries(outcome.counts)) totals[what] = (totals[what] ?? 0) + count;
  if (args.includes("--trace")) console.log(outcome.trace.join("\n"));
  const done = seed - first + 1;
  if (done % PROGRESS_EVERY === 0 && done < seeds) console.error(`${done} of ${seeds} seeds`);
  if (outcome.failure === null) continue;
  const { smallest, kept } = await shrink(seed, outcome);
  console.log(smallest.trace.join("\n"));
  console.log(`seed ${seed}, after ${outcome.steps} steps: ${outcome.failure}`);
  console.log(`the trace is of the steps ${kept.join(" ")}, which come to: ${smallest.failure}`);
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

/** Leaves out steps, many at once and then fewer, as long as a law is still broken. */
async function shrink(seed: number, found: Outcome): Promise<{ smallest: Outcome; kept: number[] }> {
  let kept = Array.from({ length: found.steps }, (_, step) => step);
  let smallest = found;
  for (let size = Math.ceil(kept.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < kept.length; ) {
      const fewer = kept.toSpliced(from, size);
      const skipped = new Set(Array.from({ length: steps }, (_, step) => step).filter((step) => !fewer.includes(step)));
      const outcome = await new World(seed).run(steps, skipped);
      if (outcome.failure === null) from += size;
      else {
        kept = fewer;
        smallest = outcome;
      }
    }
  }
  return { smallest, kept };
}
