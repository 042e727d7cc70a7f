/**
 * A writer whose database proves itself: `bun ledger.ts PATH SEED` commits until it is killed. Every entry carries the digest
 * of the one before, and a sum that must match, so that a restored database tells whether it is a moment that was.
 */
import { Database } from "bun:sqlite";
import { randomFrom } from "../ltx/make.ts";

interface Entry {
  seq: number;
  amount: number;
  digest: string;
}

/** What is wrong with a ledger, or null; with the number of its last entry. */
export function proveLedger(path: string): { last: number; fault: string | null } {
  const database = new Database(path, { readonly: true });
  try {
    let before = "";
    let sum = 0;
    let last = 0;
    for (const { seq, amount, digest } of database.query<Entry, []>("select * from ledger order by seq").iterate()) {
      if (seq !== last + 1) return { last, fault: `expected entry ${last + 1}, found ${seq}` };
      if (digest !== digestOf(before, seq, amount))
        return { last, fault: `entry ${seq} does not follow from the one before` };
      last = seq;
      before = digest;
      sum += amount;
    }
    const [balance] = database.query<{ balance: number; entries: number }, []>("select * from account").all();
    if (balance?.balance !== sum || balance.entries !== last) return { last, fault: "the balance is not the sum" };
    const checked = String(database.query("pragma integrity_check").values()[0]?.[0]);
    return { last, fault: checked === "ok" ? null : checked };
  } finally {
    database.close();
  }
}

function digestOf(before: string, seq: number, amount: number): string {
  return Bun.hash.xxHash64(`${before} ${seq} ${amount}`).toString(16);
}

if (import.meta.main) {
  const [path, seed] = process.argv.slice(2);
  const random = randomFrom(Number(seed));
  const database = new Database(path!, { create: true, readwrite: true });
  database.run("pragma busy_timeout = 5000");
  database.run("pragma journal_mode = wal");
  database.run("pragma wal_autocheckpoint = 8");
  database.run("create table if not exists ledger (seq integer primary key, amount integer, digest text)");
  database.run("create table if not exists account (balance integer, entries integer)");
  database.run("create table if not exists ballast (id integer primary key, body blob)");
  database.run("insert into account select 0, 0 where not exists (select 1 from account)");
  const append = database.transaction(() => {
    const last = database.query<Entry, []>("select * from ledger order by seq desc limit 1").get();
    const seq = (last?.seq ?? 0) + 1;
    const amount = (random() % 2001) - 1000;
    database.run("insert into ledger values (?, ?, ?)", [seq, amount, digestOf(last?.digest ?? "", seq, amount)]);
    database.run("update account set balance = balance + ?, entries = entries + 1", [amount]);
    if (random() % 5 === 0) database.run("insert into ballast (body) values (randomblob(?))", [random() % 30_000]);
    if (random() % 9 === 0) database.run("delete from ballast where id % 3 = ?", [random() % 3]);
    return seq;
  });
  console.log("ready");
  for (;;) {
    append.immediate();
    switch (random() % 120) {
      case 0:
        database.run("pragma wal_checkpoint(TRUNCATE)");
        break;
      case 1:
        database.run("pragma wal_checkpoint(RESTART)");
        break;
      case 2:
        database.run("vacuum");
        break;
    }
    await Bun.sleep(random() % 4);
  }
}
