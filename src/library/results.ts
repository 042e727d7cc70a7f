/** What the library answers. Txids are bigint, times are Date, sizes are in bytes. */
import type { WalsyncError } from "../errors.ts";

/** A database at a destination. */
export interface ListedDatabase {
  name: string;
  layout: "walsync" | "litestream";
  /** Newest restore point. */
  txid: bigint;
  /** Files with a whole database, and files with what changed. */
  snapshots: number;
  increments: number;
  /** Size of all files. */
  bytes: number;
  /** First and last restore point. Null if damage hides it; `oldest` also if there is no snapshot. */
  oldest: Date | null;
  newest: Date | null;
  /** What is damaged, with its code (E_LTX, E_INTEGRITY) and what to do; null if nothing that was looked at is. */
  error: WalsyncError | null;
}

export interface Snapshot {
  name: string;
  /** Transaction that the snapshot is of: a restore point at the destination. */
  txid: bigint;
}

export interface Restored {
  name: string;
  /** The file that was written; absolute. */
  path: string;
  /** The state that it holds, and when that was captured. */
  txid: bigint;
  time: Date;
  /** Files that it was put together from, and how many bytes were fetched for that. */
  files: number;
  fetchedBytes: number;
  /** Size of the database. */
  sizeBytes: number;
}

/** Something about the files of a database that is not as it should be. */
export interface Finding {
  /** The file at the destination, or the name if it is about all of them. */
  key: string;
  /** Stable, such as "chain-gap". */
  code: string;
  /** For people. */
  message: string;
  /** "error": a restore point cannot be restored, or an index is wrong. */
  severity: "error" | "warning" | "note";
}

export interface Verification {
  name: string;
  layout: "walsync" | "litestream";
  /** No finding is an error. */
  ok: boolean;
  /** Files that were looked at, and their size. */
  files: number;
  bytes: number;
  /** Restore points, and those of them whose state was proven; 0 if it was quick. */
  points: number;
  proven: number;
  findings: Finding[];
}

export interface Compaction {
  name: string;
  /** False: nothing was deleted, and the rest says what would be. */
  deleted: boolean;
  /** Newest first. `reason`: what it is kept for; null if it is not. */
  snapshots: { txid: bigint; time: Date; sizeBytes: number; reason: string | null }[];
  /** Files. */
  keptIncrements: number;
  deletedFiles: number;
  /** Their size. */
  deletedBytes: number;
}

/** A database that is watched. */
export interface DatabaseStatus {
  name: string;
  path: string;
  /**
   * "live": is captured. "scanning": is read whole. "waiting": for the destination, or for its file. "failed" and "fenced": see
   * `error`. "vanished": the file is gone, and the rest is shipped. "closed": the watcher has stopped.
   */
  state: "live" | "scanning" | "waiting" | "failed" | "vanished" | "fenced" | "closed";
  /** Newest transaction that is captured, and newest that the destination acknowledged; 0n before the first. */
  txid: bigint;
  shippedTxid: bigint;
  /** Age of the oldest transaction that is captured and not acknowledged; 0 if there is none. */
  lagMs: number;
  /** Files that wait for the destination, and their size. */
  waitingFiles: number;
  waitingBytes: number;
  /** Size of the -wal file. */
  walBytes: number;
  /** When the destination last acknowledged a file; null if not since the start. */
  shippedAt: Date | null;
  /** What keeps it from being replicated; null if nothing does. */
  error: string | null;
}

export interface WatcherStatus {
  /** URL. */
  destination: string;
  databases: DatabaseStatus[];
  /** One line for each database that should be among them, and cannot. */
  refused: string[];
}
