/** What a database is doing, apart from what runs in the background. */
import type { WalsyncError } from "../errors.ts";

export type Phase =
  /** Not begun, or stopped. */
  | { kind: "closed" }
  /** Open, not pinned; the destination has yet to say where its chain ends. */
  | { kind: "waiting" }
  /** Captures. */
  | { kind: "live" }
  /** The whole database is read; captures begin after it. */
  | { kind: "scanning" }
  /** Cannot be opened or read; tried again at `retryAtMs`, or from `soonestMs` on when something happens to its file. */
  | { kind: "failed"; retryAtMs: number; soonestMs: number }
  /** The file is gone, and that is no fault: what is captured is shipped. */
  | { kind: "vanished" }
  /** Another writer owns the name. For good. */
  | { kind: "fenced"; error: unknown };

/** Time until one that is being closed is looked at again. */
export const CLOSING_MS = 20;

/** When a database that cannot be opened or read is tried again. */
export function failedPhase(fault: WalsyncError, nowMs: number): Extract<Phase, { kind: "failed" }> {
  const retryAtMs = nowMs + RETRY_MS;
  // A file that comes back is worth a look at once; a disk that is full is not, and opening makes events of its own.
  const soonestMs = fault.code === "E_DATABASE" ? nowMs + RETRY_SOON_MS : retryAtMs;
  return { kind: "failed", retryAtMs, soonestMs };
}

// --- internal ---

const RETRY_MS = 10_000;
const RETRY_SOON_MS = 250;
