/**
 * Guides that are followed word by word: the `sh` blocks of a Markdown document, run in order in one folder, with the compiled
 * program as `walsync`. A plain block right after one is all that it prints. Comments before a block, which readers do not see,
 * say what else is so:
 *
 *   <!-- exit 4 -->   it ends with this status; else with 0
 *   <!-- Ctrl-C -->   the watch in the other terminal is stopped first
 *   <!-- not run -->  it needs what is not here (a cloud, a service): its commands are only parsed
 *
 * A block whose first command is `walsync watch` and that has no status is a terminal of its own: it goes on while others run.
 */
import { expect } from "bun:test";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runningWatches } from "../../src/control.ts";
import { compiledBinary } from "./binary.ts";
import { commandLinesIn, requireAccepted } from "./command-line.ts";

export interface GuideBlock {
  /** Line of its fence in the document. */
  line: number;
  script: string;
  /** What the document says that it prints; null if it says nothing. */
  output: string | null;
  status: number;
  isRun: boolean;
  /** The running watch is stopped before. */
  stopsWatch: boolean;
}

/** The `sh` blocks of a document. Throws for a comment that is none of those above. */
export function readGuide(markdown: string): GuideBlock[] {
  const lines = markdown.split("\n");
  const blocks: GuideBlock[] = [];
  let marks: string[] = [];
  /** The block that a plain one would belong to. */
  let before: GuideBlock | null = null;
  for (let i = 0; i < lines.length; i++) {
    const [, mark] = /^<!-- (.+) -->$/.exec(lines[i]!) ?? [];
    const [, language] = /^```(\w*)$/.exec(lines[i]!) ?? [];
    if (mark !== undefined) {
      if (!/^(exit \d+|Ctrl-C|not run)$/.test(mark))
        throw new Error(`line ${i + 1}: expected a known mark, found ${mark}`);
      marks.push(mark);
    } else if (language !== undefined) {
      const end = lines.indexOf("```", i + 1);
      const text = lines.slice(i + 1, end).join("\n");
      if (language === "sh") {
        before = {
          line: i + 1,
          script: text,
          output: null,
          status: Number(/^exit (\d+)$/.exec(marks.find((each) => each.startsWith("exit")) ?? "exit 0")![1]),
          isRun: !marks.includes("not run"),
          stopsWatch: marks.includes("Ctrl-C"),
        };
        blocks.push(before);
        marks = [];
      } else if (language === "" && before !== null) before.output = text;
      if (language !== "sh") before = null;
      i = end;
    } else if (lines[i] !== "") before = null;
  }
  if (marks.length > 0) throw new Error(`expected a block after <!-- ${marks[0]} -->, found none`);
  return blocks;
}

/** A reader who follows guides: one folder, one environment, and one watch at a time in the other terminal. */
export class Reader {
  readonly #folder: string;
  readonly #runtime: string;
  readonly #replacements: readonly (readonly [string, string])[];
  #watch: { child: Bun.Subprocess; log: string; line: number } | null = null;

  /**
   * `folder` is made, and begins empty. `replacements`: what stands in the guide for the reader's own (keys, an endpoint, a
   * port), and what it is here.
   */
  constructor(folder: string, replacements: Readonly<Record<string, string>> = {}) {
    this.#folder = join(folder, "home");
    this.#runtime = join(folder, "run");
    this.#replacements = Object.entries(replacements);
    const bin = join(this.#runtime, "bin");
    mkdirSync(this.#folder, { recursive: true });
    mkdirSync(bin, { recursive: true });
    symlinkSync(compiledBinary(), join(bin, "walsync"));
    for (const [name, run] of Object.entries(STAND_INS)) {
      if (Bun.which(name) !== null) continue;
      writeFileSync(join(bin, name), `#!/bin/sh\nexec "${process.execPath}" ${run} "$@"\n`, { mode: 0o755 });
    }
  }

  /** Does what the block says, and expects what it promises. */
  async follow(block: GuideBlock): Promise<void> {
    if (block.stopsWatch) await this.#stop();
    const script = this.#replacements.reduce((text, [from, to]) => text.replaceAll(from, to), block.script);
    if (!block.isRun) {
      for (const line of commandLinesIn(script)) await requireAccepted(line);
      const { exitCode, stderr } = Bun.spawnSync(["bash", "-n", "-c", script]);
      expect({ line: block.line, exitCode, stderr: stderr.toString() }).toMatchObject({ exitCode: 0 });
    } else if (block.status === 0 && /^walsync watch\b/.test(script)) await this.#start(script, block.line);
    else {
      const { status, output } = await this.#run(script);
      expect({ line: block.line, status, output }).toMatchObject({ status: block.status });
      if (block.output !== null) expectShown(block.output, output.replaceAll(this.#folder, READERS_FOLDER), block.line);
    }
  }

  /** Ends what still runs. */
  async close(): Promise<void> {
    this.#watch?.child.kill("SIGKILL");
    await this.#watch?.child.exited;
  }

  get #environment(): Record<string, string> {
    const path = `${join(this.#runtime, "bin")}:${process.env.PATH}`;
    return { PATH: path, HOME: this.#folder, XDG_RUNTIME_DIR: this.#runtime };
  }

  /** Variables of one block are there in the next one, as in a terminal. */
  #shell(script: string): string[] {
    const memory = join(this.#runtime, "environment");
    const remembering = `if [ -f ${memory} ]; then . ${memory}; fi; trap 'export -p >${memory}' EXIT`;
    return ["bash", "-c", `set -eo pipefail -a\n${remembering}\n${script}`];
  }

  async #run(script: string): Promise<{ status: number; output: string }> {
    const child = Bun.spawn(this.#shell(`exec 2>&1\n${script}`), {
      cwd: this.#folder,
      env: this.#environment,
      stdin: "ignore",
      stdout: "pipe",
      detached: true,
    });
    // A group of its own: what the shell started ends with it.
    const patience = setTimeout(() => process.kill(-child.pid, "SIGKILL"), PATIENCE_MS);
    const output = await new Response(child.stdout).text();
    clearTimeout(patience);
    return { status: await child.exited, output };
  }

  async #start(script: string, line: number): Promise<void> {
    expect({ line, running: this.#watch?.line ?? null }).toEqual({ line, running: null });
    const log = join(this.#runtime, `watch-${line}.log`);
    const child = Bun.spawn(this.#shell(`exec 2>&1\nexec ${script}`), {
      cwd: this.#folder,
      env: this.#environment,
      stdin: "ignore",
      stdout: Bun.file(log),
    });
    this.#watch = { child, log, line };
    const deadline = performance.now() + PATIENCE_MS;
    while (!(await this.#isAtWork())) {
      if (child.exitCode !== null || performance.now() > deadline) {
        throw new Error(`line ${line}: expected a watch at work, found:\n${readFileSync(log, "utf8")}`);
      }
      await Bun.sleep(30);
    }
  }

  /** What a reader sees after a moment: every database is live and shipped. */
  async #isAtWork(): Promise<boolean> {
    const databases = (await runningWatches(this.#environment)).flatMap((watch) => watch.databases);
    return (
      databases.length > 0 &&
      databases.every(({ state, txid, shipped_txid }) => state === "live" && txid > 0 && shipped_txid === txid)
    );
  }

  async #stop(): Promise<void> {
    const { child, log, line } = this.#watch!;
    this.#watch = null;
    child.kill("SIGINT");
    const status = await child.exited;
    expect({ line, status, log: readFileSync(log, "utf8") }).toMatchObject({ status: 0 });
  }
}

/** Expects `printed` to be what a document shows, but for what differs from run to run. A line "…" stands for any lines. */
export function expectShown(shown: string, printed: string, line: number): void {
  const lines = printed.split("\n").filter((text) => !EVENT.test(text) && text !== "");
  const parts = shown.split(/^…$/m).map((part) =>
    part
      .split("\n")
      .filter((text) => text !== "")
      .map(essence),
  );
  const found = lines.map(essence);
  let at = 0;
  const isShown = parts.every((part, i) => {
    const isLast = i === parts.length - 1;
    const first = i === 0 ? 0 : isLast ? found.length - part.length : at;
    const until = i === 0 || isLast ? first : found.length - part.length;
    for (let from = first; from <= until; from++) {
      if (from < at || !Bun.deepEquals(found.slice(from, from + part.length), part)) continue;
      at = from + part.length;
      return true;
    }
    return false;
  });
  const isWhole = at === found.length;
  if (!isShown || !isWhole) expect(`line ${line}:\n${printed}`).toBe(`line ${line}:\n${shown}`);
}

// --- internal ---

const PATIENCE_MS = 20_000;
/** What Bun runs in place of programs that not every machine has. */
const STAND_INS: Record<string, string> = {
  sqlite3: `"${join(import.meta.dir, "sqlite3.ts")}"`,
  curl: "-e 'console.write(await (await fetch(process.argv.at(-1))).text())' --",
};
/** Where the reader of a guide is. */
const READERS_FOLDER = "/home/me";
/** What a terminal shows as a progress bar is an event here. */
const EVENT = /^\d{4}-\d\d-\d\dT[\d:.]+Z (?:debug|info|warn)\b/;

/** Without moments, durations, sizes, process ids, and the room between columns. */
function essence(line: string): string {
  return line
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
    .replaceAll(/\b\d+(?:\.\d+)? (?:ms|s|min|h|d)\b(?: \d\d (?:s|min|h)\b)?/g, "DURATION")
    .replaceAll(/\b\d+(?:\.\d+)? (?:B|KiB|MiB|GiB)\b/g, "SIZE")
    .replaceAll(/\b\d{3,}\b/g, "NUMBER")
    .replaceAll(/\s+/g, " ")
    .trim();
}
