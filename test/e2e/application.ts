/**
 * An application with a database, as a process of its own: `bun application.ts DB PAGE_SIZE SEED`. Inserts, updates,
 * deletes, large blobs, schema changes and VACUUM, with SQLite's default autocheckpoint. At SIGTERM it prints its tables as
 * JSON and ends; after a minute it does so by itself.
 */
import { Database } from "bun:sqlite";

const [path, pageSize, seedText] = process.argv.slice(2);
if (path === undefined || seedText === undefined) throw new Error("usage: application.ts DB PAGE_SIZE SEED");
let endMs = Date.now() + 60_000;
process.on("SIGTERM", () => {
  endMs = 0;
});

const database = new Database(path);
database.run(`pragma page_size = ${pageSize}`);
database.run("pragma journal_mode = wal");
database.run("pragma busy_timeout = 1000");
database.run("create table if not exists item (id integer primary key, name text not null, body blob)");
database.run("create index if not exists item_name on item (name)");
console.log("ready");

let state = Number(seedText) >>> 0;
/** Mulberry32: 0 up to, but not, `limit`. */
function random(limit: number): number {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % limit;
}

const tables = new Set(["item"]);
const bytes = (length: number) => Buffer.alloc(length, random(256));
const actions: [weight: number, action: () => void][] = [
  [40, () => insert(1 + random(20))],
  [25, () => database.run("update item set name = ? where id % 7 = ?", [`name ${random(1e6)}`, random(7)])],
  [15, () => database.run("delete from item where id % 11 = ?", [random(11)])],
  [6, () => database.run("insert into item (name, body) values ('blob', ?)", [bytes(200_000 + random(800_000))])],
  [4, () => database.run("delete from item where name = 'blob'")],
  [4, () => addTable()],
  [2, () => dropTable()],
  [2, () => database.run("vacuum")],
];
const total = actions.reduce((sum, [weight]) => sum + weight, 0);

let commits = 0;
while (Date.now() < endMs) {
  let pick = random(total);
  const [, action] = actions.find(([weight]) => (pick -= weight) < 0)!;
  action();
  commits++;
  await Bun.sleep(random(40));
}
database.close();
console.log(JSON.stringify({ commits, tables: [...tables].sort() }));

function insert(rows: number): void {
  database.transaction(() => {
    const statement = database.query("insert into item (name, body) values (?, ?)");
    for (let i = 0; i < rows; i++) statement.run(`name ${random(1e6)}`, bytes(random(3000)));
  })();
}

function addTable(): void {
  const name = `extra_${random(5)}`;
  database.run(`create table if not exists ${name} (id integer primary key, value text)`);
  database.run(`insert into ${name} (value) values (hex(randomblob(500)))`);
  tables.add(name);
}

function dropTable(): void {
  const name = [...tables].find((table) => table !== "item");
  if (name === undefined) return;
  database.run(`drop table ${name}`);
  tables.delete(name);
}
