/** What a drill is told, by its command, by `watch --drill-…` and by [drill] of walsync.toml, and the policy that it means. */
import { tmpdir } from "node:os";
import type { SettingDef, SettingLayer, SettingValues } from "../config.ts";
import type { ConfigFile } from "../config-file.ts";
import type { DrillPolicy } from "../drill/verdict.ts";

export const DRILL_FLAGS = {
  assert: {
    type: "texts",
    placeholder: "SQL",
    description: "a query: each row, of at least one, must begin with something true",
  },
  "assert-timeout": { type: "duration", default: "1m", description: "time that each of these may take" },
  "max-rto": { type: "duration", default: "0", description: "a restore that takes longer is a failure; 0 never" },
  "max-rpo": {
    type: "duration",
    default: "0",
    description: "so is a loss of transactions that are older than this; 0 never",
  },
  "temp-dir": {
    type: "string",
    placeholder: "DIR",
    description: "where it is restored, and removed again; default: the system's folder for temporary files",
  },
} as const;

type DrillSettings = SettingValues<typeof DRILL_FLAGS>;

export function drillPolicyOf({ assert, assertTimeout, maxRto, maxRpo }: Omit<DrillSettings, "tempDir">): DrillPolicy {
  return { assertions: assert, assertTimeoutMs: assertTimeout, maxRtoMs: maxRto, maxRpoMs: maxRpo };
}

export function tempDirOf(tempDir: string | undefined): string {
  return tempDir ?? tmpdir();
}

/**
 * What walsync.toml says about the drills of `watch`, for the command that has the same settings under shorter names. What an
 * entry says, `own`, comes before [drill].
 */
export function drillLayer({ layer }: ConfigFile, own: SettingLayer | null): SettingLayer {
  const layers = own === null ? [layer] : [own, layer];
  const settingOf = (setting: string) => (Object.hasOwn(DRILL_FLAGS, setting) ? `drill-${setting}` : setting);
  const answering = (setting: string, def: SettingDef) =>
    layers.find((one) => one.text(settingOf(setting), def) !== undefined) ?? layer;
  return {
    ...layer,
    text: (setting, def) => answering(setting, def).text(settingOf(setting), def),
    label: (setting, def) => answering(setting, def).label(settingOf(setting), def),
  };
}
