// Goal: every database gets a name of its own that a person would choose, whatever paths, directories and globs they gave.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { mkdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { findSources, nameSources } from "../../src/replication/names.ts";
import { tempDir } from "../support/temp.ts";

const dir = realpathSync(tempDir());

function makeDatabase(path: string): string {
  const full = join(dir, path);
  mkdirSync(dirname(full), { recursive: true });
  const database = new Database(full, { create: true });
  database.run("create table item (id)");
  database.close();
  return full;
}

const namesOf = (...arguments_: string[]) => nameSources(findSources(arguments_)).map(({ name }) => name);

describe("files", () => {
  const [romneys, smiths, data] = ["romneys/app.db", "smiths/app.db", "data/app.db"].map(makeDatabase);
  const shop = makeDatabase("shop.sqlite3");

  test("are called by their stem", () => {
    expect(namesOf(shop)).toEqual(["shop"]);
  });

  test("of one stem get as many parents as it takes", () => {
    expect(namesOf(romneys!, smiths!, data!, shop)).toEqual(["romneys/app", "smiths/app", "data/app", "shop"]);
    const deep = [makeDatabase("x/one/app.db"), makeDatabase("y/one/app.db"), makeDatabase("y/two/app.db")];
    expect(namesOf(...deep)).toEqual(["x/one/app", "y/one/app", "two/app"]);
  });

  test("that differ only in their extension keep it", () => {
    const both = [makeDatabase("same/app.db"), makeDatabase("same/app.sqlite")];
    expect(namesOf(...both)).toEqual([
      `${join(dir, "same/app.db").slice(1)}`,
      `${join(dir, "same/app.sqlite").slice(1)}`,
    ]);
  });

  test("keep a name that was given, and one that they had", () => {
    expect(namesOf(`blog=${shop}`, romneys!)).toEqual(["blog", "app"]);
    expect(namesOf(`tenants/7=${shop}`)).toEqual(["tenants/7"]);
    const kept = (path: string) => (path === shop ? "from-before" : null);
    expect(nameSources(findSources([shop, romneys!]), kept).map(({ name }) => name)).toEqual(["from-before", "app"]);
    expect(nameSources(findSources([`given=${shop}`]), kept)[0]!.name).toBe("given");
  });

  test("are called the same, whichever of the others have a name from before", () => {
    const all = [romneys!, smiths!, data!];
    const names = ["romneys/app", "smiths/app", "data/app"];
    for (let kept = 0; kept < 8; kept++) {
      const keptName = (path: string) => (((kept >> all.indexOf(path)) & 1) === 1 ? names[all.indexOf(path)]! : null);
      expect(nameSources(findSources(all), keptName).map(({ name }) => name)).toEqual(names);
    }
  });

  test("that are added later make way for one that has the short name", () => {
    const keptName = (path: string) => (path === romneys ? "app" : null);
    expect(nameSources(findSources([romneys!, smiths!]), keptName).map(({ name }) => name)).toEqual([
      "app",
      "smiths/app",
    ]);
  });

  test("named twice are one database, and the given name wins", () => {
    expect(namesOf(shop, `blog=${shop}`, shop)).toEqual(["blog"]);
    symlinkSync(shop, join(dir, "link.db"));
    expect(namesOf(shop, join(dir, "link.db"))).toEqual(["shop"]);
  });

  test("with a = in their own name stay reachable", () => {
    expect(namesOf(makeDatabase("a=b.db"))).toEqual(["a=b"]);
  });

  test("may be missing when they are named themselves", () => {
    expect(namesOf(join(dir, "later/new.db"))).toEqual(["new"]);
  });
});

describe("directories and globs", () => {
  test("give every database below its path, and nothing else", () => {
    makeDatabase("many/a.db");
    makeDatabase("many/b.db");
    writeFileSync(join(dir, "many/notes.txt"), "hello");
    writeFileSync(join(dir, "many/a.db-wal"), "");
    makeDatabase("many/below/c.db");
    expect(namesOf(join(dir, "many"))).toEqual(["a", "b"]);
    expect(namesOf(join(dir, "many/*"))).toEqual(["a", "b"]);
    expect(namesOf(join(dir, "many/**/*.db"))).toEqual(["a", "b", "below/c"]);
  });

  test("keep the names of what is there when something is added", () => {
    makeDatabase("grow/one/app.db");
    const pattern = join(dir, "grow/*/app.db");
    expect(namesOf(pattern)).toEqual(["one/app"]);
    makeDatabase("grow/two/app.db");
    expect(namesOf(pattern)).toEqual(["one/app", "two/app"]);
  });

  test("without a database are refused", () => {
    mkdirSync(join(dir, "empty"));
    for (const argument of ["empty", "empty/*.db", "nowhere/*.db"]) {
      expect(() => findSources([join(dir, argument)])).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^E_(USAGE|DATABASE)$/) }),
      );
    }
  });

  test("cannot share one name", () => {
    expect(() => findSources([`name=${join(dir, "many")}`])).toThrow("a name for several files");
  });
});

describe("names", () => {
  test("that two would share are refused, and both are told", () => {
    const [a, b] = [makeDatabase("p/x.db"), makeDatabase("q/y.db")];
    expect(() => namesOf(`same=${a}`, `same=${b}`)).toThrow(new RegExp(`${a}.*${b}.*"same"`));
  });

  test.each(["../up", "a//b", "x/manifest.json", "a/b.ltx", `${"x".repeat(600)}`, "0001"])("cannot be %p", (name) => {
    expect(() => nameSources([{ path: "/a.db", givenName: name }])).toThrow(
      expect.objectContaining({ code: "E_USAGE" }),
    );
  });

  test("are unique for any set of paths, and end with the stem", () => {
    const part = fc.constantFrom("a", "b", "c");
    const path = fc
      .tuple(fc.array(part, { minLength: 1, maxLength: 4 }), fc.constantFrom(".db", ".sqlite"))
      .map(([parts, extension]) => `/${parts.join("/")}${extension}`);
    fc.assert(
      fc.property(fc.uniqueArray(path, { minLength: 1, maxLength: 10 }), (paths) => {
        const named = nameSources(paths.map((one) => ({ path: one })));
        expect(new Set(named.map(({ name }) => name)).size).toBe(paths.length);
        for (const { path: one, name } of named) {
          expect(one.slice(1).startsWith(name) || one.replace(/\.\w+$/, "").endsWith(`/${name}`)).toBe(true);
        }
      }),
    );
  });
});
