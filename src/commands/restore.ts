/** `walsync restore`: a database from its files, as it was at any moment. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { requireListedName } from "../destination/layout.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
import { print, printJson, progress } from "../log.ts";
import { formatBytes, formatDuration } from "../quantities.ts";
import { parsePointInTime } from "../restore/restore-target.ts";
import { RESTORE_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: { name: "restore", description: "Restore a database to its newest state or to any moment before" },
  positionals: { name: { required: true, description: "name of the database, as walsync list shows it" } },
  flags: {
    output: { type: "string", short: "o", required: true, placeholder: "FILE", description: "file to write" },
    ...DESTINATION_FLAGS,
    ...ENCRYPTION_FLAGS,
    "point-in-time": {
      type: "string",
      placeholder: "TIME",
      description: "ISO 8601 time (UTC unless it says otherwise) or txid:N; default: the newest",
    },
    force: { type: "boolean", description: "replace the output if it exists" },
    integrity: {
      type: "choice",
      choices: ["quick", "full", "none"],
      default: "quick",
      description: "what SQLite checks in the restored file",
    },
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync restore app -o app.db -b s3://backups/prod", "The newest state"],
    ["walsync restore app -o old.db -b s3://backups/prod --point-in-time 2026-05-01T12:00:00Z", "As it was at noon"],
    ["walsync restore app -o old.db -b s3://backups/prod --point-in-time txid:41", "After one certain transaction"],
  ],
  result: RESTORE_RESULT,
  async run({ flags, positionals, env, signal }) {
    const target = parsePointInTime(flags.pointInTime, "--point-in-time");
    requireListedName(positionals.name);
    const destination = await destinationOf(flags, env, signal);
    const { restoreDatabase } = await import("../restore/restore.ts");
    const startedMs = Date.now();
    const { WorkMemory } = await import("../memory.ts");
    const memory = new WorkMemory();
    let shown: ReturnType<typeof progress> | undefined;
    try {
      const result = await restoreDatabase(destination, positionals.name, flags.output, {
        target,
        integrity: flags.integrity,
        force: flags.force,
        signal,
        onProgress: (doneBytes, totalBytes) => {
          if (shown === undefined) {
            shown = progress(`restore ${positionals.name}`, totalBytes);
            memory.begin();
          }
          shown.update(doneBytes);
          memory.passed(doneBytes);
        },
      });
      shown?.end();
      shown = undefined;
      const { txid, timestampMs, fileCount, fetchedBytes, sizeBytes } = result;
      const time = new Date(timestampMs).toISOString();
      if (flags.json) {
        printJson({ name: positionals.name, output: flags.output, txid, time, files: fileCount, bytes: sizeBytes });
        return;
      }
      print(
        `${flags.output}: ${positionals.name} at txid ${txid} of ${time}, ${formatBytes(sizeBytes)} from ` +
          `${fileCount} ${fileCount === 1 ? "file" : "files"} (${formatBytes(fetchedBytes)}) in ${formatDuration(Date.now() - startedMs)}`,
      );
    } finally {
      shown?.end();
      destination.close();
    }
  },
});
