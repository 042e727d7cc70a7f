/** `walsync list`: which databases there are, and from when to when each can be restored. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { someNames } from "../cli/names.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
import type { ListedDatabase } from "../engine/list.ts";
import { WalsyncError } from "../errors.ts";
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
      throwIfDamaged(databases);
    } finally {
      destination.close();
    }
  },
});

function toJson({ oldestMs, newestMs, fault, ...database }: ListedDatabase) {
  const isoOf = (atMs: number | null) => (atMs === null ? null : new Date(atMs).toISOString());
  const error = fault && { code: fault.code, message: fault.message, hint: fault.hint ?? null };
  return { ...database, oldest: isoOf(oldestMs), newest: isoOf(newestMs), error };
}

function printTable(rows: readonly ListedDatabase[], url: string): void {
  if (rows.length === 0) {
    print(`${url}: no databases`);
    return;
  }
  const header = ["NAME", "LAYOUT", "TXID", "SNAPSHOTS", "INCREMENTS", "SIZE", "OLDEST", "NEWEST"];
  const lines = rows.map((row) => {
    // To the millisecond: what is shown can be asked for as --point-in-time, and rounded it could be before there was anything.
    const cellOf = (atMs: number | null) =>
      atMs === null ? (row.fault === null ? "-" : "damaged") : new Date(atMs).toISOString();
    const { name, layout, txid, snapshots, increments, bytes, oldestMs, newestMs } = row;
    const counts = [String(txid), String(snapshots), String(increments), formatBytes(bytes)];
    return [name, layout, ...counts, cellOf(oldestMs), cellOf(newestMs)];
  });
  print(table([header, ...lines], [2, 3, 4, 5]));
}

/**
 * Whoever goes by the exit status must not take a list with a damaged database for one without. What is wrong is told here and not
 * below the table: each line of that is a database.
 */
function throwIfDamaged(databases: readonly ListedDatabase[]): void {
  const damaged = databases.filter(({ fault }) => fault !== null);
  const faults = damaged.map(({ fault }) => fault!);
  if (faults.length === 0) return;
  const names = someNames(damaged.map(({ name }) => name));
  const found = `${damaged.length} of ${databases.length} damaged`;
  throw new WalsyncError(faults[0]!.code, `${names}: expected every database to be in order, found ${found}`, {
    hint: "walsync verify says what is wrong with each file.",
    cause: new AggregateError(faults),
  });
}
