/**
 * litestream.yml as a tree in which every value knows its line. What it means is for `litestream-config.ts`.
 * Spec: https://yaml.org/spec/1.2.2/
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import { WalsyncError } from "../errors.ts";

export type YmlNode = YmlText | YmlList | YmlMap;

/**
 * A plain or quoted value as it is written, without quotes; "" for one that is empty. References to the environment, `$NAME`
 * and `${NAME}` in the file, are all `${NAME}` here.
 */
export interface YmlText {
  kind: "text";
  text: string;
  /** From 1. */
  line: number;
}

export interface YmlList {
  kind: "list";
  items: YmlNode[];
  line: number;
}

export interface YmlMap {
  kind: "map";
  /** By key; `line` is that of the key. */
  entries: Map<string, { line: number; value: YmlNode }>;
  line: number;
}

/** Anchors, aliases and merge keys are resolved. Throws E_CONFIG, naming the line, for what is not YAML or not a map. */
export function parseYml(text: string, label: string): YmlMap {
  const lines = new LineCounter();
  const document = parseDocument(hideReferences(text), { lineCounter: lines, uniqueKeys: true });
  const [fault] = document.errors;
  if (fault !== undefined) {
    const reason = fault.message.split(" at line ")[0]!;
    throw wrong(label, lines.linePos(fault.pos[0]).line, "YAML", reason);
  }
  const reader = new Reader(label, lines, (alias) => (isAlias(alias) ? alias.resolve(document) : undefined));
  const root = reader.read(document.contents, 1);
  if (root.kind === "map") return root;
  throw wrong(label, 1, "keys like dbs", root.kind === "list" ? "a list" : "a text");
}

/** E_CONFIG about one line of the file. `label` is what messages call the file. */
export function wrong(label: string, line: number, expected: string, found: string, hint?: string): WalsyncError {
  return new WalsyncError("E_CONFIG", `${label}:${line}: expected ${expected}, found ${found}`, { hint });
}

// --- internal ---

/** Aliases can make a small file a huge tree. No configuration that anybody wrote comes near. */
const NODES_MAX = 100_000;
const MERGE_KEY = "<<";

/** Litestream replaces references before it reads YAML, so they may stand where YAML allows no "{". */
function hideReferences(text: string): string {
  return text.replaceAll(
    /\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))/g,
    (_, braced, bare) => `\uE000${braced ?? bare}\uE001`,
  );
}

function showReferences(text: string): string {
  return text.replaceAll(/\uE000(\w+)\uE001/g, "$${$1}");
}

class Reader {
  readonly #label: string;
  readonly #lines: LineCounter;
  readonly #resolve: (alias: Node) => Node | undefined;
  #nodes = 0;

  constructor(label: string, lines: LineCounter, resolve: (alias: Node) => Node | undefined) {
    this.#label = label;
    this.#lines = lines;
    this.#resolve = resolve;
  }

  /** `outerLine`: of what it stands in, for a value that is not written at all. */
  read(node: unknown, outerLine: number): YmlNode {
    const line = this.#lineOf(node) ?? outerLine;
    if (++this.#nodes > NODES_MAX) throw wrong(this.#label, line, `at most ${NODES_MAX} values`, "more");
    if (isAlias(node)) {
      const target = this.#resolve(node);
      if (target === undefined) throw wrong(this.#label, line, "an anchor of this name", "none");
      return this.read(target, line);
    }
    if (isMap(node)) return this.#readMap(node.items, line);
    if (isSeq(node)) return { kind: "list", line, items: node.items.map((item) => this.read(item, line)) };
    if (!isScalar(node) || node.value === null) return { kind: "text", line, text: "" };
    // As written: 1_000, 0x10 and 1.10 are for whoever knows what is meant.
    const written = typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
    return { kind: "text", line, text: showReferences(written) };
  }

  #readMap(pairs: readonly { key: unknown; value: unknown }[], line: number): YmlMap {
    const entries: YmlMap["entries"] = new Map();
    const inherited: YmlMap[] = [];
    for (const { key, value } of pairs) {
      const keyLine = this.#lineOf(key) ?? line;
      const name = isScalar(key) ? String(key.value) : null;
      if (name === null) throw wrong(this.#label, keyLine, "a key", "something else");
      const read = this.read(value, keyLine);
      if (name !== MERGE_KEY) entries.set(name, { line: keyLine, value: read });
      else inherited.push(...(read.kind === "list" ? read.items : [read]).filter((each) => each.kind === "map"));
    }
    for (const map of inherited) {
      for (const [name, entry] of map.entries) if (!entries.has(name)) entries.set(name, entry);
    }
    return { kind: "map", entries, line };
  }

  #lineOf(node: unknown): number | undefined {
    const range = (node as { range?: [number, number, number] | null } | null)?.range;
    return range == null ? undefined : this.#lines.linePos(range[0]).line;
  }
}
