/** The tasks of walsync at one destination. */
import { resolve } from "node:path";
import type { Destination } from "../destination/destination.ts";
import { requireListedName, requireName } from "../destination/layout.ts";
import { parseDestinationUrl, resolveS3 } from "../destination/open.ts";
import { compactDatabase } from "../engine/compact.ts";
import { destinationOf, destinationSettings } from "../engine/destination.ts";
import { requireRecipients } from "../engine/encryption.ts";
import { listDatabases } from "../engine/list.ts";
import { nameOf, requireOneSource, takeSnapshot } from "../engine/snapshot.ts";
import { proveDatabase } from "../engine/verify.ts";
import { Watch } from "../engine/watch.ts";
import { WatchPlan } from "../engine/watch-plan.ts";
import { carePolicyOf, type WatchSettings } from "../engine/watch-settings.ts";
import { WalsyncError } from "../errors.ts";
import { keepSecret } from "../log.ts";
import { restoreDatabase } from "../restore/restore.ts";
import { parsePointInTime, type RestoreTarget } from "../restore/restore-target.ts";
import { shareProcess } from "../sqlite/descriptors.ts";
import { compactionOf, listedOf, verificationOf } from "./answers.ts";
import { EventQueue } from "./event-queue.ts";
import type {
  CompactOptions,
  ListOptions,
  RestoreOptions,
  SnapshotOptions,
  VerifyOptions,
  WalSyncOptions,
  WatchOptions,
} from "./options.ts";
import type { Compaction, ListedDatabase, Restored, Snapshot, Verification } from "./results.ts";
import { requireKnown, requireTexts, settingsOf } from "./settings.ts";
import { Watcher } from "./watcher.ts";

type Env = Readonly<Record<string, string | undefined>>;

/**
 * One destination. Holds nothing open: each call connects, and lets go when it settles. A call whose signal aborts rejects with
 * the signal's reason; every other error of the world is a `WalsyncError`, whose `code` is stable. Beside those that a method
 * names, each may throw E_UNREACHABLE (no answer, after some tries) and E_REFUSED (bucket, credentials, permission).
 */
export class WalSync {
  readonly #address: string;
  readonly #options: Omit<WalSyncOptions, "credentials">;
  readonly #env: Env;
  readonly #watchers = new Set<Watcher>();

  /**
   * `destination` is `s3://bucket/prefix`, `file:///dir` or a path. Asks nobody anything. Throws E_USAGE for what is no
   * destination or no option, and E_REFUSED if there are no credentials for a bucket.
   */
  constructor(destination: string | URL, options: WalSyncOptions = {}) {
    const { credentials, ...rest } = options;
    if (!(destination instanceof URL)) requireTexts({ destination });
    this.#options = rest;
    this.#env = { ...process.env, ...environmentOf(credentials) };
    const address = parseDestinationUrl(String(destination));
    // Wherever the program goes later.
    this.#address = address.kind === "directory" ? resolve(address.path) : String(destination);
    const settings = this.#settings({});
    if (address.kind === "s3") resolveS3(address, destinationSettings(settings, this.#env));
    shareProcess();
  }

  /**
   * Every database at the destination, by name, and from when to when each can be restored. What is damaged of one is its `error`,
   * and no reason to reject: look at it.
   */
  async list(options: ListOptions = {}): Promise<ListedDatabase[]> {
    requireKnown(options, ["signal"]);
    const { signal } = options;
    return await this.#at(signal, async (destination, inner) => {
      const listed = await listDatabases(destination, inner);
      return listed.map(listedOf);
    });
  }

  /**
   * Ships a snapshot of the database file at `path`, and what led to it; resolves when the destination has acknowledged all. One
   * that is watched, by this object or by a `walsync watch` of this user, is left to its watcher. Throws E_USAGE, E_DATABASE
   * (missing, not SQLite, not in WAL mode), E_LOCKED (another walsync has it), E_FENCED (another writer owns the name), E_DISK.
   */
  async snapshot(path: string, options: SnapshotOptions = {}): Promise<Snapshot> {
    requireKnown(options, ["name", "enableWal", "signal", "onProgress"]);
    requireTexts({ path });
    const { name, signal, onProgress, enableWal } = options;
    signal?.throwIfAborted();
    const settings = this.#settings({ enableWal });
    if (name !== undefined) requireName(name);
    requireRecipients(settings);
    const source = requireOneSource(path);
    if (name !== undefined) source.givenName = name;
    for (const watcher of this.#watchers) {
      const watched = watcher.nameOf(source.path);
      if (watched !== null) return await watcher.snapshot(watched, { signal });
    }
    return await this.#at(signal, async (destination, inner) => {
      return await takeSnapshot(destination, nameOf(source, destination.url, settings.stateDir), {
        ...settings,
        env: this.#env,
        signal: inner,
        onProgress: (stage, done, total) => onProgress?.({ stage, done, total }),
      });
    });
  }

  /**
   * Restores the database `name` into the file `out`, as it was at any moment: byte for byte a state that it had, or an error,
   * and then `out` is as it was before. Throws E_USAGE, E_OUTPUT_EXISTS (without `force`), E_LOCKED (another restore writes
   * there), E_NOT_FOUND (no such name, or nothing before that moment), E_CHAIN_GAP, E_LTX and E_INTEGRITY (damage), E_DISK.
   */
  async restore(name: string, out: string, options: RestoreOptions = {}): Promise<Restored> {
    requireKnown(options, ["pointInTime", "txid", "force", "integrity", "signal", "onProgress"]);
    requireTexts({ name, out });
    const { signal, onProgress, force = false, integrity = "quick" } = options;
    requireListedName(name);
    const target = targetOf(options);
    return await this.#at(signal, async (destination, inner) => {
      const { txid, timestampMs, fileCount, fetchedBytes, sizeBytes } = await restoreDatabase(destination, name, out, {
        target,
        integrity,
        force,
        signal: inner,
        onProgress: (done, total) => onProgress?.({ stage: "restore", done, total }),
      });
      return { name, path: resolve(out), txid, time: new Date(timestampMs), files: fileCount, fetchedBytes, sizeBytes };
    });
  }

  /**
   * Reads every file of `name` and proves that every restore point can be restored. What is wrong with the files is a finding, and
   * no error. Throws E_NOT_FOUND if there is nothing of that name.
   */
  async verify(name: string, options: VerifyOptions = {}): Promise<Verification> {
    requireKnown(options, ["quick", "fix", "signal", "onProgress"]);
    requireTexts({ name });
    const { signal, onProgress, quick = false, fix = false } = options;
    requireListedName(name);
    return await this.#at(signal, async (destination, inner) => {
      const report = await proveDatabase(destination, name, {
        quick,
        fix,
        signal: inner,
        onProgress: (done, total) => onProgress?.({ stage: "verify", done, total }),
      });
      return verificationOf(report);
    });
  }

  /**
   * Deletes what retention does not keep, with `force`; without it the result says what that would be. Whatever is kept can be
   * restored as before. Throws E_USAGE for a retention that keeps nothing, E_NOT_FOUND, E_CHAIN_GAP if the newest state cannot be
   * restored (nothing is deleted then), and E_CONFIG for `force` in Litestream's layout, which its own tool prunes.
   */
  async compact(name: string, options: CompactOptions = {}): Promise<Compaction> {
    requireKnown(options, ["retention", "force", "signal"]);
    requireTexts({ name });
    const { retention, force = false, signal } = options;
    requireListedName(name);
    const { retention: policy } = carePolicyOf(this.#settings({ retention }));
    return await this.#at(signal, async (destination, inner) => {
      const { pruning, isDeleted } = await compactDatabase(destination, name, {
        policy,
        nowMs: Date.now(),
        delete: force ? "required" : "never",
        signal: inner,
      });
      return compactionOf(pruning, isDeleted);
    });
  }

  /**
   * Replicates databases until it is stopped: files, `name=file`, directories, or globs, whose databases come and go. Resolves when
   * every database is locked and open; the destination is awaited after that, however long it takes. Listen to the events right
   * away: none is told before the next turn of the event loop. Throws E_USAGE, E_DATABASE, E_LOCKED, E_DISK, E_INTEGRITY and E_LTX
   * (damaged local state), and what a restore throws, with `restoreIfMissing`; nothing is held then.
   */
  async watch(paths: string | readonly string[], options: WatchOptions = {}): Promise<Watcher> {
    const { signal, ...rest } = options;
    signal?.throwIfAborted();
    const listed = Array.isArray(paths) ? paths : [paths];
    for (const path of listed) requireTexts({ path });
    const settings = this.#settings(rest);
    const plan = new WatchPlan(listed, {
      flags: settings,
      config: null,
      flagsWith: () => settings,
      mayBeEmpty: true,
    });
    const events = new EventQueue();
    const watch = await Watch.open(plan, {
      env: this.#env,
      signal: signal ?? new AbortController().signal,
      alerts: true,
      drills: false,
      onEvent: (event) => events.push(event),
    });
    const watcher = new Watcher(watch, signal, events);
    this.#watchers.add(watcher);
    const forget = () => void this.#watchers.delete(watcher);
    watcher.ended.then(forget, forget);
    return watcher;
  }

  #settings(options: object): WatchSettings {
    return settingsOf(this.#address, [this.#options, options] as Record<string, unknown>[], this.#env);
  }

  /** Connects for the time of `action`. What fails because of the signal rejects with its reason. */
  async #at<T>(
    signal: AbortSignal | undefined,
    action: (destination: Destination, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted();
    const inner = signal ?? new AbortController().signal;
    const destination = await destinationOf(this.#settings({}), this.#env, inner);
    try {
      return await action(destination, inner);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      destination.close();
    }
  }
}

// --- internal ---

/** From now on they show in no message and no log. */
function environmentOf(credentials: WalSyncOptions["credentials"]): Record<string, string | undefined> {
  if (credentials === undefined) return {};
  const { accessKeyId, secretAccessKey, sessionToken } = credentials;
  // Neither is shown in the message.
  for (const [name, value] of Object.entries({ accessKeyId, secretAccessKey })) {
    if (typeof value === "string") continue;
    throw new WalsyncError("E_USAGE", `credentials.${name}: expected string, found ${typeof value}`);
  }
  keepSecret(secretAccessKey);
  if (sessionToken !== undefined) keepSecret(sessionToken);
  return {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_SESSION_TOKEN: sessionToken,
  };
}

function targetOf({ pointInTime, txid }: RestoreOptions): RestoreTarget {
  if (pointInTime !== undefined && txid !== undefined) {
    throw new WalsyncError("E_USAGE", "restore: expected pointInTime or txid, found both");
  }
  if (txid !== undefined) return parsePointInTime(`txid:${txid}`, "txid");
  if (typeof pointInTime === "string" || pointInTime === undefined) return parsePointInTime(pointInTime, "pointInTime");
  const atMs = pointInTime.getTime();
  if (Number.isFinite(atMs)) return { kind: "time", atMs };
  throw new WalsyncError("E_USAGE", "pointInTime: expected a time, found an invalid Date");
}
