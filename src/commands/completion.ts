/** `walsync completion`: a script that lets a shell complete commands, flags and what they accept. */
import type { App } from "../cli/app.ts";
import { COMMON_FLAGS, type DefinedCommand, defineWalsyncCommand } from "../cli/command.ts";
import { type CompletedCommand, SHELLS } from "../cli/completion.ts";
import { WalsyncError } from "../errors.ts";
import { print } from "../log.ts";

/** The command that knows the others: a function, since it is one of them. */
export function completionOf(app: App): DefinedCommand {
  return defineWalsyncCommand({
    meta: { name: "completion", description: "Print a script that completes walsync's commands and flags in a shell" },
    positionals: {
      shell: { required: true, choices: Object.keys(SHELLS), description: `one of ${Object.keys(SHELLS).join(", ")}` },
    },
    flags: {},
    examples: [
      ["walsync completion bash", "Keep it as ~/.local/share/bash-completion/completions/walsync"],
      ["walsync completion zsh", "Keep it as _walsync in a folder of fpath"],
      ["walsync completion fish", "Keep it as ~/.config/fish/completions/walsync.fish"],
    ],
    async run({ positionals }) {
      const format = SHELLS[positionals.shell];
      if (format === undefined) throw new WalsyncError("E_USAGE", `${positionals.shell}: no such shell`);
      print(format(await commandsOf(app)).trimEnd());
    },
  });
}

async function commandsOf(app: App): Promise<CompletedCommand[]> {
  return await Promise.all(
    Object.entries(app.commands).map(async ([name, { summary, load }]) => {
      const { flags, positionals } = (await load()).table;
      return { name, summary, flags: { ...flags, ...COMMON_FLAGS }, positionals };
    }),
  );
}
