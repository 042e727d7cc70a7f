/**
 * Signals of the process. SIGINT and SIGTERM as an AbortSignal: the first asks to finish, the second ends the process at
 * once, unless something else has to be ended before. SIGHUP, which by default would end it, as a call.
 */
import { constants } from "node:os";
import { ExitWith } from "./exit.ts";

type StopSignal = "SIGINT" | "SIGTERM";

/** Thrown by work that was given up because of a signal. */
export class Interrupted extends ExitWith {
  override readonly name = "Interrupted";
  readonly signal: StopSignal;
  constructor(signal: StopSignal) {
    // By shell custom.
    super(`interrupted by ${signal}`, 128 + constants.signals[signal]);
    this.signal = signal;
  }
}

/** The process-wide signal. The first call installs the handlers. */
export function interruption(): AbortSignal {
  if (controller !== undefined) return controller.signal;
  controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      const reason = new Interrupted(name);
      if (!controller?.signal.aborted) controller?.abort(reason);
      else if (!insteadOfExit()) process.exit(reason.exitStatus);
    });
  }
  return controller.signal;
}

/** Asks `action`, and nobody else from now on, at each SIGINT or SIGTERM but the first: the process ends unless it returns true. */
export function onInterruptedAgain(action: () => boolean): void {
  insteadOfExit = action;
}

/** Calls `listener` at each SIGHUP, from now on. */
export function onHangup(listener: () => void): void {
  process.on("SIGHUP", listener);
}

// --- internal ---

let controller: AbortController | undefined;
let insteadOfExit: () => boolean = () => false;
