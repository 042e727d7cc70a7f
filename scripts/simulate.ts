/**
 * Runs simulated worlds: `bun run simulate [--seed S] [--seeds N] [--steps N] [--trace]`. At the first one that breaks a law
 * it prints the seed, and the trace of as few steps as break it; exits 1.
 */
import { parseArgs } from "node:util";
import { type Outcome, World } from "../test/simulation/world.ts";

const USAGE = "usage: bun run simulate [--seed FIRST] [--seeds COUNT] [--steps COUNT] [--trace]";
const PROGRESS_EVERY = 1000;

const given = readArguments();
const [first, seeds, steps] = [given.seed, given.seeds, given.steps].map(Number) as [number, number, number];

const totals: Record<string, number> = {};
const startedMs = performance.now();
for (let seed = first; seed < first + seeds; seed++) {
  const outcome = await new World(seed).run(steps);
  for (const [what, count] of Object.entries(outcome.counts)) totals[what] = (totals[what] ?? 0) + count;
  if (given.trace) console.log(outcome.trace.join("\n"));
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

/** A mistyped flag would run one seed, and say that no law is broken. */
function readArguments() {
  const count = (otherwise: string) => ({ type: "string", default: otherwise }) as const;
  const options = {
    seed: count("1"),
    seeds: count("1"),
    steps: count("60"),
    trace: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  } as const;
  try {
    const { values } = parseArgs({ options });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    for (const name of ["seed", "seeds", "steps"] as const) {
      if (!/^\d{1,9}$/.test(values[name])) throw new Error(`--${name}: expected a whole number, found ${values[name]}`);
    }
    return values;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    process.exit(2);
  }
}

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
