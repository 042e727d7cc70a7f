/**
 * A watch: databases that are replicated to one destination until it is stopped. The command `watch` and the library run the
 * same one. It has no process of its own: signals, ports, sockets and exit statuses are left to whoever opens it.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { monotonicMs } from "../clock.ts";
import type { DrillSummary } from "../control.ts";
import type { Destination } from "../destination/destination.ts";
import { Gate } from "../destination/limit.ts";
import { retrying } from "../destination/retry.ts";
import { type DestinationError, WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { Txid } from "../ltx/txid.ts";
import { forgetDatabase } from "../metrics.ts";
import { type Alert, AlertMonitor } from "../replication/alerts.ts";
import { untilAborted } from "../replication/delivery.ts";
import { Fleet } from "../replication/fleet.ts";
import { FolderEvents } from "../replication/folder-events.ts";
import type { DatabaseEvent } from "../replication/journal.ts";
import { keptName, stateFolderOf } from "../replication/local-state.ts";
import type { NamedDatabase } from "../replication/names.ts";
import { Replicator } from "../replication/replicator.ts";
import { Watcher } from "../replication/watcher.ts";
import { Caretaker } from "../upkeep/caretaker.ts";
import { destinationOf } from "./destination.ts";
import { isSealed } from "./encryption.ts";
import { WatchChanges } from "./watch-changes.ts";
import { drillFlagsOf, WatchDrills } from "./watch-drills.ts";
import type { PlannedDatabase, WatchPlan } from "./watch-plan.ts";

export type WatchEvent =
  | (NamedDatabase & DatabaseEvent)
  /** It is among the databases from now on; the next is the last that is heard of it. */
  | (NamedDatabase & { kind: "added" | "removed" })
  | (NamedDatabase & { kind: "restored"; txid: Txid; sizeBytes: number })
  | { kind: "alert"; alert: Alert; destination: string }
  /** The destination gives no answer, and is asked again after `delayMs`. */
  | { kind: "unreachable"; error: DestinationError; attempt: number; delayMs: number };

export interface WatchOptions {
  /** Where credentials come from. */
  env: Readonly<Record<string, string | undefined>>;
  /** Ends `open`. */
  signal: AbortSignal;
  /** Told what happens. Must not throw. */
  onEvent?: ((event: WatchEvent) => void) | undefined;
  /** Look after the health of the databases every few seconds, and tell what is wrong as "alert". */
  alerts: boolean;
  /**
   * Restore databases for practice, as their settings say, in children of this program, which has to be walsync itself. What goes
   * wrong is told as "alert", too.
   */
  drills: boolean;
  /** What was asked for, read again; without it `reload` must not be called. */
  replan?: (() => Promise<WatchPlan>) | undefined;
}

export class Watch {
  readonly #plan: WatchPlan;
  readonly #options: WatchOptions;
  /** Ends whatever is asked of the destination. */
  readonly #end: AbortController;
  readonly #events = new FolderEvents();
  readonly #watcher: Watcher;
  readonly #care: Caretaker;
  readonly #monitor: AlertMonitor | null;
  readonly #drills: WatchDrills | null;
  readonly #changes: WatchChanges;
  /** True when the destination has answered, false when it refused. */
  readonly #ready = Promise.withResolvers<boolean>();
  readonly #scans = new Gate(SCANS_AT_ONCE);
  readonly #contacts = new Gate(CONTACTS_AT_ONCE);
  #reaching: Promise<void> | null = null;
  #isStarted = false;
  readonly destination: Destination;
  readonly fleet: Fleet<PlannedDatabase>;

  /**
   * Opens and locks every database of the plan; with --restore-if-missing it restores those that are not there. Throws what is
   * wrong with one of them, or with the destination, E_USAGE and E_CONFIG; nothing is held then.
   */
  static async open(plan: WatchPlan, options: WatchOptions): Promise<Watch> {
    const end = new AbortController();
    const { flags } = plan;
    const watch = new Watch(plan, options, await destinationOf(flags, options.env, end.signal), end);
    if (isSealed(flags) && flags.merge.length > 0) {
      logEvent("info", "increments are not merged", { reason: "encrypted, and no identity to read them with" });
    }
    try {
      await watch.#openAll();
      return watch;
    } catch (error) {
      await watch.#care.stop();
      await Promise.all(watch.fleet.replicators.map((replicator) => replicator.stop(AbortSignal.abort())));
      watch.#close();
      throw error;
    }
  }

  private constructor(plan: WatchPlan, options: WatchOptions, destination: Destination, end: AbortController) {
    const { maxPinned, maxLag } = plan.flags;
    this.#plan = plan;
    this.#options = options;
    this.destination = destination;
    this.#end = end;
    this.#care = new Caretaker(destination);
    this.#watcher = new Watcher(this.#events, maxPinned);
    this.fleet = new Fleet<PlannedDatabase>(this.#watcher, {
      create: (database) => this.#newReplicator(database),
      onAdopt: (replicator, { path, name, settings }) => {
        const folder = this.#folderOf(path);
        this.#care.follow(replicator, join(folder, "merge"), settings.care);
        this.#drills?.follow(replicator, settings.drill, join(folder, "drill.json"));
        this.#tell({ kind: "added", path, name });
      },
      onAdjust: (replicator, { settings: own }) => {
        replicator.adjust({ policy: own.replication, mayVanish: own.mayVanish });
        this.#care.adjust(replicator, own.care);
        this.#drills?.adjust(replicator, own.drill);
      },
      onLeave: (replicator) => {
        this.#drills?.release(replicator);
        return this.#care.release(replicator);
      },
      onGone: ({ path, name }) => {
        forgetDatabase(name);
        this.#tell({ kind: "removed", path, name });
      },
    });
    const send = (alert: Alert) => this.#tell({ kind: "alert", alert, destination: destination.url });
    this.#monitor = options.alerts
      ? new AlertMonitor({ databases: () => this.fleet.replicators, maxLagMs: maxLag, send })
      : null;
    this.#drills = options.drills ? new WatchDrills(destination.url, drillFlagsOf(plan.flags), send) : null;
    this.#changes = new WatchChanges(plan, this.fleet, this.#events, {
      replan: async () => await options.replan!(),
      keptName: (path) => this.#keptName(path),
    });
  }

  /** What came of the last drill of a database; null before the first. */
  drillOf(replicator: Replicator): DrillSummary | null {
    return this.#drills?.summaryOf(replicator) ?? null;
  }

  /** Begins to replicate. Call it once, and `stop` or `abandon` afterwards. */
  start(): void {
    // Only now: a destination is not touched for databases that are refused.
    this.#reached().then(
      () => this.#ready.resolve(true),
      () => this.#ready.resolve(false),
    );
    this.#monitor?.start();
    this.fleet.start();
    this.#drills?.start();
    this.#changes.start();
    this.#isStarted = true;
  }

  /** Resolves when the destination has answered, when `patienceMs` are over, or when `signal` aborts. Throws if it refuses. */
  async answered(patienceMs: number, signal: AbortSignal): Promise<void> {
    await Promise.race([this.#reached(), Bun.sleep(patienceMs), untilAborted(signal)]);
  }

  /**
   * Resolves when there is nothing left to do: `signal` aborted, or every database is fenced. Throws if the destination
   * refuses. Its silence does not end a watch.
   */
  async finished(signal: AbortSignal): Promise<void> {
    const over = this.#watcher.finished(signal);
    await Promise.race([this.#reached().then(() => over), over]);
  }

  /** Takes over what the configuration says now. If something is wrong with it, that is logged, and everything stays as it was. */
  reload(): void {
    if (this.#isStarted) this.#changes.reload();
  }

  /** Takes in databases that appeared a moment ago. */
  async lookOnce(): Promise<void> {
    await this.#changes.lookOnce();
  }

  /** How long `stop` may take to ship what is left, in ms: as the configuration says now. */
  get shutdownTimeoutMs(): number {
    return this.#changes.plan.flags.shutdownTimeout;
  }

  /**
   * Captures and ships what is left, as far as `timeoutMs` allows, and lets go of everything. Throws E_FENCED if another writer
   * had taken over a name, the fault of a database that could not be read, and E_UNREACHABLE if captured transactions stay in
   * an outbox: the next start ships them.
   */
  async stop(timeoutMs: number): Promise<void> {
    this.#changes.stop();
    this.#monitor?.stop();
    const databases = this.fleet.replicators;
    logEvent("info", "stopping", { databases: databases.length });
    try {
      // A child that cleans up keeps nobody from shipping; and whatever comes of that, it is waited for.
      const shipping = this.#care.stop().then(() => this.fleet.stop(timeoutMs));
      for (const end of await Promise.allSettled([shipping, this.#drills?.stop()])) {
        if (end.status === "rejected") throw end.reason;
      }
      logEvent("info", "stopped", { databases: databases.length });
    } finally {
      this.#close();
      for (const { name } of databases) forgetDatabase(name);
    }
  }

  /** Lets go of everything at once: what is not shipped stays in the outbox. Never throws. */
  async abandon(): Promise<void> {
    this.#changes.stop();
    this.#monitor?.stop();
    await Promise.all([this.#care.stop(), this.#drills?.stop()]);
    await this.fleet.stop(0).catch(() => {});
    this.#close();
  }

  async #openAll(): Promise<void> {
    const { flags } = this.#plan;
    const { signal } = this.#options;
    for (const [i, database] of this.#plan.require((path) => this.#keptName(path)).entries()) {
      const replicator = this.fleet.create(database);
      if (flags.restoreIfMissing && !existsSync(database.path)) {
        await Promise.race([this.#reached(), untilAborted(signal)]);
        signal.throwIfAborted();
        await this.#restoreMissing(database);
      }
      if (this.#isAwaited(database)) replicator.openWhenPossible(monotonicMs());
      else replicator.open();
      this.fleet.enlist(database, replicator);
      // A thousand of them need not be open at once, not even now.
      if (i >= flags.maxPinned) replicator.trySleep();
    }
  }

  /** The application may be about to make it. */
  #isAwaited({ path }: NamedDatabase): boolean {
    const { restoreIfMissing, exec } = this.#plan.flags;
    return (restoreIfMissing || exec !== undefined) && !existsSync(path);
  }

  #newReplicator({ path, name, settings: { replication, care, mayVanish } }: PlannedDatabase): Replicator {
    return new Replicator({
      path,
      name,
      destination: this.destination,
      layout: care.layout,
      stateFolder: this.#folderOf(path),
      policy: replication,
      mayVanish,
      ready: this.#ready.promise,
      patience: "endless",
      scans: this.#scans,
      contacts: this.#contacts,
      onEvent: (event) => this.#tell({ path, name, ...event }),
      onDamage: (kind, error) => this.#monitor?.damaged(name, kind, error),
    });
  }

  /** Asked once, by whoever needs it first. */
  #reached(): Promise<void> {
    this.#reaching ??= this.#reach();
    return this.#reaching;
  }

  async #reach(): Promise<void> {
    const { url } = this.destination;
    const { signal } = this.#end;
    let failures = 0;
    await retrying(
      "prepare",
      () => this.destination.prepare({ signal }),
      {
        attempts: Number.MAX_SAFE_INTEGER,
        baseDelayMs: 500,
        maxDelayMs: 30_000,
        onRetry: ({ attempt, delayMs, error }) => {
          const { code, hint } = error;
          failures++;
          const fields = { destination: url, code, error, attempt, delayMs: Math.round(delayMs), hint };
          logEvent("error", "destination does not answer", fields);
          this.#tell({ kind: "unreachable", error, attempt, delayMs });
        },
      },
      signal,
    );
    if (failures > 0) logEvent("info", "destination answers again", { destination: url, attempt: failures });
  }

  /** Does nothing if the destination does not have it either. */
  async #restoreMissing({ path, name }: NamedDatabase): Promise<void> {
    const { restoreDatabase } = await import("../restore/restore.ts");
    try {
      const { signal } = this.#options;
      const options = { target: { kind: "newest" }, integrity: "quick", force: false, signal } as const;
      const { txid, sizeBytes } = await restoreDatabase(this.destination, name, path, options);
      logEvent("info", "restored", { database: name, path, txid, sizeBytes });
      this.#tell({ kind: "restored", path, name, txid, sizeBytes });
    } catch (error) {
      if (!(error instanceof WalsyncError) || error.code !== "E_NOT_FOUND") throw error;
      logEvent("info", "nothing to restore: the destination does not have it either", { database: name, path });
    }
  }

  #close(): void {
    this.#events.close();
    this.#end.abort();
    this.destination.close();
  }

  #folderOf(path: string): string {
    return stateFolderOf(path, this.#plan.flags.stateDir);
  }

  #keptName(path: string): string | null {
    return keptName(this.#folderOf(path), this.destination.url);
  }

  #tell(event: WatchEvent): void {
    this.#options.onEvent?.(event);
  }
}

// --- internal ---

/** Whole databases read at once: each needs memory and the disk for itself. */
const SCANS_AT_ONCE = 1;
/** Half of the requests that may be under way: the others are for what waits to be shipped. */
const CONTACTS_AT_ONCE = 8;
