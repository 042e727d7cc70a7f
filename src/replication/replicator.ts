/**
 * One database on its way to one destination: observes, asks plan.ts what to do, does it, records it.
 *
 * `tick` is synchronous and does whatever is due: capture, move the pin, copy frames back. Whatever takes longer (a scan
 * of the whole database, uploads, first contact) runs beside it and wakes the watcher when it is done.
 */
import { existsSync } from "node:fs";
import { assert } from "../assert.ts";
import type { ManifestEntry } from "../chain/manifest.ts";
import { monotonicMs } from "../clock.ts";
import { messageOf, WalsyncError } from "../errors.ts";
import { acquire } from "./acquire.ts";
import { paced } from "./backlog.ts";
import { tend } from "./capture.ts";
import { chainBeginning } from "./chain-beginning.ts";
import { type ContactPlan, fencedError, type RemoteEnd } from "./contact.ts";
import { Delivery, untilAborted } from "./delivery.ts";
import { oweSnapshot, SCAN_RETRY_MS } from "./due.ts";
import { asFault, changed, FaultLog, isNotYetMade, missing, replaced, unfinished } from "./faults.ts";
import type { ScanOptions } from "./full-scan.ts";
import { Journal } from "./journal.ts";
import type { HeldLock } from "./lock.ts";
import { type DatabaseStatus, OpenDatabase } from "./open-database.ts";
import { OutboxDamage } from "./outbox.ts";
import { CLOSING_MS, failedPhase, type Phase } from "./phase.ts";
import type { ResyncReason } from "./plan.ts";
import type { Position } from "./position.ts";
import type { ReplicatorSetup } from "./replicator-setup.ts";
import { type LiveScan, ScanRunner } from "./scan-runner.ts";
import { resync, snapshot, validate } from "./scans.ts";
import type { Shipped, ShippedFile } from "./shipper.ts";
import { SyncRequests } from "./sync-requests.ts";

export class Replicator {
  readonly path: string;
  readonly name: string;
  /** Called when something that ran beside `tick` makes another one worth while. */
  onWake: () => void = () => {};
  /** Captures are so far apart at least, in ms, however eager the policy is. */
  leastIntervalMs = 0;
  /** Called with every file that the destination acknowledged. */
  onShipped: (shipped: ShippedFile) => void = () => {};
  /** When the destination last acknowledged a file, in ms of the host's clock; null if not since the start. */
  shippedAtMs: number | null = null;
  /** Increments that it acknowledged since the start. */
  shippedIncrements = 0;
  /** When it last did, or told where the chain ends. */
  confirmedAtMs: number | null = null;
  #setup: ReplicatorSetup;
  #phase: Phase = { kind: "closed" };
  #lock: HeldLock | null = null;
  #open: OpenDatabase | null = null;
  /** Descriptors of a database must be closed before it is opened again: closing them drops SQLite's locks. */
  #closing: Promise<void> | null = null;
  #failure: WalsyncError | null = null;
  /** What keeps captures waiting although the database is live. */
  #pausedBy: string | null = null;
  #wasOpen = false;
  /** It never was there, or has nothing in it yet. */
  #isAwaited = false;
  readonly #faults: FaultLog;
  readonly #journal: Journal;
  readonly #scans: ScanRunner;

  constructor(setup: ReplicatorSetup) {
    this.#setup = setup;
    this.#faults = new FaultLog(setup.name, setup.path, setup.onDamage);
    this.#journal = new Journal(setup.name, setup.onEvent);
    this.#scans = new ScanRunner(setup, {
      isLive: () => this.#phase.kind === "live",
      captureRest: (open) => void this.#tickLive(open, monotonicMs(), true),
    });
    this.path = setup.path;
    this.name = setup.name;
  }

  /** The fault that closed the database and is not over, or null. A database that is still awaited has none. */
  get failure(): WalsyncError | null {
    return this.#isAwaited ? null : this.#failure;
  }

  /** The error that made this database stop for good, or null. */
  get fencedBy(): unknown {
    return this.#phase.kind === "fenced" ? this.#phase.error : null;
  }

  /** What keeps the newest commits from being captured, in one line, or null. */
  get trouble(): string | null {
    const fault = this.fencedBy ?? this.failure;
    return fault === null ? this.#pausedBy : messageOf(fault);
  }

  /** How far everything is; null before the first snapshot is staged, and while the database is not open. */
  get position(): Readonly<Position> | null {
    return this.#open?.state.position ?? null;
  }

  /** Files that are staged and not yet acknowledged. */
  get waitingFiles(): number {
    return this.#open?.state.outbox.files.length ?? 0;
  }

  /** A file that somebody else put there for this database is in the manifest when that is written next. */
  listInManifest(entry: ManifestEntry): void {
    this.#open?.delivery.listInManifest(entry);
  }

  dropFromManifest(names: ReadonlySet<string>): void {
    this.#open?.delivery.dropFromManifest(names);
  }

  /** Another policy holds from now on. */
  adjust(change: Pick<ReplicatorSetup, "policy" | "mayVanish">): void {
    this.#setup = { ...this.#setup, ...change };
    this.onWake();
  }

  get state(): Phase["kind"] {
    // One that its application has yet to make is tried again as a failed one is.
    return this.#isAwaited && this.#phase.kind === "failed" ? "waiting" : this.#phase.kind;
  }

  /** What is measured of it; null while the database is not open. */
  get status(): DatabaseStatus | null {
    return this.#open?.status() ?? null;
  }

  /**
   * Takes the lock and pins the database. Throws E_LOCKED, E_DATABASE, E_DISK, E_INTEGRITY or E_LTX: nothing is held then.
   */
  open(): void {
    assert(this.#open === null, "a database is opened once");
    const { database, state, lock } = acquire(this.#setup, this.#lock, (error) =>
      this.#faults.reportDamage("outbox", error),
    );
    this.#lock = lock;
    const delivery = new Delivery(this.#setup, state, {
      onShipped: (shipped) => this.#onShipped(shipped),
      onContact: (plan, remote) => this.#onContact(plan, remote),
      onStop: (error) => this.#onDeliveryStop(error),
    });
    this.#open = new OpenDatabase(database, state, delivery, monotonicMs());
    this.#open.wantsSnapshot = this.#setup.policy.snapshot.onStartup && !this.#wasOpen;
    this.#wasOpen = true;
    this.#phase = { kind: state.position === null ? "waiting" : "live" };
    // The chain begins with whatever the database is then, however long the destination is awaited.
    if (this.#phase.kind === "waiting") database.unpin();
  }

  /** Makes first contact in the background, as soon as the destination is ready. */
  begin(): void {
    this.#open?.delivery.start();
  }

  /** As `open`, but goes on trying if that fails: for a database that is not there yet. */
  openWhenPossible(nowMs: number): void {
    try {
      this.open();
    } catch (error) {
      this.#handle(error, nowMs);
    }
  }

  /** Something happened to the files of the database. `renamed`: perhaps to the database file's name itself. */
  notice(renamed: boolean): void {
    if (this.#open !== null) this.#open.lookStep = 0;
    if (renamed) this.poll();
  }

  /** Nothing is known to have happened: the next look is at the file's name, too, and no others follow it. */
  poll(): void {
    if (this.#open !== null) this.#open.checkFile = true;
    else if (this.#phase.kind === "failed")
      this.#phase.retryAtMs = Math.min(this.#phase.retryAtMs, this.#phase.soonestMs);
  }

  /** Does what is due and returns when the next thing is, in ms; infinite if nothing is. Never throws. */
  tick(nowMs: number): number {
    try {
      switch (this.#phase.kind) {
        case "live":
          return this.#tickLive(this.#open!, nowMs, false);
        case "waiting":
        case "scanning":
          return this.#open!.isReplaced() ? this.#lose(nowMs) : Number.POSITIVE_INFINITY;
        case "vanished":
          return existsSync(this.path) ? this.#lose(nowMs) : Number.POSITIVE_INFINITY;
        case "failed":
          if (nowMs < this.#phase.retryAtMs) return this.#phase.retryAtMs;
          if (this.#closing !== null) return nowMs + CLOSING_MS;
          this.open();
          this.begin();
          return nowMs;
        default:
          return Number.POSITIVE_INFINITY;
      }
    } catch (error) {
      return this.#handle(error, nowMs);
    }
  }

  /** True while it has a connection to the database. */
  get isPinned(): boolean {
    return this.#open?.isPinned === true;
  }

  /** Lets go of the connection until it is needed, if it has been quiet for so long or its chain has yet to begin. Returns if it sleeps. */
  trySleep(quietMs = 0): boolean {
    const { kind } = this.#phase;
    return (kind === "waiting" || (kind === "live" && this.trouble === null)) && this.#open!.trySleep(quietMs);
  }

  /** Of somebody who waits for it. Made for each: few databases ever see one. */
  get requests(): SyncRequests {
    return new SyncRequests(this.#setup, {
      open: () => this.#open,
      phase: () => this.#phase.kind,
      fault: () => this.fencedBy ?? this.#failure,
      pausedBy: () => this.#pausedBy,
      captureRest: (open) => void this.#tickLive(open, monotonicMs(), true),
      runSnapshot: (open) => this.#runSnapshot(open),
    });
  }

  /** `finish` and `end`. */
  async stop(deadline: AbortSignal): Promise<number> {
    await this.finish(deadline);
    return await this.end(deadline);
  }

  /** Captures and ships what is left, as far as that is possible before `deadline` aborts. `failure` tells what kept it from that. */
  async finish(deadline: AbortSignal): Promise<void> {
    await this.#lastSync(deadline).catch((error) => this.#failLast(error));
  }

  /** Lets go of everything. Resolves with the number of files that stay in the outbox; `failure` tells of a database that cannot be read. */
  async end(deadline: AbortSignal): Promise<number> {
    try {
      if (this.#phase.kind === "live" && this.#failure === null && !deadline.aborted) this.#open?.rememberFile();
    } catch (error) {
      this.#failLast(error);
    }
    try {
      const left = this.waitingFiles;
      if (this.#phase.kind !== "fenced") this.#phase = { kind: "closed" };
      await this.#close();
      return left;
    } finally {
      this.#lock?.release();
      this.#lock = null;
    }
  }

  #failLast(error: unknown): void {
    this.#failure = asFault(this.path, error);
    this.#isAwaited &&= isNotYetMade(this.path);
  }

  async #lastSync(deadline: AbortSignal): Promise<void> {
    this.notice(true);
    if (this.#phase.kind === "vanished" ? existsSync(this.path) : this.#open?.isReplaced()) this.#lose(monotonicMs());
    if (this.#phase.kind === "failed" && this.#isGone()) this.#failure = null;
    else if (this.#phase.kind === "failed" && !deadline.aborted) {
      // One more try: what was committed since would wait for the next start.
      await this.#closing;
      this.open();
      this.begin();
      this.#failure = null;
    }
    const open = this.#open;
    if (open === null) return;
    if (this.#phase.kind === "vanished") return await open.delivery.finish(deadline);
    // First contact may read the whole database, and a comparison may be under way: what was committed meanwhile is captured
    // after that.
    for (let isDone = false; !isDone; ) {
      if (this.#phase.kind === "live") this.#tickLive(open, monotonicMs(), true);
      const isCaptured = this.#phase.kind === "live";
      await Promise.race([open.settled(), untilAborted(deadline)]);
      const { waitingFiles } = this;
      await open.delivery.finish(deadline);
      // A full outbox that became empty has room for what is left.
      const hasRoom = this.#pausedBy === null || (waitingFiles > 0 && this.waitingFiles === 0);
      isDone = deadline.aborted || this.#phase.kind !== "live" || !hasRoom || (isCaptured && this.#pausedBy === null);
    }
    const { kind } = this.#phase;
    if (kind === "waiting" || kind === "scanning" || this.#pausedBy !== null) throw unfinished(this.path);
  }

  #tickLive(open: OpenDatabase, nowMs: number, force: boolean): number {
    if (nowMs < open.pausedUntilMs && !force && !open.isReplaced()) return open.pausedUntilMs;
    // First: after a fault of the disk, what was acknowledged may take up the room that captures need.
    open.delivery.tend(nowMs, this.#pausedBy !== null && open.pausedUntilMs > 0);
    const tended = tend(open, paced(this.#setup.policy, this.leastIntervalMs), nowMs, force);
    if (open.yieldAwaitsProof && open.yieldedAtMs === null) {
      open.yieldAwaitsProof = false;
      this.#journal.checkpointed({ mode: "yield", result: tended.next.kind === "resync" ? "unproven" : "proven" });
    }
    if (open.readerBlocks) this.#journal.readerBlocks(open.database.walSizeBytes());
    this.#journal.tended(tended);
    if (tended.captured.length > 0) {
      this.#faults.clear();
      this.#pausedBy = null;
      open.delivery.start();
    }
    if (this.#failure !== null && tended.next.kind !== "resync" && tended.next.kind !== "replaced") {
      this.#failure = null;
      this.#pausedBy = null;
      this.#faults.clear();
      this.#journal.tell("info", "database is back", { path: this.path });
    }
    // Forced, it captures all that there is.
    if (force && tended.next.kind !== "full") this.#pausedBy = null;
    switch (tended.next.kind) {
      case "wait":
        return Math.min(tended.next.untilMs, open.delivery.dueMs);
      case "snapshot":
        if (!open.scanQueued) this.#inBackground(open, () => this.#runSnapshot(open));
        return open.nextLookMs(nowMs);
      case "validate":
        this.#inBackground(open, () => this.#runValidation(open));
        return open.nextLookMs(nowMs);
      case "yield":
        this.#inBackground(open, async () => {
          await open.yieldPin();
          this.#journal.tell("debug", "yielded to a checkpoint", { durationMs: monotonicMs() - nowMs });
          this.onWake();
        });
        return Number.POSITIVE_INFINITY;
      case "resync":
        this.#startResync(open, tended.next.reason);
        return Number.POSITIVE_INFINITY;
      case "replaced":
        return this.#lose(nowMs);
      case "full":
        this.#pausedBy = this.#faults.reportFull(open.state.outbox.sizeBytes, this.#setup.policy.maxOutboxBytes);
        return Number.POSITIVE_INFINITY;
    }
  }

  /** The file that was opened is not at its path any more. Returns when to look again. */
  #lose(nowMs: number): number {
    if (this.#isGone() && (this.#phase.kind === "live" || this.#phase.kind === "vanished")) {
      this.#phase = { kind: "vanished" };
      void this.#open?.letGo();
      return Number.POSITIVE_INFINITY;
    }
    const retryAtMs = this.#handle(replaced(this.path), nowMs);
    // Another file has its name: nothing more may ever happen to that.
    if (this.#phase.kind === "failed" && existsSync(this.path)) this.#phase.retryAtMs = this.#phase.soonestMs;
    return this.#phase.kind === "failed" ? this.#phase.retryAtMs : retryAtMs;
  }

  #isGone(): boolean {
    return this.#setup.mayVanish === true && !existsSync(this.path);
  }

  #onShipped(shipped: Shipped): void {
    this.shippedAtMs = Date.now();
    this.confirmedAtMs = this.shippedAtMs;
    this.#journal.shipped(shipped);
    this.onShipped(shipped);
    if (shipped.file.minTxid !== 1n) this.shippedIncrements++;
    // There may be room in the outbox again.
    this.onWake();
  }

  async #onContact(plan: ContactPlan, remote: RemoteEnd | null): Promise<void> {
    const open = this.#open!;
    const { state } = open;
    this.#journal.tell("debug", "first contact", { reason: plan.kind, txid: remote?.txid ?? 0n });
    if (plan.kind === "fenced") throw fencedError(this.name, this.#setup.destination.url, `txid ${remote!.txid}`);
    const beginning = chainBeginning(open, this.#setup, plan, remote, this.#journal);
    const startedMs = monotonicMs();
    if (beginning !== null) await this.#scan(open, beginning);
    if (plan.kind === "begin") this.#journal.snapshotStaged(monotonicMs() - startedMs);
    this.confirmedAtMs = Date.now();
    const reason = plan.kind === "snapshot" ? plan.reason : remote?.whole === false ? "chain-gap" : null;
    if (reason !== null) {
      this.#faults.reportDamage("destination", missing(this.name, reason));
      oweSnapshot(state.position!, remote?.snapshotTxid ?? 0n);
      this.onWake();
    }
    if (open.isConnected) return;
    this.#journal.replicating(this.path, state.position!.captured.txid);
    open.markConnected();
  }

  #onDeliveryStop(error: unknown): void {
    this.#open?.failConnected(error);
    if (error instanceof WalsyncError && error.code === "E_FENCED") {
      this.#phase = { kind: "fenced", error };
      this.#faults.report("stopped: another writer owns the name", error);
      void this.#close();
    } else if (error instanceof OutboxDamage) this.#beginAnew(error);
    else this.#handle(error, monotonicMs());
    this.onWake();
  }

  #startResync(open: OpenDatabase, reason: ResyncReason): void {
    this.#journal.resyncBegins(reason);
    this.#phase = { kind: "scanning" };
    this.#inBackground(open, async () => {
      await this.#scan(open, async (options) => {
        this.#journal.resyncEnds(await resync(open.database, open.state, options));
      });
      open.delivery.start();
    });
  }

  async #runSnapshot(open: OpenDatabase): Promise<void> {
    open.snapshotNotBeforeMs = monotonicMs() + SCAN_RETRY_MS;
    const startedMs = monotonicMs();
    if (await this.#scanWhileLive(open, snapshot)) {
      this.#journal.snapshotStaged(monotonicMs() - startedMs);
      open.noteSnapshot(this.#setup.policy.snapshot.intervalMs);
    }
    open.delivery.start();
    this.onWake();
  }

  /** Compares the database with what was captured, and the destination with what was shipped. */
  async #runValidation(open: OpenDatabase): Promise<void> {
    open.validationNotBeforeMs = monotonicMs() + SCAN_RETRY_MS;
    if (await this.#scanWhileLive(open, validate)) {
      open.validationNotBeforeMs = 0;
      this.#journal.tell("info", "validated", { txid: open.state.position!.captured.txid });
    }
    open.delivery.askAgain();
    this.onWake();
  }

  /** Reads the whole database while captures go on. False if it came to nothing, or to a resync, which is begun then. */
  async #scanWhileLive(open: OpenDatabase, scan: LiveScan): Promise<boolean> {
    const outcome = await this.#scans.whileLive(open, scan);
    if (outcome === null) return false;
    this.#journal.scanned(outcome);
    if (outcome.kind === "done") return true;
    if (outcome.reason === "checksum-differs") this.#faults.reportDamage("database", changed(this.path));
    this.#startResync(open, outcome.reason);
    return false;
  }

  /** Runs a scan after which captures begin, or begin again. */
  async #scan(open: OpenDatabase, scan: (options: ScanOptions) => Promise<unknown>): Promise<void> {
    this.#phase = { kind: "scanning" };
    await this.#scans.exclusive(open, scan, () => {
      this.#phase = { kind: "live" };
      this.#pausedBy = null;
    });
    this.onWake();
  }

  #inBackground(open: OpenDatabase, work: () => Promise<void>): void {
    open.inBackground(work, (error) => {
      this.#handle(error, monotonicMs());
      this.onWake();
    });
  }

  /**
   * A failing local disk pauses whoever is patient: the pin keeps the frames. After anything else it is opened anew. Returns when.
   */
  #handle(error: unknown, nowMs: number): number {
    const fault = asFault(this.path, error);
    const open = fault.code === "E_DISK" && this.#phase.kind === "live" ? this.#open : null;
    if (open?.state.isGone()) return this.#beginAnew(new OutboxDamage(messageOf(fault), { cause: fault }));
    if (open !== null && this.#setup.patience === "endless") {
      this.#pausedBy = messageOf(fault);
      this.#faults.report("capture pauses", fault);
      return open.pauseCaptures(nowMs);
    }
    this.#failure = fault;
    this.#isAwaited = !this.#wasOpen && isNotYetMade(this.path);
    if (this.#isAwaited) this.#faults.reportAwaited();
    else if (this.#setup.patience === "endless") this.#faults.report("database failed", fault);
    this.#phase = failedPhase(fault, nowMs);
    void this.#close();
    return this.#phase.retryAtMs;
  }

  /** What waits to be shipped is damaged or gone: opens the database again without it. Returns when. */
  #beginAnew(error: OutboxDamage): number {
    this.#faults.reportDamage("outbox", error);
    this.#open?.state.startOver();
    this.#phase = { kind: "failed", retryAtMs: 0, soonestMs: 0 };
    void this.#close();
    return 0;
  }

  async #close(): Promise<void> {
    const open = this.#open;
    this.#open = null;
    const closed = () => {
      this.#closing = null;
    };
    if (open !== null) this.#closing = open.close().finally(closed);
    await this.#closing;
  }
}
