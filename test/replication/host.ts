/** One host: an application's database, a replicator that the test drives by hand, and a directory destination. */
import { Database } from "bun:sqlite";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { monotonicMs } from "../../src/clock.ts";
import type { Destination } from "../../src/destination/destination.ts";
import type { Layout } from "../../src/destination/layout.ts";
import { Gate } from "../../src/destination/limit.ts";
import { openDestination } from "../../src/destination/open.ts";
import { configureLog } from "../../src/log.ts";
import type { ReplicationPolicy } from "../../src/replication/capture.ts";
import { NO_SNAPSHOTS } from "../../src/replication/due.ts";
import { Replicator } from "../../src/replication/replicator.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import type { RestoreTarget } from "../../src/restore/restore-target.ts";
import { copyDatabase } from "../support/sqlite-process.ts";

const POLICY: ReplicationPolicy = {
  syncIntervalMs: 0,
  snapshot: NO_SNAPSHOTS,
  validationIntervalMs: 0,
  checkpoint: { minFrames: 1000, intervalMs: 60_000, fenceFrames: 4000 },
  maxOutboxBytes: 1e9,
  enableWal: false,
};
const PATIENCE_MS = 10_000;

export interface HostOptions {
  layout?: Layout;
  /** Another destination than the folder. */
  open?: () => Promise<Destination>;
  /** When the destination is said to be there; by default it is. */
  ready?: Promise<boolean>;
  mayVanish?: boolean;
  contacts?: Gate;
}

export class Host {
  readonly path: string;
  readonly log: string[] = [];
  readonly scans = new Gate(1);
  readonly #folder: string;
  readonly #bucket: string;
  readonly #stateFolder: string;
  readonly #options: HostOptions;
  #app: Database | null = null;
  #destination: Destination | null = null;
  #replicator: Replicator | null = null;

  /** Two hosts with one `bucket` replicate to the same name. */
  constructor(folder: string, bucket = join(folder, "bucket"), options: HostOptions = {}) {
    this.#options = options;
    this.#folder = folder;
    this.#bucket = bucket;
    this.#stateFolder = join(folder, "state");
    this.path = join(folder, "app.db");
    mkdirSync(folder, { recursive: true });
  }

  get bucketFolder(): string {
    return join(this.#bucket, "app");
  }

  get stateFolder(): string {
    return this.#stateFolder;
  }

  get replicator(): Replicator {
    if (this.#replicator === null) throw new Error("the replicator is not started");
    return this.#replicator;
  }

  get txid(): bigint {
    return this.replicator.position?.captured.txid ?? 0n;
  }

  /** The application's connection. */
  get app(): Database {
    if (this.#app === null) {
      this.#app = new Database(this.path, { create: true, readwrite: true });
      this.#app.run("pragma busy_timeout = 2000");
      this.#app.run("pragma wal_autocheckpoint = 0");
    }
    return this.#app;
  }

  create(pageSize = 4096, autoVacuum: "none" | "full" | "incremental" = "none"): void {
    this.app.run(`pragma page_size = ${pageSize}`);
    this.app.run(`pragma auto_vacuum = ${autoVacuum}`);
    this.app.run("pragma journal_mode = wal");
    this.app.run("create table item (id integer primary key, body)");
  }

  insert(count = 1, bytes = 100): void {
    const rows = this.app.query("insert into item (body) values (randomblob(?))");
    this.app.transaction(() => {
      for (let i = 0; i < count; i++) rows.run(bytes);
    })();
  }

  checkpoint(mode: "PASSIVE" | "FULL" | "RESTART" | "TRUNCATE"): void {
    this.app.run(`pragma wal_checkpoint(${mode})`);
  }

  closeApp(): void {
    this.#app?.close();
    this.#app = null;
  }

  async start(policy: Partial<ReplicationPolicy> = {}): Promise<void> {
    configureLog({ level: "debug", sink: (line) => this.log.push(line) });
    this.#destination ??= await this.#openDestination();
    await this.#destination.prepare();
    this.#replicator = new Replicator({
      layout: this.#options.layout ?? "walsync",
      path: this.path,
      name: "app",
      destination: this.#destination,
      stateFolder: this.#stateFolder,
      policy: { ...POLICY, ...policy },
      ready: this.#options.ready ?? Promise.resolve(true),
      mayVanish: this.#options.mayVanish ?? false,
      patience: "endless",
      scans: this.scans,
      contacts: this.#options.contacts,
    });
    this.#replicator.openWhenPossible(monotonicMs());
    this.#replicator.begin();
  }

  /** Looks until everything that is committed is captured and shipped. */
  async settle(): Promise<void> {
    await this.until("everything is shipped", () => {
      const { position, waitingFiles, state } = this.replicator;
      if (position === null || state === "scanning") return false;
      return waitingFiles === 0 && position.shippedTxid === position.captured.txid;
    });
  }

  /** Looks, and gives what runs beside it time, until `condition` has held for a few looks. */
  async until(what: string, condition: () => boolean): Promise<void> {
    const endMs = monotonicMs() + PATIENCE_MS;
    for (let quiet = 0; quiet < 5; ) {
      const held = condition();
      this.look();
      await Bun.sleep(2);
      quiet = held && condition() ? quiet + 1 : 0;
      if (monotonicMs() > endMs) throw new Error(`expected that ${what}; log:\n${this.log.join("\n")}`);
    }
  }

  /** One look, as after an event. */
  look(): void {
    this.replicator.notice(true);
    this.replicator.tick(monotonicMs());
  }

  async stop(): Promise<number> {
    const left = await this.replicator.stop(AbortSignal.timeout(PATIENCE_MS));
    return left;
  }

  /** Ends everything. */
  async end(): Promise<void> {
    await this.#replicator?.stop(AbortSignal.timeout(PATIENCE_MS));
    this.closeApp();
    this.#destination?.close();
  }

  /** Bytes of what a restore gives. */
  async restored(target: RestoreTarget = { kind: "newest" }): Promise<Uint8Array> {
    const output = join(this.#folder, "restored.db");
    this.#destination ??= await this.#openDestination();
    await restoreDatabase(this.#destination, "app", output, { target, integrity: "full", force: false });
    const bytes = readFileSync(output);
    rmSync(output);
    return bytes;
  }

  /** The database as SQLite reads it, without opening it here: another process has it. */
  copied(): Uint8Array {
    const copy = join(this.#folder, "copy.db");
    copyDatabase(this.path, copy);
    const database = new Database(copy);
    const bytes = database.serialize();
    database.close();
    return bytes;
  }

  #openDestination(): Promise<Destination> {
    return this.#options.open?.() ?? openDestination(this.#bucket);
  }

  content(): Uint8Array {
    return this.app.serialize();
  }

  logged(text: string): boolean {
    return this.log.some((line) => line.includes(text));
  }
}
