// Goal: the help tells the truth: every flag it shows is understood, every example can be typed as it is, every default
// is the documented one; and asking for help never does anything else.
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { COMMON_FLAGS } from "../../src/cli/command.ts";
import { formatCommandHelp } from "../../src/cli/help.ts";
import { app } from "../../src/main.ts";
import { tempDir } from "../support/temp.ts";
import { expectOneError, succeed, walsync } from "./run.ts";

const dir = tempDir();
const readme = readFileSync(resolve(import.meta.dir, "../../README.md"), "utf8");
const rootHelp = (await succeed(["--help"])).stdout;
const commands = [...rootHelp.matchAll(/^ {2}([a-z]+) {2,}\S/gm)].map((match) => match[1] ?? "");

interface ShownFlag {
  name: string;
  short: string | undefined;
  /** What stands for its value; undefined for a switch. */
  value: string | undefined;
  text: string;
}

/** Commands that ask a running watch, and no destination. */
const ASKS_A_WATCH = new Set(["status", "sync"]);
/** Commands that need no destination. */
const ASKS_NOBODY = new Set(["completion"]);

interface Help {
  text: string;
  usage: string;
  flags: ShownFlag[];
  examples: string[];
}

const helps = new Map<string, Help>();
for (const command of commands) {
  const { stdout } = await succeed([command, "--help"], { cwd: dir });
  const flagLine = /^ {2}(?:-([a-zA-Z]), | {4})--([a-z][a-z-]*)(?: (\S+))? {2,}(\S.*)$/gm;
  helps.set(command, {
    text: stdout,
    usage: /^Usage:\n {2}(.+)$/m.exec(stdout)?.[1] ?? "",
    flags: [...stdout.matchAll(flagLine)].map(([, short, name = "", value, text = ""]) => ({
      name,
      short,
      value,
      text,
    })),
    examples: [...stdout.matchAll(/^ {2}# \S.*\n {2}(walsync .+)$/gm)].map((match) => match[1] ?? ""),
  });
}
const each = [...helps].map(([command, help]) => ({ command, ...help }));

describe("in a terminal", () => {
  const wordsOf = (text: string) => text.split(/\s+/).filter((word) => word !== "");

  test.each([60, 80, 100, 200])(
    "of %d columns no line is longer that could be broken, and no word is lost",
    async (width) => {
      let broken = 0;
      for (const { load } of Object.values(app.commands)) {
        const { table } = await load();
        const help = { ...table.meta, ...table, commonFlags: COMMON_FLAGS };
        const [whole, narrow] = [formatCommandHelp(help, Number.POSITIVE_INFINITY), formatCommandHelp(help, width)];
        expect(wordsOf(narrow).sort()).toEqual(wordsOf(whole).sort());
        // What is typed is shown as it is typed; and beside long flags a little room for text is kept.
        const lines = narrow.split("\nExamples:")[0]!.split("\n").slice(4);
        for (const line of lines.filter((each) => each.length > width)) {
          const [, text = ""] = /^ {2,}(?:\S.*?)?(?: {2,})(\S.*)$/.exec(line) ?? [];
          expect([line, text.length <= 30 || !text.includes(" ")]).toEqual([line, true]);
        }
        broken += narrow.split("\n").length - whole.split("\n").length;
      }
      expect(broken > 0).toBe(width < 150);
    },
  );
});

describe("the program", () => {
  test.each([[["-h"]], [["help"]], [["help", "--help"]]])("says the same for %p as for --help", async (args) => {
    expect(await succeed(args)).toEqual({ status: 0, stdout: rootHelp, stderr: "" });
  });

  test("names its commands and no others", async () => {
    const source = readFileSync(resolve(import.meta.dir, "../../src/main.ts"), "utf8");
    expect(commands).toEqual(
      [...source.matchAll(/import\("\.\/commands\/([a-z]+)\.ts"\)/g)].map((match) => match[1] ?? ""),
    );
    expect(commands.length).toBeGreaterThan(3);
    const outcome = await walsync([]);
    expectOneError(outcome, "E_USAGE", /a command is missing\nhint: Commands: .*walsync --help/);
    expect(outcome.stderr).toContain(commands.join(", "));
  });

  test.each([
    ["wacth", "watch"],
    ["snapshots", "snapshot"],
    ["RESTORE", "restore"],
    ["rest", "restore"],
    ["lst", "list"],
  ])("takes %s for %s", async (typed, meant) => {
    for (const args of [[typed], [typed, "--help"], ["help", typed]]) {
      expectOneError(
        await walsync(args),
        "E_USAGE",
        new RegExp(`${typed}: no such command\nhint: Did you mean ${meant}\\?`),
      );
    }
  });

  test.each([["version"], ["xyzzy"], ["constructor"], ["__proto__"]])("makes no guess at %s", async (typed) => {
    expectOneError(await walsync([typed]), "E_USAGE", /no such command\nhint: Commands: watch, .*--help/);
  });

  test("--version stands alone and is what -V says", async () => {
    const { stdout } = await succeed(["--version"]);
    expect(await succeed(["-V"])).toEqual({ status: 0, stdout, stderr: "" });
    expectOneError(await walsync(["--version", "--json"]), "E_USAGE", /--version stands alone, found "--json"/);
  });
});

describe.each(each)("help of $command", ({ command, text, usage, flags, examples }) => {
  test("begins with a sentence, has its parts in order, and ends in examples", () => {
    expect(text).toMatch(/^[A-Z][^\n]+\.\n\nUsage:\n/);
    const headings = [...text.matchAll(/^([A-Z][a-z ]+):$/gm)].map((match) => match[1] ?? "");
    expect(headings.filter((heading) => heading !== "Arguments")).toEqual([
      "Usage",
      ...(command === "completion" ? [] : ["Flags"]),
      "Common flags",
      "Examples",
    ]);
    expect(text.trimEnd().split("\n").at(-1)).toStartWith(`  walsync ${command} `);
    expect(text).not.toMatch(/[ \t]$|undefined|\[object/m);
  });

  test("is the same for -h and for help, at any place, whatever else is wrong; and touches nothing", async () => {
    const wrong = [command, "--nonsense", "-b", "bucket", "x", "y"];
    for (const args of [
      [command, "-h"],
      ["help", command],
      [...wrong, "--help"],
      [command, "--help", ...wrong],
    ]) {
      expect(await succeed(args, { cwd: dir })).toEqual({ status: 0, stdout: text, stderr: "" });
    }
    expect(readdirSync(dir)).toEqual([]);
  });

  test("behind -- it is an argument", async () => {
    const { status, stdout } = await walsync([command, "--", "--help"], { cwd: dir, env: { XDG_RUNTIME_DIR: dir } });
    // A path, though one of nothing: explain says so.
    if (command === "explain") expect(stdout).toMatch(/^--help +missing /m);
    // The same for doctor, which fails because of it.
    else if (command === "doctor")
      expect([status, stdout]).toEqual([7, expect.stringMatching(/^FAIL .*--help +file /m)]);
    // A name, and nobody runs who could have it.
    else expect({ status, stdout }).toEqual({ status: ASKS_A_WATCH.has(command) ? 4 : 2, stdout: "" });
  });

  test("shows the usage that the README shows", () => {
    const rows = [...readme.matchAll(/^\| `([a-z]+ ?[^`]*)` +\|/gm)].map((match) => match[1] ?? "");
    const row = rows.find((one) => one.split(" ")[0] === command);
    const order = (line: string) =>
      line
        .split(/ (?=-)/)
        .sort()
        .join(" ");
    expect(order(usage)).toBe(order(`walsync ${row} [flags]`));
  });

  test("shows every required flag in its usage, and no other", () => {
    const shown = [...usage.matchAll(/ -([a-z]) /g)].map((match) => match[1]);
    const required = flags.filter((flag) => /\(required[,)]/.test(flag.text));
    expect(shown.toSorted()).toEqual(required.map(({ short }) => short).toSorted());
  });

  test("shows only flags that are understood, with a value where it says so", async () => {
    expect(flags.length).toBeGreaterThan(4);
    const notHelp = flags.filter(({ name }) => name !== "help");
    const refusals = await Promise.all(
      notHelp.flatMap(({ name, short, value }) =>
        [`--${name}`, ...(short === undefined ? [] : [`-${short}`])].map(async (flag) => {
          // What is last and unknown is complained of only if everything before it was understood.
          const given = value === undefined ? [flag] : [flag, "1"];
          const known = await walsync([command, ...given, "--last-flag"]);
          const alone = await walsync([command, flag]);
          return {
            flag,
            known: known.stderr.split("\n")[0],
            wantsValue: alone.stderr.includes(`${flag} needs a value`),
          };
        }),
      ),
    );
    for (const { flag, known, wantsValue } of refusals) {
      const shown = flags.find(({ name, short }) => flag === `--${name}` || flag === `-${short}`);
      expect({ flag, known, wantsValue }).toEqual({
        flag,
        known: "walsync: E_USAGE --last-flag: no such flag",
        wantsValue: shown?.value !== undefined,
      });
    }
  });

  test("shows every flag of the README that it understands", async () => {
    const documented = new Set([...readme.matchAll(/--([a-z][a-z-]+[a-z])\b/g)].map((match) => match[1] ?? ""));
    for (const name of documented) {
      const { stderr } = await walsync([command, `--${name}`, "--last-flag"]);
      const isUnderstood = !stderr.startsWith(`walsync: E_USAGE --${name}: no such flag`);
      expect([name, isUnderstood && stderr !== ""]).toEqual([
        name,
        flags.some((flag) => flag.name === name && name !== "help"),
      ]);
    }
  });

  test("has examples that can be typed as they are", async () => {
    expect(examples.length).toBeGreaterThan(1);
    for (const example of examples) {
      const words = [...example.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? "");
      expect(words.slice(0, 2)).toEqual(["walsync", command]);
      // A value of a common flag is looked at only when every flag and argument before it has been understood.
      const outcome = await walsync([...words.slice(1), "--log-format", "none"], { cwd: dir });
      expectOneError(outcome, "E_USAGE", /^walsync: E_USAGE --log-format: expected one of text, json, found "none"$/m);
    }
  });
});

test.each<[string, Record<string, string>]>([
  [
    "watch",
    {
      "snapshot-interval": "1h",
      "compact-interval": "0",
      "retain-hourly": "24",
      "retain-daily": "7",
      "retain-weekly": "12",
      "retain-monthly": "12",
      "wal-sync-interval": "1s",
      "max-changes": "0",
      "max-interval": "0",
      "on-idle": "0",
      "checkpoint-interval": "1m",
      "min-checkpoint-pages": "1000",
      "metrics-port": "16767",
      "shutdown-timeout": "5s",
    },
  ],
  ["compact", { hourly: "24", daily: "7", weekly: "12", monthly: "12" }],
  ["replicate", { interval: "5s" }],
  ["list", { region: "us-east-1" }],
  ["restore", { integrity: "quick" }],
])("the defaults of %s are those that were promised", (command, defaults) => {
  for (const [name, expected] of Object.entries(defaults)) {
    const text = helps.get(command)?.flags.find((flag) => flag.name === name)?.text;
    expect([name, /\(.*default ([^,)]+)/.exec(text ?? "")?.[1]]).toEqual([name, expected]);
  }
});

test.each<[string, string[]]>([
  [
    "watch",
    [
      "endpoint",
      "compact-after-snapshot",
      "on-startup",
      "state-dir",
      "max-outbox",
      "no-metrics",
      "enable-wal",
      "restore-if-missing",
      "layout",
      "exec",
    ],
  ],
  ["restore", ["output", "point-in-time", "force", "integrity"]],
  ["compact", ["force"]],
  ["verify", ["fix"]],
  ["replicate", ["local", "interval"]],
  ["explain", ["config"]],
])("%s has the flags that were promised", (command, promised) => {
  const names = helps.get(command)?.flags.map(({ name }) => name);
  expect(promised.filter((name) => !names?.includes(name))).toEqual([]);
});

test("docs/COMMANDS.md and docs/CONFIG.md say what the help of the program says", () => {
  const commandsDocument = readFileSync(resolve(import.meta.dir, "../../docs/COMMANDS.md"), "utf8");
  const sections = new Map(commandsDocument.split(/^## walsync /m).map((part) => [part.split("\n")[0]!, part]));
  for (const { command, usage, flags, examples } of each) {
    const section = sections.get(command) ?? "";
    expect(section).toContain(`\n${usage}\n`);
    for (const example of examples) expect(section).toContain(`\n${example}\n`);
    for (const { name, text } of flags) {
      const row = commandsDocument
        .split("\n")
        .filter((line) => new RegExp(`^\\| \`(-\\w, )?--${name}[ \`]`).test(line));
      expect([command, name, row.some((line) => line.replaceAll("\\|", "|").includes(` ${text} `))]).toEqual([
        command,
        name,
        true,
      ]);
    }
  }
  const config = readFileSync(resolve(import.meta.dir, "../../docs/CONFIG.md"), "utf8");
  const named = [...config.matchAll(/\| `--([a-z-]+)` +\|$/gm)].map((match) => match[1]!);
  const known = helps.get("watch")?.flags.map(({ name }) => name);
  expect(named.length).toBeGreaterThan(25);
  expect(named.filter((name) => !known?.includes(name))).toEqual([]);
});

test("every command that prints a result has --json; every command reads the same destination flags", () => {
  for (const { command, flags } of each) {
    const names = flags.map(({ name }) => name);
    const asksNone = ASKS_A_WATCH.has(command) || ASKS_NOBODY.has(command);
    // What replicate reads is its argument.
    const ofDestination = asksNone ? [] : [...(command === "replicate" ? [] : ["bucket"]), "endpoint", "region"];
    for (const name of [...ofDestination, "quiet", "verbose", "log-format", "help"]) {
      expect([command, names.includes(name)]).toEqual([command, true]);
    }
    if (command !== "watch" && !ASKS_NOBODY.has(command)) expect(names).toContain("json");
  }
});
