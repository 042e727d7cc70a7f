/** What the running watches of this user know of the databases that are drilled. */
import { monotonicMs } from "../clock.ts";
import { type RunningWatch, runningWatches } from "../control.ts";
import { messageOf } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { LiveState } from "./recovery.ts";

export class LiveDatabases {
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #destination: string;
  #asked: { atMs: number; watches: Promise<RunningWatch[]> } | null = null;

  /** Of watches that replicate to the URL `destination`. */
  constructor(env: Readonly<Record<string, string | undefined>>, destination: string) {
    this.#env = env;
    this.#destination = destination;
  }

  /** Null if no watch has the database, or none can be asked. May be some seconds old. */
  async find(name: string): Promise<LiveState | null> {
    for (const { destination, databases } of await this.#watches()) {
      const found = destination === this.#destination ? databases.find((one) => one.name === name) : undefined;
      // Before its first transaction it has nothing to compare with.
      if (found === undefined || found.txid === 0) continue;
      const { txid, shipped_txid, lag_seconds } = found;
      return { txid: BigInt(txid), shippedTxid: BigInt(shipped_txid), lagMs: lag_seconds * 1000 };
    }
    return null;
  }

  /** One answer is about a thousand databases: it serves all drills that begin within a few seconds. */
  async #watches(): Promise<RunningWatch[]> {
    const nowMs = monotonicMs();
    if (this.#asked === null || nowMs - this.#asked.atMs > ANSWER_HOLDS_MS) {
      const watches = runningWatches(this.#env).catch((error: unknown) => {
        logEvent("debug", "no watch can be asked", { error: messageOf(error) });
        return [];
      });
      this.#asked = { atMs: nowMs, watches };
    }
    return await this.#asked.watches;
  }
}

// --- internal ---

const ANSWER_HOLDS_MS = 2000;
