/** The databases of one process: they come, change and go while it runs, and leave together at the end. */
import { monotonicMs } from "../clock.ts";
import { DestinationError, type WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import { nextTurn } from "../turn.ts";
import { type FleetDatabase, type Membership, planFleet } from "./fleet-plan.ts";
import type { Naming } from "./names.ts";
import type { Replicator } from "./replicator.ts";
import type { Watcher } from "./watcher.ts";

/** What goes along with a database while it is in the fleet. */
export interface FleetHost<D extends FleetDatabase> {
  create(database: D): Replicator;
  onAdopt(replicator: Replicator, database: D): void;
  onAdjust(replicator: Replicator, database: D): void;
  /** It is about to be let go of. */
  onLeave(replicator: Replicator): Promise<void>;
  /** It is gone. */
  onGone(replicator: Replicator): void;
}

export class Fleet<D extends FleetDatabase> {
  readonly #watcher: Watcher;
  readonly #host: FleetHost<D>;
  /** By path. */
  readonly #members = new Map<string, Member<D>>();
  /** Null until somebody says who else is wanted. */
  #wanted: readonly D[] | null = null;
  #refused: Naming["refused"] = [];
  #settling: Promise<void> | null = null;
  #isStopped = false;

  constructor(watcher: Watcher, host: FleetHost<D>) {
    this.#watcher = watcher;
    this.#host = host;
  }

  /** Those that are leaving are still among them. */
  get replicators(): Replicator[] {
    return [...this.#members.values()].map(({ replicator }) => replicator);
  }

  /** The databases that stay. */
  get databases(): D[] {
    return [...this.#members.values()].filter(({ leaving }) => leaving === null).map(({ database }) => database);
  }

  /** One line for each database that should be among them, and cannot. */
  get refusals(): string[] {
    return this.#refused.map(({ path, error }) => `${path}: ${error.message}`);
  }

  /** True for a database that stays. */
  has(path: string): boolean {
    return this.#members.get(path)?.leaving === null;
  }

  /** A replicator for a database, which nobody has opened and which is no member yet. */
  create(database: D): Replicator {
    return this.#host.create(database);
  }

  /** Takes in a database that was opened already, or waits for its file. Nothing happens to it before `start`. */
  enlist(database: D, replicator: Replicator): void {
    this.#members.set(database.path, { database, replicator, leaving: null });
    this.#host.onAdopt(replicator, database);
  }

  start(): void {
    for (const replicator of this.replicators) this.#watcher.add(replicator);
  }

  /**
   * From now on these databases are wanted, and no others: whoever is new is opened as soon as it can be, whoever is not
   * wanted ships what is left and is let go of, and all others go on undisturbed. `refused` is told once for each.
   */
  follow(wanted: readonly D[], refused: Naming["refused"]): void {
    const known = new Set(this.#refused.map(({ error }) => error.message));
    for (const { path, error } of refused) if (!known.has(error.message)) tellRefusal(path, error);
    this.#refused = refused;
    this.#wanted = wanted;
    this.#settle();
  }

  /** Resolves when whoever was wanted last is among them. */
  async settled(): Promise<void> {
    await this.#settling;
  }

  /**
   * Ends everything; every database captures and ships what is left, as far as `timeoutMs` allows. Throws E_FENCED if
   * another writer had taken over a name, the fault of a database that could not be read, and E_UNREACHABLE if captured
   * transactions stay in an outbox.
   */
  async stop(timeoutMs: number): Promise<void> {
    this.#isStopped = true;
    this.#watcher.stop();
    await this.#settling;
    const members = [...this.#members.values()];
    const staying = members.filter(({ leaving }) => leaving === null).map(({ replicator }) => replicator);
    const fencedBy = staying.map((replicator) => replicator.fencedBy).find((error) => error !== null);
    const deadline = AbortSignal.timeout(timeoutMs);
    const hurryAll = () => {
      for (const { leaving } of members) leaving?.hurry.abort();
    };
    if (deadline.aborted) hurryAll();
    deadline.addEventListener("abort", hurryAll, { once: true });
    const leaving = Promise.all(members.map((member) => member.leaving?.filesLeft ?? 0));
    // Letting go of ten thousand databases takes its time, and nobody's last transactions wait for that.
    await Promise.all(staying.map((replicator) => replicator.finish(deadline)));
    const left = await leaving;
    for (let i = 0; i < staying.length; i += ENDED_AT_ONCE) {
      left.push(
        ...(await Promise.all(staying.slice(i, i + ENDED_AT_ONCE).map((replicator) => replicator.end(deadline)))),
      );
    }
    const files = left.reduce((sum, count) => sum + count, 0);
    if (fencedBy !== undefined) throw fencedBy;
    const failure = staying.map((replicator) => replicator.failure).find((error) => error !== null);
    if (failure !== undefined) throw failure;
    if (files === 0) return;
    throw new DestinationError(`expected to ship everything at the end, found ${files} files left`, {
      retryable: true,
      hint: "Nothing is lost: the outbox keeps them, and the next start ships them. See --shutdown-timeout.",
    });
  }

  #settle(): void {
    if (this.#settling !== null || this.#isStopped) return;
    this.#settling = this.#carryOut().finally(() => {
      this.#settling = null;
    });
  }

  /** Plans until nothing is left to do: what is wanted may change meanwhile. */
  async #carryOut(): Promise<void> {
    for (;;) {
      const wanted = this.#wanted;
      const current = [...this.#members.values()].map(({ database, leaving }) => ({
        database,
        membership: membershipOf(leaving),
      }));
      const steps = wanted === null ? [] : planFleet(current, wanted);
      if (steps.length === 0) return;
      for (const step of steps) {
        // Captures and uploads of the others get their turn.
        await nextTurn();
        if (this.#isStopped) return;
        if (this.#wanted !== wanted) break;
        if (step.kind === "adopt") this.#adopt(step.database);
        else if (step.kind === "adjust") this.#adjust(step.database);
        else if (step.kind === "release") this.#release(step.path);
        else this.#members.get(step.path)?.leaving?.hurry.abort();
      }
    }
  }

  #adopt(database: D): void {
    const { path, name } = database;
    logEvent("info", "database found", { database: name, path });
    const replicator = this.create(database);
    this.enlist(database, replicator);
    replicator.openWhenPossible(monotonicMs());
    this.#watcher.add(replicator);
  }

  #adjust(database: D): void {
    const member = this.#members.get(database.path);
    if (member === undefined) return;
    member.database = database;
    this.#host.onAdjust(member.replicator, database);
  }

  #release(path: string): void {
    const member = this.#members.get(path);
    if (member === undefined || member.leaving !== null) return;
    const hurry = new AbortController();
    member.leaving = { hurry, filesLeft: this.#letGo(member, hurry.signal) };
  }

  async #letGo({ database, replicator }: Member<D>, hurry: AbortSignal): Promise<number> {
    const { path, name } = database;
    this.#watcher.remove(replicator);
    await this.#host.onLeave(replicator);
    const files = await replicator.stop(hurry);
    const { failure } = replicator;
    if (failure !== null) {
      const { code, message, hint } = failure;
      logEvent("error", "database failed", { database: name, path, code, error: message, hint });
    }
    this.#members.delete(path);
    this.#host.onGone(replicator);
    logEvent("info", "database released", { database: name, path, files: files > 0 ? files : undefined });
    this.#settle();
    return files;
  }
}

// --- internal ---

const ENDED_AT_ONCE = 64;

interface Member<D> {
  database: D;
  readonly replicator: Replicator;
  leaving: Leaving | null;
}

interface Leaving {
  /** Leaves to the outbox what is not shipped yet. */
  hurry: AbortController;
  filesLeft: Promise<number>;
}

function membershipOf(leaving: Leaving | null): Membership {
  if (leaving === null) return "here";
  return leaving.hurry.signal.aborted ? "hurried" : "leaving";
}

function tellRefusal(path: string, { code, message, hint }: WalsyncError): void {
  logEvent("error", "database refused", { path, code, error: message, hint });
}
