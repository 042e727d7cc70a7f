import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  folderOf,
  formatKey,
  type LtxKeyParts,
  levelPrefix,
  manifestKey,
  nameFault,
  parseKey,
  requireListedName,
  requireName,
  UNNAMED,
} from "../../src/destination/layout.ts";
import { exitStatus, WalsyncError } from "../../src/errors.ts";

const MAX = (1n << 64n) - 1n;

// Goal: the spelling of keys never changes: other tools and older replicas depend on it.

test.each<[key: string, parts: LtxKeyParts]>([
  ["app/00000001-00000012.ltx", { layout: "walsync", name: "app", minTxid: 1n, maxTxid: 12n }],
  ["a/b/99999999-100000000.ltx", { layout: "walsync", name: "a/b", minTxid: 99_999_999n, maxTxid: 100_000_000n }],
  [
    "app/0009/0000000000000001-000000000000000c.ltx",
    { layout: "litestream", name: "app", minTxid: 1n, maxTxid: 12n, level: 9, folders: "bucket" },
  ],
  [
    "app/ltx/0/000000000000000c-ffffffffffffffff.ltx",
    { layout: "litestream", name: "app", minTxid: 12n, maxTxid: MAX, level: 0, folders: "directory" },
  ],
])("%s", (key, parts) => {
  expect(formatKey(parts)).toBe(key);
});

test("prefixes and the manifest lie beside the files", () => {
  expect(levelPrefix("app", 9, "bucket")).toBe("app/0009/");
  expect(levelPrefix("app", 0, "directory")).toBe("app/ltx/0/");
  expect(manifestKey("a/b")).toBe("a/b/manifest.json");
  expect(parseKey("a/b/manifest.json")).toEqual({ is: "manifest", name: "a/b" });
});

// Goal: a key means one file of one database, and what is not ours means nothing.

test.each([
  ["walsync: 1 at the start is a snapshot", "app/00000001-00000012.ltx", "walsync", "snapshot", 1n, 12n],
  ["walsync: even of one change", "app/00000001-00000001.ltx", "walsync", "snapshot", 1n, 1n],
  ["walsync: anything else is an increment", "app/00000002-00000010.ltx", "walsync", "increment", 2n, 10n],
  ["walsync: decimal, though it looks like hex", "app/00000010-00000011.ltx", "walsync", "increment", 10n, 11n],
  [
    "litestream: level 9 is a snapshot",
    "app/0009/0000000000000001-0000000000000010.ltx",
    "litestream",
    "snapshot",
    1n,
    16n,
  ],
  [
    "litestream: the level decides, not the txid",
    "app/0000/0000000000000001-0000000000000001.ltx",
    "litestream",
    "increment",
    1n,
    1n,
  ],
  [
    "litestream: in a directory the level is decimal below ltx",
    "app/ltx/3/000000000000000a-0000000000000010.ltx",
    "litestream",
    "increment",
    10n,
    16n,
  ],
] as const)("%s", (_law, key, layout, kind, minTxid, maxTxid) => {
  expect(parseKey(key)).toMatchObject({ is: "ltx", name: "app", layout, kind, minTxid, maxTxid });
});

test.each([
  ["00000001-00000012.ltx", "walsync"],
  ["0009/0000000000000001-000000000000000c.ltx", "litestream"],
  ["ltx/9/0000000000000001-000000000000000c.ltx", "litestream"],
])("%j lies right at the destination, and its database is called .", (key, layout) => {
  expect(parseKey(key)).toMatchObject({
    is: "ltx",
    name: UNNAMED,
    layout,
    kind: "snapshot",
    minTxid: 1n,
    maxTxid: 12n,
  });
  expect(folderOf(UNNAMED)).toBe("");
  expect(parseKey(manifestKey(UNNAMED))).toEqual({ is: "manifest", name: UNNAMED });
  requireListedName(UNNAMED);
  expect(() => requireName(UNNAMED)).toThrow();
});

test.each([
  "/00000001-00000001.ltx",
  "./00000001-00000001.ltx",
  "app/0000001-00000001.ltx",
  "app/000000001-00000002.ltx",
  "app/00000002-00000001.ltx",
  "app/00000000-00000001.ltx",
  "app/0000000a-0000000b.ltx",
  "app/00000001-00000001.ltx.tmp",
  "app/99999999999999999999-99999999999999999999.ltx",
  "app/0009/00000001-00000001.ltx",
  "app/0009/000000000000000A-000000000000000A.ltx",
  "app/ltx/9/0000000000000000-0000000000000001.ltx",
  "app/000a/0000000000000001-0000000000000001.ltx",
  "app/0009/manifest.json",
  "/0009/0000000000000001-0000000000000001.ltx",
  "/manifest.json",
  "app/.DS_Store",
  "app/../x/00000001-00000001.ltx",
  "app/notes.txt",
  "",
])("%j is not ours", (key) => {
  expect(parseKey(key)).toBeNull();
});

const segment = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 12 })
  .filter((text) => nameFault(text) === null && !text.includes("/"));
const anyName = fc
  .array(fc.oneof(segment, fc.constantFrom("ltx", "0009x", "9", "app", "00000001")), { minLength: 1, maxLength: 3 })
  .map((segments) => segments.join("/"))
  .filter((name) => nameFault(name) === null);
const anyRange = fc
  .tuple(fc.bigInt({ min: 1n, max: MAX }), fc.bigInt({ min: 1n, max: MAX }))
  .map(([a, b]) => (a < b ? { minTxid: a, maxTxid: b } : { minTxid: b, maxTxid: a }));

test("every name and range comes back from its key, in every layout", () => {
  const folders = fc.constantFrom("bucket" as const, "directory" as const);
  fc.assert(
    fc.property(anyName, anyRange, fc.integer({ min: 0, max: 9 }), folders, (name, range, level, where) => {
      const spellings: LtxKeyParts[] = [
        { layout: "walsync", name, ...range },
        { layout: "litestream", name, ...range, level, folders: where },
      ];
      for (const parts of spellings) {
        expect(parseKey(formatKey(parts))).toMatchObject({ is: "ltx", layout: parts.layout, name, ...range });
      }
      expect(parseKey(manifestKey(name))).toEqual({ is: "manifest", name });
    }),
  );
});

test("any key that is parsed is spelled the same way again", () => {
  const digits = fc.stringMatching(/^[0-9a-f]{7,17}$/);
  const folder = fc.constantFrom(
    "0009",
    "ltx/9",
    "app",
    "app/0009",
    "app/ltx/0",
    "ltx/ltx/9",
    "0000/0000",
    "app/ltx",
    "a/ltx/1/0001",
  );
  fc.assert(
    fc.property(folder, digits, digits, (path, min, max) => {
      const key = `${path}/${min}-${max}.ltx`;
      const parsed = parseKey(key);
      if (parsed?.is !== "ltx") return;
      const again =
        parsed.layout === "walsync"
          ? [formatKey(parsed)]
          : (["bucket", "directory"] as const).map((folders) => formatKey({ ...parsed, folders }));
      expect(again).toContain(key);
    }),
    { numRuns: 2000 },
  );
});

// Goal: no name can make two databases share a key, or leave its place.

test.each(["app", "a/b/c", "my app", "Büro", "ltx", "a/ltx", "9", "00", "0009x", "0009/app", ".hidden", "a.b"])(
  "the name %j is fine",
  (name) => {
    expect(nameFault(name)).toBeNull();
    requireName(name);
  },
);

test.each([
  "",
  "/a",
  "a/",
  "a//b",
  "..",
  "a/../b",
  ".",
  "a\nb",
  "a\\b",
  "\ud800",
  "0009",
  "app/0000",
  "ltx/9",
  "app/ltx/0",
  "manifest.json",
  "a/manifest.json",
  "x.ltx",
  "x.ltx/a",
  ".tmp-1",
  "n".repeat(300),
  `${"n/".repeat(300)}n`,
])("the name %j is refused as a matter of usage", (name) => {
  expect(nameFault(name)).toBeString();
  try {
    requireName(name);
    throw new Error("expected a refusal");
  } catch (error) {
    expect(error).toBeInstanceOf(WalsyncError);
    expect(exitStatus(error)).toBe(2);
  }
});
