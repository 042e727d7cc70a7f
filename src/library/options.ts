/** What the library can be told. Times end in Ms and are milliseconds, sizes end in Bytes; what is left out is as on the command line. */

/** Keys of an S3 server. */
export interface S3Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string | undefined;
}

/** About a destination, and everything that is shipped to it. */
export interface WalSyncOptions {
  /** S3 server, if it is not AWS. Default: AWS_ENDPOINT_URL_S3. */
  endpoint?: string | undefined;
  /** Region of the bucket. Default: AWS_REGION, or us-east-1. */
  region?: string | undefined;
  /** Put the bucket into the path of requests to AWS, too, as for every other server. */
  forcePathStyle?: boolean | undefined;
  /** Default: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. */
  credentials?: S3Credentials | undefined;
  /** Storage class of objects. Default: the bucket's. */
  storageClass?: string | undefined;
  /** What the server encrypts objects with. Default: as the bucket says. */
  sse?: "AES256" | "aws:kms" | undefined;
  /** Encrypt files for these recipients of age, or expect them to be encrypted: docs/ENCRYPTION.md. Default: neither. */
  recipients?: readonly string[] | undefined;
  /** And for those in this file, one a line. */
  recipientsFile?: string | undefined;
  /** File of the identities of age that read encrypted files, as age-keygen writes it. Default: WALSYNC_IDENTITY_FILE. */
  identity?: string | undefined;
  /** How files are laid out; Litestream reads and continues its own. Default: "walsync". */
  layout?: "walsync" | "litestream" | undefined;
  /** Where walsync keeps its own files. Default: `.<file>-walsync` beside each database. Leave it as it is once chosen. */
  stateDir?: string | undefined;
}

/** How far something is. `stage` says what is counted. */
export interface Progress {
  stage: "read" | "upload" | "restore" | "verify";
  done: number;
  /** Bytes; of a quick verification, files. */
  total: number;
}

export interface ListOptions {
  /** Gives up: the call rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface SnapshotOptions {
  /** Name at the destination. Default: the one it had there before, or else the stem of the file. */
  name?: string | undefined;
  /** Switch a database in another journal mode to WAL instead of refusing it. Default: false. */
  enableWal?: boolean | undefined;
  /** Gives up. What was staged is shipped by the next snapshot or watch. */
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
}

export interface RestoreOptions {
  /** The newest state at or before this moment: a Date, or a text in ISO 8601 (UTC unless it says otherwise). */
  pointInTime?: Date | string | undefined;
  /** The state after this transaction. Not together with `pointInTime`; with neither, the newest state. */
  txid?: bigint | number | undefined;
  /** Replace an existing file, at the last moment. Nobody may have it open. Default: false. */
  force?: boolean | undefined;
  /** What SQLite checks in the restored file, in the calling thread. Default: "quick". */
  integrity?: "quick" | "full" | "none" | undefined;
  /** Gives up: nothing is left behind. */
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
}

export interface VerifyOptions {
  /** Read the ends of each file only: what it holds is not proven. Default: false. */
  quick?: boolean | undefined;
  /** Remove manifest entries of files that are not there, and nothing else. Default: false. */
  fix?: boolean | undefined;
  /** Gives up. */
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** Which snapshots stay: of the last so many hours, days, weeks (from Monday) and months, in UTC, the newest one. */
export interface Retention {
  /** Default: 24. */
  hourly?: number | undefined;
  /** Default: 7. */
  daily?: number | undefined;
  /** Default: 12. */
  weekly?: number | undefined;
  /** Default: 12. */
  monthly?: number | undefined;
  /** Time in which every restore point stays. Default: one day. */
  pointInTimeMs?: number | undefined;
}

export interface CompactOptions {
  retention?: Retention | undefined;
  /** Delete. Without it the result says what would be deleted, and nothing is. */
  force?: boolean | undefined;
  /** Gives up. What was deleted by then is gone, and nothing that is listed is broken. */
  signal?: AbortSignal | undefined;
}

export interface WatchOptions {
  /** Aborting it is `stop()`; before `watch` has resolved, it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Restore databases that do not exist here but at the destination, and wait for the others to be made. Default: false. */
  restoreIfMissing?: boolean | undefined;
  /** Switch databases in another journal mode to WAL instead of refusing them. Default: false. */
  enableWal?: boolean | undefined;
  /** Capture at most this often; 0 captures every change at once. Default: 1 s. */
  walSyncIntervalMs?: number | undefined;
  /** Time between snapshots of a database that changes; 0 takes only the first. Default: 1 h. */
  snapshotIntervalMs?: number | undefined;
  /** Take a snapshot after so many pages written to the WAL; 0 never. Default: 0. */
  maxChanges?: number | undefined;
  /** Take one at the latest after this time, if anything changed; 0 never. Default: 0. */
  maxIntervalMs?: number | undefined;
  /** Take one after so long without a change; 0 never. Default: 0. */
  onIdleMs?: number | undefined;
  /** Take one at the start, if anything changed since the last. Default: false. */
  onStartup?: boolean | undefined;
  /** Pages in the WAL at which walsync asks SQLite to copy them back. Default: 1000. */
  minCheckpointPages?: number | undefined;
  /** And at the latest after this time. Default: 1 min. */
  checkpointIntervalMs?: number | undefined;
  /** Time between full checks of a database and of the end of its chain; 0 never. Default: one day. */
  validationIntervalMs?: number | undefined;
  /** Delete what retention does not keep after each snapshot. Default: false. */
  compactAfterSnapshot?: boolean | undefined;
  /** And at this interval; 0 never. Default: 0. */
  compactIntervalMs?: number | undefined;
  retention?: Retention | undefined;
  /** Windows in which increments become one file, ascending; [] leaves each a file of its own. Default: 30 s, 5 min, 1 h. */
  mergeMs?: readonly number[] | undefined;
  /** Time in which every increment stays a restore point, merged or not; at least 1 h. Default: 1 h. */
  mergeKeepFineMs?: number | undefined;
  /** Files on disk that wait for the destination, for each database; then capture pauses. Default: 4 GiB. */
  maxOutboxBytes?: number | undefined;
  /** Age of what is not shipped at which an "alert" is due; 0 never. Default: 5 min. */
  maxLagMs?: number | undefined;
  /** Time for `stop` to ship what is left. Default: 5 s. */
  shutdownTimeoutMs?: number | undefined;
}
