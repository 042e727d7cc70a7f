/** What a watch is to do: its databases with their policies. Made at the start, and anew by each reload. */
import { isDeepStrictEqual } from "node:util";
import { camelCase, type SettingLayer } from "../config.ts";
import type { ConfigFile } from "../config-file.ts";
import { FIXED_SETTINGS } from "../config-keys.ts";
import type { ReplicationPolicy } from "../replication/capture.ts";
import type { FleetDatabase } from "../replication/fleet-plan.ts";
import type { NamedDatabase, Naming } from "../replication/names.ts";
import type { Pattern } from "../replication/sources.ts";
import type { CarePolicy } from "../upkeep/caretaker.ts";
import { requireRecipients } from "./encryption.ts";
import {
  findDatabases,
  requireDatabases,
  type Selection,
  selectionsOf,
  type WatchedDatabase,
} from "./watch-databases.ts";
import { type DrillPlan, drillPlanOf } from "./watch-drills.ts";
import { carePolicyOf, replicationPolicyOf, type WatchSettings } from "./watch-settings.ts";

export interface PlannedDatabase extends FleetDatabase {
  settings: { replication: ReplicationPolicy; care: CarePolicy; drill: DrillPlan; mayVanish: boolean };
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
}

type KeptName = (path: string) => string | null;

export class WatchPlan {
  readonly flags: WatchSettings;
  readonly #settings: PlanSettings;
  readonly #selections: readonly Selection[];

  /** Throws E_USAGE, E_CONFIG or E_IDENTITY for settings and databases that cannot be meant. */
  constructor(arguments_: readonly string[], settings: PlanSettings) {
    this.flags = settings.flags;
    this.#settings = settings;
    carePolicyOf(settings.flags);
    requireRecipients(settings.flags);
    drillPlanOf(settings.flags);
    this.#selections = selectionsOf(arguments_, settings.config);
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
   * application that may make it. `keptName` is what the database at a path was called before, or null.
   */
  require(keptName: KeptName): PlannedDatabase[] {
    const mayBeEmpty = this.#settings.mayBeEmpty === true || this.flags.exec !== undefined;
    const missing = mayBeEmpty ? "awaited" : "refused";
    const databases = requireDatabases(this.#selections, this.#settings.config, keptName, missing);
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
    const found = ({ flags }: WatchPlan, name: string) => (flags as Record<string, unknown>)[camelCase(name)];
    return [...FIXED_SETTINGS].filter((name) => !isDeepStrictEqual(found(this, name), found(other, name)));
  }

  #planned({ path, name, layer, mayVanish }: WatchedDatabase): PlannedDatabase {
    const own = layer === null ? this.flags : this.#settings.flagsWith(layer);
    const settings = { replication: replicationPolicyOf(own), care: carePolicyOf(own), drill: drillPlanOf(own) };
    return { path, name, settings: { ...settings, mayVanish } };
  }
}
