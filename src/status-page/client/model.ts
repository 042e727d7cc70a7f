/** What the page knows: the updates of its watch, put together. */
import {
  type DatabaseRow,
  HISTORY_SAMPLES,
  type Shown,
  type Totals,
  type Update,
  type WatchFacts,
} from "../protocol.ts";

export interface KnownDatabase {
  row: DatabaseRow;
  /** Lags in seconds, oldest first. */
  history: number[];
}

export class Model {
  watch: WatchFacts | null = null;
  totals: Totals | null = null;
  shown: Shown | null = null;
  /** By name: those of the list, and the one that is looked at closely. */
  readonly databases = new Map<string, KnownDatabase>();
  /** How far the watch's clock is ahead of this one, in ms. */
  #skewMs = 0;

  /** By the watch's clock, ms. */
  get nowMs(): number {
    return Date.now() + this.#skewMs;
  }

  /** Takes an update. `open`: the database that is looked at closely. True if another process answers than before. */
  take(update: Update, open: string | null): boolean {
    const isOther = update.watch !== undefined && this.watch !== null && update.watch.version !== this.watch.version;
    this.#skewMs = update.at - Date.now();
    this.watch = update.watch ?? this.watch;
    this.totals = update.totals ?? this.totals;
    this.shown = update.shown ?? this.shown;
    const fresh = new Set<KnownDatabase>();
    for (const { row, history } of update.rows ?? []) {
      const known = this.databases.get(row.name);
      if (history !== undefined || known === undefined) {
        const database = { row, history: history ?? [row.lag_seconds] };
        this.databases.set(row.name, database);
        fresh.add(database);
      } else known.row = row;
    }
    const kept = new Set(this.shown?.names).add(open ?? "");
    for (const [name, database] of this.databases) {
      if (!kept.has(name)) this.databases.delete(name);
      else if (!fresh.has(database)) {
        // A row that did not change has the lag that it had.
        database.history.push(database.row.lag_seconds);
        if (database.history.length > HISTORY_SAMPLES) database.history.shift();
      }
    }
    return isOther;
  }
}
