/**
 * Signals of the process. SIGINT and SIGTERM as an AbortSignal: the first asks to finish, the second ends the process at
 * once. SIGHUP, which by default would end it, as a call.
 */
import { constants } from "node:os";

type StopSignal = "SIGINT" | "SIGTERM";

/** Thrown by work that was given up because of a signal. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  /** Exit status by shell custom: 128 + number of the signal. */
  readonly exitStatus: number;
  constructor(signal: StopSignal) {
    super(`interrupted by ${signal}`);
    this.exitStatus = 128 + constants.signals[signal];
  }
}

/** The process-wide signal. The first call installs the handlers. */
export function interruption(): AbortSignal {
  if (controller !== undefined) return controller.signal;
  controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      const reason = new Interrupted(name);
      if (controller?.signal.aborted) process.exit(reason.exitStatus);
      controller?.abort(reason);
    });
  }
  return controller.signal;
}

/** Calls `listener` at each SIGHUP, from now on. */
export function onHangup(listener: () => void): void {
  process.on("SIGHUP", listener);
}

// --- internal ---

let controller: AbortController | undefined;
