/** Events of a watch that begins before anybody can listen. */
import type { WatchEvent } from "../engine/watch.ts";

/** Keeps events until somebody takes them. */
export class EventQueue {
  #waiting: WatchEvent[] = [];
  #take: ((event: WatchEvent) => void) | null = null;

  push(event: WatchEvent): void {
    if (this.#take === null) this.#waiting.push(event);
    else this.#take(event);
  }

  deliver(take: (event: WatchEvent) => void): void {
    this.#take = take;
    for (const event of this.#waiting.splice(0)) take(event);
  }
}
