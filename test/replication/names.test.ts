// Goal: every database gets a name of its own that a person would choose, whatever paths, directories and globs they gave.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { mkdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import fc from "fast-check";
import { WalsyncError } from "../../src/errors.ts";
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

const anyPath = fc
  .tuple(fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 4 }), fc.constantFrom(".db", ".sqlite"))
  .map(([parts, extension]) => `/${parts.join("/")}${extension}`);

function refusalOf(action: () => unknown): WalsyncError {
  try {
    action();
  } catch (error) {
    if (error instanceof WalsyncError) return error;
  }
  throw new Error("expected a refusal");
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
    const path = makeDatabase("a=b.db");
    expect(namesOf(path)).toEqual(["a=b"]);
    expect(namesOf(relative(process.cwd(), path))).toEqual(["a=b"]);
  });

  test("with glob characters in their own name are meant as they are", () => {
    expect(namesOf(makeDatabase("odd/[1]*.db"))).toEqual(["[1]*"]);
    expect(namesOf(makeDatabase("odd/a{b}.db"))).toEqual(["a{b}"]);
    // And a name cannot be taken for a path that exists with it.
    const both = makeDatabase("odd/n=x.db");
    expect(namesOf(both)).toEqual(["n=x"]);
    expect(namesOf(`n=${both}`)).toEqual(["n"]);
  });

  test("in a folder that is a link are one with what it leads to, also before they exist", () => {
    symlinkSync(join(dir, "romneys"), join(dir, "linked"));
    expect(findSources([romneys!, join(dir, "linked/app.db")])).toHaveLength(1);
    expect(findSources([join(dir, "romneys/new.db"), join(dir, "linked/new.db")])).toHaveLength(1);
  });

  const illegal = ["back\\slash.db", "0004.db", "manifest.json.db", "bell\u0007.db", `${"é".repeat(124)}.db`];
  test.each(illegal)("whose own name cannot be a key are refused, and the way out works: %p", expectWayOut);

  test("with a line break in their own name are refused, and the way out works", () => {
    expectWayOut("bad\nname.db");
  });

  function expectWayOut(fileName: string): void {
    const path = join(dir, "illegal", fileName);
    expect(refusalOf(() => namesOf(path))).toMatchObject({
      code: "E_USAGE",
      hint: expect.stringContaining("name=path"),
    });
    expect(namesOf(`fine=${path}`)).toEqual(["fine"]);
  }

  test("may be missing when they are named themselves", () => {
    expect(namesOf(join(dir, "later/new.db"))).toEqual(["new"]);
  });
});

describe("directories and globs", () => {
  test("give the same in any order of the folder, and nothing that is hidden", () => {
    for (const name of ["c", "a", "b"]) makeDatabase(`order/${name}.db`);
    makeDatabase("order/.hidden/d.db");
    makeDatabase("order/sub/.e.db");
    expect(namesOf(join(dir, "order"))).toEqual(["a", "b", "c"]);
    expect(namesOf(join(dir, "order/**/*.db"))).toEqual(["a", "b", "c"]);
  });

  test("with one file name twice are refused, and the hint leads out of it", () => {
    for (const name of ["left/app.db", "right/app.db", "both/app.db", "both/app.sqlite"]) makeDatabase(`twice/${name}`);
    for (const arguments_ of [["left", "right"], ["both"]]) {
      const paths = arguments_.map((name) => join(dir, "twice", name));
      const refusal = refusalOf(() => namesOf(...paths));
      expect(refusal).toMatchObject({ code: "E_USAGE", message: expect.stringContaining('"app"') });
      const wayOut = refusal.hint!.split("walsync watch ")[1]!;
      expect(namesOf(...paths, wayOut).sort()).toEqual(["app", "other"]);
    }
  });

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

  test("do not depend on the order of the arguments, and stay when another database appears", () => {
    fc.assert(
      fc.property(fc.uniqueArray(anyPath, { minLength: 2, maxLength: 8 }), fc.nat(), (paths, cut) => {
        const named = (some: string[], kept: ReadonlyMap<string, string> = new Map()) =>
          new Map(
            nameSources(
              some.map((path) => ({ path })),
              (path) => kept.get(path) ?? null,
            ).map(({ path, name }) => [path, name]),
          );
        const all = named(paths);
        expect([...named(paths.toReversed())].toReversed()).toEqual([...all]);
        const earlier = named(paths.slice(0, 1 + (cut % (paths.length - 1))));
        let later: Map<string, string>;
        try {
          later = named(paths, earlier);
        } catch (error) {
          // Only a path that has no more parents to add may find its name taken.
          expect(error).toMatchObject({ code: "E_USAGE", hint: expect.stringContaining("another name") });
          return;
        }
        for (const [path, name] of earlier) expect(later.get(path)).toBe(name);
        expect(new Set(later.values()).size).toBe(paths.length);
      }),
    );
  });

  test("are unique for any set of paths, and end with the stem", () => {
    fc.assert(
      fc.property(fc.uniqueArray(anyPath, { minLength: 1, maxLength: 10 }), (paths) => {
        const named = nameSources(paths.map((one) => ({ path: one })));
        expect(new Set(named.map(({ name }) => name)).size).toBe(paths.length);
        for (const { path: one, name } of named) {
          expect(one.slice(1).startsWith(name) || one.replace(/\.\w+$/, "").endsWith(`/${name}`)).toBe(true);
        }
      }),
    );
  });
});
