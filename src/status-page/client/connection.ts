/** The live feed: one stream of events that is opened again whenever it ends, and none while nobody sees the page. */
import { EVENTS_PATH, type Query, TICK_MS, type Update } from "../protocol.ts";

export type LinkState =
  | { kind: "connecting" }
  | { kind: "live" }
  /** `sinceMs`: when the last update came. */
  | { kind: "lost"; sinceMs: number; retryAtMs: number }
  /** As many pages are open as the watch keeps up to date. */
  | { kind: "crowded"; retryAtMs: number };

export interface ConnectionHandlers {
  onUpdate(update: Update): void;
  onState(state: LinkState): void;
}

export class Connection {
  readonly #handlers: ConnectionHandlers;
  #query: Query;
  #source: EventSource | null = null;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #lastMs = Date.now();

  constructor(query: Query, handlers: ConnectionHandlers) {
    this.#query = query;
    this.#handlers = handlers;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#close();
      else this.#open();
    });
    if (!document.hidden) this.#open();
  }

  /** Shows another part of the list. */
  ask(query: Query): void {
    this.#query = query;
    if (!document.hidden) this.#open();
  }

  #open(): void {
    this.#close();
    const { search, filter, order, page, open } = this.#query;
    const params = new URLSearchParams({ search, filter, order, page: String(page), open: open ?? "" });
    const source = new EventSource(`${EVENTS_PATH}?${params}`);
    this.#source = source;
    source.onmessage = ({ data }: MessageEvent<string>) => {
      this.#failures = 0;
      this.#lastMs = Date.now();
      this.#awaitNext();
      this.#handlers.onState({ kind: "live" });
      this.#handlers.onUpdate(JSON.parse(data) as Update);
    };
    source.addEventListener("crowded", () => this.#lose("crowded"));
    source.onerror = () => this.#lose("lost");
    this.#awaitNext();
  }

  /** A connection that is silent is lost, too: a machine that went away says nothing. */
  #awaitNext(): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lose("lost"), SILENCE_MAX_MS);
  }

  #lose(kind: "lost" | "crowded"): void {
    this.#close();
    const delayMs = kind === "crowded" ? CROWDED_RETRY_MS : Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** this.#failures++);
    const retryAtMs = Date.now() + delayMs;
    this.#retry = setTimeout(() => this.#open(), delayMs);
    this.#handlers.onState(kind === "crowded" ? { kind, retryAtMs } : { kind, retryAtMs, sinceMs: this.#lastMs });
  }

  #close(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#watchdog);
    this.#source?.close();
    this.#source = null;
  }
}

// --- internal ---

const SILENCE_MAX_MS = 6 * TICK_MS;
const RETRY_MS = 1000;
const RETRY_MAX_MS = 15_000;
const CROWDED_RETRY_MS = 10_000;
