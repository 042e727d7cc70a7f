/** What has to be read and staged before captures can begin: a new chain, or one that is taken over. */
import { newLineage, readManifest } from "../chain/manifest.ts";
import type { Destination } from "../destination/destination.ts";
import type { ContactPlan, RemoteEnd } from "./contact.ts";
import type { ScanOptions } from "./full-scan.ts";
import type { Journal } from "./journal.ts";
import type { OpenDatabase } from "./open-database.ts";
import { beginChain, takeOver } from "./scans.ts";

/** The scan of the whole database that `plan` asks for, or null if captures go on from the local state. */
export function chainBeginning(
  open: OpenDatabase,
  { destination, name }: { destination: Destination; name: string },
  plan: ContactPlan,
  remote: RemoteEnd | null,
  journal: Journal,
): ((options: ScanOptions) => Promise<void>) | null {
  const { state, stop } = open;
  const identity = { destination: destination.url, name, lineage: newLineage() };
  if (plan.kind === "begin") {
    return async (options) => {
      // It may sleep until its turn comes.
      await beginChain(open.database, state, identity, options);
    };
  }
  if (plan.kind !== "take-over" || remote === null) return null;
  return async (options) => {
    const found = state.outbox.rules.hasManifest ? await readManifest(destination, name, stop.signal) : null;
    const lineage = found?.manifest.lineage ?? identity.lineage;
    const file = await takeOver(open.database, state, { ...identity, lineage }, remote, options);
    const { txid } = state.position!.captured;
    journal.tell("info", file === null ? "chain continued" : "chain taken over", { txid });
  };
}
