/** `walsync list`: which databases there are, and from when to when each can be restored. */
import { type Chain, readChains, readTimeOf } from "../chain/chain.ts";
import { restorePoints } from "../chain/plan.ts";
import { defineWalsyncCommand } from "../cli/command.ts";
import type { Destination } from "../destination/destination.ts";
import { formatBytes, print, printJson, table } from "../log.ts";
import type { Txid } from "../ltx/txid.ts";
import { DESTINATION_FLAGS, destinationOf } from "./destination.ts";
import { LIST_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: {
    name: "list",
    description: "List the databases at a destination, and from when to when each can be restored",
  },
  positionals: {},
  flags: { ...DESTINATION_FLAGS, json: { type: "boolean", description: "print the result as JSON" } },
  examples: [
    ["walsync list -b s3://backups/prod", "A table of every database below a prefix"],
    ["walsync list -b s3://backups/prod --json", "The same for scripts"],
  ],
  result: LIST_RESULT,
  async run({ flags, env, signal }) {
    const destination = await destinationOf(flags, env, signal);
    try {
      const chains = await readChains(destination, "", undefined, signal);
      const rows: ListedDatabase[] = [];
      for (let first = 0; first < chains.length; first += AT_ONCE) {
        const part = chains.slice(first, first + AT_ONCE);
        rows.push(...(await Promise.all(part.map((chain) => describe(destination, chain, signal)))));
      }
      if (flags.json) printJson({ databases: rows });
      else printTable(rows, destination.url);
    } finally {
      destination.close();
    }
  },
});

interface ListedDatabase {
  name: string;
  layout: string;
  /** The newest. */
  txid: Txid;
  snapshots: number;
  increments: number;
  bytes: number;
  /** Times of the oldest and the newest restore point, ISO 8601; oldest is null if there is no snapshot. */
  oldest: string | null;
  newest: string;
}

/** Databases that are looked at side by side: two small requests each. */
const AT_ONCE = 8;

async function describe(destination: Destination, chain: Chain, signal: AbortSignal): Promise<ListedDatabase> {
  const { files } = chain;
  const snapshots = files.filter((file) => file.kind === "snapshot");
  const timeOf = async (txid: Txid): Promise<string> =>
    new Date(await readTimeOf(destination, files, txid, signal)).toISOString();
  const txid = restorePoints(files).at(-1)!;
  const oldest = restorePoints(snapshots)[0];
  return {
    name: chain.name,
    layout: chain.layout,
    txid,
    snapshots: snapshots.length,
    increments: files.length - snapshots.length,
    bytes: files.reduce((sum, file) => sum + file.sizeBytes, 0),
    oldest: oldest === undefined ? null : await timeOf(oldest),
    newest: await timeOf(txid),
  };
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
    row.oldest === null ? "-" : toSecond(row.oldest, Math.ceil),
    toSecond(row.newest, Math.floor),
  ]);
  print(table([header, ...lines], [2, 3, 4, 5]));
}

/** What is shown can be asked for as --point-in-time: the oldest rounded up, or it would lie before the first restore point. */
function toSecond(iso: string, round: (seconds: number) => number): string {
  return new Date(round(Date.parse(iso) / 1000) * 1000).toISOString().replace(".000Z", "Z");
}
