/** What a database is doing, apart from what runs in the background. */
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
