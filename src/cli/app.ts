/**
 * The program around the commands: picks one, and turns whatever happens into a message and an exit status.
 * Standard output holds results only; messages go to standard error.
 */
import { defineCommand, runCommand } from "citty";
import { EXIT_BUG, exitStatus, WalsyncError } from "../errors.ts";
import { configureLog, type LogFormat, print, printFailure, terminalWidth } from "../log.ts";
import { nearest } from "../suggest.ts";
import type { DefinedCommand } from "./command.ts";
import { ExitWith } from "./exit.ts";
import { failureFields, formatFailure } from "./failure.ts";
import { beforeArguments } from "./flags.ts";
import { formatRootHelp } from "./help.ts";
import { formatVersion } from "./version.ts";

export interface CommandEntry {
  /** For the list in --help, so that it need not load the command. */
  summary: string;
  load: () => Promise<DefinedCommand>;
}

export interface App {
  description: string;
  commands: Record<string, CommandEntry>;
}

/** Runs a command line and returns the exit status. Prints everything there is to say; never throws. */
export async function runApp(app: App, rawArgs: readonly string[]): Promise<number> {
  // Before anything is read strictly: also what is wrong with the command line is told as asked.
  configureLog({ format: askedLogFormat(rawArgs), sink: null });
  try {
    await dispatch(app, rawArgs);
    return 0;
  } catch (error) {
    return reportFailure(error);
  }
}

/** Prints an error for the user and returns the exit status it asks for. */
export function reportFailure(error: unknown): number {
  printFailure(formatFailure(error), failureFields(error));
  return error instanceof ExitWith ? error.exitStatus : exitStatus(error);
}

/** A rejected promise that nobody awaits, or a throw in a callback, is a bug: say so, and exit 1. */
export function exitOnStrayErrors(): void {
  const exit = (error: unknown) => {
    printFailure(formatFailure(error, "stray"), failureFields(error, "stray"));
    process.exit(EXIT_BUG);
  };
  process.on("uncaughtException", exit);
  process.on("unhandledRejection", exit);
}

// --- internal ---

function askedLogFormat(rawArgs: readonly string[]): LogFormat {
  const flags = beforeArguments(rawArgs);
  const isJson = flags.some(
    (arg, i) => arg === "--log-format=json" || (arg === "--log-format" && flags[i + 1] === "json"),
  );
  return isJson ? "json" : "text";
}

async function dispatch(app: App, rawArgs: readonly string[]): Promise<void> {
  // `walsync help watch` is `walsync watch --help`.
  const [first, ...rest] = rawArgs[0] === "help" ? [...rawArgs.slice(1, 2), "--help"] : rawArgs;
  const names = Object.keys(app.commands);
  if (first === "--help" || first === "-h") {
    print(
      formatRootHelp(
        app.description,
        names.map((name) => [name, app.commands[name]!.summary]),
        terminalWidth(),
      ),
    );
    return;
  }
  if (first === "--version" || first === "-V") {
    if (rest.length > 0) throw new WalsyncError("E_USAGE", `--version stands alone, found ${JSON.stringify(rest[0])}`);
    print(formatVersion());
    return;
  }
  if (first === undefined) throw unknownCommand("a command is missing", undefined, names);
  // citty skips flags before the command without a word, and looks names up in prototypes, too ("constructor").
  if (first.startsWith("-")) throw unknownCommand(`${first}: a flag stands behind its command`, undefined, names);
  if (!Object.hasOwn(app.commands, first))
    throw unknownCommand(`${first}: no such command`, nearest(first, names), names);
  const subCommands = Object.fromEntries(names.map((name) => [name, app.commands[name]!.load]));
  // The root has no `run`: citty would run it as well.
  await runCommand(defineCommand({ meta: { name: "walsync" }, subCommands }), { rawArgs: [first, ...rest] });
}

function unknownCommand(message: string, near: string | undefined, names: readonly string[]): WalsyncError {
  const hint = near === undefined ? `Commands: ${names.join(", ")}. See walsync --help.` : `Did you mean ${near}?`;
  return new WalsyncError("E_USAGE", message, { hint });
}
