// Goal: whoever follows a guide word by word gets what it says: each command is run in order with the compiled program, against
// a directory and a real S3 server, and ends and prints as the guide says.
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { succeed } from "./commands/run.ts";
import { commandLinesIn, knownFlags, requireAccepted } from "./support/command-line.ts";
import { Reader, readGuide } from "./support/guide.ts";
import { runShell } from "./support/shell.ts";
import { tempDir } from "./support/temp.ts";
import { freePort, startVersitygw } from "./support/versitygw.ts";

const ROOT = resolve(import.meta.dir, "..");
const GUIDES = ["docs/GETTING-STARTED.md", "docs/RESTORE.md", "docs/RETENTION.md", "docs/MULTI-TENANT.md"];
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
const dir = tempDir();
const server = await startVersitygw();
await server?.createBucket("my-bucket");
afterAll(() => server?.stop());

/** What stands in a guide for the reader's own. */
const OURS: Record<string, string> = {
  "AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...": `AWS_ACCESS_KEY_ID=${server?.accessKeyId} AWS_SECRET_ACCESS_KEY=${server?.secretAccessKey}`,
  "https://fly.storage.tigris.dev AWS_REGION=auto": `${server?.endpoint} AWS_REGION=${server?.region}`,
  "16767": String(freePort()),
};

describe.each(GUIDES)("%s", (path) => {
  const guide = read(path);
  const blocks = readGuide(guide);

  test.skipIf(guide.includes("s3://my-bucket") && server === null)(
    "works as it is written",
    async () => {
      expect(blocks.filter(({ isRun }) => isRun).length).toBeGreaterThan(5);
      const reader = new Reader(join(dir, path), OURS);
      try {
        for (const block of blocks) await reader.follow(block);
      } finally {
        await reader.close();
      }
    },
    60_000,
  );

  test("names only flags that there are", async () => {
    const known = await knownFlags();
    const prose = guide.replaceAll(/^```\w*\n[\s\S]*?^```$/gm, "");
    const named = [...prose.matchAll(/(?<=[\s`(])--[a-z][a-z-]*/g)].map(([flag]) => flag);
    expect(named.filter((flag) => !known.has(flag))).toEqual([]);
  });

  // Column 2 of a table whose head says Set.
  const settings = (/^\|[^|]*\| Set .*\n\|.*\n((?:\|.*\n)+)/m.exec(guide)?.[1] ?? "").matchAll(
    /^\|[^|]*\| `([^`]+)`/gm,
  );
  test.each([...settings].map(([, setting]) => setting!))("a watch accepts %s", async (setting) => {
    await succeed(["explain", "-b", "backup", ...setting.split(" ")]);
  });
});

describe("docs/CONTRIBUTING.md", () => {
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  const commands = readGuide(read("docs/CONTRIBUTING.md"))
    .flatMap(({ script }) => script.split("\n"))
    .map((line) => line.replace(/ +#.*/, ""));
  /** Those that take no longer than a moment; scripts/test runs the others, or is one of them. */
  const quick = commands.filter((command) =>
    /^bun (run dev|run simulate --seed 7|test test\/(sqlite|replication))\b/.test(command),
  );

  test("names scripts, tests and files that there are", () => {
    expect(commands.length).toBeGreaterThan(8);
    for (const command of commands) {
      const words = command.split(" ");
      if (command.startsWith("bun run ")) expect([command, words[2]! in scripts]).toEqual([command, true]);
      for (const path of words.filter((word) => /^(\.|test|src)\//.test(word))) {
        expect([command, existsSync(join(ROOT, path))]).toEqual([command, true]);
      }
    }
    expect(quick.length).toBe(5);
  });

  test.each(quick)(
    "%s",
    async (command) => {
      const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
      await runShell(command, { cwd: ROOT, env });
    },
    20_000,
  );
});

describe("every walsync command in a document", () => {
  const documents = ["README.md", ...new Bun.Glob("docs/*.md").scanSync({ cwd: ROOT })];
  const lines = documents.flatMap((document) =>
    [...read(document).matchAll(/^```sh\n([\s\S]*?)^```$/gm)].flatMap(([, script]) =>
      commandLinesIn(script!).map((line): [string, string] => [document, line]),
    ),
  );

  test("is found, also behind another program, and ends where the shell ends it", () => {
    const script = `walsync wacht x | cat\nsudo -u app walsync status; true\nfly -C "walsync sync app --wait"\nif walsync drive; then\nwalsync restore a -o "$HOME/b;c" # so`;
    expect(commandLinesIn(script)).toEqual(["wacht x", "status", "sync app --wait", 'restore a -o "value/b;c"']);
    expect(requireAccepted("wacht x")).rejects.toThrow("wacht");
    expect(requireAccepted("watch a.db -b c --shutdown-timeout=soon")).rejects.toThrow("soon");
  });

  test("is one that the program accepts", async () => {
    expect(lines.length).toBeGreaterThan(100);
    const refused: string[] = [];
    for (const [document, line] of lines) {
      await requireAccepted(line).catch((error: Error) => refused.push(`${document}: ${error.message}`));
    }
    expect(refused).toEqual([]);
  });
});

describe("a guide is not followed past", () => {
  const follow = async (markdown: string): Promise<void> => {
    const reader = new Reader(join(dir, crypto.randomUUID()));
    for (const block of readGuide(markdown)) await reader.follow(block);
  };

  test.each([
    ["a command that fails", "```sh\nfalse\n```"],
    ["one in the middle that fails", "```sh\nfalse\ntrue\n```"],
    ["another exit status", "<!-- exit 4 -->\n\n```sh\nexit 5\n```"],
    ["a command that should fail", "<!-- exit 4 -->\n\n```sh\ntrue\n```"],
    ["other output", "```sh\necho 2 rows\n```\n\n```\n3 rows\n```"],
    ["a line that is not printed", "```sh\necho a\n```\n\n```\na\nb\n```"],
    ["a line that is not shown", "```sh\necho a\necho b\n```\n\n```\na\n```"],
    ["a line that is not there, among any", "```sh\necho a\n```\n\n```\n…\nb\n…\n```"],
    ["an unknown flag of what is not run", "<!-- not run -->\n\n```sh\nwalsync list -b x --jsno\n```"],
    ["what no shell reads", "<!-- not run -->\n\n```sh\nif true\n```"],
    ["an unknown mark", "<!-- exit four -->\n\n```sh\ntrue\n```"],
    ["a mark without a block", "<!-- not run -->\n"],
    ["a watch that ends", "```sh\nwalsync watch missing.db -b backup --no-metrics\n```"],
  ])("%s", async (_, markdown) => {
    await expect(follow(markdown)).rejects.toThrow();
  });

  test("what is as it says passes, with the variables of the block before", async () => {
    await follow(
      '```sh\nnow=2026-05-01T12:00:00Z\n```\n\n<!-- exit 3 -->\n\n```sh\necho "$now  x"\necho more\nexit 3\n```\n\n```\n2025-01-01T00:00:00.5Z x\n…\n```',
    );
  });
});
