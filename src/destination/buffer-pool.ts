/**
 * A few large buffers, shared by all uploads of one destination: they bound its memory, however many databases ship at
 * once. They are made when needed and dropped when no upload is left.
 */
import { KiB } from "../bytes.ts";
import { Gate } from "./limit.ts";

/** Smaller sources need no place in the pool: what they take is bounded by the requests in flight. */
const SMALL_SIZE = 256 * KiB;

export class BufferPool {
  readonly #gate: Gate;
  readonly #idle: Buffer[] = [];
  #users = 0;

  constructor(limit: number) {
    this.#gate = new Gate(limit);
  }

  /** Runs `action` with a buffer of exactly `size` bytes, which is borrowed until it ends. May wait for one. */
  async use<T>(size: number, signal: AbortSignal | undefined, action: (buffer: Buffer) => Promise<T>): Promise<T> {
    if (size <= SMALL_SIZE) return await action(Buffer.allocUnsafeSlow(size));
    this.#users++;
    try {
      return await this.#gate.run(async () => {
        let buffer = this.#idle.pop();
        if (buffer === undefined || buffer.length < size) buffer = Buffer.allocUnsafeSlow(size);
        try {
          return await action(buffer.subarray(0, size));
        } finally {
          this.#idle.push(buffer);
        }
      }, signal);
    } finally {
      if (--this.#users === 0) this.#idle.length = 0;
    }
  }
}
