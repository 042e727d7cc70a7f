/** `walsync drill`: proves by doing it that databases can be restored, and how long that takes. */
import { accessSync, constants } from "node:fs";
import { dirname, resolve } from "node:path";
import { defineWalsyncCommand } from "../cli/command.ts";
import { VERSION } from "../cli/version.ts";
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
    const flagsFor = (name?: string) => (config === null ? given : flagsWith(drillLayer(config, name)));
    const flags = flagsFor();
    const names = [...new Set(positionals.names)];
    if ((names.length === 0) !== flags.all) {
      throw new WalsyncError("E_USAGE", "drill: expected names or --all, found both or neither");
    }
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
      const drilled = flags.all ? await allNamesAt(destination, signal) : names;
      const place = new DrillPlace(tempDirOf(flags.tempDir));
      const outcomes: DrillOutcome[] = [];
      try {
        const live = new LiveDatabases(env, destination.url);
        await inParallel(flags.parallel, drilled.length, signal, async (i, either) => {
          const name = drilled[i]!;
          const policy = drillPolicyOf(flagsFor(name));
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

/** Names in a message. */
const NAMES_SHOWN = 10;

/** Before hours of work that nobody could read about. */
function requireWritable(output: string): void {
  try {
    accessSync(dirname(resolve(output)), constants.W_OK);
  } catch (error) {
    throw asDiskError(output, error);
  }
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
  for (const { code, message } of outcomes.flatMap(({ faults }) => faults)) print(`error ${code} ${message}`);
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

/** Ends the command with the worst that was found. */
async function throwIfFailed(outcomes: readonly DrillOutcome[]): Promise<void> {
  const { worstOf } = await import("../drill/verdict.ts");
  const failed = outcomes.filter(({ faults }) => faults.length > 0);
  const faults = failed.flatMap((outcome) => outcome.faults);
  const worst = worstOf(faults);
  if (worst === null) return;
  if (faults.length === 1) throw worst;
  const names = failed.slice(0, NAMES_SHOWN).map(({ name }) => name);
  const shown = `${names.join(", ")}${failed.length > NAMES_SHOWN ? " ..." : ""}`;
  const count = `${failed.length} of ${outcomes.length}`;
  throw new WalsyncError(worst.code, `${shown}: expected every drill to go well, found ${count} that did not`, {
    hint: "The result says of each what was found.",
  });
}
