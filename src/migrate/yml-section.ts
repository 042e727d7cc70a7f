/** One map of litestream.yml on its way to values: each key is read once as what it must be, and what nobody reads is noted. */
import { nearest } from "../suggest.ts";
import type { KeyNotes, Note, NoteKind } from "./notes.ts";
import { wrong, type YmlMap, type YmlNode } from "./yml.ts";

/** What reading a file needs and collects. */
export interface YmlContext {
  /** What messages call the file. */
  label: string;
  env: Readonly<Record<string, string | undefined>>;
  notes: Note[];
}

/** A value and where it stands. */
export interface Sourced<T> {
  value: T;
  line: number;
  /** Dotted, for notes. */
  key: string;
}

/** Keys that may also stand further out, for all sections of a kind. */
export interface YmlDefaults {
  section: YmlSection;
  keys: ReadonlySet<string>;
}

export class YmlSection {
  /** Dotted, with a dot behind it: "dbs[0].". "" for the file itself. */
  readonly path: string;
  readonly line: number;
  readonly #map: YmlMap;
  readonly #context: YmlContext;
  readonly #defaults: YmlDefaults | null;
  readonly #read = new Set<string>();

  constructor(node: YmlNode, path: string, context: YmlContext, defaults: YmlDefaults | null = null) {
    this.path = path;
    this.line = node.line;
    this.#context = context;
    this.#defaults = defaults;
    if (node.kind === "map") this.#map = node;
    // An empty section is one without keys.
    else if (node.kind === "text" && node.text === "") this.#map = { kind: "map", entries: new Map(), line: node.line };
    else throw wrong(context.label, node.line, `keys below ${path.slice(0, -1)}`, `a ${node.kind}`);
  }

  has(key: string): boolean {
    return this.#map.entries.has(key);
  }

  /** A text as it is written, references to the environment included. */
  text(key: string): Sourced<string> | undefined {
    const found = this.#take(key);
    if (found === undefined) return undefined;
    const { value, line, at } = found;
    if (value.kind !== "text") throw wrong(this.#context.label, line, `a text as ${at}`, `a ${value.kind}`);
    return value.text === "" ? undefined : { value: value.text, line, key: at };
  }

  /** As `text`, with the environment's values. Throws E_CONFIG for a variable that is not set. */
  expanded(key: string): Sourced<string> | undefined {
    const found = this.text(key);
    return found && { ...found, value: expand(found, this.#context) };
  }

  /** Milliseconds of a duration as Go writes it: "1h30m", "500ms". */
  durationMs(key: string): Sourced<number> | undefined {
    const found = this.expanded(key);
    return found && { ...found, value: this.#parse(found, "a duration such as 1h30m", parseGoDuration) };
  }

  boolean(key: string): Sourced<boolean> | undefined {
    const found = this.expanded(key);
    return found && { ...found, value: this.#parse(found, "true or false", parseBoolean) };
  }

  integer(key: string): Sourced<number> | undefined {
    const found = this.expanded(key);
    return found && { ...found, value: this.#parse(found, "a whole number", parseInteger) };
  }

  section(key: string, defaults: YmlDefaults | null = null): YmlSection | undefined {
    const found = this.#take(key);
    return found && new YmlSection(found.value, `${found.at}.`, this.#context, defaults);
  }

  sections(key: string, defaults: YmlDefaults | null = null): YmlSection[] {
    const found = this.#take(key);
    if (found === undefined || (found.value.kind === "text" && found.value.text === "")) return [];
    const { value, line, at } = found;
    if (value.kind !== "list") throw wrong(this.#context.label, line, `a list as ${at}`, `a ${value.kind}`);
    return value.items.map((item, i) => new YmlSection(item, `${at}[${i}].`, this.#context, defaults));
  }

  /** Takes a key without looking at its value. Undefined if it is not there. */
  mark(key: string): Sourced<null> | undefined {
    const found = this.#take(key);
    return found && { value: null, line: found.line, key: found.at };
  }

  note(kind: NoteKind, message: string, at: { line: number; key: string }): void {
    this.#context.notes.push({ line: at.line, key: at.key, kind, message });
  }

  /** Says what nobody has read: by `known`, or that it is no key at all. */
  noteRest(known: KeyNotes, others: readonly string[] = []): void {
    for (const [key, { line }] of this.#map.entries) {
      if (this.#read.has(key)) continue;
      const at = { line, key: `${this.path}${key}` };
      const note = known[key];
      if (note !== undefined) this.note(note[0], note[1], at);
      else {
        const suggestion = nearest(key, [...Object.keys(known), ...this.#read, ...others]);
        const meant = suggestion === undefined ? "" : `; ${suggestion} is one`;
        this.note("unsupported", `is no key that Litestream 0.5 knows${meant}`, at);
      }
    }
  }

  #take(key: string): { value: YmlNode; line: number; at: string } | undefined {
    const entry = this.#map.entries.get(key);
    if (entry === undefined) {
      const { section, keys } = this.#defaults ?? {};
      return section !== undefined && keys?.has(key) === true ? section.#take(key) : undefined;
    }
    this.#read.add(key);
    return { ...entry, at: `${this.path}${key}` };
  }

  #parse<T>(found: Sourced<string>, expected: string, parse: (text: string) => T | undefined): T {
    const value = parse(found.value.trim());
    if (value !== undefined) return value;
    throw wrong(this.#context.label, found.line, `${expected} as ${found.key}`, JSON.stringify(found.value));
  }
}

/** True if the environment has a part in this text. */
export function hasReference(text: string): boolean {
  return /\$\{\w+\}/.test(text);
}

/** `found` with the environment's values. Throws E_CONFIG for a variable that is not set. */
export function expand(found: Sourced<string>, { label, env }: YmlContext): string {
  return found.value.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => {
    const value = env[name];
    if (value !== undefined && value !== "") return value;
    throw wrong(
      label,
      found.line,
      `${name} in the environment, for ${found.key}`,
      "nothing",
      "Run migrate with the environment that litestream runs with.",
    );
  });
}

// --- internal ---

const GO_UNITS_MS: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  "\u00b5s": 1e-3,
  "\u03bcs": 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Spec: https://pkg.go.dev/time#ParseDuration; without a sign. */
function parseGoDuration(text: string): number | undefined {
  if (text === "0") return 0;
  if (!/^(\d+(\.\d+)?(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+$/.test(text)) return undefined;
  let ms = 0;
  for (const [, value, unit] of text.matchAll(/(\d+(?:\.\d+)?)([a-z\u00b5\u03bc]+)/g))
    ms += Number(value) * GO_UNITS_MS[unit!]!;
  // What is not nothing must not become nothing.
  return ms > 0 ? Math.max(1, Math.round(ms)) : 0;
}

function parseBoolean(text: string): boolean | undefined {
  if (/^(true|yes|on|y)$/i.test(text)) return true;
  return /^(false|no|off|n)$/i.test(text) ? false : undefined;
}

function parseInteger(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}
