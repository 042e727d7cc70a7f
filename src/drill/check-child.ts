/**
 * The child of a drill: asks SQLite about a restored file. In a process of its own, because SQL that never ends can only be
 * ended with its process, and it gets neither credentials nor the network.
 */
import { readFileSync } from "node:fs";
import { messageOf } from "../errors.ts";
import { endProcessIn } from "../libc.ts";
import { print } from "../log.ts";
import { integrityOf, openRestored } from "../restore/restored-database.ts";
import type { Check, CheckRequest, CheckResult } from "./check.ts";

/** Answers the request on standard input. The kernel ends the process when a check takes too long, whatever became of who asked. */
export function answerChecks(): void {
  const { path, checks, limitSeconds } = JSON.parse(readFileSync(0, "utf8")) as CheckRequest;
  for (const check of checks) {
    // A file of any size may be checked: PRAGMA integrity_check always ends.
    endProcessIn(check.kind === "assertion" ? limitSeconds : 0);
    print(JSON.stringify(resultOf(path, check)));
  }
}

// --- internal ---

function resultOf(path: string, check: Check): CheckResult {
  if (check.kind === "assertion") return resultOfAssertion(path, check.sql);
  const found = integrityOf(path, "integrity_check");
  return found === "ok" ? { result: "ok", found: "" } : { result: "untrue", found };
}

function resultOfAssertion(path: string, sql: string): CheckResult {
  try {
    const database = openRestored(path);
    try {
      return judgeRows(countRows(database, sql.replace(/[;\s]+$/, "")));
    } finally {
      database.close();
    }
  } catch (error) {
    return { result: "error", found: messageOf(error) };
  }
}

interface Rows {
  rows: number;
  untrue: number;
}

/**
 * Counts in SQLite what the query gives, by SQLite's own idea of what is true. Rows are never in memory here, and what is no query
 * is no table expression either: nothing that writes gets so far as to be refused.
 */
function countRows(database: ReturnType<typeof openRestored>, sql: string): Rows {
  // By itself at first: a mistake is then told in terms of what was asked.
  const columns = database.prepare(sql).columnNames.map((_, i) => `c${i + 1}`);
  if (columns.length === 0) throw new RangeError("a statement that gives no rows");
  return database
    .query<Rows, []>(
      `with assertion (${columns.join(", ")}) as (${sql}\n)
       select count(*) as rows, count(*) filter (where c1 is not true) as untrue from assertion`,
    )
    .get()!;
}

function judgeRows({ rows, untrue }: Rows): CheckResult {
  if (rows === 0) return { result: "untrue", found: "no rows" };
  if (untrue === 0) return { result: "ok", found: "" };
  return { result: "untrue", found: rows === 1 ? "not true" : `${untrue} of ${rows} rows not true` };
}
