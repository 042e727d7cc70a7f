/**
 * What a command is made of: a table of flags and arguments, examples, and one function. Everything that is the same
 * for all commands is here: strict parsing, --help, logging flags, settings from the environment, interruption.
 */
import { existsSync } from "node:fs";
import { type CommandDef, defineCommand } from "citty";
import { envLayer, type Origin, resolveSettings, type SettingLayer, type SettingValues } from "../config.ts";
import type { ConfigFile } from "../config-file.ts";
import { DEFAULT_CONFIG } from "../config-keys.ts";
import { configureLog, detectTerminal, type LogFormat, type LogLevel, print, terminalWidth } from "../log.ts";
import {
  asksForHelp,
  type FlagTable,
  flagLayer,
  type PositionalTable,
  type PositionalValues,
  parseStrict,
} from "./flags.ts";
import { type Example, formatCommandHelp } from "./help.ts";
import { interruption } from "./interrupt.ts";
import type { ResultSchema } from "./result-schema.ts";

/** What the command line, the environment and walsync.toml say together. */
export interface CommandSettings<F extends FlagTable> {
  /** Value of each flag, by its name in camelCase: `--snapshot-interval` is `flags.snapshotInterval`, in ms. */
  flags: SettingValues<F>;
  /** Who set each flag, by its name as typed: "snapshot-interval". */
  origins: Record<string, Origin>;
  /** walsync.toml, if there is one. Its settings are in `flags` already. */
  config: ConfigFile | null;
  /** `flags` as they are where `layer` beats the sections of walsync.toml. */
  flagsWith(layer: SettingLayer): SettingValues<F>;
}

export interface CommandContext<F extends FlagTable, P extends PositionalTable> extends CommandSettings<F> {
  positionals: PositionalValues<P>;
  env: Readonly<Record<string, string | undefined>>;
  /** The settings as walsync.toml is now. Throws E_CONFIG. */
  reload(): Promise<CommandSettings<F>>;
  /**
   * Aborts at the first SIGINT or SIGTERM, with an `Interrupted` as reason; a second one ends the process. A command
   * that finishes its work and returns then exits 0, one that throws the reason exits as if killed by the signal.
   * A command that never reads this property dies at the first signal, as programs do.
   */
  readonly signal: AbortSignal;
}

export interface WalsyncCommand<F extends FlagTable, P extends PositionalTable> {
  meta: {
    name: string;
    /** One sentence, without a full stop. */
    description: string;
  };
  flags: F;
  positionals: P;
  examples: readonly Example[];
  /** What --json prints. */
  result?: ResultSchema;
  run(context: CommandContext<F, P>): Promise<void> | void;
}

/** What a command is, without what it does: for help, documents and shells. */
export type CommandTable = Omit<WalsyncCommand<FlagTable, PositionalTable>, "run">;

export interface DefinedCommand extends CommandDef {
  table: CommandTable;
}

/** Flags of every command. Their names cannot be used in a command's own table. */
export const COMMON_FLAGS = {
  config: {
    type: "string",
    placeholder: "FILE",
    description: "configuration file; default: walsync.toml in the working directory, if it is there",
  },
  quiet: { type: "boolean", short: "q", description: "say only what is wrong" },
  verbose: { type: "boolean", description: "say more, for finding faults" },
  "log-format": {
    type: "choice",
    choices: ["text", "json"],
    default: "text",
    description: "how events are written to standard error",
  },
  help: { type: "boolean", short: "h", description: "this text" },
} as const satisfies FlagTable;

/** A command for citty's tree that refuses whatever its table does not describe. */
export function defineWalsyncCommand<const F extends FlagTable, const P extends PositionalTable>(
  command: WalsyncCommand<F, P>,
): DefinedCommand {
  const allFlags: F & typeof COMMON_FLAGS = { ...command.flags, ...COMMON_FLAGS };
  const defined = defineCommand({
    meta: command.meta,
    // No `args`: citty must not interpret them. It takes unknown flags, and the value of a mistyped one for an argument.
    async run({ rawArgs }) {
      if (asksForHelp(rawArgs)) {
        print(formatCommandHelp({ ...command.meta, ...command, commonFlags: COMMON_FLAGS }, terminalWidth()));
        return;
      }
      const env = process.env;
      const given = parseStrict({ flags: allFlags, positionals: command.positionals }, rawArgs);
      // Strongest first. The configuration file comes behind the environment.
      const strong = [flagLayer(given.flags), envLayer(env)];
      const common = resolveSettings(COMMON_FLAGS, strong).values;
      configureLog({ ...detectTerminal(env), format: common.logFormat as LogFormat, level: logLevel(common) });
      const settle = async (): Promise<CommandSettings<F>> => {
        const config = await findConfig(common.config, env);
        const weak = config === null ? [] : [config.layer];
        const { values, origins } = resolveSettings(command.flags, [...strong, ...weak]);
        return {
          flags: values,
          origins,
          config,
          flagsWith: (layer) => resolveSettings(command.flags, [...strong, layer, ...weak]).values,
        };
      };
      await command.run({
        ...(await settle()),
        positionals: given.positionals,
        env,
        reload: settle,
        get signal() {
          return interruption();
        },
      });
    },
  });
  const { run: _run, ...table } = command;
  return { ...defined, table };
}

// --- internal ---

/** The parser is not loaded where there is nothing to parse. */
async function findConfig(
  path: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): Promise<ConfigFile | null> {
  if (path === undefined && !existsSync(DEFAULT_CONFIG)) return null;
  const { readConfig } = await import("../config-file.ts");
  return readConfig(path, process.cwd(), env);
}

function logLevel({ quiet, verbose }: { quiet: boolean; verbose: boolean }): LogLevel {
  if (quiet) return "warn";
  return verbose ? "debug" : "info";
}
