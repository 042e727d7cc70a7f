// Goal: every walsync command that the examples and their guides give is one that the program accepts: the command, its flags
// and their values.
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { resolveSettings } from "../../src/config.ts";
import { readConfig } from "../../src/config-file.ts";
import { WATCH_FLAGS } from "../../src/engine/watch-settings.ts";
import { app } from "../../src/main.ts";
import { splitWords } from "../../src/words.ts";
import { requireAcceptedWords } from "../support/command-line.ts";
import { execForm, readDockerfile } from "../support/dockerfile.ts";

const ROOT = resolve(import.meta.dir, "../..");
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
const PROGRAM = /^(.*\/)?walsync$/;

const examples: [place: string, words: string[]][] = [
  ...inDockerfile("examples/deploy/docker/Dockerfile", ["HEALTHCHECK"]),
  ...inDockerfile("examples/deploy/app/Dockerfile", ["CMD"]),
  ...inYaml("examples/deploy/docker/compose.yaml"),
  ...inYaml("examples/deploy/kubernetes/statefulset.yaml"),
  ...inYaml("examples/deploy/kubernetes/exec.yaml"),
  ...[...read("examples/deploy/systemd/walsync.service").matchAll(/^Exec\w+=(.*walsync.*)$/gm)].map(([, line]) =>
    wordsOf("examples/deploy/systemd/walsync.service", line!),
  ),
  ...["docs/DEPLOYMENT.md", "docs/FLY.md", "docs/RELEASES.md"].flatMap(inGuide),
];

test("the examples have commands, of several kinds", () => {
  expect(examples.length).toBeGreaterThan(15);
  expect(new Set(examples.map(([, words]) => words[0])).size).toBeGreaterThan(4);
});

test.each(examples.map(([place, words]) => [place, words.join(" ")]))("%s: walsync %s", async (place, line) => {
  const [, words] = examples.find(([where, words]) => where === place && words.join(" ") === line)!;
  await requireAcceptedWords(words);
});

test("a flag that does not exist, a wrong value and an unknown command are not accepted", async () => {
  await expect(requireAcceptedWords(["watch", "app.db", "-b", "backup", "--restore-if-mising"])).rejects.toThrow(
    "restore-if-mising",
  );
  await expect(requireAcceptedWords(["watch", "app.db", "-b", "backup", "--shutdown-timeout=soon"])).rejects.toThrow(
    "soon",
  );
  await expect(requireAcceptedWords(["wacht"])).rejects.toThrow();
});

test.each(["examples/deploy/app/walsync.toml", "examples/deploy/systemd/walsync.toml"])(
  "%s is read without a fault",
  (path) => {
    const { layer, databases } = readConfig(join(ROOT, path), ROOT, { BUCKET_NAME: "backups" })!;
    const { bucket, shutdownTimeout } = resolveSettings(WATCH_FLAGS, [layer]).values;
    expect(bucket).toStartWith("s3://backups/");
    expect([shutdownTimeout, databases.length]).toEqual([30_000, 1]);
  },
);

// --- internal ---

/** What follows the program's name. */
function wordsOf(place: string, line: string): [string, string[]] {
  const split = splitWords(line);
  if (split.kind === "fault") throw new Error(`${place}: expected words, found ${split.found} in ${line}`);
  return [place, split.words.slice(split.words.findIndex((word) => PROGRAM.test(word)) + 1)];
}

function inDockerfile(path: string, names: string[]): [string, string[]][] {
  return names.map((name) => {
    const [program, ...words] = execForm(readDockerfile(join(ROOT, path)), name);
    expect([path, name, program]).toEqual([path, name, "walsync"]);
    return [path, words];
  });
}

/** Lists of words that begin with the program, and those that are given to its image. */
function inYaml(path: string): [string, string[]][] {
  const found: [string, string[]][] = [];
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    if (Array.isArray(value) && value[0] === "walsync") found.push([path, value.slice(1) as string[]]);
    const { image, command, args } = value as { image?: string; command?: string[]; args?: string[] };
    // What an image's entrypoint gets is `command` in Compose and `args` in Kubernetes.
    if (/(^|\/)walsync(:|$)/.test(image ?? "")) found.push([path, (args ?? command)!]);
    Object.values(value).forEach(visit);
  };
  visit(Bun.YAML.parse(read(path)));
  expect(found.length).toBeGreaterThan(0);
  return found;
}

/** In the shell blocks of a document, also behind another program (sudo, docker, kubectl, fly) and in its quotes. */
function inGuide(path: string): [string, string[]][] {
  const blocks = [...read(path).matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, text]) => text!.replaceAll("\\\n", " "));
  const lines = blocks.flatMap((text) => text.split("\n")).map((line) => line.replace(/(^|\s)#.*$/, ""));
  const commands = new RegExp(`(?:^|[\\s"'/])walsync ((?:${Object.keys(app.commands).join("|")})\\b[^"|&;]*)`, "g");
  return lines.flatMap((line) =>
    [...line.matchAll(commands)].map(([, rest]): [string, string[]] => wordsOf(path, `walsync ${rest}`)),
  );
}
