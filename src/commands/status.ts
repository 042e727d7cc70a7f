/** `walsync status`: what the watches of this host are doing. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { someNames } from "../cli/names.ts";
import { type DatabaseReport, type RunningWatch, runningWatches } from "../control.ts";
import { WalsyncError } from "../errors.ts";
import { print, printJson, table } from "../log.ts";
import { formatBytes, formatDuration } from "../quantities.ts";
import { STATUS_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: { name: "status", description: "Show what the running watches of this user are doing" },
  positionals: { name: { description: "one database; default: all" } },
  flags: { json: { type: "boolean", description: "print the result as JSON" } },
  examples: [
    ["walsync status", "A table of every database that is watched"],
    ["walsync status app --json", "One of them, for scripts"],
  ],
  result: STATUS_RESULT,
  async run({ flags, positionals, env }) {
    const watches = await runningWatches(env);
    if (watches.length === 0) throw noWatch();
    const found = watches.map((watch) => ({
      ...watch,
      databases: watch.databases.filter(({ name }) => positionals.name === undefined || name === positionals.name),
    }));
    if (found.every(({ databases }) => databases.length === 0)) throw notWatched(positionals.name!, watches);
    if (flags.json) printJson({ watches: found.map(({ socket: _socket, ...watch }) => watch) });
    else printStatus(found);
  },
});

/** Nobody runs that could be asked. */
export function noWatch(): WalsyncError {
  return new WalsyncError("E_NOT_FOUND", "expected a running watch of this user, found none", {
    hint: "Start one with: walsync watch. A watch of another user shows itself to that user alone.",
  });
}

export function notWatched(name: string, watches: readonly RunningWatch[]): WalsyncError {
  const names = watches.flatMap(({ databases }) => databases.map((database) => database.name));
  return new WalsyncError("E_NOT_FOUND", `${name}: expected a running watch to have this database, found none`, {
    hint: `There is: ${someNames(names)}`,
  });
}

function printStatus(watches: readonly RunningWatch[]): void {
  const rows = watches.flatMap((watch) => watch.databases.map((database) => rowOf(database, watch.pid)));
  print(table([["NAME", "STATE", "TXID", "SHIPPED", "LAG", "OUTBOX", "PROCESS"], ...rows], [2, 3, 4, 5, 6]));
  for (const { name, error, drill } of watches.flatMap(({ databases }) => databases)) {
    if (error !== null) print(`error ${name}: ${error}`);
    if (drill?.error != null) print(`error ${name}: restore drill of ${drill.at}: ${drill.error}`);
  }
}

function rowOf(database: DatabaseReport, pid: number): string[] {
  const { name, state, txid, shipped_txid, lag_seconds, outbox_bytes } = database;
  const lag = lag_seconds === 0 ? "-" : formatDuration(lag_seconds * 1000);
  return [name, state, String(txid), String(shipped_txid), lag, formatBytes(outbox_bytes), String(pid)];
}
