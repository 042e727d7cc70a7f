/**
 * The other side of sqlite-process.ts: a process of its own with one database open. Reads one JSON request a line,
 * `{"op","args"}`, and answers each in order with `{"value"}` or `{"error"}`.
 */
import { Database, type SQLQueryBindings } from "bun:sqlite";
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync, writeFileSync } from "node:fs";
import type { Burst, CheckpointMode, CommitRecord, OpenRequest, OtherCheckpoint } from "./sqlite-process.ts";

const CHECKPOINT_MODES = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] as const;

let path = "";
let database: Database | undefined;
/** Closing any descriptor of the -shm drops this process's locks: this one lives as long as the connection. */
let shmFd: number | undefined;
let busyTimeoutMs = 0;
let nextRow = 0;

const operations = {
  open(request: OpenRequest): void {
    operations.close();
    database = new Database(request.path);
    path = request.path;
    busyTimeoutMs = request.busyTimeoutMs ?? 1000;
    database.run(`pragma busy_timeout = ${busyTimeoutMs}`);
    if (request.pageSize !== undefined) database.run(`pragma page_size = ${request.pageSize}`);
    if (request.journalMode !== undefined) database.run(`pragma journal_mode = ${request.journalMode}`);
    if (request.cachePages !== undefined) database.run(`pragma cache_size = ${request.cachePages}`);
    if (request.autocheckpoint !== undefined) database.run(`pragma wal_autocheckpoint = ${request.autocheckpoint}`);
  },
  close(): void {
    database?.close();
    if (shmFd !== undefined) closeSync(shmFd);
    database = shmFd = undefined;
  },
  run(sql: string, parameters: SQLQueryBindings[]): void {
    open().run(sql, parameters);
  },
  rows(sql: string): unknown[][] {
    return open().query(sql).values();
  },
  checkpoint(mode: CheckpointMode, waitMs: number): OtherCheckpoint {
    return checkpoint(mode, waitMs);
  },
  state(): CommitRecord {
    return record();
  },
  dump(target: string): CommitRecord {
    writeFileSync(target, open().serialize());
    return record();
  },
  /** Random transactions and checkpoints without a pause; one record per commit. */
  burst(request: Burst): CommitRecord[] {
    const random = randomFrom(request.seed);
    const records = [record()];
    for (let step = 0; step < request.steps; step++) {
      if (random(100) < request.checkpointPercent) {
        checkpoint(CHECKPOINT_MODES[random(4)]!, random(2) * 3);
      } else {
        write(random);
        const now = record();
        if (now.changeCount !== records.at(-1)!.changeCount) records.push(now);
      }
      if (random(100) < request.pausePercent) Bun.sleepSync(random(3));
    }
    return records;
  },
  /** Checkpoints of random modes without a pause; how many there were. */
  checkpoints(seed: number, durationMs: number): number {
    const random = randomFrom(seed);
    const endMs = performance.now() + durationMs;
    let count = 0;
    for (; performance.now() < endMs; count++) {
      checkpoint(CHECKPOINT_MODES[random(4)]!, random(2) * 3);
      Bun.sleepSync(random(4));
    }
    return count;
  },
};

/** At most one commit. A small cache makes the large transactions spill into the WAL before they end. */
function write(random: (limit: number) => number): void {
  const connection = open();
  const kind = random(100);
  if (kind >= 96) {
    connection.run("vacuum");
    return;
  }
  connection.run("begin immediate");
  connection.run("create table if not exists item (id integer primary key, note text, body blob)");
  if (kind < 45) {
    for (let rows = 1 + random(6); rows > 0; rows--) insert(connection, random(900));
  } else if (kind < 65) {
    connection.run("update item set body = randomblob(?) where id % 5 = ?", [1 + random(600), random(5)]);
  } else if (kind < 80) {
    connection.run("delete from item where id % 6 = ?", [random(6)]);
  } else if (kind < 86) {
    for (let rows = 3; rows > 0; rows--) insert(connection, 20_000 + random(20_000));
    if (random(2) === 0) {
      connection.run("rollback");
      return;
    }
  } else if (kind < 91) {
    // Grows the database and frees what it grew by, in one transaction.
    connection.run("create table if not exists passing (body)");
    connection.run("insert into passing values (zeroblob(?))", [1 + random(30_000)]);
    connection.run("drop table passing");
  } else {
    connection.run("delete from item where length(body) > 1000");
  }
  connection.run("commit");
}

function insert(connection: Database, size: number): void {
  connection.run("insert into item (note, body) values (?, randomblob(?))", [`row ${nextRow++}`, size]);
}

function checkpoint(mode: CheckpointMode, waitMs: number): OtherCheckpoint {
  const connection = open();
  connection.run(`pragma busy_timeout = ${waitMs}`);
  try {
    const [busy, frameCount, backfilled] = connection.query(`pragma wal_checkpoint(${mode})`).values()[0] as number[];
    return { busy: busy !== 0, frameCount: frameCount!, backfilled: backfilled! };
  } finally {
    connection.run(`pragma busy_timeout = ${busyTimeoutMs}`);
  }
}

/** What is committed now. Right only while no other process writes. */
function record(): CommitRecord {
  const content = open().serialize();
  const sha256 = createHash("sha256").update(content).digest("hex");
  return { sha256, sizeBytes: content.byteLength, ...walIndexNow() };
}

/** The WAL index read on our own account, field by field, so that the code under test is not its own judge. */
function walIndexNow(): Omit<CommitRecord, "sha256" | "sizeBytes"> {
  shmFd ??= openSync(`${path}-shm`, "r");
  const bytes = new Uint8Array(136);
  readSync(shmFd, bytes, 0, 136, 0);
  const native = new Uint32Array(bytes.buffer);
  const bigEndian = new DataView(bytes.buffer);
  return {
    changeCount: native[2]!,
    frameCount: native[4]!,
    commit: native[5]!,
    checksum1: native[6]!,
    checksum2: native[7]!,
    salt1: bigEndian.getUint32(32),
    salt2: bigEndian.getUint32(36),
    backfilled: native[24]!,
  };
}

function open(): Database {
  if (database === undefined) throw new Error("no database is open");
  return database;
}

/** Mulberry32: 0 up to, but not, `limit`. */
function randomFrom(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  };
}

for await (const line of console) {
  if (line === "") continue; // Bun reports one when the input ends.
  const { op, args } = JSON.parse(line) as { op: keyof typeof operations; args: never[] };
  let answer: unknown;
  try {
    const operation = operations[op] as (...values: never[]) => unknown;
    answer = { value: operation(...args) ?? null };
  } catch (error) {
    const { message, code } = error as Error & { code?: string };
    answer = { error: { message, code } };
  }
  console.log(JSON.stringify(answer));
}
