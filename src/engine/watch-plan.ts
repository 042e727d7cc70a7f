/** What a watch is to do: its databases with their policies. Made at the start, and anew by each reload. */
import { isDeepStrictEqual } from "node:util";
import { requireEncryptable } from "../chain/layout-rules.ts";
import { camelCase, type SettingLayer } from "../config.ts";
import type { ConfigFile } from "../config-file.ts";
import { FIXED_SETTINGS } from "../config-keys.ts";
import type { Layout } from "../destination/layout.ts";
import type { ReplicationPolicy } from "../replication/capture.ts";
import type { FleetDatabase } from "../replication/fleet-plan.ts";
import type { NamedDatabase, Naming } from "../replication/names.ts";
import type { Pattern } from "../replication/sources.ts";
import type { CarePolicy } from "../upkeep/caretaker.ts";
import { isEncrypted, requireRecipients } from "./encryption.ts";
import {
  findDatabases,
  namedSelections,
  requireDatabases,
  type Selection,
  selectionsOf,
  type WatchedDatabase,
} from "./watch-databases.ts";
import { type DrillPlan, drillPlanOf } from "./watch-drills.ts";
import { carePolicyOf, LAYOUT_FLAG, replicationPolicyOf, type WatchSettings } from "./watch-settings.ts";

export interface PlannedDatabase extends FleetDatabase {
  settings: DatabasePlan & { mayVanish: boolean };
}

/** What is done to a database. */
export interface DatabasePlan {
  replication: ReplicationPolicy;
  care: CarePolicy;
  drill: DrillPlan;
}

/** What a watch was told, and by whom databases may be told apart. */
export interface PlanSettings {
  flags: WatchSettings;
  /** walsync.toml, if there is one. Its settings are in `flags` already. */
  config: ConfigFile | null;
  /** `flags` as they are where `layer` beats the sections of walsync.toml. */
  flagsWith(layer: SettingLayer): WatchSettings;
  /** A directory or a glob without a database is all right: the program that watches may be about to make one. */
  mayBeEmpty?: boolean;
  /** No database needs to be named at all: of settings alone there is something to say, too. */
  mayNameNone?: boolean;
}

type KeptName = (path: string) => string | null;

export class WatchPlan {
  readonly flags: WatchSettings;
  readonly #arguments: readonly string[];
  readonly #settings: PlanSettings;
  readonly #selections: readonly Selection[];

  /** Throws E_USAGE, E_CONFIG or E_IDENTITY for settings and databases that cannot be meant. */
  constructor(arguments_: readonly string[], settings: PlanSettings) {
    this.flags = settings.flags;
    this.#arguments = arguments_;
    this.#settings = settings;
    carePolicyOf(settings.flags);
    requireRecipients(settings.flags);
    drillPlanOf(settings.flags);
    this.#selections = (settings.mayNameNone ? namedSelections : selectionsOf)(arguments_, settings.config);
  }

  /** What holds for a database without settings of its own. */
  get defaults(): DatabasePlan {
    return settingsOf(this.flags);
  }

  get patterns(): Pattern[] {
    return this.#selections.map(({ pattern }) => pattern);
  }

  /** True if walsync.toml names the databases, and not the command line. */
  get isFromConfig(): boolean {
    return this.#selections.some(({ entry }) => entry !== null);
  }

  /**
   * The databases, strictly: throws E_USAGE or E_CONFIG for two with one name, and for a glob without one, unless there is an
   * application that may make it; and for settings of an entry that cannot be meant, databases or not. `keptName` is what the database at a path was called before, or null.
   */
  require(keptName: KeptName): PlannedDatabase[] {
    const mayBeEmpty = this.#settings.mayBeEmpty === true || this.flags.exec !== undefined;
    const missing = mayBeEmpty ? "awaited" : "refused";
    const databases = requireDatabases(this.#selections, this.#settings.config, keptName, missing);
    for (const { entry } of this.#selections) {
      const flags = this.#flagsOf(entry?.layer ?? null);
      const isOwn = entry !== null && saysLayout(entry.layer);
      if (isEncrypted(flags)) requireEncryptable(flags.layout, isOwn ? `${entry.place}: layout` : undefined);
      settingsOf(flags);
    }
    return databases.map((one) => this.#planned(one));
  }

  /** The databases that are there by now. Throws E_DATABASE if a directory cannot be read. */
  find(
    running: readonly NamedDatabase[],
    keptName: KeptName,
  ): { databases: PlannedDatabase[]; refused: Naming["refused"] } {
    const { databases, refused } = findDatabases(this.#selections, running, keptName);
    return { databases: databases.map((one) => this.#planned(one)), refused };
  }

  /** Settings that differ from those of `other` and cannot change while it runs. */
  fixedChanges(other: WatchPlan): string[] {
    const [mine, others] = [fixedOf(this.flags), fixedOf(other.flags)];
    const hasOtherLayout = () =>
      this.#selections.some(({ entry }) => {
        const layout = entry === null ? undefined : other.#layoutOf(entry.path);
        return layout !== undefined && layout !== this.#layoutOf(entry!.path);
      });
    return [...FIXED_SETTINGS].filter((name) => {
      const key = camelCase(name);
      return !isDeepStrictEqual(mine[key], others[key]) || (name === "layout" && hasOtherLayout());
    });
  }

  /**
   * This plan, with the settings that cannot change as they were in `started`: the destination and what runs already follow
   * those. An entry that was not there then has a layout of its own, if it says so. Throws what does not go with them.
   */
  keeping(started: WatchPlan): WatchPlan {
    const fixed = fixedOf(started.flags);
    const layouts = new Map(this.#selections.map(({ entry }) => [entry?.layer, started.#layoutOf(entry?.path)]));
    return new WatchPlan(this.#arguments, {
      ...this.#settings,
      flags: { ...this.flags, ...fixed },
      flagsWith: (layer) => {
        const own = this.#settings.flagsWith(layer);
        const layout = layouts.get(layer) ?? (saysLayout(layer) ? own.layout : started.flags.layout);
        return { ...own, ...fixed, layout };
      },
    });
  }

  /** Of the entry for `path`; undefined if there is none. */
  #layoutOf(path: string | undefined): Layout | undefined {
    const entry = this.#selections.find((one) => one.entry !== null && one.entry.path === path)?.entry;
    return entry ? this.#flagsOf(entry.layer).layout : undefined;
  }

  #flagsOf(layer: SettingLayer | null): WatchSettings {
    return layer === null ? this.flags : this.#settings.flagsWith(layer);
  }

  #planned({ path, name, layer, mayVanish }: WatchedDatabase): PlannedDatabase {
    return { path, name, settings: { ...settingsOf(this.#flagsOf(layer)), mayVanish } };
  }
}

// --- internal ---

function settingsOf(flags: WatchSettings): DatabasePlan {
  return { replication: replicationPolicyOf(flags), care: carePolicyOf(flags), drill: drillPlanOf(flags) };
}

/** Those that cannot change while a watch runs, by their names in camelCase. */
function fixedOf(flags: WatchSettings): Record<string, unknown> {
  const values = flags as Record<string, unknown>;
  return Object.fromEntries([...FIXED_SETTINGS].map(camelCase).map((key) => [key, values[key]]));
}

function saysLayout(layer: SettingLayer): boolean {
  return layer.text("layout", LAYOUT_FLAG.layout) !== undefined;
}
