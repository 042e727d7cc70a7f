/** The lags of every database in the last two minutes, for as long as somebody looks. */
import type { DatabaseRow } from "./protocol.ts";
import { HISTORY_SAMPLES } from "./protocol.ts";

/** A ring of HISTORY_SAMPLES numbers for each database: 480 bytes. */
export class LagHistory {
  readonly #rings = new Map<string, Float32Array>();
  /** Where each ring began to be written, counted in samples. */
  readonly #firsts = new Map<string, number>();
  #samples = 0;

  /** Takes one sample of each; databases that are gone are forgotten. */
  record(rows: readonly DatabaseRow[]): void {
    const at = this.#samples++ % HISTORY_SAMPLES;
    for (const { name, lag_seconds } of rows) {
      let ring = this.#rings.get(name);
      if (ring === undefined) {
        this.#rings.set(name, (ring = new Float32Array(HISTORY_SAMPLES)));
        this.#firsts.set(name, this.#samples - 1);
      }
      ring[at] = lag_seconds;
    }
    if (this.#rings.size === rows.length) return;
    const names = new Set(rows.map(({ name }) => name));
    for (const name of this.#rings.keys()) {
      if (names.has(name)) continue;
      this.#rings.delete(name);
      this.#firsts.delete(name);
    }
  }

  /** In seconds, oldest first, to the millisecond. */
  of(name: string): number[] {
    const ring = this.#rings.get(name);
    if (ring === undefined) return [];
    const first = Math.max(this.#firsts.get(name)!, this.#samples - HISTORY_SAMPLES);
    return Array.from({ length: this.#samples - first }, (_, i) => {
      const sample = ring[(first + i) % HISTORY_SAMPLES]!;
      return Math.round(sample * 1000) / 1000;
    });
  }
}
