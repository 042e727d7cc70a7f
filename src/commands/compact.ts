/** `walsync compact`: deletes what retention does not keep; without --force it only shows what that would be. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { requireNamesOrAll } from "../cli/names.ts";
import { requireListedName } from "../destination/layout.ts";
import { compactDatabase } from "../engine/compact.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
import { namesAt } from "../engine/list.ts";
import { print, printJson, table } from "../log.ts";
import { formatBytes, formatDuration } from "../quantities.ts";
import type { Pruning } from "../upkeep/prune.ts";
import { requireRetention } from "../upkeep/retention.ts";
import { COMPACT_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: { name: "compact", description: "Delete old snapshots and increments; shows what it would do without --force" },
  positionals: { name: { description: "name of the database, as walsync list shows it" } },
  flags: {
    ...DESTINATION_FLAGS,
    ...ENCRYPTION_FLAGS,
    hourly: { type: "integer", min: 0, default: "24", description: "hours that keep their newest snapshot" },
    daily: { type: "integer", min: 0, default: "7", description: "days" },
    weekly: { type: "integer", min: 0, default: "12", description: "weeks, from Monday" },
    monthly: { type: "integer", min: 0, default: "12", description: "months; all in UTC" },
    "point-in-time": {
      type: "duration",
      default: "1d",
      description: "time in which every restore point stays",
    },
    all: { type: "boolean", description: "every database below the destination" },
    force: { type: "boolean", description: "delete" },
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync compact app -b s3://backups/prod", "What would be deleted"],
    ["walsync compact app -b s3://backups/prod --force", "Delete it"],
    ["walsync compact --all -b s3://backups/prod --hourly 48 --point-in-time 7d --force", "With another policy"],
  ],
  result: COMPACT_RESULT,
  async run({ flags, positionals, env, signal }) {
    const { name } = positionals;
    requireNamesOrAll("compact", "a name", name !== undefined, flags.all);
    if (name !== undefined) requireListedName(name);
    const { hourly, daily, weekly, monthly, pointInTime } = flags;
    const policy = requireRetention({ hourly, daily, weekly, monthly, pointInTimeMs: pointInTime });
    const destination = await destinationOf(flags, env, signal);
    try {
      const names = await namesAt(destination, name, signal);
      const prunings: Pruning[] = [];
      for (const each of names) {
        const nowMs = Date.now();
        const deletes = flags.force ? (flags.all ? "ours" : "required") : "never";
        const { pruning, isDeleted } = await compactDatabase(destination, each, {
          policy,
          nowMs,
          delete: deletes,
          signal,
        });
        if (!flags.json && prunings.length > 0) print();
        if (!flags.json) printPruning(pruning, isDeleted, nowMs);
        prunings.push(pruning);
      }
      if (flags.json) printJson({ deleted: flags.force, databases: prunings.map(toJson) });
      else if (names.length === 0) print(`${destination.url}: no databases`);
    } finally {
      destination.close();
    }
  },
});

function printPruning({ name, layout, plan, keys, sizeBytes }: Pruning, force: boolean, nowMs: number): void {
  const rows = plan.snapshots.map(({ file, timestampMs, keptFor }) => [
    `txid:${file.maxTxid}`,
    new Date(timestampMs).toISOString(),
    formatDuration(Math.max(0, nowMs - timestampMs)),
    formatBytes(file.sizeBytes),
    keptFor === null ? "delete" : "keep",
    keptFor ?? "",
  ]);
  print(table([["RESTORE POINT", "TIME", "AGE", "SIZE", "ACTION", "REASON"], ...rows], [2, 3]));
  const { keptIncrements, deletedIncrements } = plan;
  print(`increments: ${keptIncrements.length} kept, ${deletedIncrements.length} ${force ? "deleted" : "to delete"}`);
  const files = `${keys.length} ${keys.length === 1 ? "file" : "files"}, ${formatBytes(sizeBytes)}`;
  if (keys.length === 0) print(`${name}: nothing to delete`);
  else if (force) print(`${name}: deleted ${files}`);
  else if (layout === "walsync") print(`${name}: would delete ${files}; do it with --force`);
  else
    print(`${name}: by this policy ${files} would go; in the layout ${layout} that is left to the tool that writes it`);
}

function toJson({ name, plan, keys, sizeBytes }: Pruning) {
  return {
    name,
    snapshots: plan.snapshots.map(({ file, timestampMs, keptFor }) => ({
      key: file.key,
      txid: file.maxTxid,
      time: new Date(timestampMs).toISOString(),
      bytes: file.sizeBytes,
      keep: keptFor !== null,
      reason: keptFor,
    })),
    increments: { kept: plan.keptIncrements.length, deleted: plan.deletedIncrements.length },
    deleted: { files: keys.length, bytes: sizeBytes },
  };
}
