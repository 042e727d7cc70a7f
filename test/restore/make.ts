/** Chains for the tests of this folder: shipped by a real replicator, with the content of every restore point. */
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { WalsyncError } from "../../src/errors.ts";
import { configureLog } from "../../src/log.ts";
import { type RestoreOptions, restoreDatabase } from "../../src/restore/restore.ts";
import type { RestoreTarget } from "../../src/restore/restore-target.ts";
import { Host } from "../replication/host.ts";

export interface MadeChain {
  destination: Destination;
  /** Where the objects of the database are. */
  folder: string;
  /** Content of the database at each txid. */
  states: Map<bigint, Uint8Array>;
  /** When each state was captured, in ms. */
  timestamps: Map<bigint, number>;
  /** File names, in order. */
  objects: string[];
}

/** Ships `count` states: growth, shrinking, changes; and a snapshot of every state that `snapshotsAt` names. */
export async function makeChain(
  folder: string,
  { pageSize = 512, count = 7, snapshotsAt = [4n] }: { pageSize?: number; count?: number; snapshotsAt?: bigint[] } = {},
): Promise<MadeChain> {
  const host = new Host(folder);
  const states = new Map<bigint, Uint8Array>();
  const timestamps = new Map<bigint, number>();
  try {
    host.create(pageSize);
    host.insert(6, pageSize);
    await host.start();
    for (let step = 1; step <= count; step++) {
      await host.settle();
      const { captured } = host.replicator.position!;
      states.set(captured.txid, host.content());
      timestamps.set(captured.txid, captured.timestampMs);
      if (snapshotsAt.includes(captured.txid)) {
        await host.replicator.requests.snapshot();
        await host.settle();
      }
      if (step === count) break;
      if (step % 3 === 0) {
        host.app.run("delete from item where id > 3");
        host.app.run("vacuum");
      } else host.insert(step * 2, pageSize);
    }
  } finally {
    await host.end();
    configureLog({ sink: null });
  }
  const objects = readdirSync(host.bucketFolder).filter((name) => name.endsWith(".ltx"));
  return {
    destination: await openDestination(join(folder, "bucket")),
    folder: host.bucketFolder,
    states,
    timestamps,
    objects: objects.sort(),
  };
}

export const txidTarget = (txid: bigint): RestoreTarget => ({ kind: "txid", txid });
export const timeTarget = (atMs: number): RestoreTarget => ({ kind: "time", atMs });

export function restoreTo(
  { destination }: MadeChain,
  output: string,
  target: RestoreTarget,
  options: Partial<RestoreOptions> = {},
) {
  return restoreDatabase(destination, "app", output, { target, integrity: "full", force: false, ...options });
}

/** What a restore gives: the bytes, or the code of its error. */
export async function outcomeOf(chain: MadeChain, output: string, target: RestoreTarget): Promise<Uint8Array | string> {
  const outcome = await restoreTo(chain, output, target).then(
    () => readFileSync(output),
    (error: unknown) => {
      if (!(error instanceof WalsyncError)) throw error;
      if (existsSync(output)) throw new Error(`${output}: expected nothing after ${error.code}, found a file`);
      return error.code;
    },
  );
  rmSync(output, { force: true });
  if (existsSync(`${output}.tmp-restore`)) throw new Error(`${output}.tmp-restore: expected nothing, found a file`);
  return outcome;
}
