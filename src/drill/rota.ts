/** When each database of a watch is drilled. Pure. */

/** A database that has nothing to restore yet is looked at again after this time. */
export const NOT_READY_MS = 60_000;

/**
 * When a database is drilled next, if its last drill ended at `lastAtMs`; null: it never was. It has a moment of its own in each interval
 * of the host's clock, so that those of many are spread over it and no restart moves them. A moment that went by without a drill,
 * because nothing ran then, is made up for within an hour.
 */
export function nextDrillMs(name: string, intervalMs: number, lastAtMs: number | null, nowMs: number): number {
  const share = Bun.hash.xxHash32(name) / 2 ** 32;
  const ownMs = Math.floor(share * intervalMs);
  const nextMs = (Math.floor((nowMs - ownMs) / intervalMs) + 1) * intervalMs + ownMs;
  if (lastAtMs !== null && lastAtMs >= nextMs - intervalMs) return nextMs;
  return Math.min(nextMs, nowMs + Math.floor(share * CATCHING_UP_MS));
}

// --- internal ---

/** Not all at once: after a night without power everything is behind. */
const CATCHING_UP_MS = 60 * 60_000;
