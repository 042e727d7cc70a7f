// Goal: whatever a database is called, the command that the page shows is one command, and restores that database.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { placeOf } from "../../src/commands/watch-page.ts";
import { restoreCommand, verifyCommand } from "../../src/status-page/restore-command.ts";

const PLACE = ["-b", "s3://backups/prod"];
const newest = { kind: "newest" } as const;

/** What a shell makes of each command: its words. */
function wordsOf(commands: readonly string[]): string[][] {
  const script = commands.map((command) => `set -- ${command}\nprintf '%s\\0' "$@"\nprintf '\\0'`).join("\n");
  const { stdout, exitCode, stderr } = Bun.spawnSync(["sh"], { stdin: Buffer.from(script) });
  expect([exitCode, stderr.toString()]).toEqual([0, ""]);
  const lists = stdout.toString().split("\0\0");
  return lists.slice(0, -1).map((list) => list.split("\0"));
}

test.each([
  ["app", newest, "walsync restore app -o app-restored.db -b s3://backups/prod"],
  [
    "tenants/acme",
    { kind: "txid", txid: 41 },
    "walsync restore tenants/acme -o acme-txid41.db -b s3://backups/prod --point-in-time txid:41",
  ],
  [
    "app",
    { kind: "time", atMs: Date.UTC(2026, 4, 1, 12) },
    "walsync restore app -o app-2026-05-01T120000Z.db -b s3://backups/prod --point-in-time 2026-05-01T12:00:00Z",
  ],
  ["it's", newest, "walsync restore 'it'\\''s' -o 'it'\\''s-restored.db' -b s3://backups/prod"],
  ["--force", newest, "walsync restore -o ./--force-restored.db -b s3://backups/prod -- --force"],
  [".", newest, "walsync restore . -o database-restored.db -b s3://backups/prod"],
] as const)("of %s reads as one would type it", (name, moment, command) => {
  expect(restoreCommand(name, PLACE, moment).join(" ")).toBe(command);
});

describe("for a shell", () => {
  test("every name is one word, and means itself", () => {
    const hostile = [
      "$(id)",
      "`id`",
      "a;b",
      "a&b",
      "a|b",
      "*",
      "~",
      "=ls",
      "!x",
      "#",
      "a b",
      "\u202ecod",
      "\u2014x",
      '"',
      "'",
      "$HOME",
    ];
    const random = fc.sample(fc.string({ unit: "binary", minLength: 1, maxLength: 30 }), { numRuns: 300, seed: 41 });
    const names = [...hostile, ...random].filter((name) => !name.includes("\0") && name.isWellFormed());
    expect(names.length).toBeGreaterThan(200);
    const commands = names.map((name) => restoreCommand(name, ["-b", `/mnt/${name}`], newest).join(" "));
    for (const [i, words] of wordsOf(commands).entries()) {
      const name = names[i]!;
      expect(words.slice(0, 2)).toEqual(["walsync", "restore"]);
      expect(words.filter((word) => word === name)).toContain(name);
      expect(words).toContain(`/mnt/${name}`);
      expect(words).toHaveLength(words.includes("--") ? 8 : 7);
    }
  });

  test("so is the place of verify", () => {
    expect(wordsOf([verifyCommand("a b", ["-b", "/mnt/c d"]).join(" ")])).toEqual([
      ["walsync", "verify", "a b", "-b", "/mnt/c d"],
    ]);
  });
});

describe("the place", () => {
  const flags = {
    region: "us-east-1",
    endpoint: undefined,
    forcePathStyle: false,
    storageClass: undefined,
    sse: undefined,
    recipient: undefined,
    recipientsFile: undefined,
    identity: undefined,
  };

  test("in a bucket is all that says where it is, and nothing that is a default", () => {
    expect(placeOf({ ...flags, bucket: "s3://backups/prod" })).toEqual(PLACE);
    const tigris = { endpoint: "https://fly.storage.tigris.dev", region: "auto", forcePathStyle: true };
    expect(placeOf({ ...flags, ...tigris, bucket: "s3://backups" })).toEqual([
      ...["-b", "s3://backups", "--endpoint", "https://fly.storage.tigris.dev"],
      ...["--region", "auto", "--force-path-style"],
    ]);
  });

  test("in a directory holds from any other directory", () => {
    expect(placeOf({ ...flags, bucket: "backup" })).toEqual(["-b", `${process.cwd()}/backup`]);
  });

  test("that is encrypted has an identity, whoever has it", () => {
    const encrypted = { ...flags, recipient: ["age1x"], bucket: "s3://backups/prod" };
    expect(placeOf({ ...encrypted, identity: "own.txt" })).toEqual([
      ...PLACE,
      "--identity",
      `${process.cwd()}/own.txt`,
    ]);
    expect(placeOf(encrypted)).toEqual([...PLACE, "--identity", "key.txt"]);
    expect(placeOf({ ...encrypted, recipient: undefined, recipientsFile: "r", bucket: "/b" })).toEqual([
      ...["-b", "/b", "--identity", "key.txt"],
    ]);
  });
});
