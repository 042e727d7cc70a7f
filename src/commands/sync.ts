/** `walsync sync`: makes a running watch capture and ship now what is committed. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { requestOf, runningWatches } from "../control.ts";
import { print, printJson } from "../log.ts";
import { SYNC_RESULT } from "./results.ts";
import { notWatched, noWatch } from "./status.ts";

export default defineWalsyncCommand({
  meta: { name: "sync", description: "Make a running watch capture and ship now" },
  positionals: { name: { description: "one database; default: all" } },
  flags: {
    wait: { type: "boolean", description: "return when the destination has acknowledged it" },
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync sync --wait", "Before a deployment: everything that is committed is at the destination"],
    ["walsync sync app", "One database, without waiting for the upload"],
  ],
  result: SYNC_RESULT,
  async run({ flags, positionals, env, signal }) {
    const watches = await runningWatches(env);
    if (watches.length === 0) throw noWatch();
    const targets = watches.flatMap((watch) =>
      watch.databases
        .filter(({ name }) => positionals.name === undefined || name === positionals.name)
        .map(({ name }) => ({ watch, name })),
    );
    if (targets.length === 0) throw notWatched(positionals.name!, watches);
    const synced: { name: string; txid: number }[] = [];
    for (const { watch, name } of targets) {
      const { txid } = await requestOf(watch, "sync", name, { wait: flags.wait, signal });
      synced.push({ name, txid });
      if (!flags.json) print(`${name}: ${flags.wait ? "shipped" : "captured"} up to txid ${txid}`);
    }
    if (flags.json) printJson({ databases: synced });
  },
});
