/** From what the engine knows to what the library answers. */
import type { ListedDatabase as Listed } from "../engine/list.ts";
import { isProven } from "../engine/verify.ts";
import type { Replicator } from "../replication/replicator.ts";
import type { Pruning } from "../upkeep/prune.ts";
import type { VerifyReport } from "../upkeep/verify.ts";
import type { Compaction, DatabaseStatus, ListedDatabase, Verification } from "./results.ts";

export function listedOf({ oldestMs, newestMs, fault, ...listed }: Listed): ListedDatabase {
  const dateOf = (atMs: number | null) => (atMs === null ? null : new Date(atMs));
  return { ...listed, oldest: dateOf(oldestMs), newest: dateOf(newestMs), error: fault };
}

export function verificationOf(report: VerifyReport): Verification {
  const { name, layout, files, bytes, points, proven, findings } = report;
  return { name, layout, ok: isProven(report), files, bytes, points, proven, findings };
}

export function compactionOf({ name, plan, keys, sizeBytes }: Pruning, deleted: boolean): Compaction {
  return {
    name,
    deleted,
    snapshots: plan.snapshots.map(({ file, timestampMs, keptFor }) => ({
      txid: file.maxTxid,
      time: new Date(timestampMs),
      sizeBytes: file.sizeBytes,
      reason: keptFor,
    })),
    keptIncrements: plan.keptIncrements.length,
    deletedFiles: keys.length,
    deletedBytes: sizeBytes,
  };
}

export function statusOf(replicator: Replicator): DatabaseStatus {
  const { name, path, state, position, status, waitingFiles, shippedAtMs, trouble } = replicator;
  return {
    name,
    path,
    state,
    txid: position?.captured.txid ?? 0n,
    shippedTxid: position?.shippedTxid ?? 0n,
    lagMs: status?.lagMs ?? 0,
    waitingFiles,
    waitingBytes: status?.waitingBytes ?? 0,
    walBytes: status?.walBytes ?? 0,
    shippedAt: shippedAtMs === null ? null : new Date(shippedAtMs),
    error: trouble,
  };
}
