/** `walsync list`: which databases there are, and from when to when each can be restored. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
import type { ListedDatabase } from "../engine/list.ts";
import { print, printJson, table } from "../log.ts";
import { formatBytes } from "../quantities.ts";
import { LIST_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: {
    name: "list",
    description: "List the databases at a destination, and from when to when each can be restored",
  },
  positionals: {},
  flags: {
    ...DESTINATION_FLAGS,
    ...ENCRYPTION_FLAGS,
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync list -b s3://backups/prod", "A table of every database below a prefix"],
    ["walsync list -b s3://backups/prod --json", "The same for scripts"],
  ],
  result: LIST_RESULT,
  async run({ flags, env, signal }) {
    const { listDatabases } = await import("../engine/list.ts");
    const destination = await destinationOf(flags, env, signal);
    try {
      const databases = await listDatabases(destination, signal);
      if (flags.json) printJson({ databases: databases.map(toJson) });
      else printTable(databases, destination.url);
    } finally {
      destination.close();
    }
  },
});

function toJson({ oldestMs, newestMs, ...database }: ListedDatabase) {
  const oldest = oldestMs === null ? null : new Date(oldestMs).toISOString();
  return { ...database, oldest, newest: new Date(newestMs).toISOString() };
}

function printTable(rows: readonly ListedDatabase[], url: string): void {
  if (rows.length === 0) {
    print(`${url}: no databases`);
    return;
  }
  const header = ["NAME", "LAYOUT", "TXID", "SNAPSHOTS", "INCREMENTS", "SIZE", "OLDEST", "NEWEST"];
  const lines = rows.map((row) => [
    row.name,
    row.layout,
    String(row.txid),
    String(row.snapshots),
    String(row.increments),
    formatBytes(row.bytes),
    row.oldestMs === null ? "-" : toSecond(row.oldestMs, Math.ceil),
    toSecond(row.newestMs, Math.floor),
  ]);
  print(table([header, ...lines], [2, 3, 4, 5]));
}

/** What is shown can be asked for as --point-in-time: the oldest rounded up, or it would lie before the first restore point. */
function toSecond(atMs: number, round: (seconds: number) => number): string {
  return new Date(round(atMs / 1000) * 1000).toISOString().replace(".000Z", "Z");
}
