// Goal: a command runs with exactly what the user wrote, or not at all.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { asksForHelp, type FlagTable, flagLayer, parseStrict } from "../../src/cli/flags.ts";
import { resolveSettings } from "../../src/config.ts";
import { WalsyncError } from "../../src/errors.ts";
import { nearest } from "../../src/suggest.ts";

const flags = {
  bucket: { type: "string", short: "b", required: true, description: "where files go" },
  "snapshot-interval": { type: "duration", default: "3600", description: "time between snapshots" },
  "max-changes": { type: "integer", default: "0", max: 1000, description: "changes before a sync" },
  layout: { type: "choice", choices: ["walsync", "litestream"], default: "walsync", description: "key layout" },
  "max-outbox": { type: "size", description: "bytes to hold back" },
  metrics: { type: "boolean", negatable: true, default: true, description: "serve metrics" },
  force: { type: "boolean", short: "f", description: "overwrite" },
} as const satisfies FlagTable;
const positionals = { databases: { description: "databases", required: true, variadic: true } } as const;

function parse(...args: string[]) {
  const parsed = parseStrict({ flags, positionals }, args);
  return { ...resolveSettings(flags, [flagLayer(parsed.flags)]).values, databases: parsed.positionals.databases };
}

function refusal(...args: string[]): WalsyncError {
  try {
    parse(...args);
  } catch (error) {
    if (error instanceof WalsyncError) return error;
    throw error;
  }
  throw new Error(`accepted: ${args.join(" ")}`);
}

describe("refused with E_USAGE", () => {
  test.each([
    ["an unknown flag", ["a.db", "-b", "x", "--bogus"], "--bogus: no such flag", undefined],
    ["a mistyped flag, with a suggestion", ["a.db", "--buckett", "x"], "--buckett: no such flag", "--bucket"],
    ["a mistyped flag with =", ["a.db", "--bukcet=x"], "--bukcet: no such flag", "--bucket"],
    ["a cut-off flag", ["a.db", "-b", "x", "--snapshot", "1"], "--snapshot: no such flag", "--snapshot-interval"],
    ["camelCase", ["a.db", "--snapshotInterval", "1"], "--snapshotInterval: no such flag", "--snapshot-interval"],
    ["one dash instead of two", ["a.db", "-bucket", "x"], "-bucket: no such flag", "--bucket"],
    ["an unknown short flag", ["a.db", "-x", "1"], "-x: no such flag", undefined],
    ["bundled short flags", ["a.db", "-fb", "x"], "-fb: no such flag", "-f"],
    ["--no- where it is not declared", ["a.db", "-b", "x", "--no-force"], "--no-force: no such flag", "--force"],
    ["a flag named like an object's own", ["a.db", "--constructor", "x"], "--constructor: no such flag", undefined],
    ["a missing value at the end", ["a.db", "-b"], "-b needs a value", undefined],
    ["a missing value before a flag", ["a.db", "-b", "--force"], "-b needs a value", "--bucket=--force"],
    ["an empty value", ["a.db", "--bucket="], "--bucket needs a value", undefined],
    ["a repeated flag", ["a.db", "-b", "x", "--bucket", "y"], "--bucket is given twice", undefined],
    [
      "a flag and its opposite",
      ["a.db", "-b", "x", "--metrics", "--no-metrics"],
      "--metrics is given twice",
      undefined,
    ],
    ["a value for a switch", ["a.db", "-b", "x", "--force=false"], "--force takes no value", undefined],
    ["a bad number", ["a.db", "-b", "x", "--max-changes", "1e3"], "--max-changes: expected a whole number", undefined],
    ["a number too big", ["a.db", "-b", "x", "--max-changes", "1001"], "from 0 to 1000", undefined],
    ["a negative number", ["a.db", "-b", "x", "--max-changes=-1"], "from 0 to 1000", undefined],
    ["a bad duration", ["a.db", "-b", "x", "--snapshot-interval", "soon"], "expected a duration", undefined],
    ["a bad choice", ["a.db", "-b", "x", "--layout", "tar"], "expected one of walsync, litestream", undefined],
    ["a missing required flag", ["a.db"], "--bucket is missing", undefined],
    ["a missing argument", ["-b", "x"], "DATABASES is missing", undefined],
    ["a typographic dash", ["a.db", "\u2014bucket", "x"], 'starts with a dash that is not "-"', undefined],
  ])("%s", (_law, args, message, hint) => {
    const error = refusal(...args);
    expect(error.code).toBe("E_USAGE");
    expect(error.message).toContain(message);
    if (hint !== undefined) expect(error.hint).toContain(hint);
  });

  test("an argument more than the command has", () => {
    const one = { flags: {}, positionals: { name: { description: "name", required: true } } } as const;
    expect(() => parseStrict(one, ["app", "extra"])).toThrow('no argument behind NAME, found "extra"');
  });
});

test("the value of a mistyped flag never becomes an argument", () => {
  const names = new Set(Object.keys(flags).flatMap((name) => [name, `no-${name}`]));
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z][a-z-]{0,12}$/), fc.string(), (name, value) => {
      fc.pre(!names.has(name));
      expect(refusal("a.db", "-b", "x", `--${name}`, value).message).toContain(`--${name}: no such flag`);
    }),
  );
});

test("whatever is parsed was written, and whatever was written is parsed", () => {
  const word = fc.stringMatching(/^[a-z0-9./:=][a-z0-9./:=-]{0,12}$/);
  fc.assert(
    fc.property(word, fc.array(word, { minLength: 1 }), fc.boolean(), (bucket, databases, attached) => {
      const flag = attached ? [`--bucket=${bucket}`] : ["-b", bucket];
      expect(parse(...flag, ...databases)).toMatchObject({ bucket, databases });
      expect(parse(...databases, ...flag)).toMatchObject({ bucket, databases });
    }),
  );
});

test("every form of flag is understood, with its unit", () => {
  const given = [
    "a.db",
    "--bucket=s3://b/p",
    "--snapshot-interval",
    "5m",
    "--max-outbox",
    "64MiB",
    "--no-metrics",
    "-f",
  ];
  expect(parse(...given, "b.db")).toEqual({
    bucket: "s3://b/p",
    snapshotInterval: 300_000,
    maxChanges: 0,
    layout: "walsync",
    maxOutbox: 64 * 1024 * 1024,
    metrics: false,
    force: true,
    databases: ["a.db", "b.db"],
  });
});

test("behind -- everything is an argument", () => {
  expect(parse("-b", "x", "--", "--force", "-b", "--help").databases).toEqual(["--force", "-b", "--help"]);
  expect(asksForHelp(["-b", "x", "--", "--help"])).toBe(false);
});

test("a value that starts with a dash is taken with =", () => {
  expect(parse("a.db", "--bucket=-odd").bucket).toBe("-odd");
});

test.each([
  ["restor", "restore"],
  ["lsit", "list"],
  ["wathc", "watch"],
  ["snap", "snapshot"],
  ["Watch", "watch"],
  ["frobnicate", undefined],
  ["", undefined],
])("suggests for %p: %p", (typed, expected) => {
  expect(nearest(typed, ["watch", "snapshot", "restore", "list"])).toBe(expected);
});
