/** Keeps a running watch up with its directories, its globs and walsync.toml. */
import { messageOf, WalsyncError } from "../errors.ts";
import { logEvent } from "../log.ts";
import type { Fleet } from "../replication/fleet.ts";
import type { FolderEvents } from "../replication/folder-events.ts";
import { SourceWatch } from "../replication/source-watch.ts";
import type { PlannedDatabase, WatchPlan } from "./watch-plan.ts";

export interface ChangesHost {
  /** Reads walsync.toml again. Throws E_USAGE or E_CONFIG. */
  replan(): Promise<WatchPlan>;
  /** What the database at a path was called before, or null. */
  keptName(path: string): string | null;
}

export class WatchChanges {
  readonly #fleet: Fleet<PlannedDatabase>;
  readonly #host: ChangesHost;
  readonly #sources: SourceWatch;
  readonly #started: WatchPlan;
  #plan: WatchPlan;
  /** What was wrong at the last look, so that it is told once. */
  #fault = "";
  #reloading: Promise<void> | null = null;
  #isAskedAgain = false;
  #isStopped = false;

  constructor(plan: WatchPlan, fleet: Fleet<PlannedDatabase>, events: FolderEvents, host: ChangesHost) {
    this.#started = plan;
    this.#plan = plan;
    this.#fleet = fleet;
    this.#host = host;
    this.#sources = new SourceWatch(events, { isKnown: (path) => fleet.has(path), look: () => this.#look() });
  }

  /** The plan that holds. */
  get plan(): WatchPlan {
    return this.#plan;
  }

  start(): void {
    this.#sources.follow(this.#plan.patterns);
    this.#sources.look();
  }

  /** Takes over what walsync.toml says now. If something is wrong with it, that is told, and everything stays as it was. */
  reload(): void {
    this.#isAskedAgain = this.#reloading !== null;
    this.#reloading ??= this.#reload().finally(() => {
      this.#reloading = null;
      if (this.#isAskedAgain) this.reload();
    });
  }

  /** Takes in what appeared a moment ago, whether there was an event already or not. */
  async lookOnce(): Promise<void> {
    this.#look();
    await this.#fleet.settled();
  }

  stop(): void {
    this.#isStopped = true;
    this.#sources.stop();
  }

  #look(): void {
    try {
      const { databases, refused } = this.#plan.find(this.#fleet.databases, (path) => this.#host.keptName(path));
      this.#fault = "";
      this.#fleet.follow(databases, refused);
    } catch (error) {
      // Whoever was there goes on: a directory that cannot be read is not empty.
      if (messageOf(error) === this.#fault) return;
      this.#fault = messageOf(error);
      tell("cannot look for databases", error);
    }
  }

  async #reload(): Promise<void> {
    try {
      const asked = await this.#host.replan();
      if (this.#isStopped) return;
      const changes = asked.fixedChanges(this.#started);
      if (changes.length > 0) {
        const hint = "They stay as they were until then.";
        logEvent("warn", "settings changed that need a restart", { reason: changes.join(", "), hint });
      }
      const plan = asked.keeping(this.#started);
      // What would be refused at a start is refused here.
      if (plan.isFromConfig) plan.require((path) => this.#nameOf(path));
      this.#plan = plan;
      this.#sources.follow(plan.patterns);
      this.#sources.look();
      logEvent("info", "configuration reloaded");
    } catch (error) {
      tell("configuration not reloaded: the old one stays in force", error);
    }
  }

  #nameOf(path: string): string | null {
    return this.#fleet.databases.find((database) => database.path === path)?.name ?? this.#host.keptName(path);
  }
}

// --- internal ---

/** Throws what is no fault of the world: that is a bug. */
function tell(event: string, error: unknown): void {
  if (!(error instanceof WalsyncError)) throw error;
  const { code, hint } = error;
  logEvent("error", event, { code, error: messageOf(error), hint });
}
