/** A live database and its local state, driven by hand: the test is replicator, shipper and destination in one. */
import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { WALSYNC_RULES } from "../../src/chain/layout-rules.ts";
import type { DurableStep } from "../../src/durable.ts";
import { pageChecksum, type U64Halves } from "../../src/ltx/checksum.ts";
import { capture } from "../../src/replication/capture.ts";
import { LocalState } from "../../src/replication/local-state.ts";
import { claimsTxid, type OutboxFile } from "../../src/replication/outbox.ts";
import type { Captured } from "../../src/replication/position.ts";
import { beginChain, resync, snapshot } from "../../src/replication/scans.ts";
import { PinnedDatabase } from "../../src/sqlite/database.ts";

export const URL = "/mnt/bucket";
export const NAME = "app";
export const PAGE_SIZE = 512;

export class Life {
  readonly app: Database;
  readonly database: PinnedDatabase;
  readonly stateFolder: string;
  /** What the destination acknowledged: the SHA-256 of each object by its range of txids. */
  readonly acknowledged = new Map<string, string>();
  /** What captures and scans that returned have promised, by txid: the position, and the pages of the database then. */
  readonly reported = new Map<bigint, { captured: Captured; pages: U64Halves[] }>();
  state: LocalState;
  /** The file that is being removed: it may be there after a crash, or not. */
  leaving: OutboxFile | null = null;

  constructor(folder: string) {
    mkdirSync(folder, { recursive: true });
    this.app = new Database(join(folder, "app.db"), { create: true, readwrite: true });
    for (const pragma of [`page_size = ${PAGE_SIZE}`, "journal_mode = wal", "wal_autocheckpoint = 0"]) {
      this.app.run(`pragma ${pragma}`);
    }
    this.app.run("create table item (id integer primary key, body)");
    this.database = PinnedDatabase.open(join(folder, "app.db"));
    this.stateFolder = join(folder, "state");
    this.state = new LocalState(this.stateFolder, URL, NAME, WALSYNC_RULES);
  }

  get folder(): string {
    return folderOf(this.stateFolder);
  }

  insert(rows: number, bytes = 400): void {
    const row = this.app.query("insert into item (body) values (randomblob(?))");
    this.app.transaction(() => {
      for (let i = 0; i < rows; i++) row.run(bytes);
    })();
  }

  /** Begins the chain, unless it has begun. */
  async begin(): Promise<void> {
    if (this.state.position !== null) return this.#report();
    const identity = { destination: URL, name: NAME, lineage: "00000000000000aa" };
    await beginChain(this.database, this.state, identity, {});
    this.#report();
  }

  /** Captures what was committed, and compares the database if the WAL leaves a doubt. */
  async capture(): Promise<void> {
    const outcome = capture(this.database, this.state, this.position);
    if (outcome.kind === "resync") await this.compare();
    else this.#report();
  }

  async compare(): Promise<void> {
    await resync(this.database, this.state, {});
    this.#report();
  }

  async snapshot(): Promise<void> {
    await snapshot(this.database, this.state, this.position, {});
    this.#report();
  }

  /** Another process's checkpoint while the pin is let go: the next writer begins a new generation. */
  restartWal(): void {
    this.database.unpin();
    this.app.run("pragma wal_checkpoint(truncate)");
    this.database.pin();
  }

  /** Every file of the outbox reaches the destination, which takes no key twice, and is recorded as `Delivery` does. */
  ship(limit = Number.POSITIVE_INFINITY): void {
    for (const file of this.state.outbox.files.slice(0, limit)) {
      acknowledge(this.acknowledged, file);
      if (claimsTxid(file)) this.position.shippedTxid = file.maxTxid;
      if (file.minTxid === 1n) this.position.snapshotTxid = file.maxTxid;
      this.state.save();
      this.leaving = file;
      this.state.outbox.remove(file);
      this.leaving = null;
    }
  }

  /** Commits that no look will ever see: the WAL restarts behind them while the pin is let go. */
  slipBy(rows: number): void {
    this.database.unpin();
    this.insert(rows);
    this.app.run("pragma wal_checkpoint(truncate)");
    this.insert(1);
    this.database.pin();
  }

  /** The pages of the database as it is now. */
  pages(): U64Halves[] {
    return pagesOf(this.app.serialize());
  }

  /** Lets go of the state and opens it anew, as the next process does. */
  reopen(): void {
    this.state.close();
    this.state = new LocalState(this.stateFolder, URL, NAME, WALSYNC_RULES);
    this.state.recover(this.database);
  }

  end(): void {
    this.state.close();
    this.database.close();
    this.app.close();
  }

  get position() {
    if (this.state.position === null) throw new Error("no chain has begun");
    return this.state.position;
  }

  #report(): void {
    const { captured } = this.position;
    const known = this.reported.get(captured.txid);
    this.reported.set(captured.txid, { captured: { ...captured }, pages: known?.pages ?? this.pages() });
  }
}

/** The one folder of a state folder: that of its destination and name. */
export function folderOf(stateFolder: string): string {
  return join(stateFolder, new Bun.CryptoHasher("sha256").update(`${URL}\n${NAME}`).digest("hex").slice(0, 12));
}

export function acknowledge(acknowledged: Map<string, string>, file: OutboxFile): void {
  const key = `${file.minTxid}-${file.maxTxid}`;
  const sha256 = sha256Of(readFileSync(file.path));
  const known = acknowledged.get(key);
  if (known !== undefined && known !== sha256) throw new Error(`${key} is used twice`);
  acknowledged.set(key, sha256);
}

export function sha256Of(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/** What is in the outbox, by file name. */
export function outboxOf(state: LocalState): Map<string, string> {
  return new Map(state.outbox.files.map(({ path }) => [basename(path), sha256Of(readFileSync(path))]));
}

/** The checksums of every page of a database's content. */
export function pagesOf(content: Uint8Array): U64Halves[] {
  return Array.from({ length: content.length / PAGE_SIZE }, (_, i) => {
    const sum: U64Halves = { hi: 0, lo: 0 };
    pageChecksum(i + 1, content.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE), sum);
    return sum;
  });
}

/** The database checksum of FORMATS.md: all page checksums XORed, and the top bit. */
export function checksumOf(pages: readonly U64Halves[]): bigint {
  const all = pages.reduce((sum, { hi, lo }) => sum ^ ((BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)), 0n);
  return all | (1n << 63n);
}

/** The table is that of `content`, page by page; the caller decides whether there has to be one. */
export function expectTable(state: LocalState, pages: readonly U64Halves[]): void {
  const { table, position } = state;
  expect(position?.captured.checksum).toBe(checksumOf(pages));
  expect(position?.captured.commit).toBe(pages.length);
  if (table === null) return;
  expect(table.commit).toBe(pages.length);
  expect(table.checksum).toBe(checksumOf(pages));
  const differing = pages.findIndex(({ hi, lo }, i) => !table.matches(i + 1, hi >>> 0, lo >>> 0));
  expect(differing).toBe(-1);
}

/** Names of half-written files below a folder. */
export function leftovers(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.includes(".tmp"));
}

/** A chain that grows beyond one block of the table, shrinks, is compared after a doubt, and waits in between. */
export async function statefulLife(life: Life): Promise<void> {
  await life.begin();
  life.ship();
  life.insert(3);
  await life.capture();
  life.insert(2, 900);
  await life.capture();
  life.ship(1);
  life.insert(450, 600);
  await life.capture();
  life.app.run("delete from item where id > 30");
  life.app.run("vacuum");
  await life.capture();
  await life.snapshot();
  life.insert(5);
  await life.capture();
  life.ship();
  life.restartWal();
  life.insert(2);
  await life.capture();
  life.slipBy(20);
  await life.capture();
  life.insert(1);
  await life.capture();
  life.ship();
}

/** How each kind of work is tried again after E_DISK: a scan after opening the state anew, the rest where it is. */
export const WORK: readonly { name: string; retry: "in place" | "reopened"; run(life: Life): Promise<void> }[] = [
  { name: "begin", retry: "reopened", run: (life) => life.begin() },
  { name: "capture", retry: "in place", run: (life) => life.capture() },
  { name: "ship", retry: "in place", run: async (life) => life.ship() },
  { name: "snapshot", retry: "reopened", run: (life) => life.snapshot() },
  { name: "compare", retry: "reopened", run: (life) => life.compare() },
];

/** What a crash left in `stateFolder`, opened while the database of `life` is as the crash found it. */
export function expectAgreement(life: Life, stateFolder: string, tableExpected: boolean): void {
  const state = new LocalState(stateFolder, URL, NAME, WALSYNC_RULES);
  try {
    expect(leftovers(stateFolder)).toEqual([]);
    const newest = [...life.reported.keys()].at(-1) ?? 0n;
    if (state.position === null) {
      expect(newest).toBe(0n);
      expect(readdirSync(folderOf(stateFolder))).toEqual(["outbox"]);
      expect(state.outbox.files).toEqual([]);
      return;
    }
    state.recover(life.database);
    const { captured, shippedTxid } = state.position;
    expect(captured.txid === newest || captured.txid === newest + 1n).toBe(true);
    const promised = life.reported.get(captured.txid);
    if (promised !== undefined) {
      expect({ ...captured, cursor: null }).toEqual({ ...promised.captured, cursor: null, changeCount: null });
      if (captured.cursor !== null) expect(captured.cursor).toEqual(promised.captured.cursor!);
    }
    expectTable(state, promised?.pages ?? life.pages());
    if (tableExpected) expect(state.table).not.toBeNull();
    expectOutbox(life, state);
    const waiting = state.outbox.files.filter(claimsTxid).map(({ maxTxid }) => maxTxid);
    for (let txid = shippedTxid + 1n; txid <= captured.txid; txid++) expect(waiting).toContain(txid);
    const next = capture(life.database, state, state.position);
    if (next.kind === "resync") return;
    expectTable(state, life.pages());
    for (const file of state.outbox.files) acknowledge(new Map(life.acknowledged), file);
  } finally {
    state.close();
  }
}

/** Every file that was staged is there, byte for byte, and beside them at most the one that was on its way in or out. */
function expectOutbox(life: Life, state: LocalState): void {
  const found = outboxOf(state);
  const leaving = life.leaving === null ? null : basename(life.leaving.path);
  for (const { path, sha256 } of life.state.outbox.files) {
    const name = basename(path);
    if (found.has(name) || name !== leaving) expect([name, found.get(name)]).toEqual([name, sha256!]);
    found.delete(name);
  }
  found.delete(leaving ?? "");
  expect(found.size).toBeLessThanOrEqual(1);
}

/** Follows which bytes of a page table are surely on the disk. */
export class DurableTable {
  synced = Buffer.alloc(0);
  readonly #path: string;
  #pending = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Before a durable step. The table never changes between being synced and the step after that. */
  before(step: DurableStep, path: string): void {
    if (this.#pending) this.synced = readFileSync(this.#path);
    this.#pending = path === this.#path && (step === "sync" || step === "rename");
  }
}

/** Half-written files end anywhere, and of the table any entries are as they were when it was synced. */
export function tear(folder: string, synced: Buffer, random: () => number): void {
  for (const name of leftovers(folder)) {
    const path = join(folder, name);
    truncateSync(path, random() % (readFileSync(path).length + 1));
  }
  const path = join(folder, "pages.crc");
  if (!existsSync(path)) return;
  const written = readFileSync(path);
  const torn = Buffer.from(random() % 2 === 0 ? written : synced);
  const share = random() % 9;
  for (const at of Array.from({ length: Math.floor(torn.length / 8) }, (_, i) => i * 8)) {
    const from = random() % 8 < share ? synced : written;
    if (at + 8 <= from.length) from.copy(torn, at, at, at + 8);
  }
  writeFileSync(path, torn);
}
