/** Medians, ranges and ratios of what several rounds measured. Pure. */

export interface Spread {
  median: number;
  low: number;
  high: number;
  rounds: number;
}

/** Fewer rounds say nothing about how far a figure moves by itself. */
export const RATIO_ROUNDS_MIN = 2;

/** Null if nothing was measured. */
export function spreadOf(samples: readonly number[]): Spread | null {
  if (samples.length === 0) return null;
  const [low, median, high] = [quantile(samples, 0), medianOf(samples), quantile(samples, 1)];
  return { low, median, high, rounds: samples.length };
}

/** The median of `ours` as a share of that of `theirs`. Null for fewer than two rounds of either, or a share of nothing. */
export function ratioOf(ours: readonly number[], theirs: readonly number[]): number | null {
  if (Math.min(ours.length, theirs.length) < RATIO_ROUNDS_MIN) return null;
  const base = medianOf(theirs);
  return base > 0 ? medianOf(ours) / base : null;
}

/** The smallest of the values that at least this share of them does not exceed. There must be a value. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

/** The contenders of round `round` (from 0), in the order in which they run: A B, B A, A B ... */
export function orderOf<T>(contenders: readonly T[], round: number): T[] {
  return round % 2 === 0 ? [...contenders] : contenders.toReversed();
}

// --- internal ---

function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
