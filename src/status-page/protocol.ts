/** What the status page and its watch say to each other: JSON over server-sent events, and one request for restore points. */
import type { DatabaseReport } from "../control.ts";

export const EVENTS_PATH = "/status/events";
export const POINTS_PATH = "/status/points";

/** Samples of a lag that are kept, one a tick. */
export const HISTORY_SAMPLES = 120;
export const TICK_MS = 1000;

/** "ok": replicated. "busy": will be, without anybody's help. "trouble": needs attention. */
export type Condition = "ok" | "busy" | "trouble";

export interface Trouble {
  kind: "fenced" | "failed" | "lag";
  /** Stable code of an error, or null. */
  code: string | null;
  message: string;
  hint: string | null;
}

/** A line of the list. */
export interface DatabaseRow extends DatabaseReport {
  condition: Condition;
  trouble: Trouble | null;
}

export type Filter = "all" | "attention";
export type Order = "attention" | "name" | "size";

/** What of the list a page shows. */
export interface Query {
  search: string;
  filter: Filter;
  order: Order;
  /** From 0. */
  page: number;
  /** A database that is looked at closely: it is told of, wherever it stands in the list. */
  open: string | null;
}

/** Of the whole process; never changes. */
export interface WatchFacts {
  version: string;
  pid: number;
  host: string;
  started_at: string;
  /** Where the files go, as it is shown. */
  destination: string;
  /** The words behind a name that say the same to `walsync restore`: -b and what goes with it. */
  place: string[];
}

export interface Totals {
  databases: number;
  busy: number;
  trouble: number;
  size_bytes: number;
  outbox_bytes: number;
  /** The longest lag, and whose it is. */
  lag_seconds: number;
  lag_name: string | null;
  /** The newest of all, ISO 8601. */
  shipped_at: string | null;
}

/** Which lines are shown. */
export interface Shown {
  matches: number;
  page: number;
  pages: number;
  /** Place of the first in all that match, from 0. */
  first: number;
  names: string[];
}

/** A row, with the lags until now if it is new to this page. */
export interface RowUpdate {
  row: DatabaseRow;
  /** In seconds, oldest first, the present one included. */
  history?: number[];
}

/** One message: only what changed since the last one. The first one says everything. */
export interface Update {
  /** Clock of the watch, in ms. */
  at: number;
  watch?: WatchFacts;
  totals?: Totals;
  shown?: Shown;
  rows?: RowUpdate[];
}

export interface RestorePoint {
  txid: number;
  /** When the state was captured, ms. */
  at: number;
  snapshot: boolean;
  /** The file is not in the manifest yet: `at` is when it was stored. */
  rough: boolean;
}

/** What the destination holds of one database. */
export interface PointsAnswer {
  name: string;
  layout: string;
  /** When the destination was asked. */
  read_at: number;
  snapshots: number;
  increments: number;
  bytes: number;
  /** Restore points, and ends of files that nothing leads to although something should. */
  count: number;
  lost: number;
  oldest: RestorePoint | null;
  newest: RestorePoint | null;
  /** Those in the time that was asked for, at most POINTS_SHOWN of them, evenly thinned out; `in_range` is how many there are. */
  points: RestorePoint[];
  in_range: number;
}

export const POINTS_SHOWN = 600;

/** Instead of an answer. */
export interface Refusal {
  code: string;
  message: string;
  hint: string | null;
}
