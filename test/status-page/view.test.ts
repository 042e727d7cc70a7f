// Goal: a page shows its part of the list and no more, whoever needs attention stands first, and the sums are of all databases.
import { describe, expect, test } from "bun:test";
import { LagHistory } from "../../src/status-page/lag-history.ts";
import { HISTORY_SAMPLES, type Query } from "../../src/status-page/protocol.ts";
import { PAGE_ROWS, parseQuery, shownOf, totalsOf } from "../../src/status-page/view.ts";
import { madeUpRow, madeUpTrouble } from "../support/status-page.ts";

const ALL: Query = { search: "", filter: "all", order: "name", page: 0, open: null };
const rows = Array.from({ length: 120 }, (_, i) => madeUpRow(`db${i}`, { size_bytes: i * 100 }));

describe("the list", () => {
  test("comes page by page, without a gap and without a name twice", () => {
    const names = [0, 1, 2].flatMap((page) => shownOf(rows, { ...ALL, page }).shown.names);
    expect(names).toEqual(rows.map(({ name }) => name));
    expect(shownOf(rows, ALL).rows).toHaveLength(PAGE_ROWS);
    expect(shownOf(rows, { ...ALL, page: 2 }).shown).toMatchObject({ matches: 120, page: 2, pages: 3, first: 100 });
  });

  test("behind its end is at its end, also when it shrinks", () => {
    expect(shownOf(rows, { ...ALL, page: 9 }).shown.page).toBe(2);
    expect(shownOf([], { ...ALL, page: 9 }).shown).toEqual({ matches: 0, page: 0, pages: 1, first: 0, names: [] });
  });

  test("has whoever needs attention first, then whoever is busy", () => {
    const mixed = [
      madeUpRow("a"),
      madeUpRow("b", { state: "scanning" }),
      madeUpRow("c", { trouble: madeUpTrouble() }),
      madeUpRow("d", { trouble: madeUpTrouble({ kind: "lag" }) }),
    ];
    expect(shownOf(mixed, { ...ALL, order: "attention" }).shown.names).toEqual(["c", "d", "b", "a"]);
    expect(shownOf(mixed, { ...ALL, filter: "attention" }).shown.names).toEqual(["b", "c", "d"]);
  });

  test("by size has the largest first", () => {
    expect(shownOf(rows, { ...ALL, order: "size" }).shown.names.slice(0, 2)).toEqual(["db119", "db118"]);
  });

  test.each([
    ["DB11", ["db11", "db110", "db111", "db112", "db113", "db114", "db115", "db116", "db117", "db118", "db119"]],
    ["/data/db7.", ["db7"]],
    [".*", []],
    ["<b>", []],
  ])("searches names and paths for the text %s", (search, names) => {
    expect(shownOf(rows, { ...ALL, search }).shown.names).toEqual(names);
  });

  test("tells of the open database wherever it stands, and not twice", () => {
    const elsewhere = shownOf(rows, { ...ALL, open: "db119" });
    expect(elsewhere.rows.at(-1)?.name).toBe("db119");
    expect(elsewhere.shown.names).not.toContain("db119");
    expect(shownOf(rows, { ...ALL, open: "db3" }).rows).toHaveLength(PAGE_ROWS);
    expect(shownOf(rows, { ...ALL, open: "nobody" }).rows).toHaveLength(PAGE_ROWS);
  });
});

test.each([
  ["page=-1", { page: 0 }],
  ["page=1e99", { page: 0 }],
  ["page=2", { page: 2 }],
  ["order=constructor&filter=__proto__", { order: "attention", filter: "all" }],
  ["open=", { open: null }],
])("what %s asks for is bounded", (text, query) => {
  expect(parseQuery(new URLSearchParams(text))).toMatchObject(query as Partial<Query>);
});

test("a search of any length is cut", () => {
  expect(parseQuery(new URLSearchParams({ search: "x".repeat(5000) })).search).toHaveLength(200);
});

test("the sums are of all databases, and the longest lag has its name", () => {
  const some = [
    madeUpRow("a", { lag_seconds: 2, outbox_bytes: 5, shipped_at: "2026-05-01T12:00:00.000Z" }),
    madeUpRow("b", { lag_seconds: 7, outbox_bytes: 6, shipped_at: "2026-05-01T12:00:01.000Z", state: "waiting" }),
    madeUpRow("c", { trouble: madeUpTrouble(), shipped_at: null }),
  ];
  expect(totalsOf(some)).toEqual({
    databases: 3,
    busy: 1,
    trouble: 1,
    size_bytes: 3 * 8192,
    outbox_bytes: 11,
    lag_seconds: 7,
    lag_name: "b",
    shipped_at: "2026-05-01T12:00:01.000Z",
  });
  expect(totalsOf([]).shipped_at).toBeNull();
});

describe("the history of lags", () => {
  test("holds the last samples in order, each database's from when it came", () => {
    const history = new LagHistory();
    const sample = (i: number) => madeUpRow("a", { lag_seconds: i });
    for (let i = 0; i < HISTORY_SAMPLES + 7; i++) history.record(i < 5 ? [sample(i)] : [sample(i), madeUpRow("b")]);
    expect(history.of("a")).toEqual(Array.from({ length: HISTORY_SAMPLES }, (_, i) => i + 7));
    history.record([sample(1), madeUpRow("late", { lag_seconds: 3 })]);
    expect(history.of("late")).toEqual([3]);
    expect(history.of("a").slice(-2)).toEqual([HISTORY_SAMPLES + 6, 1]);
  });

  test("forgets a database that is gone, and knows nothing of one that comes back", () => {
    const history = new LagHistory();
    history.record([madeUpRow("a", { lag_seconds: 1 }), madeUpRow("b")]);
    history.record([madeUpRow("b")]);
    expect(history.of("a")).toEqual([]);
    history.record([madeUpRow("a", { lag_seconds: 2 }), madeUpRow("b")]);
    expect([history.of("a"), history.of("b")]).toEqual([[2], [0, 0, 0]]);
  });
});
