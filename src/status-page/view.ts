/** Which rows a page shows, in which order, and the sums over all of them. Pure. */
import type { DatabaseReport } from "../control.ts";
import type { Condition, DatabaseRow, Filter, Order, Query, Shown, Totals, Trouble } from "./protocol.ts";

/** Rows of one page of the list. */
export const PAGE_ROWS = 50;

/** What the page asks for. Whatever is no query means the beginning of the list. */
export function parseQuery(params: URLSearchParams): Query {
  const page = Number(params.get("page") ?? 0);
  const open = params.get("open");
  return {
    search: (params.get("search") ?? "").trim().slice(0, SEARCH_MAX),
    filter: FILTERS.find((filter) => filter === params.get("filter")) ?? "all",
    order: ORDERS.find((order) => order === params.get("order")) ?? "attention",
    page: Number.isSafeInteger(page) && page >= 0 ? page : 0,
    open: open === "" ? null : open,
  };
}

export function conditionOf({ state }: Pick<DatabaseReport, "state">, trouble: Trouble | null): Condition {
  if (trouble !== null) return "trouble";
  return state === "live" ? "ok" : "busy";
}

/** The rows that `query` asks for, and where they stand. A page behind the last one is the last one. */
export function shownOf(rows: readonly DatabaseRow[], query: Query): { shown: Shown; rows: DatabaseRow[] } {
  const wanted = query.search.toLowerCase();
  const found = rows
    .filter((row) => query.filter === "all" || row.condition !== "ok")
    .filter(({ name, path }) => wanted === "" || isIn(wanted, name) || isIn(wanted, path))
    .sort(COMPARE[query.order]);
  const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
  const page = Math.min(query.page, pages - 1);
  const first = page * PAGE_ROWS;
  const part = found.slice(first, first + PAGE_ROWS);
  const shown = { matches: found.length, page, pages, first, names: part.map(({ name }) => name) };
  const open = rows.find(({ name }) => name === query.open);
  return { shown, rows: open === undefined || part.includes(open) ? part : [...part, open] };
}

export function totalsOf(rows: readonly DatabaseRow[]): Totals {
  const totals: Totals = {
    databases: rows.length,
    busy: 0,
    trouble: 0,
    size_bytes: 0,
    outbox_bytes: 0,
    lag_seconds: 0,
    lag_name: null,
    shipped_at: null,
  };
  for (const row of rows) {
    if (row.condition !== "ok") totals[row.condition]++;
    totals.size_bytes += row.size_bytes;
    totals.outbox_bytes += row.outbox_bytes;
    if (row.lag_seconds > totals.lag_seconds) {
      totals.lag_seconds = row.lag_seconds;
      totals.lag_name = row.name;
    }
    // ISO 8601 of one zone: the order of letters is that of time.
    if (row.shipped_at !== null && row.shipped_at > (totals.shipped_at ?? "")) totals.shipped_at = row.shipped_at;
  }
  return totals;
}

// --- internal ---

const SEARCH_MAX = 200;
const FILTERS: readonly Filter[] = ["all", "attention"];
const ORDERS: readonly Order[] = ["attention", "name", "size"];
const RANK: Record<Condition, number> = { trouble: 0, busy: 1, ok: 2 };

/** "db2" before "db10". */
const collator = new Intl.Collator("en", { numeric: true });
const byName = (a: DatabaseRow, b: DatabaseRow): number =>
  collator.compare(a.name, b.name) || (a.name < b.name ? -1 : 1);
const COMPARE: Record<Order, (a: DatabaseRow, b: DatabaseRow) => number> = {
  attention: (a, b) => RANK[a.condition] - RANK[b.condition] || byName(a, b),
  name: byName,
  size: (a, b) => b.size_bytes - a.size_bytes || byName(a, b),
};

function isIn(wanted: string, text: string): boolean {
  return text.toLowerCase().includes(wanted);
}
