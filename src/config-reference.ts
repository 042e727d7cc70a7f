/** The reference of walsync.toml, from the tables that read it: docs/CONFIG.md, and the JSON Schema for editors. */
import type { SettingDef, SettingTable } from "./config.ts";
import { CONFIG_SECTIONS, type ConfigKey, FIXED_SETTINGS, OVERRIDE_KEYS, OVERRIDE_TABLES } from "./config-keys.ts";

/** docs/CONFIG.md without its introduction: what may be set where and when, and one table for each section. */
export function formatReference(settings: SettingTable): string {
  const parts = Object.entries(CONFIG_SECTIONS).map(([section, keys]) => {
    const rows = Object.entries(keys).map(([name, key]) => {
      const def = defOf(settings, key);
      return [`\`${name}\``, kindOf(def), `\`${defaultOf(def, key)}\``, sentence(def, key), `\`--${key.setting}\``];
    });
    return `## [${section}]\n\n${markdownTable([["Key", "Value", "Default", "Meaning", "Flag"], ...rows])}`;
  });
  return `${[...scopes(), ...parts].join("\n\n")}\n`;
}

/** A JSON Schema (draft 2020-12) of walsync.toml. */
export function configSchema(settings: SettingTable): object {
  const section = (keys: Readonly<Record<string, ConfigKey>>) => ({
    type: "object",
    additionalProperties: false,
    properties: Object.fromEntries(
      Object.entries(keys).map(([name, key]) => {
        const def = defOf(settings, key);
        const value = key.negated === true ? def.default !== true : defaultValue(def);
        return [
          name,
          { ...schemaOf(def), description: sentence(def, key), ...(value === undefined ? {} : { default: value }) },
        ];
      }),
    ),
  });
  const overrides = section(OVERRIDE_KEYS).properties;
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "walsync.toml",
    type: "object",
    additionalProperties: false,
    properties: {
      ...Object.fromEntries(Object.entries(CONFIG_SECTIONS).map(([name, keys]) => [name, section(keys)])),
      databases: {
        type: "array",
        items: {
          type: "object",
          additionalProperties: false,
          required: ["path"],
          properties: {
            path: { type: "string", description: "A database file, a directory of databases, or a glob" },
            name: { type: "string", description: "What the database is called at the destination; for one file" },
            prefix: { type: "string", description: "Put before the names, with a slash between" },
            ...overrides,
            ...Object.fromEntries(OVERRIDE_TABLES.map((name) => [name, section(CONFIG_SECTIONS[name]!)])),
          },
        },
      },
    },
  };
}

/** Rows, the first one the head, as a table of Markdown whose columns line up. */
export function markdownTable(given: readonly (readonly string[])[]): string {
  const rows = given.map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join("\n");
}

// --- internal ---

type Keys = (typeof CONFIG_SECTIONS)[string];

/** Which keys an entry may have of its own, and which ones a running watch cannot take over. */
function scopes(): string[] {
  const tables = OVERRIDE_TABLES.map((name) => `\`[${name}]\``).join(" and ");
  const isOverride = (section: string, key: string) =>
    (OVERRIDE_TABLES as readonly string[]).includes(section) ||
    (section === "sync" && Object.hasOwn(OVERRIDE_KEYS, key));
  return [
    "## Settings of one database",
    `A \`[[databases]]\` entry may have keys of \`[sync]\` of its own, and ${tables} as tables. These it cannot have: they belong to\nthe whole process.`,
    listOf((section, key) => !isOverride(section, key)),
    "## Settings that need a restart",
    "A running watch does not take these over when it reads the file again. It says so, and they stay as they were at the start.",
    listOf((_section, _key, { setting }) => FIXED_SETTINGS.has(setting)),
  ];
}

/** The keys that are meant, section by section. */
function listOf(isMeant: (section: string, name: string, key: ConfigKey) => boolean): string {
  const lineOf = ([section, keys]: [string, Keys]): string[] => {
    const names = Object.entries(keys);
    const meant = names.filter(([name, key]) => isMeant(section, name, key)).map(([name]) => `\`${name}\``);
    if (meant.length === 0) return [];
    return [`- \`[${section}]\`: ${meant.length === names.length ? "all of it" : meant.join(", ")}`];
  };
  return Object.entries(CONFIG_SECTIONS).flatMap(lineOf).join("\n");
}

function defOf(settings: SettingTable, { setting }: ConfigKey): SettingDef {
  const def = settings[setting];
  if (def === undefined) throw new RangeError(`${setting}: expected a setting of this name, found none`);
  return def;
}

function kindOf(def: SettingDef): string {
  switch (def.type) {
    case "duration":
      return "duration";
    case "durations":
      return "list of durations";
    case "texts":
      return "list of texts";
    case "choice":
      return def.choices.map((choice) => `\`"${choice}"\``).join(" or ");
    case "string":
      return "text";
    case "boolean":
      return "true or false";
    default:
      return def.type === "integer" ? "number" : "size";
  }
}

function defaultOf(def: SettingDef, key: ConfigKey): string {
  if (def.type === "boolean") return String(key.negated === true);
  if (def.type === "texts") return def.isNeverEmpty ? "none" : "[]";
  if (def.default === undefined) return "none";
  return def.type === "durations" || (def.type !== "integer" && Number.isNaN(Number(def.default)))
    ? JSON.stringify(def.type === "durations" ? def.default.split(",") : def.default).replaceAll(",", ", ")
    : def.default;
}

function defaultValue(def: SettingDef): unknown {
  if (def.type === "texts") return [];
  if (def.default === undefined) return def.type === "boolean" ? false : undefined;
  if (def.type === "integer") return Number(def.default);
  if (def.type === "durations") return def.default.split(",");
  return def.default;
}

function schemaOf(def: SettingDef): object {
  switch (def.type) {
    case "boolean":
      return { type: "boolean" };
    case "integer":
      return { type: "integer", minimum: def.min ?? 0, ...(def.max === undefined ? {} : { maximum: def.max }) };
    case "duration":
      return { type: ["string", "number"], pattern: "^\\d+(\\.\\d+)?(ms|s|m|h|d)?$" };
    case "durations":
      return { type: "array", items: { type: ["string", "number"] } };
    case "texts":
      return { type: "array", items: { type: "string" }, ...(def.isNeverEmpty ? { minItems: 1 } : {}) };
    case "size":
      return { type: ["string", "number"] };
    case "choice":
      return { enum: def.choices };
    case "string":
      return { type: "string" };
  }
}

/** The flag's description; of a key that says the opposite, the opposite. */
function sentence(def: SettingDef, key: ConfigKey): string {
  return key.negated === true ? `false: ${def.description}` : def.description;
}
