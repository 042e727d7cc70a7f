// Goal: scripts can rely on exit status and streams; people get one clear message; secrets never get out.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const src = join(import.meta.dir, "../../src");
const directory = mkdtempSync(join(tmpdir(), "walsync-cli-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const program = join(directory, "program.ts");
writeFileSync(
  program,
  `import { exitOnStrayErrors, runApp } from "${src}/cli/app.ts";
import { defineWalsyncCommand } from "${src}/cli/command.ts";
import { AssertionError } from "${src}/assert.ts";
import { ChainGapError, WalsyncError } from "${src}/errors.ts";
import { logEvent, print, printJson } from "${src}/log.ts";

const command = (name, run, flags = {}, positionals = {}) => ({
  summary: "does " + name,
  load: async () => defineWalsyncCommand({
    meta: { name, description: "Does " + name }, flags, positionals, examples: [["walsync " + name, "the usual way"]], run,
  }),
});
exitOnStrayErrors();
process.exit(await runApp({ description: "Test", commands: {
  show: command("show", ({ flags, positionals, origins }) => { logEvent("info", "shown"); printJson({ flags, positionals, origins }); }, {
    bucket: { type: "string", short: "b", required: true, description: "where files go", placeholder: "URL", env: "TEST_BUCKET" },
    interval: { type: "duration", default: "1h", description: "how often", env: "TEST_INTERVAL" },
  }, { name: { description: "name of the database" } }),
  gap: command("gap", () => {
    throw new ChainGapError("app: expected 3, found 5", { cause: new Error("listing", { cause: new Error("line\\nbreak") }) });
  }),
  missing: command("missing", () => { throw new WalsyncError("E_NOT_FOUND", "app: no such database"); }),
  bug: command("bug", () => { throw new AssertionError("this should hold but does not: one is one"); }),
  stray: command("stray", async () => { setTimeout(() => { throw new Error("astray"); }, 1); await Bun.sleep(5000); }),
  rejected: command("rejected", async () => { void Promise.reject(new Error("astray")); await Bun.sleep(5000); }),
  leak: command("leak", ({ env }) => {
    print("secret " + env.AWS_SECRET_ACCESS_KEY);
    logEvent("info", "put", { destination: "https://me:hunter2@s3.example/b?t=" + encodeURIComponent(env.AWS_SESSION_TOKEN) });
    throw new WalsyncError("E_REFUSED", "signed with " + env.AWS_SECRET_ACCESS_KEY);
  }),
  flood: command("flood", () => { for (let i = 0; i < 3000; i++) print("x".repeat(99)); }),
  open: command("open", () => { setInterval(() => {}, 1000); print("done"); }),
  wait: command("wait", async ({ signal }) => {
    print("ready");
    const timer = setInterval(() => {}, 1000);
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    clearInterval(timer);
    print("clean end");
  }),
  give: command("give", async ({ signal }) => {
    const timer = setInterval(() => {}, 1000);
    print("ready");
    await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  }),
  stubborn: command("stubborn", async ({ signal }) => { signal; print("ready"); await Bun.sleep(30000); }),
} }, process.argv.slice(2)));
`,
);

interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

async function walsync(args: string[], env: Record<string, string> = {}): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, program, ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { status: await child.exited, stdout, stderr };
}

describe("exit status", () => {
  test.each([
    ["success is 0", ["show", "-b", "x"], 0, ""],
    ["an unknown flag is 2", ["show", "-b", "x", "--intervall", "1h"], 2, "hint: Did you mean --interval?"],
    ["a bad value is 2", ["show", "-b", "x", "--interval", "1 fortnight"], 2, "walsync: E_USAGE --interval: expected"],
    ["a missing flag is 2", ["show"], 2, "walsync: E_USAGE --bucket is missing"],
    ["an unknown command is 2", ["shwo"], 2, "hint: Did you mean show?"],
    ["no command is 2", [], 2, "walsync: E_USAGE a command is missing"],
    ["a flag before the command is 2", ["--quiet", "show", "-b", "x"], 2, "a flag stands behind its command"],
    ["a name that every object has is 2", ["constructor"], 2, "constructor: no such command"],
    ["not found is 4", ["missing"], 4, "walsync: E_NOT_FOUND app: no such database"],
    ["a chain gap is 5", ["gap"], 5, "walsync: E_CHAIN_GAP app: expected 3, found 5"],
    ["a bug is 1", ["bug"], 1, "Please report it"],
    ["a throw that nobody catches is 1", ["stray"], 1, "astray"],
    ["a rejection that nobody catches is 1", ["rejected"], 1, "astray"],
  ])("%s", async (_law, args, status, message) => {
    const outcome = await walsync(args);
    expect(outcome).toMatchObject({ status, stderr: expect.stringContaining(message) });
    if (status !== 0) expect(outcome.stdout).toBe("");
  });

  test("an open timer or connection does not keep a finished command alive", async () => {
    expect(await walsync(["open"])).toEqual({ status: 0, stdout: "done\n", stderr: "" });
  });
});

describe("messages", () => {
  test("a fault of the world: code, causes one a line, hint, and no stack", async () => {
    expect((await walsync(["gap"])).stderr.trimEnd().split("\n")).toEqual([
      "walsync: E_CHAIN_GAP app: expected 3, found 5",
      "because: listing",
      "because: line break",
      "hint: Restore to an earlier point with --point-in-time, or take a new snapshot.",
    ]);
  });

  test("only a bug shows its stack", async () => {
    expect((await walsync(["bug"])).stderr).toMatch(/\n\s+at /);
    expect((await walsync(["missing"])).stderr).not.toMatch(/\n\s+at /);
  });

  test("secrets are in no output, not even percent-encoded or in a URL", async () => {
    const env = { AWS_SECRET_ACCESS_KEY: "s3cr3t/key+1", AWS_SESSION_TOKEN: "to/ken==" };
    const { stdout, stderr, status } = await walsync(["leak"], env);
    expect(status).toBe(3);
    expect(stdout).toBe("secret ***\n");
    for (const secret of ["s3cr3t", "hunter2", "to/ken", "to%2Fken"]) expect(stderr).not.toContain(secret);
    expect(stderr).toContain("https://***@s3.example/b");
  });

  test("--quiet silences events, not results", async () => {
    expect((await walsync(["show", "-b", "x", "--quiet"])).stderr).toBe("");
    expect((await walsync(["show", "-b", "x"])).stderr).toContain("shown");
  });

  test("--log-format json writes one object a line", async () => {
    const { stderr } = await walsync(["show", "-b", "x", "--log-format", "json"]);
    expect(JSON.parse(stderr)).toMatchObject({ level: "info", event: "shown" });
  });
});

describe("help", () => {
  test("names every flag with default and environment, and gives examples", async () => {
    const { status, stdout } = await walsync(["show", "--help", "--bogus"]);
    expect(status).toBe(0);
    expect(stdout).toContain("walsync show [NAME] -b URL [flags]");
    expect(stdout).toMatch(/-b, --bucket URL +where files go \(required, env TEST_BUCKET\)/);
    expect(stdout).toMatch(/--interval TIME +how often \(default 1h, env TEST_INTERVAL\)/);
    expect(stdout).toMatch(/--log-format text\|json/);
    expect(stdout).toContain("# the usual way\n  walsync show");
  });

  test("`help show` is `show --help`, and the root lists the commands", async () => {
    expect((await walsync(["help", "show"])).stdout).toBe((await walsync(["show", "-h"])).stdout);
    expect((await walsync(["--help"])).stdout).toMatch(/ {2}gap +does gap/);
    expect((await walsync(["help"])).stdout).toBe((await walsync(["--help"])).stdout);
  });

  test("--version tells walsync, Bun and SQLite", async () => {
    expect((await walsync(["--version"])).stdout).toMatch(/^walsync \S+ \(commit .*\nbun \d.*\nsqlite 3\./);
  });
});

test("a flag beats the environment, which beats the default, and the command can ask who won", async () => {
  const env = { TEST_BUCKET: "from-env", TEST_INTERVAL: "2h" };
  const origins = async (args: string[], given: Record<string, string>) =>
    JSON.parse((await walsync(["show", ...args], given)).stdout);
  expect(await origins(["--interval", "3h"], env)).toEqual({
    flags: { bucket: "from-env", interval: 10_800_000 },
    positionals: {},
    origins: { bucket: "env", interval: "flag" },
  });
  expect(await origins(["-b", "x"], { TEST_INTERVAL: "" })).toMatchObject({ flags: { interval: 3_600_000 } });
  expect((await walsync(["show", "-b", "x"], { TEST_INTERVAL: "soon" })).stderr).toContain(
    "E_CONFIG TEST_INTERVAL: expected",
  );
});

describe("streams", () => {
  const shell = (script: string) =>
    Bun.spawn(["bash", "-c", script], { stdin: "ignore", stderr: "pipe", stdout: "pipe" });
  const self = `'${process.execPath}' '${program}'`;

  test("a slow reader gets everything", async () => {
    expect((await shell(`${self} flood | (sleep 0.3; wc -c)`).stdout.text()).trim()).toBe("300000");
  });

  test("a reader that goes away is no fault", async () => {
    const child = shell(`${self} flood | head -n 1; exit \${PIPESTATUS[0]}`);
    expect(await child.stderr.text()).toBe("");
    expect(await child.exited).toBe(0);
  });
});

describe("signals", () => {
  async function interrupted(command: string, ...signals: NodeJS.Signals[]) {
    const child = Bun.spawn([process.execPath, program, command], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const reader = child.stdout.getReader();
    await reader.read();
    for (const signal of signals) {
      child.kill(signal);
      await Bun.sleep(100);
    }
    return { status: await child.exited, stderr: await child.stderr.text() };
  }

  test.each([
    ["a command that ends cleanly exits 0", "wait", ["SIGTERM"], 0],
    ["a command that gives up exits as if killed", "give", ["SIGINT"], 130],
    ["a second signal ends it at once", "stubborn", ["SIGTERM", "SIGTERM"], 143],
  ] as const)("%s", async (_law, command, signals, status) => {
    const outcome = await interrupted(command, ...signals);
    expect(outcome.status).toBe(status);
    expect(outcome.stderr).not.toContain("bug");
  });
});
