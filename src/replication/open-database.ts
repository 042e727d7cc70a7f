/**
 * What a replicator holds while its database is open: the pin and where it is, the local state, the delivery, the work in
 * the background, and when things happened last.
 */
import { monotonicMs } from "../clock.ts";
import type { PinnedDatabase } from "../sqlite/database.ts";
import { SleepingDatabase } from "../sqlite/sleeping-database.ts";
import type { WalIndexHead } from "../sqlite/wal-index.ts";
import { nextTurn } from "../turn.ts";
import type { Delivery } from "./delivery.ts";
import { SCAN_PAUSE_MS } from "./due.ts";
import type { LocalState } from "./local-state.ts";
import { claimsTxid } from "./outbox.ts";
import { planCapture } from "./plan.ts";
import { continueFromFile, type Position } from "./position.ts";

export interface DatabaseStatus {
  /** Bytes that are staged and not yet acknowledged. */
  waitingBytes: number;
  /**
   * Age of the oldest transaction that is captured and not acknowledged; 0 if there is none. Before the first is captured:
   * for how long the destination has been awaited.
   */
  lagMs: number;
  walBytes: number;
}

export class OpenDatabase {
  readonly state: LocalState;
  readonly delivery: Delivery;
  /** Ends the work in the background. */
  readonly stop = new AbortController();
  /** Settles with first contact. */
  readonly connected: Promise<void>;
  isConnected = false;
  markConnected: () => void = () => {};
  failConnected: (error: unknown) => void = () => {};

  lastCaptureMs = 0;
  lastCheckpointMs: number;
  /** After a fence that was in vain the next one does not come before this time. */
  fenceNotBeforeMs = 0;
  /** A reader of the application kept the last fence from freeing the WAL. */
  readerBlocks = false;
  /** Since when nothing was committed that waits to be copied back; infinite if that was tried already. */
  quietFromMs: number;
  /** How often we looked again since the last event. */
  lookStep = 0;
  /** Since when the WAL index cannot be read; null while it can. */
  unreadableSinceMs: number | null = null;
  /** When the pin was let go for another process's checkpoint; null while it is held. */
  yieldedAtMs: number | null = null;
  /** The pin was let go since the last look, which has yet to prove that nothing was lost. */
  yieldAwaitsProof = false;
  /** The pin was moved since everything was captured: what was committed in between may not be readable for long. */
  pinMoved = false;
  /** The name of the database file may have changed hands. */
  checkFile = false;
  /** The database is being read: the pin must stay where it is. */
  scanning = false;
  /** A snapshot or a validation is under way, or waits for its turn. */
  scanQueued = false;
  /** Frames that were captured since the last snapshot, or since it was opened. */
  framesSinceSnapshot = 0;
  /** A snapshot was asked for at the start, and not taken yet. */
  wantsSnapshot = false;
  /** The next periodic snapshot, and the next validation, do not begin before these times. */
  snapshotNotBeforeMs = 0;
  validationNotBeforeMs = 0;

  /** After a fault of the local disk, captures are tried again at this time. */
  pausedUntilMs = 0;

  #database: PinnedDatabase | SleepingDatabase;
  readonly #openedAtMs = Date.now();
  #yieldNotBeforeMs = 0;
  /** The WAL index when the pin was taken. */
  #pinned: WalIndexHead;
  readonly #tasks = new Set<Promise<void>>();
  /** Scans of the database that are under way. */
  readonly #readings = new Set<Promise<unknown>>();
  #isLetGo = false;

  constructor(database: PinnedDatabase, state: LocalState, delivery: Delivery, nowMs: number) {
    this.#database = database;
    this.state = state;
    this.delivery = delivery;
    this.lastCheckpointMs = nowMs;
    this.quietFromMs = nowMs;
    this.#pinned = database.walIndex();
    state.fileProof = () => this.#fileProof();
    this.connected = new Promise((resolve, reject) => {
      this.markConnected = () => {
        this.isConnected = true;
        resolve();
      };
      this.failConnected = reject;
    });
    this.connected.catch(() => {}); // Not everybody waits for it.
  }

  /** The database with its pin. One that sleeps is woken. Throws E_DATABASE if that fails. */
  get database(): PinnedDatabase {
    if (!(this.#database instanceof SleepingDatabase)) return this.#database;
    const { database, countShift, isUntouched } = this.#database.wake();
    this.#database = database;
    const captured = this.state.position?.captured;
    // The scan that begins the chain takes the pin when it has its turn.
    if (captured === undefined) return database;
    if (countShift !== null && captured.changeCount !== null) {
      captured.changeCount = (captured.changeCount + countShift) >>> 0;
    } else {
      captured.changeCount = null;
      if (isUntouched) continueFromFile(captured, database);
    }
    // Whatever was committed meanwhile is not pinned.
    this.pinMoved = true;
    this.notePin();
    return database;
  }

  get isPinned(): boolean {
    return !(this.#isLetGo || this.#database instanceof SleepingDatabase);
  }

  /** True for one that sleeps, and to which nothing happened meanwhile. */
  sleepsWell(): boolean {
    return this.#database instanceof SleepingDatabase && !this.#database.isStirred();
  }

  /**
   * Lets go of the connection until something happens to the database, if it is quiet: everything is captured and copied back,
   * and nobody reads it; and the last capture is `quietMs` ago. Or until it is read whole, if its chain has yet to begin. Returns
   * whether it sleeps.
   */
  trySleep(quietMs: number): boolean {
    if (this.#database instanceof SleepingDatabase) return true;
    if (!SleepingDatabase.isPossible) return false;
    const { position } = this.state;
    let head: WalIndexHead | null = null;
    if (position !== null) {
      head = this.#quietHead(this.#database, position, quietMs);
      if (head === null) return false;
      position.captured.changeCount = head.changeCount;
    }
    this.#database = SleepingDatabase.from(this.#database, head);
    this.state.rest();
    return true;
  }

  status(): DatabaseStatus {
    const { outbox } = this.state;
    // A later snapshot only repeats what others hold, and may take long.
    const oldest = outbox.files.find(claimsTxid);
    const sinceMs = this.state.position === null ? this.#openedAtMs : oldest?.stagedAtMs;
    return {
      waitingBytes: outbox.sizeBytes,
      lagMs: sinceMs === undefined ? 0 : Math.max(0, Date.now() - sinceMs),
      walBytes: this.#isLetGo ? 0 : this.#database.walSizeBytes(),
    };
  }

  /** True if it was asked to look (`checkFile`), and the path names another file than the one that is open, or none. */
  isReplaced(): boolean {
    if (this.checkFile) this.checkFile = this.#database.isReplaced();
    return this.checkFile;
  }

  /**
   * A try that began at `startedMs` failed. It read all that waits in the WAL for nothing, and events come by the thousand.
   * Returns when to try again.
   */
  pauseCaptures(startedMs: number): number {
    this.pausedUntilMs = startedMs + Math.max(DISK_PAUSE_MS, DISK_PAUSE_SHARE * (monotonicMs() - startedMs));
    return this.pausedUntilMs;
  }

  /** A snapshot was taken: `intervalMs` is the time between two, or 0. */
  noteSnapshot(intervalMs: number): void {
    this.snapshotNotBeforeMs = monotonicMs() + Math.min(SCAN_PAUSE_MS, intervalMs || SCAN_PAUSE_MS);
    this.framesSinceSnapshot = 0;
    this.wantsSnapshot = false;
  }

  /** Pinned at mark 0: the WAL was copied back completely, and the next writer restarts it. */
  get restsAtZero(): boolean {
    return this.#pinned.backfilled === this.#pinned.frameCount;
  }

  /** True if the pin keeps the WAL from being copied back or restarted although everything is captured. */
  pinIsStale(head: WalIndexHead): boolean {
    if (head.salt1 !== this.#pinned.salt1 || head.frameCount !== this.#pinned.frameCount) return true;
    return head.frameCount > 0 && head.backfilled === head.frameCount && !this.restsAtZero;
  }

  /** The hop: for microseconds the WAL is free. The next look proves that nothing was lost. */
  movePin(): void {
    this.database.repin();
    this.pinMoved = true;
    this.notePin();
  }

  /** True if an application's checkpoint may be waiting for our pin. */
  mustYield(nowMs: number): boolean {
    return this.yieldedAtMs === null && nowMs >= this.#yieldNotBeforeMs && this.database.isCheckpointWaiting();
  }

  /**
   * The yield: lets the pin go until another process's checkpoint has restarted the WAL, or has had its time. Everything is
   * captured, and no writer comes in between while the checkpoint holds the write lock. The next look proves it.
   */
  async yieldPin(): Promise<void> {
    const startedMs = monotonicMs();
    this.yieldedAtMs = startedMs;
    this.yieldAwaitsProof = true;
    this.database.unpin();
    while (this.yieldedAtMs !== null && !this.stop.signal.aborted) {
      const nowMs = monotonicMs();
      const restarted = this.#wasRestarted();
      if (restarted || !this.database.isCheckpointWaiting()) this.takePinBack();
      else if (nowMs - startedMs >= YIELD_MS) {
        // Somebody else holds the checkpoint up. Yielding on and on would only leave the WAL unguarded.
        this.takePinBack();
        this.#yieldNotBeforeMs = nowMs + YIELD_PAUSE_MS;
      } else {
        // Finer than a timer: whatever commits before the pin is back must be proven.
        Bun.sleepSync(YIELD_STEP_MS);
        await nextTurn();
      }
    }
  }

  takePinBack(): void {
    this.yieldedAtMs = null;
    this.database.pin();
    this.pinMoved = true;
    this.notePin();
  }

  #wasRestarted(): boolean {
    const { salt1, salt2 } = this.database.walIndex();
    return salt1 !== this.#pinned.salt1 || salt2 !== this.#pinned.salt2;
  }

  notePin(): void {
    this.#pinned = this.database.walIndex();
    if (this.restsAtZero) this.readerBlocks = false;
  }

  /**
   * When to look again after an event: after 1, 2 and 4 ms, since events are swallowed that follow another closely, and some
   * times more for whoever waits for the pin to give way; longest while a checkpoint of the application would have to wait for it.
   * The first of them are left out if nothing may be captured before `captureDueMs`, which is later: what was not announced
   * is found by then.
   */
  nextLookMs(nowMs: number, captureDueMs = nowMs): number {
    if (captureDueMs - nowMs > LOOKS_MS[LOOKS_IN_TIME]!) this.lookStep = Math.max(this.lookStep, LOOKS_IN_TIME);
    const steps = this.restsAtZero ? LOOKS_AT_ZERO : LOOKS_MS.length;
    if (this.lookStep >= steps) return Number.POSITIVE_INFINITY;
    const dueMs = nowMs + LOOKS_MS[this.lookStep++]!;
    // A turn of the event loop costs more than a look: databases share those that need not be in time.
    return this.lookStep <= LOOKS_IN_TIME ? dueMs : Math.ceil(dueMs / LOOKS_GRID_MS) * LOOKS_GRID_MS;
  }

  /** Leaves proof for the next start, if the database file holds everything that is captured. */
  rememberFile(): void {
    const proof = this.#fileProof();
    if (proof !== null && proof !== this.state.position?.file) this.state.save();
  }

  /** Fingerprint of the database file, if it holds everything that is captured; else null. */
  #fileProof(): string | null {
    const { position } = this.state;
    if (position === null || this.#isLetGo) return null;
    if (this.#database instanceof SleepingDatabase) return this.sleepsWell() ? this.#database.keptFingerprint() : null;
    return copiedBackHead(this.#database, position) === null ? null : this.#database.fingerprint();
  }

  /** The WAL index, if everything is captured and copied back, and nobody needs the connection; else null. */
  #quietHead(database: PinnedDatabase, position: Position, quietMs: number): WalIndexHead | null {
    if (this.lastCaptureMs > 0 && monotonicMs() - this.lastCaptureMs < quietMs) return null;
    if (this.scanQueued || this.scanning || this.yieldedAtMs !== null || this.pinMoved || this.checkFile) return null;
    return copiedBackHead(database, position);
  }

  /** Runs `work` beside everything else. Its failure is not one if `stop` was asked for. */
  inBackground(work: () => Promise<void>, onError: (error: unknown) => void): void {
    const task = work()
      .catch((error) => {
        if (!this.stop.signal.aborted) onError(error);
      })
      .finally(() => this.#tasks.delete(task));
    this.#tasks.add(task);
  }

  /** Resolves when nothing runs in the background. */
  async settled(): Promise<void> {
    while (this.#tasks.size > 0) await Promise.all(this.#tasks);
  }

  /** Runs a scan of the database: its files stay open until then. */
  async reading<T>(scan: () => Promise<T>): Promise<T> {
    const reading = scan();
    this.#readings.add(reading);
    try {
      return await reading;
    } finally {
      this.#readings.delete(reading);
    }
  }

  /**
   * Closes the database's files, as soon as no scan reads them. What is captured is shipped on. A file that was deleted takes
   * up its place on the disk until then, and with a pin its WAL would grow for as long as writers have it open.
   */
  async letGo(): Promise<void> {
    this.yieldedAtMs = null;
    await Promise.allSettled(this.#readings);
    if (this.#isLetGo) return;
    this.#isLetGo = true;
    this.#database.close();
  }

  /** Ends everything. The database is let go of first: nothing that a destination does may hold up its writers. */
  async close(): Promise<void> {
    this.stop.abort();
    this.failConnected(this.stop.signal.reason);
    const delivered = this.delivery.stop();
    await this.letGo();
    await delivered;
    await this.settled();
    this.state.close();
  }
}

// --- internal ---

/** The WAL index, if everything is captured and copied back; else null. */
function copiedBackHead(database: PinnedDatabase, { captured }: Position): WalIndexHead | null {
  const head = database.tryWalIndex();
  if (head === null || head.backfilled < head.frameCount) return null;
  return planCapture(captured, head).kind === "idle" ? head : null;
}

const DISK_PAUSE_MS = 1000;
/** Trying takes a tenth of the processor at most. */
const DISK_PAUSE_SHARE = 10;
const YIELD_MS = 150;
const YIELD_STEP_MS = 0.25;
const YIELD_PAUSE_MS = 1000;
/** Pauses between looks. */
const LOOKS_MS: readonly number[] = [1, 2, 4, 16, 40, 100, 250, 600];
const LOOKS_AT_ZERO = 5;
const LOOKS_IN_TIME = 3;
const LOOKS_GRID_MS = 20;
