// Goal: a shell completes what there is: every command, every flag, choices, and paths where a path belongs. Driven in bash as
// bash does it; where zsh and fish are installed they read their scripts.
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { app } from "../../src/main.ts";
import { tempDir } from "../support/temp.ts";
import { expectOneError, succeed, walsync } from "./run.ts";

const dir = tempDir();
const bash = join(dir, "walsync.bash");
writeFileSync(bash, (await succeed(["completion", "bash"])).stdout);
mkdirSync(join(dir, "place"));
mkdirSync(join(dir, "place", "my folder"));
for (const name of ["app.db", "a b.db", "other.db"]) writeFileSync(join(dir, "place", name), "");
const tables = await Promise.all(
  Object.entries(app.commands).map(async ([name, { load }]) => ({ name, ...(await load()).table })),
);

/** What bash offers for the last of these words. */
function offered(...words: string[]): string[] {
  const script = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _walsync; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const child = Bun.spawnSync(["bash", "--norc", "-c", script, "bash", bash, "walsync", ...words], {
    cwd: join(dir, "place"),
    env: { PATH: process.env.PATH ?? "" },
  });
  expect(child.stderr.toString()).toBe("");
  return child.stdout
    .toString()
    .split("\n")
    .filter((line) => line !== "")
    .sort();
}

describe("bash offers", () => {
  test("every command", () => {
    expect(offered("")).toEqual([...Object.keys(app.commands), "help"].sort());
    expect(offered("sta")).toEqual(["status"]);
    expect(offered("help", "re")).toEqual(["replicate", "restore"]);
    expect(offered("--v")).toEqual(["--version"]);
  });

  test.each(tables)("every flag of $name, and no other", ({ name, flags }) => {
    const common = ["config", "quiet", "verbose", "log-format", "help"];
    expect(offered(name, "--")).toEqual([...Object.keys(flags), ...common].map((flag) => `--${flag}`).sort());
  });

  test("choices of a flag, behind a space or behind =", () => {
    expect(offered("restore", "--integrity", "")).toEqual(["full", "none", "quick"]);
    expect(offered("restore", "--integrity", "=", "f")).toEqual(["full"]);
    expect(offered("restore", "--integrity", "=")).toEqual(["full", "none", "quick"]);
    expect(offered("completion", "")).toEqual(["bash", "fish", "zsh"]);
  });

  test("files and folders where a path belongs, with spaces in their names, and nothing where it does not", () => {
    expect(offered("watch", "a")).toEqual(["a b.db", "app.db"]);
    expect(offered("restore", "app", "-o", "o")).toEqual(["other.db"]);
    expect(offered("watch", "--state-dir", "")).toEqual(["my folder"]);
    expect(offered("watch", "-b", "my")).toEqual(["my folder"]);
    expect(offered("restore", "a")).toEqual([]);
    expect(offered("watch", "--snapshot-interval", "")).toEqual([]);
  });
});

test.each([
  ["bash", "-n"],
  ["zsh", "-n"],
  ["fish", "--no-execute"],
])("%s reads its script, if it is there", async (shell, check) => {
  const { stdout } = await succeed(["completion", shell]);
  for (const { name, flags } of tables) {
    expect(stdout).toContain(name);
    for (const flag of Object.keys(flags)) expect(stdout).toContain(shell === "fish" ? `-l ${flag}` : `--${flag}`);
  }
  if (Bun.which(shell) === null) return;
  const path = join(dir, `script.${shell}`);
  writeFileSync(path, stdout);
  const { exitCode, stderr } = Bun.spawnSync([shell, check, path]);
  expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
});

test.skipIf(Bun.which("fish") === null)("fish offers commands, choices and files", async () => {
  writeFileSync(join(dir, "walsync.fish"), (await succeed(["completion", "fish"])).stdout);
  const ask = (line: string) => {
    const script = `source ../walsync.fish; complete -C ${JSON.stringify(line)}`;
    const { stdout } = Bun.spawnSync(["fish", "--no-config", "-c", script], {
      cwd: join(dir, "place"),
      env: { PATH: process.env.PATH ?? "", HOME: dir },
    });
    return stdout
      .toString()
      .split("\n")
      .map((one) => one.split("\t")[0]!)
      .filter((one) => one !== "")
      .sort();
  };
  expect(ask("walsync sta")).toEqual(["status"]);
  expect(ask("walsync restore --integrity ")).toEqual(["full", "none", "quick"]);
  expect(ask("walsync watch oth")).toEqual(["other.db"]);
});

test("another shell is refused, and the choices are named", async () => {
  expectOneError(
    await walsync(["completion", "tcsh"]),
    "E_USAGE",
    /SHELL: expected one of bash, zsh, fish, found "tcsh"/,
  );
});
