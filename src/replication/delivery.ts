/**
 * The way of one database's files to its destination: first contact, uploads in order, the record of what was
 * acknowledged, and the manifest. Never touches the database itself.
 */
import { MiB } from "../bytes.ts";
import { type ManifestEntry, manifestEntry } from "../chain/manifest.ts";
import { monotonicMs } from "../clock.ts";
import type { Destination } from "../destination/destination.ts";
import type { Gate } from "../destination/limit.ts";
import { sleep } from "../destination/retry.ts";
import { messageOf, WalsyncError } from "../errors.ts";
import { isToldOf, logEvent } from "../log.ts";
import { type ContactPlan, planContact, type RemoteEnd, readRemoteEnd, requireReadableEnd } from "./contact.ts";
import type { LocalState } from "./local-state.ts";
import { reachedBy, updateManifest } from "./manifest-keeper.ts";
import { uploadFailures } from "./metrics.ts";
import { claimsTxid } from "./outbox.ts";
import { pauseMs, type Shipped, Shipper, type UploadProgress } from "./shipper.ts";

/** "endless": faults of the destination are tried again for as long as it takes; "once": the first one ends it. */
export type Patience = "endless" | "once";

export interface DeliverySetup {
  destination: Destination;
  name: string;
  /** True when the destination has proven to be there, false when it refused. Nothing is asked of it before. */
  ready: Promise<boolean>;
  patience: Patience;
  /** Shared by the process: how many that have nothing to ship ask at once where their chains end. Without, all do. */
  contacts?: Gate | undefined;
  onUploadProgress?: UploadProgress | undefined;
}

export interface DeliveryEvents {
  /** A file left the outbox. */
  onShipped(shipped: Shipped): void;
  /** What first contact, or one after a long pause, has found. Uploads begin when this resolves. */
  onContact(plan: ContactPlan, remote: RemoteEnd | null): Promise<void>;
  /** Uploading has ended for good. */
  onStop(error: unknown): void;
}

export class Delivery {
  readonly #setup: DeliverySetup;
  readonly #destination: Destination;
  readonly #name: string;
  readonly #state: LocalState;
  readonly #events: DeliveryEvents;
  readonly #shipper: Shipper;
  readonly #stop = new AbortController();
  /** Shipped since the manifest was written last. */
  #unlisted: ManifestEntry[] = [];
  /** On their way into the manifest. */
  #listing: ManifestEntry[] = [];
  #manifestAtMs = Number.NEGATIVE_INFINITY;
  #manifestTask: Promise<void> = Promise.resolve();
  /** When what was acknowledged is recorded at the latest. */
  #recordDueMs = Number.POSITIVE_INFINITY;
  /**
   * Wall time when the destination last told or proved where the chain ends; 0 before first contact. A suspended machine
   * stops monotonic time, and that is a pause in which others may have written.
   */
  #knownAtMs = 0;
  #contact: Promise<void> | null = null;
  /** Ends its waiting for a turn; null while it does not wait. */
  #hurry: AbortController | null = null;
  #failing = false;

  constructor(setup: DeliverySetup, state: LocalState, events: DeliveryEvents) {
    const { destination, name } = setup;
    this.#setup = setup;
    this.#destination = destination;
    this.#name = name;
    this.#state = state;
    this.#events = events;
    const tags = destination.capabilities.encryption === undefined ? null : state.tags;
    this.#shipper = new Shipper(destination, name, state.outbox, tags, {
      onProgress: setup.onUploadProgress,
      onShipped: (shipped) => this.#record(shipped),
      onFailure: (error, failures) => {
        if (setup.patience === "once") throw error;
        uploadFailures.add({ database: name, code: error.code });
        this.#reportFailure("upload failed", error, failures);
      },
      onStop: (error) => events.onStop(error),
    });
  }

  /** Uploads what is in the outbox, after first contact, and after a new one when the last was long ago. */
  start(): void {
    if (this.#hasFiles) this.#hurry?.abort(HURRIED);
    if (this.#stop.signal.aborted || this.#contact !== null) return;
    if (Math.abs(Date.now() - this.#knownAtMs) < CONTACT_VALID_MS) {
      this.#shipper.start();
      return;
    }
    this.#contact = this.#makeContact()
      .then(() => {
        this.#contact = null;
        if (this.#hasFiles) this.start();
      })
      .catch((error) => {
        if (!this.#stop.signal.aborted) this.#events.onStop(error);
      });
  }

  /** Adds an entry to the next manifest. */
  listInManifest(entry: ManifestEntry): void {
    if (!this.#state.outbox.rules.hasManifest) return;
    this.#unlisted.push(entry);
    // What is dropped here is looked up by the next update, like everything a crash kept out of the manifest.
    if (this.#unlisted.length > UNLISTED_MAX) this.#unlisted.shift();
  }

  /** Files of these names were removed: they are not to be added any more. */
  dropFromManifest(names: ReadonlySet<string>): void {
    for (const entries of [this.#unlisted, this.#listing]) {
      for (let i = entries.length - 1; i >= 0; i--) if (names.has(entries[i]!.key)) entries.splice(i, 1);
    }
  }

  /** When `tend` has something to do, although nothing more is shipped; infinite if it never will. */
  get dueMs(): number {
    const manifestMs =
      this.#unlisted.length === 0 ? Number.POSITIVE_INFINITY : this.#manifestAtMs + MANIFEST_INTERVAL_MS;
    return Math.min(manifestMs, this.#state.outbox.releasedFiles === 0 ? Number.POSITIVE_INFINITY : this.#recordDueMs);
  }

  /**
   * Records what was acknowledged, and writes the manifest in the background, if that is due. `needsRoom`: recording is due now,
   * since files may be removed after it. Throws E_DISK.
   */
  tend(nowMs: number, needsRoom: boolean): void {
    if (this.#stop.signal.aborted) return;
    if (this.#state.outbox.releasedFiles > 0 && (needsRoom || nowMs >= this.#recordDueMs)) {
      this.#recordDueMs = nowMs + RECORD_INTERVAL_MS;
      this.#state.save();
    }
    if (nowMs >= this.dueMs) this.#startManifest();
  }

  /** Asks the destination anew where the chain ends: `onContact` tells what that means. */
  askAgain(): void {
    this.#knownAtMs = 0;
    this.start();
  }

  /**
   * Waits until everything in the outbox is shipped and listed in the manifest, or `deadline` aborts. Throws the error of
   * a manifest that could not be written.
   */
  async finish(deadline: AbortSignal): Promise<void> {
    const work = async (): Promise<void> => {
      this.start();
      await this.#contact;
      await this.#shipper.settled();
      await this.#manifestTask;
      if (this.#state.outbox.releasedFiles > 0) this.#state.save();
      if (!deadline.aborted) await this.#writeManifest(deadline);
    };
    await Promise.race([work(), untilAborted(deadline)]);
  }

  /** Resolves when the outbox is empty. */
  async drained(): Promise<void> {
    this.start();
    await this.#contact;
    await this.#shipper.settled();
  }

  /** Gives up what is under way. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#shipper.stop();
    await this.#contact;
    await this.#manifestTask;
  }

  async #makeContact(): Promise<void> {
    const { signal } = this.#stop;
    const stopped = untilAborted(signal).then(() => false);
    if (!(await Promise.race([this.#setup.ready, stopped]))) {
      this.#stop.abort();
      return;
    }
    for (let failures = 1; ; failures++) {
      try {
        const remote = await this.#inTurn(() =>
          readRemoteEnd(this.#destination, this.#name, this.#state.outbox.rules, signal),
        );
        this.#reportRecovery();
        this.#knownAtMs = Date.now();
        const plan = planContact(this.#state.position, this.#state.checksumAtShipped(), remote);
        if (plan.kind === "take-over") requireReadableEnd(this.#name, this.#destination);
        await this.#events.onContact(plan, remote);
        return;
      } catch (error) {
        signal.throwIfAborted();
        // Without knowing where the chain ends nothing may be shipped: ask for as long as it takes.
        const mayHeal = error instanceof WalsyncError && ASK_AGAIN.has(error.code);
        if (!mayHeal || this.#setup.patience === "once") throw error;
        this.#reportFailure("first contact failed", error, failures);
        await sleep(pauseMs(failures), signal);
      }
    }
  }

  get #hasFiles(): boolean {
    return this.#state.outbox.files.length > 0;
  }

  /** After the start of a thousand databases, what one of them has to ship does not wait until all have asked. */
  async #inTurn<T>(ask: () => Promise<T>): Promise<T> {
    const { contacts } = this.#setup;
    if (contacts === undefined || this.#hasFiles || this.#state.position === null) return await ask();
    this.#hurry = new AbortController();
    try {
      return await contacts.run(ask, AbortSignal.any([this.#hurry.signal, this.#stop.signal]));
    } catch (error) {
      if (error !== HURRIED) throw error;
      return await ask();
    } finally {
      this.#hurry = null;
    }
  }

  #record(shipped: Shipped): void {
    this.#reportRecovery();
    this.#knownAtMs = Date.now();
    const { file } = shipped;
    const { position } = this.#state;
    if (position === null) return;
    if (claimsTxid(file) && file.maxTxid > position.shippedTxid) position.shippedTxid = file.maxTxid;
    if (file.minTxid === 1n && file.maxTxid >= position.snapshotTxid) {
      position.snapshotTxid = file.maxTxid;
      position.snapshotAtMs = shipped.timestampMs;
      position.snapshotPageSize = shipped.pageSize;
    }
    // A crash before it is recorded ships it again, and finds it there.
    if (this.#state.outbox.releasedFiles === 0) this.#recordDueMs = monotonicMs() + RECORD_INTERVAL_MS;
    const { releasedFiles, releasedBytes } = this.#state.outbox;
    const isMuch = releasedFiles + 1 >= RELEASED_MAX_FILES || releasedBytes + file.sizeBytes > RELEASED_MAX_BYTES;
    if (file.minTxid === 1n || isMuch) this.#recordDueMs = monotonicMs();
    this.listInManifest(manifestEntry(this.#name, shipped.key, file, { ...shipped, sizeBytes: file.sizeBytes }));
    this.#events.onShipped(shipped);
    const due = file.minTxid === 1n || monotonicMs() - this.#manifestAtMs >= MANIFEST_INTERVAL_MS;
    if (due) this.#startManifest();
  }

  #startManifest(): void {
    this.#manifestAtMs = monotonicMs();
    this.#manifestTask = this.#manifestTask
      .then(() => this.#writeManifest(this.#stop.signal))
      .catch((error) => {
        if (!this.#stop.signal.aborted) logEvent("warn", "manifest not written", { database: this.#name, error });
      });
  }

  async #writeManifest(signal: AbortSignal): Promise<void> {
    const { position } = this.#state;
    if (position === null || this.#unlisted.length === 0) return;
    this.#listing = this.#unlisted;
    this.#unlisted = [];
    const reached = reachedBy(position.manifestTxid, this.#listing);
    const identity = { name: this.#name, lineage: position.lineage, pageSize: position.captured.pageSize };
    const shippedTxid = position.shippedTxid;
    try {
      await updateManifest(this.#destination, identity, this.#listing, reached !== null, Date.now(), signal);
    } catch (error) {
      this.#unlisted = [...this.#listing, ...this.#unlisted].slice(-UNLISTED_MAX);
      throw error;
    } finally {
      this.#listing = [];
    }
    // Not the position from before: a scan may have put another one in its place.
    this.#state.position!.manifestTxid = reached ?? shippedTxid;
    this.#state.save();
  }

  #reportFailure(event: string, error: WalsyncError, failures: number): void {
    this.#failing = true;
    if (!isToldOf(failures)) return;
    const { code, hint } = error;
    logEvent("error", event, { database: this.#name, code, error: messageOf(error), attempt: failures, hint });
  }

  #reportRecovery(): void {
    if (this.#failing) logEvent("info", "destination answers again", { database: this.#name });
    this.#failing = false;
  }
}

export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

// --- internal ---

const HURRIED = new Error("there is something to ship");
/** Merging may remove files that were shipped this long ago; until then the next key tells whether we are alone. */
const CONTACT_VALID_MS = 30 * 60_000;
const MANIFEST_INTERVAL_MS = 60_000;
/** Recording costs more than capturing does: three times the disk has to be waited for. */
const RECORD_INTERVAL_MS = 15_000;
const RELEASED_MAX_FILES = 64;
/** What is acknowledged takes up the disk for no good. */
const RELEASED_MAX_BYTES = 4 * MiB;
const UNLISTED_MAX = 1000;
const ASK_AGAIN: ReadonlySet<string> = new Set(["E_UNREACHABLE", "E_REFUSED"]);
