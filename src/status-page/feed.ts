/**
 * Server-sent events: each page gets the rows that it shows, and afterwards what changed of them, once a second. One clock for
 * all pages, and none while nobody looks.
 */
import { KiB } from "../bytes.ts";
import { redact } from "../log.ts";
import { LagHistory } from "./lag-history.ts";
import {
  type DatabaseRow,
  type Query,
  type RowUpdate,
  TICK_MS,
  type Totals,
  type Update,
  type WatchFacts,
} from "./protocol.ts";
import { shownOf, totalsOf } from "./view.ts";

/** Pages that are kept up to date at once. */
export const STREAMS_MAX = 16;

export class Feed {
  readonly #facts: WatchFacts;
  readonly #rows: () => DatabaseRow[];
  readonly #streams = new Set<Stream>();
  #history = new LagHistory();
  #clock: ReturnType<typeof setInterval> | undefined;
  #endedAtMs = 0;

  constructor(facts: WatchFacts, rows: () => DatabaseRow[]) {
    this.#facts = facts;
    this.#rows = rows;
  }

  get streams(): number {
    return this.#streams.size;
  }

  /** The body of an answer, until `signal` aborts. Null if there are STREAMS_MAX already. */
  open(query: Query, signal: AbortSignal): ReadableStream<Uint8Array> | null {
    if (this.#streams.size >= STREAMS_MAX) return null;
    let stream: Stream | null = null;
    const end = (): void => {
      if (stream !== null) this.#remove(stream);
    };
    return new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          stream = new Stream(query, controller);
          signal.addEventListener("abort", end, { once: true });
          this.#add(stream);
        },
        cancel: end,
      },
      new ByteLengthQueuingStrategy({ highWaterMark: WAITING_BYTES_MAX }),
    );
  }

  /** Ends every page's stream. */
  stop(): void {
    for (const stream of this.#streams) this.#remove(stream);
  }

  #add(stream: Stream): void {
    // What was measured before a pause would read as if it had just happened.
    if (this.#streams.size === 0 && Date.now() - this.#endedAtMs > 2 * TICK_MS) this.#history = new LagHistory();
    this.#streams.add(stream);
    if (this.#clock === undefined) {
      this.#history.record(this.#rows());
      this.#clock = setInterval(() => this.#tick(), TICK_MS);
    }
    const rows = this.#rows();
    stream.send(rows, totalsOf(rows), this.#history, this.#facts);
  }

  #tick(): void {
    const rows = this.#rows();
    this.#history.record(rows);
    const totals = totalsOf(rows);
    for (const stream of this.#streams) stream.send(rows, totals, this.#history);
  }

  #remove(stream: Stream): void {
    if (!this.#streams.delete(stream)) return;
    stream.close();
    if (this.#streams.size > 0) return;
    clearInterval(this.#clock);
    this.#clock = undefined;
    this.#endedAtMs = Date.now();
    // Nobody looks: nothing is kept. Whoever asks for another part of the list is back at once.
    setTimeout(() => {
      if (this.#streams.size === 0) this.#history = new LagHistory();
    }, 3 * TICK_MS).unref();
  }
}

// --- internal ---

/** A page that does not read gets nothing more until it does; what it misses is in what it gets then. */
const WAITING_BYTES_MAX = 64 * KiB;
const encoder = new TextEncoder();

/** One page, and what it knows by now. */
class Stream {
  readonly #query: Query;
  readonly #controller: ReadableStreamDefaultController<Uint8Array>;
  /** The rows it has, as they were sent. */
  #known = new Map<string, string>();
  #totals = "";
  #shown = "";

  constructor(query: Query, controller: ReadableStreamDefaultController<Uint8Array>) {
    this.#query = query;
    this.#controller = controller;
  }

  send(all: readonly DatabaseRow[], totals: Totals, history: LagHistory, facts?: WatchFacts): void {
    if ((this.#controller.desiredSize ?? 0) <= 0) return;
    const update: Update = { at: Date.now() };
    if (facts !== undefined) update.watch = facts;
    const { shown, rows } = shownOf(all, this.#query);
    if (this.#totals !== (this.#totals = JSON.stringify(totals))) update.totals = totals;
    if (this.#shown !== (this.#shown = JSON.stringify(shown))) update.shown = shown;
    const changed = this.#changes(rows, history);
    if (changed.length > 0) update.rows = changed;
    this.#controller.enqueue(encoder.encode(`data: ${redact(JSON.stringify(update))}\n\n`));
  }

  close(): void {
    try {
      this.#controller.close();
    } catch {
      // The page closed it.
    }
  }

  #changes(rows: readonly DatabaseRow[], history: LagHistory): RowUpdate[] {
    const known = new Map<string, string>();
    const changed: RowUpdate[] = [];
    for (const row of rows) {
      const before = this.#known.get(row.name);
      const text = JSON.stringify(row);
      known.set(row.name, text);
      if (before === undefined) changed.push({ row, history: history.of(row.name) });
      else if (before !== text) changed.push({ row });
    }
    this.#known = known;
    return changed;
  }
}
