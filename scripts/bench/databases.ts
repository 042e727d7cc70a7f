/** Databases for measuring, and the applications that write to them. */
import { Database } from "bun:sqlite";
import { closeSync, copyFileSync, mkdirSync, openSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import { syncFile } from "../../src/durable.ts";

export interface BenchDatabase {
  /** Also its name at the destination. */
  name: string;
  path: string;
}

/** Small databases of 48 KiB, each in a folder of its own, as those of tenants are. */
export function makeSmallDatabases(folder: string, count: number): BenchDatabase[] {
  const template = join(folder, "template.db");
  makeDatabase(template, SMALL_BYTES);
  const databases = Array.from({ length: count }, (_, i) => {
    const name = `db${String(i).padStart(5, "0")}`;
    return { name, path: join(folder, name, "app.db") };
  });
  for (const { path } of databases) {
    mkdirSync(dirname(path), { recursive: true });
    copyFileSync(template, path);
  }
  rmSync(template);
  return databases;
}

/** A database of about `sizeBytes` in WAL mode, with everything copied back; half of it does not compress. */
export function makeDatabase(path: string, sizeBytes: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const database = new Database(path, { create: true, readwrite: true });
  try {
    for (const pragma of ["journal_mode = wal", "synchronous = off"]) database.run(`pragma ${pragma}`);
    database.run("create table entry (id integer primary key, body text)");
    const insert = database.query(
      `insert into entry (body) with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
       select hex(randomblob(400)) from n`,
    );
    const rows = Math.max(1, Math.floor(sizeBytes / ROW_BYTES));
    for (let done = 0; done < rows; done += ROWS_AT_ONCE) insert.run(Math.min(ROWS_AT_ONCE, rows - done));
    database.run("pragma wal_checkpoint(truncate)");
  } finally {
    database.close();
  }
  // It was there long before: what making it left in memory is not to be written while somebody is measured.
  const fd = openSync(path, "r+");
  syncFile(fd, path);
  closeSync(fd);
}

/** What a database says, in one line: equal for a database and its restored copy. */
export function contentOf(path: string): string {
  const database = new Database(path, { readwrite: true, create: false });
  try {
    const query = "select count(*) as rows, sum(length(body)) as bytes, max(id) as last from entry";
    return JSON.stringify(database.query(query).get());
  } finally {
    database.close();
  }
}

/** An application for each database, all in this process: holds them open, and inserts rows of 200 bytes. */
export class Applications {
  readonly #open: { database: Database; insert: () => void }[];
  /** Rows written by now. */
  written = 0;

  constructor(databases: readonly BenchDatabase[]) {
    this.#open = databases.map(({ path }) => {
      const database = new Database(path, { readwrite: true, create: false });
      database.run("pragma synchronous = normal");
      database.run("pragma busy_timeout = 5000");
      database.run("pragma cache_size = 8");
      const statement = database.query("insert into entry (body) values (?)");
      return { database, insert: () => statement.run(ROW) };
    });
  }

  /** One insert into the database with this index. */
  write(index: number): void {
    this.#open[index % this.#open.length]!.insert();
    this.written++;
  }

  /** One insert per `everyMs` into each database, spread evenly, for `durationMs`. A machine that is too slow gets less. */
  async load(durationMs: number, everyMs: number): Promise<void> {
    const startMs = performance.now();
    const perMs = this.#open.length / everyMs;
    for (let done = 0; ; await Bun.sleep(TICK_MS)) {
      const elapsedMs = performance.now() - startMs;
      if (elapsedMs >= durationMs) return;
      const tickEndMs = performance.now() + TICK_WORK_MAX_MS;
      for (const due = Math.floor(elapsedMs * perMs); done < due && performance.now() < tickEndMs; done++) {
        this.write(done);
      }
    }
  }

  close(): void {
    for (const { database } of this.#open) database.close();
  }
}

// --- internal ---

const SMALL_BYTES = 48 * 1024;
const ROW_BYTES = 812;
const ROWS_AT_ONCE = Math.floor((4 * MiB) / ROW_BYTES);
const ROW = "x".repeat(200);
const TICK_MS = 5;
/** Then everybody else gets the processor for a moment. */
const TICK_WORK_MAX_MS = 50;
