/** Databases that are replicated until they are let go of: what `WalSync.watch` returns. */
import type { Watch, WatchEvent } from "../engine/watch.ts";
import { type ErrorCode, WalsyncError } from "../errors.ts";
import { isNotYetMade } from "../replication/faults.ts";
import type { Replicator } from "../replication/replicator.ts";
import { statusOf } from "./answers.ts";
import type { EventQueue } from "./event-queue.ts";
import type { ListOptions, SnapshotOptions } from "./options.ts";
import type { Snapshot, WatcherStatus } from "./results.ts";

/** Which database an event is about. */
export interface DatabaseAt {
  /** At the destination. */
  database: string;
  /** The file; absolute. */
  path: string;
}

/** Something is wrong with a database, or well again: told once, and not at every try. */
export interface WatcherAlert {
  /**
   * "fenced": another writer owns its name; it stops for good. "failed": it cannot be read, or not captured. "integrity": damage
   * was found, and is made whole. "lag": not shipped for `maxLagMs`. "recovered": all is well again.
   */
  alert: "fenced" | "failed" | "integrity" | "lag" | "recovered";
  database: string;
  /** Of the error behind it, if there is one. */
  code: ErrorCode | null;
  message: string;
  hint: string | undefined;
  time: Date;
}

/** Events by name. Of one database they come in the order in which things happened, each after what it tells of. */
export interface WatcherEvents {
  /** A database is among those that are watched, and is so no more. */
  added: DatabaseAt;
  removed: DatabaseAt;
  /** It did not exist and was restored, with `restoreIfMissing`. */
  restored: DatabaseAt & { txid: bigint; sizeBytes: number };
  /** The destination has said where its chain ends: from now on what is captured is shipped. */
  replicating: DatabaseAt & { txid: bigint };
  /** `commits` transactions of SQLite are on the local disk for good: they survive a crash. */
  captured: DatabaseAt & { txid: bigint; commits: number; sizeBytes: number };
  /** The destination acknowledged a file, `latencyMs` after it was captured: it survives the loss of this machine. */
  shipped: DatabaseAt & {
    file: "snapshot" | "increment";
    txid: bigint;
    key: string;
    sizeBytes: number;
    latencyMs: number;
  };
  /** After a doubt all pages are compared with what was captured. `reason` is a stable word, such as "wal-restarted". */
  comparing: DatabaseAt & { reason: string };
  alert: WatcherAlert;
  /** The destination gives no answer, and is asked again after `delayMs`. Captures go on. */
  unreachable: { error: WalsyncError; attempt: number; delayMs: number };
  /** The last one. `error` is what `ended` rejects with, or null. */
  stopped: { error: unknown };
}

type Listeners = { [K in keyof WatcherEvents]?: Set<(event: WatcherEvents[K]) => void> };

/** Replicates from the turn of the event loop after it was made on. Keeps the program running until it is stopped. */
export class Watcher implements AsyncDisposable {
  /**
   * Resolves when it has stopped and everything was shipped. Rejects with E_FENCED if another writer had taken over a name, with
   * E_REFUSED or E_NOT_FOUND if the destination will not have it, with the fault of a database that could not be read, and with
   * E_UNREACHABLE if something is left in an outbox, which the next start ships. Nobody needs to handle it.
   */
  readonly ended: Promise<void>;
  readonly #watch: Watch;
  readonly #listeners: Listeners = {};
  readonly #stop = new AbortController();
  #timeoutMs: number | undefined;

  /** @internal `events` are those that came while it was opened. */
  constructor(watch: Watch, signal: AbortSignal | undefined, events: EventQueue) {
    this.#watch = watch;
    this.ended = this.#run(events);
    this.ended.catch(() => {});
    const abort = () => this.#stop.abort();
    signal?.addEventListener("abort", abort, { once: true });
    this.#stop.signal.addEventListener("abort", () => signal?.removeEventListener("abort", abort), { once: true });
    if (signal?.aborted) abort();
  }

  /** Calls `listener` at each such event from now on, until the result is called. What it throws is an uncaught exception. */
  on<K extends keyof WatcherEvents>(event: K, listener: (event: WatcherEvents[K]) => void): () => void {
    const listeners: Set<(event: WatcherEvents[K]) => void> = (this.#listeners[event] ??= new Set() as never);
    // The same function may listen twice.
    const own = (value: WatcherEvents[K]) => listener(value);
    listeners.add(own);
    return () => void listeners.delete(own);
  }

  /** How it is with every database now. Asks nobody. */
  status(): WatcherStatus {
    const { destination, fleet } = this.#watch;
    return { destination: destination.url, databases: fleet.replicators.map(statusOf), refused: fleet.refusals };
  }

  /**
   * Captures what is committed now, in `name` or in all databases that are there, and resolves with the txids when the destination
   * has acknowledged that, however long it takes. Throws E_NOT_FOUND for a name that is not watched, what keeps a database from being captured,
   * E_FENCED, E_UNREACHABLE if the watcher stops meanwhile, and the signal's reason; the work goes on then.
   */
  async sync({ name, signal }: ListOptions & { name?: string | undefined } = {}): Promise<Snapshot[]> {
    signal?.throwIfAborted();
    const all = this.#watch.fleet.replicators.filter((one) => !isAwaited(one) || !isNotYetMade(one.path));
    const replicators = name === undefined ? all : [this.#find(name)];
    const work = replicators.map((one) => this.#shipped(one, () => one.requests.captureNow({ waitsForRoom: true })));
    return await abortable(Promise.all(work), signal);
  }

  /** As `sync`, for one database, and makes sure that the destination has a snapshot of that state. */
  async snapshot(name: string, { signal }: Pick<SnapshotOptions, "signal"> = {}): Promise<Snapshot> {
    signal?.throwIfAborted();
    const replicator = this.#find(name);
    return await abortable(
      this.#shipped(replicator, () => replicator.requests.snapshot({ waitsForRoom: true })),
      signal,
    );
  }

  /**
   * Captures and ships what is left, for at most `timeoutMs` (default: `shutdownTimeoutMs`), and lets go of everything. Settles
   * as `ended` does. Calling it again waits for the same end.
   */
  async stop({ timeoutMs }: { timeoutMs?: number | undefined } = {}): Promise<void> {
    this.#timeoutMs ??= timeoutMs;
    this.#stop.abort();
    await this.ended;
  }

  /** As `stop()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** @internal The name that the database at an absolute path has here, or null. */
  nameOf(path: string): string | null {
    return this.#watch.fleet.databases.find((database) => database.path === path)?.name ?? null;
  }

  async #run(events: EventQueue): Promise<void> {
    // Whoever awaited it can listen before anything happens.
    await new Promise((resolve) => setImmediate(resolve));
    events.deliver((event) => this.#tell(event));
    let error: unknown = null;
    try {
      this.#watch.start();
      await this.#untilOver();
      await this.#watch.stop(this.#timeoutMs ?? this.#watch.shutdownTimeoutMs);
    } catch (thrown) {
      error = thrown;
      throw thrown;
    } finally {
      this.#emit("stopped", { error });
    }
  }

  async #untilOver(): Promise<void> {
    try {
      await this.#watch.finished(this.#stop.signal);
    } catch (error) {
      await this.#watch.abandon();
      throw error;
    }
  }

  #find(name: string): Replicator {
    const found = this.#watch.fleet.replicators.find((replicator) => replicator.name === name);
    if (found !== undefined) return found;
    const names = this.#watch.fleet.replicators.map((replicator) => replicator.name).join(", ");
    throw new WalsyncError("E_NOT_FOUND", `${name}: expected a database that is watched, found: ${names || "none"}`);
  }

  async #shipped(replicator: Replicator, capture: () => Promise<bigint>): Promise<Snapshot> {
    const { name, path } = replicator;
    // Made a moment ago: it is opened as soon as its folder tells.
    while (isAwaited(replicator) && !isNotYetMade(path) && !this.#stop.signal.aborted) await Bun.sleep(OPENING_MS);
    const txid = await capture();
    await replicator.requests.shipped(txid);
    return { name, txid };
  }

  #tell({ kind, ...event }: WatchEvent): void {
    if ("alert" in event) {
      const { event: alert, atMs, ...rest } = event.alert;
      if (alert === "drill") return; // Only the command has drills.
      this.#emit("alert", { alert, ...rest, time: new Date(atMs) });
    } else if ("name" in event) {
      const { name, ...rest } = event;
      this.#emit(kind as "added", { database: name, ...rest });
    } else this.#emit("unreachable", event);
  }

  /** Never in the middle of what tells of it: a listener may do anything, and fail in any way. */
  #emit<K extends keyof WatcherEvents>(name: K, event: WatcherEvents[K]): void {
    for (const listener of this.#listeners[name] ?? []) queueMicrotask(() => listener(event));
  }
}

// --- internal ---

/** Between two looks whether a database is opened. */
const OPENING_MS = 10;

/** True while its file is still to be made: that is no fault. */
function isAwaited({ state, status }: Replicator): boolean {
  return state === "waiting" && status === null;
}

/** `work`, unless the signal aborts first. Leaves nothing at the signal, which may outlive many calls. */
async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await work;
  work.catch(() => {}); // Perhaps nobody waits for it any more.
  const aborted = Promise.withResolvers<never>();
  const giveUp = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    if (signal.aborted) giveUp();
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}
