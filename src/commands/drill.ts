/** `walsync drill`: proves by doing it that databases can be restored, and how long that takes. */
import { accessSync, constants } from "node:fs";
import { dirname, resolve } from "node:path";
import { defineWalsyncCommand } from "../cli/command.ts";
import { requireNamesOrAll, someNames } from "../cli/names.ts";
import { VERSION } from "../cli/version.ts";
import { envLayer, resolveSettings, type SettingLayer } from "../config.ts";
import type { ConfigFile } from "../config-file.ts";
import type { Destination } from "../destination/destination.ts";
import { requireListedName } from "../destination/layout.ts";
import { inParallel } from "../destination/limit.ts";
import type { DrillOutcome } from "../drill/verdict.ts";
import { asDiskError, writeFileDurably } from "../durable.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { DRILL_FLAGS, drillLayer, drillPolicyOf, tempDirOf } from "../engine/drill-settings.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
import { namesAt } from "../engine/list.ts";
import { WalsyncError } from "../errors.ts";
import { formatJson, print, progress, table } from "../log.ts";
import { formatBytes, formatDuration } from "../quantities.ts";
import { parsePointInTime } from "../restore/restore-target.ts";
import { DRILL_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: {
    name: "drill",
    description: "Restore databases for practice, check them, and measure what a loss would cost",
  },
  positionals: { names: { variadic: true, description: "names of databases, as walsync list shows them" } },
  flags: {
    ...DESTINATION_FLAGS,
    ...ENCRYPTION_FLAGS,
    all: { type: "boolean", description: "every database below the destination" },
    "point-in-time": {
      type: "string",
      placeholder: "TIME",
      description: "ISO 8601 time (UTC unless it says otherwise) or txid:N; default: the newest",
    },
    ...DRILL_FLAGS,
    parallel: {
      type: "integer",
      min: 1,
      max: 16,
      default: "1",
      description: "databases at a time; more of them slow each other down, and the times tell that",
    },
    output: { type: "string", short: "o", placeholder: "REPORT", description: "file for the result as JSON" },
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync drill app -b s3://backups/prod", "Whether it can be restored, and how fast"],
    [
      "walsync drill app -b s3://backups/prod --assert 'SELECT count(*) > 0 FROM users'",
      "And whether there is something in it",
    ],
    [
      "walsync drill --all -b s3://backups/prod --max-rto 5m --max-rpo 1h -o drill.json",
      "All of them, with limits, for the records",
    ],
  ],
  result: DRILL_RESULT,
  async run({ flags: given, flagsWith, config, positionals, env, signal }) {
    const flagsOf = (own: SettingLayer | null) => (config === null ? given : flagsWith(drillLayer(config, own)));
    const flags = flagsOf(null);
    const names = [...new Set(positionals.names)];
    requireNamesOrAll("drill", "names", names.length > 0, flags.all);
    for (const name of names) requireListedName(name);
    const target = parsePointInTime(flags.pointInTime, "--point-in-time");
    if (flags.output !== undefined) requireWritable(flags.output);
    const destination = await destinationOf(flags, env, signal);
    const { DrillPlace } = await import("../drill/place.ts");
    const { LiveDatabases } = await import("../drill/live.ts");
    const { drillDatabase } = await import("../drill/drill.ts");
    const { reportOf } = await import("../drill/report.ts");
    const startedAt = new Date().toISOString();
    try {
      const entryOf = config === null ? () => null : await entriesOf(config, env, destination.url);
      const drilled = flags.all ? await allNamesAt(destination, signal) : names;
      const place = new DrillPlace(tempDirOf(flags.tempDir));
      const outcomes: DrillOutcome[] = [];
      try {
        const live = new LiveDatabases(env, destination.url);
        await inParallel(flags.parallel, drilled.length, signal, async (i, either) => {
          const name = drilled[i]!;
          const policy = drillPolicyOf(flagsOf(entryOf(name)));
          outcomes[i] = await withProgress(name, flags.parallel, (onProgress) =>
            drillDatabase(destination, name, { target, policy, place, live, signal: either, onProgress }),
          );
        });
      } finally {
        place.close();
      }
      const report = formatJson({
        destination: destination.url,
        point_in_time: flags.pointInTime ?? null,
        started_at: startedAt,
        version: VERSION,
        ok: outcomes.every(({ faults }) => faults.length === 0),
        databases: outcomes.map(reportOf),
      });
      if (flags.json) print(report);
      else printOutcomes(outcomes);
      if (flags.output !== undefined) writeFileDurably(flags.output, Buffer.from(`${report}\n`));
      await throwIfFailed(outcomes);
    } finally {
      destination.close();
    }
  },
});

/** Before hours of work that nobody could read about. */
function requireWritable(output: string): void {
  try {
    accessSync(dirname(resolve(output)), constants.W_OK);
  } catch (error) {
    throw asDiskError(output, error);
  }
}

/** Named as the watch of this file names them here. */
async function entriesOf(
  config: ConfigFile,
  env: Readonly<Record<string, string | undefined>>,
  destinationUrl: string,
): Promise<(name: string) => SettingLayer | null> {
  const { entryLayers } = await import("../engine/drill-entries.ts");
  const { STATE_FLAGS } = await import("../engine/watch-settings.ts");
  const { keptName, stateFolderOf } = await import("../replication/local-state.ts");
  const { stateDir } = resolveSettings(STATE_FLAGS, [envLayer(env), config.layer]).values;
  return entryLayers(config, (path) => keptName(stateFolderOf(path, stateDir), destinationUrl));
}

/** Nothing to restore is no success: whoever drills expects to find something. */
async function allNamesAt(destination: Destination, signal: AbortSignal): Promise<string[]> {
  const names = await namesAt(destination, undefined, signal);
  if (names.length > 0) return names;
  throw new WalsyncError("E_NOT_FOUND", `${destination.url}: expected databases to restore, found none`, {
    hint: "Check bucket and prefix.",
  });
}

type OnProgress = (doneBytes: number, totalBytes: number) => void;

/** Several bars in one line would be none. */
async function withProgress<R>(
  name: string,
  parallel: number,
  action: (onProgress: OnProgress | undefined) => Promise<R>,
): Promise<R> {
  if (parallel > 1) return await action(undefined);
  let shown: ReturnType<typeof progress> | undefined;
  try {
    return await action((doneBytes, totalBytes) => {
      shown ??= progress(`restore ${name}`, totalBytes);
      shown.update(doneBytes);
      // What follows are checks.
      if (doneBytes === totalBytes) shown = void shown.end();
    });
  } finally {
    shown?.end();
  }
}

function printOutcomes(outcomes: readonly DrillOutcome[]): void {
  const header = ["NAME", "RESULT", "TXID", "TIME", "SIZE", "FILES", "FETCHED", "RTO", "RPO", "CHECKS"];
  print(table([header, ...outcomes.map(rowOf)], [2, 4, 5, 6, 7, 8, 9]));
  const faults = outcomes.flatMap((outcome) => outcome.faults);
  for (const { code, message } of faults) print(`error ${code} ${message}`);
  // What can be done is the same for many.
  for (const hint of new Set(faults.map((fault) => fault.hint))) if (hint !== undefined) print(`hint: ${hint}`);
}

function rowOf({ name, restored, rtoMs, recovery, integrity, assertions, faults }: DrillOutcome): string[] {
  const result = faults.length === 0 ? "ok" : "FAILED";
  if (restored === null) return [name, result, "-", "-", "-", "-", "-", "-", "-", "-"];
  const checks = [integrity!, ...assertions];
  return [
    name,
    result,
    String(restored.txid),
    new Date(restored.timestampMs).toISOString(),
    formatBytes(restored.sizeBytes),
    String(restored.fileCount),
    formatBytes(restored.fetchedBytes),
    formatDuration(rtoMs!),
    recovery!.missing === 0n ? "none" : formatDuration(recovery!.rpoMs),
    `${checks.filter((check) => check.result === "ok").length} of ${checks.length}`,
  ];
}

/** Ends the command with the worst that was found. What that is, the result says already. */
async function throwIfFailed(outcomes: readonly DrillOutcome[]): Promise<void> {
  const { worstOf } = await import("../drill/verdict.ts");
  const failed = outcomes.filter(({ faults }) => faults.length > 0);
  const worst = worstOf(failed.flatMap(({ faults }) => faults));
  if (worst === null) return;
  const names = someNames(failed.map(({ name }) => name));
  const found = outcomes.length === 1 ? "that it did not" : `${failed.length} of ${outcomes.length} that did not`;
  const expected = outcomes.length === 1 ? "its drill" : "every drill";
  throw new WalsyncError(worst.code, `${names}: expected ${expected} to go well, found ${found}`, {
    hint: "The result says what was found.",
  });
}
