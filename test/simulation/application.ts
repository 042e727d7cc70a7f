/**
 * The application: a real SQLite database, written to in every way, and the oracle of every state it ever had.
 */
import { Database } from "bun:sqlite";
import { copyFileSync, existsSync, rmSync } from "node:fs";
import type { Random } from "./random.ts";

export type CheckpointMode = "PASSIVE" | "FULL" | "RESTART" | "TRUNCATE";

export class Application {
  readonly path: string;
  /** Digests of all states, in the order they came. */
  readonly states: string[] = [];
  readonly #random: Random;
  #connection: Database | null = null;
  #reader: Database | null = null;

  constructor(path: string, pageSize: number, random: Random) {
    this.path = path;
    this.#random = random;
    const connection = this.open();
    connection.run(`pragma page_size = ${pageSize}`);
    if (random.oneIn(4)) connection.run(`pragma auto_vacuum = ${random.pick(["full", "incremental"])}`);
    connection.run("pragma journal_mode = wal");
    connection.run("create table item (id integer primary key, body blob)");
    this.#record();
  }

  get isOpen(): boolean {
    return this.#connection !== null;
  }

  open(): Database {
    if (this.#connection === null) {
      this.#connection = new Database(this.path, { create: true, readwrite: true });
      this.#connection.run("pragma busy_timeout = 0");
      this.#connection.run(`pragma wal_autocheckpoint = ${this.#random.pick([0, 4, 8, 1000])}`);
      this.#connection.run("pragma synchronous = off");
    }
    return this.#connection;
  }

  /** The last connection to close copies the WAL back and deletes it, unless somebody else has the database open. */
  close(): void {
    this.endRead();
    this.#connection?.close();
    this.#connection = null;
  }

  /** One transaction. False if the database is locked. */
  commit(): boolean {
    const connection = this.open();
    const random = this.#random;
    try {
      switch (
        random.weighted({ insert: 40, update: 25, delete: 15, blob: 8, table: 4, drop: 3, vacuum: 3, empty: 2 })
      ) {
        case "insert":
          for (let i = 0; i <= random.below(4); i++) this.#insert(random.below(900));
          break;
        case "update":
          connection.run("update item set body = ? where id % 5 = ?", [
            random.bytes(random.below(600)),
            random.below(5),
          ]);
          break;
        case "delete":
          connection.run("delete from item where id % 3 = ?", [random.below(3)]);
          break;
        case "blob":
          this.#insert(5000 + random.below(40_000));
          break;
        case "table":
          connection.run(`create table if not exists extra_${random.below(3)} (a, b)`);
          break;
        case "drop":
          connection.run(`drop table if exists extra_${random.below(3)}`);
          break;
        case "vacuum":
          if (random.oneIn(2)) connection.run("vacuum");
          else connection.run("pragma incremental_vacuum");
          break;
        case "empty":
          connection.run("delete from item");
          break;
      }
    } catch (error) {
      if (!String(error).includes("locked")) throw error;
      if (connection.inTransaction) connection.run("rollback");
      return false;
    }
    this.#record();
    return true;
  }

  /** True if it was done completely. */
  checkpoint(mode: CheckpointMode): boolean {
    try {
      return this.open().query(`pragma wal_checkpoint(${mode})`).values()[0]?.[0] === 0;
    } catch (error) {
      if (!String(error).includes("locked")) throw error;
      return false;
    }
  }

  /** A reader that keeps the WAL from being copied back. */
  beginRead(): void {
    if (this.#reader !== null) return;
    this.#reader = new Database(this.path, { readwrite: true, create: false });
    this.#reader.run("begin");
    this.#reader.query("select count(*) from item").get();
  }

  endRead(): void {
    this.#reader?.close();
    this.#reader = null;
  }

  /** Sets a copy of the newest state aside, for `replace`. */
  keepCopy(): void {
    rmSync(this.#copyPath, { force: true });
    this.open().run("vacuum into ?", [this.#copyPath]);
  }

  /** Puts the copy in the place of the database, as somebody does who restores a backup underneath everything. */
  replace(): boolean {
    if (!existsSync(this.#copyPath)) return false;
    this.close();
    for (const suffix of ["-wal", "-shm"]) rmSync(this.path + suffix, { force: true });
    rmSync(this.path);
    copyFileSync(this.#copyPath, this.path);
    this.open().run("pragma journal_mode = wal");
    this.#record();
    return true;
  }

  /** Rewrites the database with other pages, which VACUUM can only do outside WAL mode. False if it is locked. */
  changePageSize(pageSize: number): boolean {
    this.endRead();
    const connection = this.open();
    try {
      connection.run("pragma journal_mode = delete");
    } catch (error) {
      if (!String(error).includes("locked")) throw error;
      return false;
    }
    connection.run(`pragma page_size = ${pageSize}`);
    connection.run("vacuum");
    connection.run("pragma journal_mode = wal");
    this.#record();
    return true;
  }

  get newest(): string {
    return this.states.at(-1)!;
  }

  get #copyPath(): string {
    return `${this.path}.copy`;
  }

  #insert(bytes: number): void {
    this.open().run("insert into item (body) values (?)", [this.#random.bytes(bytes)]);
  }

  #record(): void {
    this.states.push(digestOf(this.open()));
  }
}

/** Digest of the pages of a database, what is in its WAL included. */
export function digestOf(connection: Database): string {
  return Bun.hash.xxHash64(connection.serialize()).toString(16);
}
