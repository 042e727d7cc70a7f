/**
 * `watch --exec`: the application as a child of the watch. It has the standard streams, the environment and the working
 * directory of the watch, gets its signals, and decides on its exit status.
 */

import { awaitChild, reapOrphans } from "../children.ts";
import { reportFailure } from "../cli/app.ts";
import { ExitWith } from "../cli/exit.ts";
import { Interrupted, onInterruptedAgain } from "../cli/interrupt.ts";
import type { Origin } from "../config.ts";
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";
import { isInForeground } from "../libc.ts";
import { logEvent } from "../log.ts";
import { splitWords } from "../words.ts";

/** A command that can be run. */
export interface Command {
  words: readonly string[];
  /** What says so: "--exec" or "sync.exec". */
  label: string;
  code: "E_USAGE" | "E_CONFIG";
}

export interface ApplicationEnd {
  /** As shells tell it: 128 + n if signal n killed it. */
  status: number;
  /** Name of that signal. */
  killedBy: string | null;
  /** The watch could not go on, and ended it. */
  wasDismissed: boolean;
}

/** Throws E_USAGE or E_CONFIG for what is not one command, and for a program that is not there. */
export function parseCommand(text: string, origin: Origin | undefined): Command {
  const place = origin === "file" ? ({ label: "sync.exec", code: "E_CONFIG" } as const) : FLAG;
  const split = splitWords(text);
  if (split.kind === "fault") {
    throw new WalsyncError(place.code, `${place.label}: expected a program and its arguments, found ${split.found}`, {
      hint: "No shell reads it. If one should: sh -c '… exec application'.",
    });
  }
  const command = { words: split.words, ...place };
  if (Bun.which(command.words[0]!) === null) throw notStarted(command, "no such program, or no permission to run it");
  return command;
}

export class Application {
  /** Aborts when it has ended. */
  readonly over: AbortSignal;
  readonly #child: Bun.Subprocess;
  readonly #ended: Promise<ApplicationEnd>;
  #isRunning = true;
  #wasDismissed = false;

  /**
   * Starts it. When `signal` aborts because of a SIGINT or SIGTERM, the application gets that, and has all the time it wants;
   * another one of these kills it. Throws E_USAGE or E_CONFIG if it cannot be started.
   */
  constructor(command: Command, signal: AbortSignal) {
    const over = new AbortController();
    this.over = over.signal;
    this.#child = spawn(command);
    awaitChild(this.#child);
    logEvent("info", "application started", { pid: this.#child.pid });
    this.#ended = this.#child.exited.then((status) => {
      this.#isRunning = false;
      const end = this.#readEnd(status);
      logEvent("info", "application ended", { status: end.status, signal: end.killedBy ?? undefined });
      over.abort();
      return end;
    });
    this.#forwardSignals(signal);
    if (process.pid === INIT_PID) this.#adoptOrphans();
    // Whatever ends this process: nobody would replicate what the application goes on to write.
    process.on("exit", () => this.#send("SIGTERM"));
  }

  /** Resolves when it has ended; asks it to, and kills it after `graceMs`, if it still runs. */
  async dismiss(graceMs: number): Promise<ApplicationEnd> {
    if (!this.#isRunning) return await this.#ended;
    this.#wasDismissed = true;
    logEvent("error", "replication is over: the application is asked to end", { pid: this.#child.pid });
    this.#send("SIGTERM");
    const timer = setTimeout(() => this.#kill(), graceMs);
    const end = await this.#ended;
    clearTimeout(timer);
    return end;
  }

  #forwardSignals(signal: AbortSignal): void {
    const forward = (name: NodeJS.Signals) => {
      if (!(TYPED.has(name) && isInForeground())) this.#send(name);
    };
    signal.addEventListener("abort", () => {
      if (signal.reason instanceof Interrupted) forward(signal.reason.signal);
    });
    onInterruptedAgain(() => this.#kill());
    for (const name of PASSED_ON) process.on(name, () => forward(name));
  }

  /** The first process of a container becomes the parent of every orphan: none may stay behind as a zombie. */
  #adoptOrphans(): void {
    setInterval(reapOrphans, REAP_EVERY_MS).unref();
  }

  /** False if there is nothing left to kill. */
  #kill(): boolean {
    if (!this.#isRunning) return false;
    logEvent("warn", "application killed", { pid: this.#child.pid });
    this.#send("SIGKILL");
    return true;
  }

  #send(name: NodeJS.Signals): void {
    if (this.#isRunning) this.#child.kill(name);
  }

  #readEnd(status: number): ApplicationEnd {
    const { signalCode } = this.#child;
    return { status, killedBy: signalCode === null ? null : String(signalCode), wasDismissed: this.#wasDismissed };
  }
}

/** Whose exit status the program has, if replication ended with `failure` or without one. Pure. */
export function decideExit(end: ApplicationEnd, failure: unknown): "application" | "failure" | "clean" {
  // How the application took its dismissal is not the news.
  if (failure !== null && end.wasDismissed) return "failure";
  if (end.status !== 0) return "application";
  return failure === null ? "clean" : "failure";
}

/** Ends the program as `decideExit` says. A failure that does not decide is told. */
export function conclude(end: ApplicationEnd, failure: unknown): void {
  const decided = decideExit(end, failure);
  if (decided === "failure") throw failure;
  if (decided === "clean") return;
  if (failure !== null) reportFailure(failure);
  const how = end.killedBy === null ? `ended with status ${end.status}` : `killed by ${end.killedBy}`;
  throw new ExitWith(`the application: ${how}`, end.status);
}

// --- internal ---

const INIT_PID = 1;
/** A look costs microseconds. Not SIGCHLD: on old kernels Bun itself listens for that. */
const REAP_EVERY_MS = 2000;
const FLAG = { label: "--exec", code: "E_USAGE" } as const;
/** Beside SIGINT and SIGTERM. Not SIGHUP, which reloads walsync.toml. */
const PASSED_ON = ["SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"] as const;
/** A terminal sends these to every process in its foreground: passed on, they would arrive twice. */
const TYPED: ReadonlySet<NodeJS.Signals> = new Set(["SIGINT", "SIGQUIT", "SIGWINCH"]);

function spawn(command: Command): Bun.Subprocess {
  try {
    return Bun.spawn([...command.words], { stdin: "inherit", stdout: "inherit", stderr: "inherit" });
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    throw notStarted(command, messageOf(error), error);
  }
}

function notStarted({ words, label, code }: Command, found: string, cause?: unknown): WalsyncError {
  return new WalsyncError(code, `${label}: expected a program to start at ${words[0]}, found: ${found}`, {
    hint: "It is looked for in PATH, or in the working directory if there is a slash in it.",
    cause,
  });
}
