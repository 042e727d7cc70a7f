/** `walsync doctor`: checks this host, databases and a destination, and says what to do. */
import { defineWalsyncCommand } from "../cli/command.ts";
import type { CheckResult } from "../doctor/check.ts";
import { DESTINATION_FLAGS, destinationSettings } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS, keyPlacesOf } from "../engine/encryption.ts";
import { STATE_FLAGS } from "../engine/watch-settings.ts";
import { WalsyncError } from "../errors.ts";
import { print, printJson, table } from "../log.ts";
import { DOCTOR_RESULT } from "./results.ts";

const { bucket, ...PLACE_FLAGS } = DESTINATION_FLAGS;

export default defineWalsyncCommand({
  meta: { name: "doctor", description: "Check this host, databases and a destination, and say what to do" },
  positionals: {
    databases: { variadic: true, isPath: true, description: "as for watch; default: those of walsync.toml" },
  },
  flags: {
    bucket: { type: "string", short: "b", placeholder: "URL", description: bucket.description },
    ...PLACE_FLAGS,
    ...ENCRYPTION_FLAGS,
    ...STATE_FLAGS,
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync doctor app.db -b s3://backups/prod", "Whether this database can be replicated to this bucket"],
    ["walsync doctor -b s3://backups/prod --recipient age1...", "And whether it can be encrypted"],
    ["walsync doctor --json", "What walsync.toml names, or the host alone; for scripts"],
  ],
  result: DOCTOR_RESULT,
  async run({ flags, positionals, config, flagsWith, env, signal }) {
    const { examine } = await import("../doctor/doctor.ts");
    const { namedSelections, requireDatabases } = await import("../engine/watch-databases.ts");
    const { stateFolderOf } = await import("../replication/local-state.ts");
    const selections = namedSelections(positionals.databases, config);
    const databases = requireDatabases(selections, config, () => null, "refused").map(({ path, layer }) => ({
      path,
      stateFolder: stateFolderOf(path, flags.stateDir),
      enableWal: (layer === null ? flags : flagsWith(layer)).enableWal,
    }));
    const settings = destinationSettings(flags, env);
    const patient = { databases, bucket: flags.bucket ?? null, settings, keys: keyPlacesOf(flags) };
    const { results, code } = await examine(patient, signal);
    if (flags.json) printJson({ checks: results });
    else printResults(results);
    if (code === null) return;
    const count = results.filter(({ result }) => result === "failed").length;
    throw new WalsyncError(code, `expected no check to fail, found ${count} of ${results.length} that did`, {
      hint: "Each failed line above says what to do.",
    });
  },
});

const SHOWN: Record<CheckResult["result"], string> = { ok: "ok", warning: "warn", failed: "FAIL", skipped: "skip" };

/** A table, and below each line of it that is not in order what to do. */
function printResults(results: readonly CheckResult[]): void {
  const rows = results.map(({ subject, check, result, message }) => [SHOWN[result], subject, check, message]);
  const [header, ...lines] = table([["RESULT", "SUBJECT", "CHECK", "FOUND"], ...rows]).split("\n");
  print(header);
  for (const [i, line] of lines.entries()) {
    print(line);
    const hint = results[i]?.hint;
    if (hint != null) print(`        hint: ${hint}`);
  }
}
