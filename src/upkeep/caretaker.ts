/**
 * Looks after what a watch ships, in the background: merges increments, removes what merged files replaced, and prunes by
 * retention. One thing at a time for the whole process, and nothing at all for databases that are idle.
 */
import { readChains } from "../chain/chain.ts";
import { type LayoutRules, layoutRules } from "../chain/layout-rules.ts";
import type { ManifestEntry } from "../chain/manifest.ts";
import type { ChainFile } from "../chain/plan.ts";
import { monotonicMs } from "../clock.ts";
import type { Destination } from "../destination/destination.ts";
import type { Layout } from "../destination/layout.ts";
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";
import { isToldOf, logEvent } from "../log.ts";
import type { TxidRange } from "../ltx/txid.ts";
import { Counter, Duration } from "../metrics.ts";
import { Schedule } from "../schedule.ts";
import { mergeIncrements, requireReplacement } from "./merge.ts";
import type { FrontFile, MergePolicy } from "./merge-plan.ts";
import { planPruningOf, prune, removeFiles } from "./prune.ts";
import { newestFirst, type RetentionPolicy } from "./retention.ts";
import { type UpkeepRules, upkeepRules } from "./upkeep-rules.ts";

export interface CarePolicy {
  layout: Layout;
  /** Null: increments are not merged. */
  merge: MergePolicy | null;
  retention: RetentionPolicy;
  /** Prune whenever a snapshot was shipped. */
  compactAfterSnapshot: boolean;
  /** And at this interval; 0 never. */
  compactIntervalMs: number;
}

/** What ships the files of one database: a replicator. */
export interface ShippingSource {
  readonly name: string;
  onShipped: (shipped: { file: TxidRange & { sizeBytes: number }; key: string; timestampMs: number }) => void;
  /** A merged file is there: to be listed in the manifest when that is written next. */
  listInManifest(entry: ManifestEntry): void;
  /** Files of these names are about to be removed: they are not to be listed any more. */
  dropFromManifest(names: ReadonlySet<string>): void;
}

export class Caretaker {
  readonly #destination: Destination;
  readonly #schedule = new Schedule<Care>();
  readonly #stop = new AbortController();
  readonly #cares = new Map<ShippingSource, Care>();
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #working: Promise<void> | null = null;
  /** Who is looked after now. */
  #current: Care | null = null;

  constructor(destination: Destination) {
    this.#destination = destination;
  }

  /** Looks after what `source` ships from now on. `folder` is for temporary files; it need not exist. */
  follow(source: ShippingSource, folder: string, policy: CarePolicy): void {
    const layout = layoutRules(policy.layout, this.#destination.capabilities);
    const care = new Care(source, folder, policy, layout, this.#stop.signal);
    this.#cares.set(source, care);
    source.onShipped = ({ file: { minTxid, maxTxid, sizeBytes }, key, timestampMs }) =>
      this.#note(care, { key, minTxid, maxTxid, sizeBytes, level: 0, timestampMs });
    this.#schedule.set(care, care.dueMs);
    this.#setTimer();
  }

  /** Another policy holds for `source` from now on. */
  adjust(source: ShippingSource, policy: CarePolicy): void {
    const care = this.#cares.get(source);
    if (care === undefined || Bun.deepEquals(care.policy, policy)) return;
    care.adopt(policy);
    this.#schedule.set(care, care.dueMs);
    this.#setTimer();
  }

  /** Leaves `source` alone. What is under way for it is given up. */
  async release(source: ShippingSource): Promise<void> {
    const care = this.#cares.get(source);
    if (care === undefined) return;
    this.#cares.delete(source);
    source.onShipped = () => {};
    this.#schedule.set(care, Number.POSITIVE_INFINITY);
    care.end.abort();
    if (care === this.#current) await this.#working;
  }

  /** Gives up what is under way; the next start goes on with it. */
  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#working;
  }

  #note(care: Care, file: FrontFile): void {
    const { merge, compactAfterSnapshot } = care.policy;
    if (this.#stop.signal.aborted) return;
    if (file.minTxid === 1n) {
      if (compactAfterSnapshot) care.pruneAtMs = 0;
    } else if (merge !== null) {
      // What was there before this process is looked up once, when there is something to add to it.
      if (care.front === null) care.mergeAtMs = Math.min(care.mergeAtMs, Date.now() + merge.windowsMs[0]!);
      else care.append(file, merge);
      if (!Number.isFinite(care.sweepAtMs)) care.sweepAtMs = Date.now() + merge.keepFineMs;
    }
    this.#schedule.set(care, care.dueMs);
    this.#setTimer();
  }

  #setTimer(): void {
    if (this.#stop.signal.aborted || this.#working !== null) return;
    const dueMs = this.#schedule.nextDueMs;
    if (dueMs === this.#timerDueMs) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = dueMs;
    if (!Number.isFinite(dueMs)) return;
    this.#timer = setTimeout(() => this.#begin(), Math.min(TIMER_MAX_MS, Math.max(0, dueMs - Date.now())));
  }

  #begin(): void {
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    this.#working = this.#work().finally(() => {
      this.#working = null;
      this.#setTimer();
    });
  }

  async #work(): Promise<void> {
    for (;;) {
      const care = this.#schedule.takeDue(Date.now());
      if (care === undefined || this.#stop.signal.aborted) return;
      this.#current = care;
      await this.#lookAfter(care);
      this.#current = null;
      if (!care.signal.aborted) this.#schedule.set(care, care.dueMs);
    }
  }

  async #lookAfter(care: Care): Promise<void> {
    const { name } = care.source;
    try {
      if (care.mergeAtMs <= Date.now()) await this.#merge(care);
      if (care.sweepAtMs <= Date.now()) await this.#sweep(care);
      if (care.pruneAtMs <= Date.now()) await this.#prune(care);
      care.failures = 0;
    } catch (error) {
      if (care.signal.aborted) return;
      if (!(error instanceof WalsyncError) && errnoOf(error) === undefined) throw error;
      care.failed();
      const code = error instanceof WalsyncError ? error.code : "E_DISK";
      careFailures.add({ database: name, code });
      // Nothing depends on it: what is there stays as it is.
      if (isToldOf(care.failures)) {
        const hint = error instanceof WalsyncError ? error.hint : undefined;
        logEvent("error", "upkeep failed", {
          database: name,
          code,
          error: messageOf(error),
          attempt: care.failures,
          hint,
        });
      }
    }
  }

  async #merge(care: Care): Promise<void> {
    const { merge } = care.policy;
    const { folder, layout, rules, source } = care;
    const { name } = source;
    const { signal } = care;
    if (merge === null) {
      care.mergeAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    care.front ??= rules.frontOf(await this.#list(name, signal), merge);
    // What is over now, and no more: a destination so slow that the next window ends meanwhile must not keep files from going.
    const nowMs = Date.now();
    // Null again: something was shipped while the destination was asked. It is asked again a little later.
    while (care.front !== null) {
      signal.throwIfAborted();
      const planned = rules.planMerge(care.front, merge, nowMs);
      if (planned === null) break;
      const startedMs = monotonicMs();
      const { files, entry } = await mergeIncrements(this.#destination, layout, name, planned, folder, signal);
      care.replace(files, entry, planned.level);
      if (entry === null) continue;
      const durationMs = monotonicMs() - startedMs;
      merges.observe({ database: name }, durationMs);
      source.listInManifest(entry);
      const fields = { database: name, key: entry.key, sizeBytes: entry.sizeBytes, files: files.length };
      logEvent("debug", "merged", { ...fields, durationMs });
    }
    if (care.front !== null) care.front = rules.dropSettled(care.front, merge, nowMs);
    care.mergeAtMs = care.front === null ? Date.now() + merge.windowsMs[0]! : rules.nextMergeMs(care.front, merge);
  }

  /** Removes what merged files replaced long enough ago. */
  async #sweep(care: Care): Promise<void> {
    const { merge } = care.policy;
    const { name } = care.source;
    const { signal } = care;
    if (merge === null) {
      care.sweepAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    const files = await this.#list(name, signal);
    const superseded = care.rules.planSuperseded(files, merge.keepFineMs, Date.now());
    for (const replaced of superseded) {
      await requireReplacement(this.#destination, care.layout, replaced, signal);
      const { parts } = replaced;
      const keys = newestFirst(parts).map((file) => file.key);
      dropFromManifest(care.source, keys);
      await removeFiles(this.#destination, name, keys, signal);
      mergedFiles.add({ database: name }, parts.length);
    }
    // As long as it is written to, and after that until nothing is left that will be old enough one day.
    const isQuiet =
      care.front?.length === 0 && care.rules.planSuperseded(files, 0, Number.POSITIVE_INFINITY).length === 0;
    care.sweepAtMs = isQuiet ? Number.POSITIVE_INFINITY : Date.now() + Math.min(merge.keepFineMs, SWEEP_INTERVAL_MS);
  }

  async #prune(care: Care): Promise<void> {
    const { compactIntervalMs } = care.policy;
    // Before it begins: a snapshot that is shipped meanwhile asks for another one.
    care.pruneAtMs = compactIntervalMs > 0 ? Date.now() + compactIntervalMs : Number.POSITIVE_INFINITY;
    const startedMs = monotonicMs();
    try {
      await this.#pruneNow(care);
      prunings.observe({ database: care.source.name }, monotonicMs() - startedMs);
    } catch (error) {
      care.pruneAtMs = 0;
      throw error;
    }
  }

  async #pruneNow(care: Care): Promise<void> {
    const { source, policy, signal } = care;
    const { name } = source;
    const [chain] = await readChains(this.#destination, `${name}/`, name, signal);
    // Nothing was shipped yet.
    if (chain === undefined) return;
    const pruning = await planPruningOf(this.#destination, chain, policy.retention, Date.now(), signal);
    if (pruning.keys.length === 0) return;
    dropFromManifest(source, pruning.keys);
    care.forget(new Set(pruning.keys));
    await prune(this.#destination, pruning, signal);
    prunedFiles.add({ database: name }, pruning.keys.length);
    logEvent("info", "pruned", { database: name, files: pruning.keys.length, sizeBytes: pruning.sizeBytes });
  }

  async #list(name: string, signal: AbortSignal): Promise<ChainFile[]> {
    const [chain] = await readChains(this.#destination, `${name}/`, name, signal);
    return chain?.files ?? [];
  }
}

// --- internal ---

const merges = new Duration("walsync_merge_seconds", "Merged files that were made, and the time that took.", [
  "database",
]);
const prunings = new Duration("walsync_prune_seconds", "Times that retention was applied, and the time that took.", [
  "database",
]);
const mergedFiles = new Counter(
  "walsync_superseded_files_total",
  "Files that a merged one had replaced, and that were removed.",
  ["database"],
);
const prunedFiles = new Counter(
  "walsync_pruned_files_total",
  "Files that retention did not keep, and that were removed.",
  ["database"],
);
const careFailures = new Counter(
  "walsync_upkeep_failures_total",
  "Merging or pruning that failed and is tried again, by code.",
  ["database", "code"],
);
const TIMER_MAX_MS = 60 * 60_000;
const SWEEP_INTERVAL_MS = 60 * 60_000;
const RETRY_MS = 60_000;
const RETRY_MAX_MS = 60 * 60_000;

/** Spread over the interval, so that a thousand databases are not pruned at once. */
function firstPruningMs({ compactIntervalMs }: CarePolicy): number {
  return compactIntervalMs > 0 ? Date.now() + Math.random() * compactIntervalMs : Number.POSITIVE_INFINITY;
}

function dropFromManifest(source: ShippingSource, keys: readonly string[]): void {
  source.dropFromManifest(new Set(keys.map((key) => key.slice(source.name.length + 1))));
}

/** What is due for one database, by the host's clock. */
class Care {
  readonly source: ShippingSource;
  readonly folder: string;
  policy: CarePolicy;
  readonly layout: LayoutRules;
  readonly rules: UpkeepRules;
  readonly end = new AbortController();
  /** Aborts when the source is left alone, or the caretaker stops. */
  readonly signal: AbortSignal;
  /** The increments that may be merged yet; null until the destination was asked. */
  front: FrontFile[] | null = null;
  mergeAtMs = Number.POSITIVE_INFINITY;
  sweepAtMs = Number.POSITIVE_INFINITY;
  pruneAtMs: number;
  failures = 0;

  constructor(source: ShippingSource, folder: string, policy: CarePolicy, layout: LayoutRules, stop: AbortSignal) {
    this.source = source;
    this.folder = folder;
    this.policy = policy;
    this.layout = layout;
    this.rules = upkeepRules(policy.layout);
    this.signal = AbortSignal.any([this.end.signal, stop]);
    this.pruneAtMs = firstPruningMs(policy);
  }

  /** What may be merged is looked up anew if other windows hold. */
  adopt(policy: CarePolicy): void {
    const { merge, compactIntervalMs } = this.policy;
    this.policy = policy;
    if (policy.compactIntervalMs !== compactIntervalMs) this.pruneAtMs = firstPruningMs(policy);
    if (Bun.deepEquals(policy.merge, merge)) return;
    this.front = null;
    this.mergeAtMs = policy.merge === null ? Number.POSITIVE_INFINITY : Date.now() + policy.merge.windowsMs[0]!;
    this.sweepAtMs = policy.merge === null ? Number.POSITIVE_INFINITY : Date.now() + policy.merge.keepFineMs;
  }

  get dueMs(): number {
    return Math.min(this.mergeAtMs, this.sweepAtMs, this.pruneAtMs);
  }

  /** A file that was shipped. If others were between, when the destination was asked, it is asked again. */
  append(file: FrontFile, policy: MergePolicy): void {
    const last = this.front?.at(-1);
    if (last !== undefined && file.minTxid !== last.maxTxid + 1n) {
      this.front = null;
      return;
    }
    this.front?.push(file);
    this.mergeAtMs = this.rules.nextMergeMs(this.front ?? [], policy);
  }

  /** The files of a run have become one of `level`; or they stay as they are, and are not looked at again. */
  replace(files: readonly FrontFile[], entry: ManifestEntry | null, level: number): void {
    const at = this.front?.indexOf(files[0]!) ?? -1;
    if (at < 0) return;
    this.front?.splice(at, files.length);
    if (entry === null) return;
    const { minTxid, maxTxid, sizeBytes, createdAtMs } = entry;
    const key = `${this.source.name}/${entry.key}`;
    this.front?.splice(at, 0, { key, minTxid, maxTxid, sizeBytes, level, timestampMs: createdAtMs });
  }

  /** Files that are about to be removed are not to be merged. */
  forget(keys: ReadonlySet<string>): void {
    if (this.front !== null) this.front = this.front.filter(({ key }) => !keys.has(key));
  }

  /** What was due is tried again later, and looked up anew. */
  failed(): void {
    this.failures++;
    const againMs = Date.now() + Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** Math.min(this.failures - 1, 10));
    this.front = null;
    if (this.mergeAtMs <= Date.now()) this.mergeAtMs = againMs;
    if (this.sweepAtMs <= Date.now()) this.sweepAtMs = againMs;
    if (this.pruneAtMs <= Date.now()) this.pruneAtMs = againMs;
  }
}
