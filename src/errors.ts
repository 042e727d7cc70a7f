/**
 * Errors of the world: disk, network, user, damaged bytes.
 *
 * The message reads "who: what was expected, what was found"; `hint` says what to do; `code` is stable and scripts may
 * rely on it; the message may change. The process exit status follows from the code alone (see README, "Exit codes").
 * A subclass exists only where a caller branches on it.
 */

export type ErrorCode =
  | "E_USAGE" //           2  wrong flags or arguments
  | "E_CONFIG" //          2  wrong configuration file
  | "E_IDENTITY" //        2  encrypted files, and no identity that opens them
  | "E_OUTPUT_EXISTS" //   2  the output would overwrite something
  | "E_UNREACHABLE" //     3  the destination does not answer, or answers 5xx
  | "E_REFUSED" //         3  the destination refuses: bucket, credentials, permission
  | "E_NOT_FOUND" //       4  no such database name, restore point or object
  | "E_INTEGRITY" //       5  bytes are not what they must be
  | "E_LTX" //             5  an LTX file is damaged or is not one
  | "E_CHAIN_GAP" //       5  a file between two others is missing
  | "E_DRILL" //           5  a restore drill missed what was asked of it
  | "E_LOCKED" //          6  another walsync holds this database
  | "E_FENCED" //          6  another writer ships to this name
  | "E_DATABASE" //        7  the local database is missing, not SQLite, or not in WAL mode
  | "E_WAL" //             7  the WAL is damaged
  | "E_DISK"; //           7  a local file cannot be read or written

const EXIT_STATUS: Record<ErrorCode, number> = {
  E_USAGE: 2,
  E_CONFIG: 2,
  E_IDENTITY: 2,
  E_OUTPUT_EXISTS: 2,
  E_UNREACHABLE: 3,
  E_REFUSED: 3,
  E_NOT_FOUND: 4,
  E_INTEGRITY: 5,
  E_LTX: 5,
  E_CHAIN_GAP: 5,
  E_DRILL: 5,
  E_LOCKED: 6,
  E_FENCED: 6,
  E_DATABASE: 7,
  E_WAL: 7,
  E_DISK: 7,
};

/** True for a code of ours, wherever it was read. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(EXIT_STATUS, code);
}

/** Exit status of a bug: anything thrown that is not a `WalsyncError`. */
export const EXIT_BUG = 1;

export interface ErrorDetail {
  /** What the user can do about it. One sentence. */
  hint?: string | undefined;
  /** The error that led to this one. Always pass it on. */
  cause?: unknown;
}

export class WalsyncError extends Error {
  override readonly name: string = "WalsyncError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    this.hint = detail.hint;
  }
}

/** The process exit status for anything thrown. */
export function exitStatus(error: unknown): number {
  return error instanceof WalsyncError ? EXIT_STATUS[error.code] : EXIT_BUG;
}

/** An LTX file that is damaged, cut short, or not an LTX file. */
export class LtxError extends WalsyncError {
  override readonly name = "LtxError";
  constructor(message: string, detail: ErrorDetail = {}) {
    super("E_LTX", message, detail);
  }
}

/** Files that should follow on from each other do not. */
export class ChainGapError extends WalsyncError {
  override readonly name = "ChainGapError";
  constructor(message: string, detail: ErrorDetail = {}) {
    super("E_CHAIN_GAP", message, {
      hint: "Restore to an earlier point with --point-in-time, or take a new snapshot.",
      ...detail,
    });
  }
}

/** A request to a destination failed. Callers branch on `retryable`. */
export class DestinationError extends WalsyncError {
  override readonly name: string = "DestinationError";
  /** True if the same request may succeed later without anybody changing anything: no answer, 5xx, throttling. */
  readonly retryable: boolean;
  /** HTTP status, if there was an answer. */
  readonly status: number | undefined;
  constructor(message: string, detail: ErrorDetail & { retryable: boolean; status?: number | undefined }) {
    super(detail.retryable ? "E_UNREACHABLE" : "E_REFUSED", message, detail);
    this.retryable = detail.retryable;
    this.status = detail.status;
  }
}

/** An object that was there a moment ago is gone when it is read: pruned or merged meanwhile. */
export class VanishedError extends DestinationError {
  override readonly name = "VanishedError";
}

/** The errno name ("ENOENT") of a file system error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** The message of anything thrown, on one line. */
export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll(/\s*\n\s*/g, " ");
}
