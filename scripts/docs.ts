/**
 * Writes the documents that are made of the program's own tables: `bun run docs`. test/docs.test.ts compares.
 */
import { join } from "node:path";
import { COMMON_FLAGS } from "../src/cli/command.ts";
import type { FlagTable } from "../src/cli/flags.ts";
import { describeFlag, flagLabel, usageOf } from "../src/cli/help.ts";
import type { ResultSchema } from "../src/cli/result-schema.ts";
import { formatReference, markdownTable } from "../src/config-reference.ts";
import { WATCH_FLAGS } from "../src/engine/watch-settings.ts";
import { app } from "../src/main.ts";
import { ROOT, withPart } from "./generated.ts";

/** Each document as it should be, by its path in the repository. */
export async function documents(): Promise<Record<string, string>> {
  const parts: Record<string, string> = {
    "docs/CONFIG.md": formatReference(WATCH_FLAGS),
    "docs/COMMANDS.md": await commandReference(),
    "docs/JSON.md": await resultReference(),
  };
  const written = await Promise.all(
    Object.entries(parts).map(async ([path, part]) => [path, await withPart(path, part)] as const),
  );
  return Object.fromEntries(written);
}

async function commandReference(): Promise<string> {
  const sections: string[] = [];
  for (const { load } of Object.values(app.commands)) {
    const { meta, flags, positionals, examples } = (await load()).table;
    const arguments_ = Object.entries(positionals).map(
      ([name, def]) => `- \`${name.toUpperCase()}\`: ${def.description}`,
    );
    sections.push(
      [
        `## walsync ${meta.name}`,
        `${meta.description}.`,
        `\`\`\`\n${usageOf({ name: meta.name, flags, positionals })}\n\`\`\``,
        ...(arguments_.length === 0 ? [] : [arguments_.join("\n")]),
        ...(Object.keys(flags).length === 0 ? [] : [flagTable(flags)]),
        `\`\`\`sh\n${examples.map(([command, meaning]) => `# ${meaning}\n${command}`).join("\n")}\n\`\`\``,
      ].join("\n\n"),
    );
  }
  sections.push(`## Flags of every command\n\n${flagTable(COMMON_FLAGS)}`);
  return `${sections.join("\n\n")}\n`;
}

function flagTable(flags: FlagTable): string {
  const rows = Object.entries(flags).map(([name, def]) => [`\`${flagLabel(name, def).trim()}\``, describeFlag(def)]);
  return markdownTable([["Flag", "Meaning"], ...rows]);
}

async function resultReference(): Promise<string> {
  const sections: string[] = [];
  for (const { load } of Object.values(app.commands)) {
    const { meta, result } = (await load()).table;
    if (result === undefined) continue;
    const rows = fieldsOf(result, "").map(([path, schema]) => [
      `\`${path}\``,
      typeOf(schema),
      schema.description ?? "",
    ]);
    sections.push(`## walsync ${meta.name} --json\n\n${markdownTable([["Field", "Type", "Meaning"], ...rows])}`);
  }
  return `${sections.join("\n\n")}\n`;
}

/** Every field below `schema`, by its path: `databases[].name`. */
function fieldsOf(schema: ResultSchema, path: string): [path: string, schema: ResultSchema][] {
  if (schema.items !== undefined) return fieldsOf(schema.items, `${path}[]`);
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const own = path === "" ? name : `${path}.${name}`;
    return [[own, field], ...fieldsOf(field, own)];
  });
}

function typeOf({ type, format, items, enum: values }: ResultSchema): string {
  const types = typeof type === "string" ? [type] : type;
  const isOfNumbers = items?.type === "integer";
  const names = types.map((one) => {
    if (one === "array") return isOfNumbers ? "array of integers" : "array";
    return one === "string" && format !== undefined ? "time (ISO 8601, UTC)" : one;
  });
  const chosen = values?.filter((value) => value !== null).map((value) => `\`"${value}"\``);
  if (chosen === undefined) return names.join(" or ");
  return [...chosen, ...(types.includes("null") ? ["null"] : [])].join(", ");
}

if (import.meta.main) {
  for (const [path, text] of Object.entries(await documents())) await Bun.write(join(ROOT, path), text);
}
