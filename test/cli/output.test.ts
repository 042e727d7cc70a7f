// Goal: colours and bars are for people in front of a terminal; everybody else gets plain lines, or JSON if that was asked for.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { compiledBinary, runBinary } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const path = join(dir, "app.db");
const app = new Database(path, { create: true });
app.run("pragma journal_mode = wal");
app.run("create table item (body)");
app.run("insert into item values (randomblob(3000000))");
app.close();

let runs = 0;
/** Everything that a snapshot prints in a terminal. */
async function inTerminal(args: string[], env: Record<string, string> = {}): Promise<string> {
  let output = "";
  const command = ["snapshot", path, "-b", join(dir, `bucket-${runs++}`), "--verbose", ...args];
  const child = Bun.spawn([compiledBinary(), ...command], {
    env: { PATH: process.env.PATH ?? "", TERM: "xterm", ...env },
    terminal: { cols: 200, rows: 50, data: (_terminal, data) => void (output += Buffer.from(data).toString()) },
  });
  expect(await child.exited).toBe(0);
  await Bun.sleep(100);
  child.terminal?.close();
  return output;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
const COLOR = /\u001b\[\d+m/;

describe("in a terminal", () => {
  test("events are coloured", async () => expect(await inTerminal([])).toMatch(COLOR));
  test("NO_COLOR and TERM=dumb are obeyed", async () => {
    expect(await inTerminal([], { NO_COLOR: "1" })).not.toMatch(COLOR);
    expect(await inTerminal([], { TERM: "dumb" })).not.toContain("\u001b");
  });
  test("--log-format json has neither colours nor bars", async () => {
    expect(await inTerminal(["--log-format", "json"])).not.toContain("\u001b");
  });
});

test("without a terminal there is no control character, whatever the environment says", async () => {
  const { stdout, stderr } = await runBinary(["snapshot", path, "-b", join(dir, "plain")], {
    FORCE_COLOR: "1",
    TERM: "xterm",
  });
  expect(stderr).toMatch(/ info /);
  for (const sign of ["\u001b", "\r"]) expect(stdout + stderr).not.toContain(sign);
});

test("--quiet leaves the result, and nothing else", async () => {
  const { stdout, stderr } = await runBinary(["snapshot", path, "-b", join(dir, "quiet"), "-q"]);
  expect(stderr).toBe("");
  expect(stdout).toMatch(/^app: snapshot at txid 1 /);
});

describe("with --log-format json every line of standard error is an object", () => {
  test.each<[string, string[], string, string]>([
    ["a mistyped flag", ["list", "--bukket", "x", "--log-format", "json"], "E_USAGE", "Did you mean --bucket?"],
    ["a mistyped command", ["lst", "--log-format=json"], "E_USAGE", "Did you mean list?"],
    ["a missing database", ["snapshot", "gone.db", "-b", "x", "--log-format", "json"], "E_DATABASE", "Check the path."],
  ])("also for %s", async (_law, args, code, hint) => {
    const { status, stderr, stdout } = await runBinary(args);
    const events = stderr
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    const last = events.at(-1);
    expect(last).toMatchObject({ level: "error", event: "failed", code, hint: expect.stringContaining(hint), status });
    expect([Number.isNaN(Date.parse(last.time)), typeof last.error, stdout]).toEqual([false, "string", ""]);
  });

  test("and for what goes well", async () => {
    const args = ["snapshot", path, "-b", join(dir, "json"), "--log-format", "json", "--verbose", "--json"];
    const { stderr, stdout } = await runBinary(args);
    const events = stderr
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.length).toBeGreaterThan(1);
    for (const { time, level, event } of events)
      expect([Date.parse(time) > 0, typeof level, typeof event]).toEqual([true, "string", "string"]);
    expect(JSON.parse(stdout)).toEqual({ name: "app", txid: 1 });
  });
});
