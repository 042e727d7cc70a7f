/** Requests of somebody who waits for a database: to capture, to ship, to take a snapshot now. */
import { letGo, noRoom, replaced } from "./faults.ts";
import type { OpenDatabase } from "./open-database.ts";
import { isSnapshotAt } from "./outbox.ts";
import type { Phase } from "./phase.ts";

/** The database that they are about, as it is at every moment. */
export interface RequestedDatabase {
  open(): OpenDatabase | null;
  phase(): Phase["kind"];
  /** What ended it or keeps it closed, or null. */
  fault(): unknown;
  /** What keeps captures waiting although it is live, or null. */
  pausedBy(): string | null;
  /** Captures all that there is room for, or begins what has to be done before. */
  captureRest(open: OpenDatabase): void;
  runSnapshot(open: OpenDatabase): Promise<void>;
}

export interface RequestOptions {
  /** A full outbox is waited for; else it is an error. */
  waitsForRoom?: boolean;
}

export class SyncRequests {
  readonly #path: string;
  readonly #name: string;
  readonly #of: RequestedDatabase;

  constructor({ path, name }: { path: string; name: string }, database: RequestedDatabase) {
    this.#path = path;
    this.#name = name;
    this.#of = database;
  }

  /**
   * Captures what is committed now, after first contact. Resolves with its txid. Throws what keeps it from that: E_FENCED, a fault
   * of the database or the disk, E_DISK for a full outbox, E_UNREACHABLE if it is let go of meanwhile.
   */
  async captureNow({ waitsForRoom = false }: RequestOptions = {}): Promise<bigint> {
    const [path, name] = [this.#path, this.#name];
    for (;;) {
      const open = this.#of.open();
      if (open === null) throw this.#of.fault() ?? (this.#of.phase() === "closed" ? letGo(name) : replaced(path));
      await open.connected.catch((reason) => {
        throw open.stop.signal.aborted ? (this.#of.fault() ?? letGo(name)) : reason;
      });
      const wasLive = this.#of.phase() === "live";
      if (wasLive) this.#of.captureRest(open);
      // What the look found may be more than can be done at once.
      await open.settled();
      const fault = this.#of.fault();
      if (fault !== null) throw fault;
      const { txid } = open.state.position!.captured;
      // What was committed while a scan that was under way already read the database is captured after that.
      if (!wasLive && this.#of.phase() !== "vanished") continue;
      const pausedBy = this.#of.pausedBy();
      if (pausedBy === null) return txid;
      if (!waitsForRoom) throw noRoom(path, pausedBy);
      await this.shipped(txid);
    }
  }

  /** As `captureNow`, and makes sure that there is a snapshot of it: at once if the destination has it already. */
  async snapshot(options: RequestOptions = {}): Promise<bigint> {
    const txid = await this.captureNow(options);
    const open = this.#of.open()!;
    const { snapshotTxid } = open.state.position!;
    const present = snapshotTxid === txid || open.state.outbox.files.some((file) => isSnapshotAt(file, txid));
    if (!present) await this.#of.runSnapshot(open);
    return await this.captureNow(options);
  }

  /**
   * Resolves when the destination has acknowledged everything up to `txid`, a snapshot that is staged included, however long that
   * takes. Throws E_FENCED, the fault of the database, or E_UNREACHABLE if it is let go of before.
   */
  async shipped(txid: bigint): Promise<void> {
    const open = this.#of.open();
    await open?.delivery.drained();
    const shippedTxid = open?.state.position?.shippedTxid ?? 0n;
    const isWaiting = open?.state.outbox.files.some(({ maxTxid }) => maxTxid <= txid);
    if (shippedTxid < txid || isWaiting) throw this.#of.fault() ?? letGo(this.#name);
  }
}
