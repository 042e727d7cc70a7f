/** When each database of a watch is drilled. Pure. */

/** A database that has nothing to restore yet is looked at again after this time. */
export const NOT_READY_MS = 60_000;

/**
 * The next moment of its own that a database has in every interval of the host's clock: the moments of many are spread over the
 * interval, and a restart neither moves nor repeats them. Always later than `nowMs`.
 */
export function nextDrillMs(name: string, intervalMs: number, nowMs: number): number {
  const ownMs = Math.floor((Bun.hash.xxHash32(name) / 2 ** 32) * intervalMs);
  return (Math.floor((nowMs - ownMs) / intervalMs) + 1) * intervalMs + ownMs;
}
