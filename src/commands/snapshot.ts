/** `walsync snapshot`: one database to a destination, once. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS, requireRecipients } from "../engine/encryption.ts";
import { LAYOUT_FLAG, STATE_FLAGS } from "../engine/watch-settings.ts";
import { print, printJson, progress } from "../log.ts";
import { formatDuration } from "../quantities.ts";
import { SNAPSHOT_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: { name: "snapshot", description: "Ship a snapshot of one database, and what led to it" },
  positionals: { database: { required: true, isPath: true, description: "the database file, or name=file" } },
  flags: {
    ...DESTINATION_FLAGS,
    ...ENCRYPTION_FLAGS,
    ...LAYOUT_FLAG,
    ...STATE_FLAGS,
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync snapshot app.db -b s3://backups/prod", "One snapshot, for example from cron"],
    ["walsync snapshot shop=app.db -b s3://backups/prod", "The same under another name"],
  ],
  result: SNAPSHOT_RESULT,
  async run({ flags, positionals, env, signal }) {
    const { nameOf, requireOneSource, takeSnapshot } = await import("../engine/snapshot.ts");
    const startedMs = Date.now();
    requireRecipients(flags);
    const source = requireOneSource(positionals.database);
    const destination = await destinationOf(flags, env, signal);
    const { WorkMemory } = await import("../memory.ts");
    const memory = new WorkMemory();
    const bar = new StageBar();
    try {
      const database = nameOf(source, destination.url, flags.stateDir);
      const { name, txid } = await takeSnapshot(destination, database, {
        ...flags,
        env,
        signal,
        onProgress: (stage, doneBytes, totalBytes) => {
          bar.show(`${stage} ${database.name}`, doneBytes, totalBytes);
          if (stage === "upload") memory.passed(doneBytes);
          // Uploading begins. It tells of itself when a part is sent already.
          else if (doneBytes === totalBytes) memory.begin();
        },
      });
      bar.end();
      const took = formatDuration(Date.now() - startedMs);
      if (flags.json) printJson({ name, txid });
      else print(`${name}: snapshot at txid ${txid} in ${destination.url}, in ${took}`);
    } finally {
      bar.end();
      destination.close();
    }
  },
});

/** One bar after the other: reading, then uploading. */
class StageBar {
  #label = "";
  #bar: ReturnType<typeof progress> | undefined;

  show(label: string, doneBytes: number, totalBytes: number): void {
    if (label !== this.#label) {
      this.end();
      this.#label = label;
      this.#bar = progress(label, totalBytes);
    }
    this.#bar?.update(doneBytes);
  }

  end(): void {
    this.#bar?.end();
    this.#bar = undefined;
  }
}
