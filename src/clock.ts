/**
 * Two kinds of time. Wall time (`Date.now`, `...AtMs` of positions and files) is what people ask for, and jumps with the
 * host's clock. Monotonic time (`nowMs`) only ever grows, and is the one for intervals: its origin means nothing.
 */
export function monotonicMs(): number {
  return performance.now();
}
