/**
 * walsync as a library for programs on Bun: the tasks of the command line without a process around them. Importing it, and
 * whatever is done with it, installs no signal handler, opens no port, writes nothing to the standard streams and never ends the
 * process. Guide: docs/LIBRARY.md.
 */
export { type ErrorCode, WalsyncError } from "../errors.ts";
export { type LogEntry, type LogLevel, listenToLog } from "../log.ts";
export type {
  CompactOptions,
  ListOptions,
  Progress,
  RestoreOptions,
  Retention,
  S3Credentials,
  SnapshotOptions,
  VerifyOptions,
  WalSyncOptions,
  WatchOptions,
} from "./options.ts";
export type {
  Compaction,
  DatabaseStatus,
  Finding,
  ListedDatabase,
  Restored,
  Snapshot,
  Verification,
  WatcherStatus,
} from "./results.ts";
export { WalSync } from "./walsync.ts";
export type { DatabaseAt, Watcher, WatcherAlert, WatcherEvents } from "./watcher.ts";
