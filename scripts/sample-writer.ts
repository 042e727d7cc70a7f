/**
 * Writes to a SQLite database until SIGTERM, as an application would: `bun sample-writer.ts DB`.
 * Prints a line when the database exists, and one at the end with what it holds.
 */
import { Database } from "bun:sqlite";

const path = process.argv[2];
if (path === undefined) throw new Error("usage: sample-writer.ts DB");

const PAUSE_MS = 10;
/** Old notes go, so that pages are reused and not only added. */
const KEPT_NOTES = 2000;

const database = new Database(path);
database.run("pragma journal_mode = wal");
database.run("pragma busy_timeout = 5000");
database.run("create table if not exists note (id integer primary key, at text not null, body text not null)");
const insert = database.query("insert into note (at, body) values (?, ?)");
const trim = database.query("delete from note where id <= (select max(id) from note) - ?");
const write = database.transaction((commit: number) => {
  for (let i = 0; i < 5; i++) insert.run(new Date().toISOString(), `note ${commit}/${i} `.repeat(1 + (commit % 40)));
  trim.run(KEPT_NOTES);
});

let stopped = false;
process.on("SIGTERM", () => {
  stopped = true;
});
console.log("writing");
let commits = 0;
while (!stopped) {
  write(++commits);
  await Bun.sleep(PAUSE_MS);
}
const notes = database.query<{ notes: number }, []>("select count(*) as notes from note").get()?.notes;
database.close();
console.log(`${commits} transactions, ${notes} rows`);
