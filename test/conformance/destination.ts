/** The laws that hold for every destination. Each kind runs this one suite. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import type { Destination, WriteSource } from "../../src/destination/destination.ts";
import { compareKeys } from "../../src/destination/keys.ts";
import { exitStatus } from "../../src/errors.ts";
import { tempDir } from "../support/temp.ts";
import {
  collectText,
  expectFault,
  foldersOf,
  inBatches,
  keysOf,
  listOf,
  makeFile,
  readText,
  rejection,
  sha256Of,
  text,
} from "./helpers.ts";
import { destinationModelTest } from "./model.ts";

export interface Subject {
  /** A destination with nothing in it; its place exists. */
  fresh(): Promise<Destination>;
  /** A destination whose bucket or directory does not exist. */
  missing(): Promise<Destination>;
  /** What writes that did not end well left behind out of sight, anywhere: temporary files, uploads in parts. */
  leftovers(): Promise<string[]>;
}

/**
 * `isWrapper`: of a destination that runs this suite itself, whose sources it reads to their end before the first byte is
 * sent. What it leaves to that one is not asked again.
 */
export function destinationConformance(
  name: string,
  make: () => Promise<Subject>,
  { isWrapper = false }: { isWrapper?: boolean } = {},
): void {
  describe(`${name} keeps the destination contract`, () => {
    let subject: Subject;
    const folder = tempDir();
    const opened: Destination[] = [];
    const fresh = async (): Promise<Destination> => {
      const destination = await subject.fresh();
      opened.push(destination);
      return destination;
    };
    beforeAll(async () => {
      subject = await make();
    });
    afterAll(() => {
      for (const destination of opened) destination.close();
    });

    // Goal: what was written is what is read, whatever its size and key.

    test("bytes come back as they were written, with their size and etag", async () => {
      const destination = await fresh();
      const written = await destination.write("app/one.ltx", text("hello"));
      expect(written.kind).toBe("written");
      const body = await destination.read("app/one.ltx");
      expect(body).toMatchObject({ key: "app/one.ltx", sizeBytes: 5 });
      expect(body?.etag).not.toBe("");
      if (written.kind === "written") expect(body?.etag).toBe(written.etag);
      expect(Math.abs((body?.modifiedAt.getTime() ?? 0) - Date.now())).toBeLessThan(60_000);
      expect(await collectText(body)).toBe("hello");
    });

    test("a second write replaces the first, and changes the etag even at the same size", async () => {
      const destination = await fresh();
      await destination.write("key", text("aaaa"));
      const before = await destination.head("key");
      await destination.write("key", text("bbbb"));
      const after = await destination.head("key");
      expect(after?.etag).not.toBe(before?.etag);
      expect(await readText(destination, "key")).toBe("bbbb");
    });

    test("an empty object is an object", async () => {
      const destination = await fresh();
      await destination.write("empty", text(""));
      expect(await destination.head("empty")).toMatchObject({ sizeBytes: 0 });
      expect(await readText(destination, "empty")).toBe("");
      expect(await readText(destination, "empty", { range: { first: 0, last: 9 } })).toBe("");
      expect(await readText(destination, "empty", { range: { first: -5 } })).toBe("");
    });

    test.each([
      ["spaces", "my db/file one.ltx"],
      ["plus and percent", "a+b%20c/x&y=z.ltx"],
      ["umlauts and emoji", "Büro/😀/datei.ltx"],
      ["quotes and brackets", 'it\'s "here" (1)/[x]{y}.ltx'],
      ["dots inside", "a..b/.hidden/c.ltx"],
      ["a question mark and a hash", "a?b/c#d.ltx"],
    ])("a key with %s is the same in write, list, head, read and remove", async (_law, key) => {
      const destination = await fresh();
      await destination.write(key, text("x"));
      expect((await keysOf(destination, "")).join()).toBe(key);
      expect(await destination.head(key)).toMatchObject({ key });
      expect(await readText(destination, key)).toBe("x");
      await destination.remove([key]);
      expect(await destination.head(key)).toBeNull();
    });

    test.each(["", "/abs", "a//b", "a/", "../up", "a/../b", ".", "a\0b", "a\\b", "a/.tmp-1", "line\nbreak"])(
      "the key %j is refused and nothing is written",
      async (key) => {
        const destination = await fresh();
        await expectFault(destination.write(key, text("x")), false);
        await expectFault(destination.read(key), false);
        await expectFault(destination.head(key), false);
        await expectFault(destination.remove([key]), false);
        expect(await keysOf(destination, "")).toEqual([]);
      },
    );

    test("a file of 20 MiB and a bit arrives whole, with rising progress", async () => {
      const destination = await fresh();
      const file = await makeFile(join(folder, "large"), 20 * MiB + 12_345);
      const progress: number[] = [];
      const result = await destination.write("large.ltx", file.source, { onProgress: (sent) => progress.push(sent) });
      expect(result.kind).toBe("written");
      expect(progress.at(-1)).toBe(file.source.sizeBytes);
      expect(progress).toEqual([...progress].sort((a, b) => a - b));
      const body = await destination.read("large.ltx");
      expect(body?.sizeBytes).toBe(file.source.sizeBytes);
      expect(await sha256Of(body)).toBe(file.sha256);
      const [listed] = await listOf(destination, "");
      expect(listed).toMatchObject({ key: "large.ltx", sizeBytes: file.source.sizeBytes, etag: body?.etag ?? "" });
      await destination.remove(["large.ltx"]);
    });

    test.each([0, 1, 300_000, 8 * MiB - 1, 8 * MiB, 8 * MiB + 1])(
      "a file of %d bytes arrives whole",
      async (sizeBytes) => {
        const destination = await fresh();
        const file = await makeFile(join(folder, `file-${sizeBytes}`), sizeBytes);
        await destination.write("file", file.source);
        expect(await sha256Of(await destination.read("file"))).toBe(file.sha256);
      },
    );

    test.each([1000, 9 * MiB])(
      "a source that is not the %d bytes it was said to be is a fault of the local disk, and nothing is written",
      async (sizeBytes) => {
        const destination = await fresh();
        const path = join(folder, `source-${sizeBytes}`);
        const source: WriteSource = { kind: "file", path, sizeBytes };
        const attempts: [string, () => Promise<unknown>][] = [
          ["missing", async () => {}],
          ["shorter", () => writeFile(path, "only this")],
          ["one byte shorter", () => makeFile(path, sizeBytes - 1)],
          ["one byte longer", () => makeFile(path, sizeBytes + 1)],
        ];
        for (const [how, change] of attempts) {
          await change();
          const error = await rejection(destination.write("key", source));
          expect({ how, status: exitStatus(error) }).toEqual({ how, status: 7 });
        }
        expect(await destination.head("key")).toBeNull();
        expect(await subject.leftovers()).toEqual([]);
      },
    );

    if (!isWrapper) {
      test("a source that ends early while it is sent leaves the old bytes and nothing else", async () => {
        const destination = await fresh();
        await destination.write("key", text("old"));
        const { source } = await makeFile(join(folder, "shrinking"), 40 * MiB);
        const onProgress = (): void => truncateSync(source.path, 1 * MiB);
        expect(exitStatus(await rejection(destination.write("key", source, { onProgress })))).toBe(7);
        expect(await readText(destination, "key")).toBe("old");
        expect(await keysOf(destination, "")).toEqual(["key"]);
        expect(await subject.leftovers()).toEqual([]);
      });
    }

    test("metadata comes back where the destination keeps any", async () => {
      const destination = await fresh();
      const metadata = { sha256: "ab".repeat(32), commits: "12", "litestream-timestamp": "2024-05-06T07:08:09.123Z" };
      await destination.write("small", text("x"), { metadata });
      await destination.write("large", (await makeFile(join(folder, "meta"), 9 * MiB)).source, { metadata });
      for (const key of ["small", "large"]) {
        const expected = destination.capabilities.metadata ? metadata : {};
        expect((await destination.head(key))?.metadata).toEqual(expected);
        const body = await destination.read(key, { range: { first: 0, last: 0 } });
        expect(body?.metadata).toEqual(expected);
        await collectText(body);
      }
    });

    test("a chosen time is kept in a directory, and everywhere it is told when an object came", async () => {
      const destination = await fresh();
      const chosen = new Date("2024-05-06T07:08:09.123Z");
      await destination.write("dated", text("x"), { modifiedAt: chosen, condition: "absent" });
      const head = await destination.head("dated");
      const listed = (await Array.fromAsync(destination.list("")))[0];
      for (const found of [head, listed]) {
        expect(Math.abs((found?.storedAt.getTime() ?? 0) - Date.now())).toBeLessThan(60_000);
        const expected = destination.capabilities.levelFolders === "directory" ? chosen : found?.storedAt;
        expect(found?.modifiedAt).toEqual(expected);
      }
    });

    // Goal: a missing key is an answer, a missing place is an error: a mistyped bucket must not read as "no snapshots".

    test("a missing key is null, and a missing prefix lists nothing", async () => {
      const destination = await fresh();
      expect(await destination.head("nope")).toBeNull();
      expect(await destination.read("nope")).toBeNull();
      expect(await destination.read("a/b/nope", { range: { first: 5 } })).toBeNull();
      expect(await keysOf(destination, "nope/")).toEqual([]);
      expect(await foldersOf(destination, "nope/")).toEqual([]);
    });

    test("a folder is not a key", async () => {
      const destination = await fresh();
      await destination.write("a/b", text("x"));
      expect(await destination.head("a")).toBeNull();
      expect(await destination.read("a")).toBeNull();
    });

    test("a missing bucket or directory is an error of exit status 3 that names it, for every way of reading", async () => {
      const destination = await subject.missing();
      const attempts = [
        () => destination.head("key"),
        () => destination.read("key"),
        () => keysOf(destination, ""),
        () => keysOf(destination, "app/"),
        () => foldersOf(destination, ""),
        () => destination.remove(["key"]),
        () => destination.remove(["key", "other"]),
      ];
      for (const attempt of attempts) {
        const error = await expectFault(attempt(), false);
        expect(error.message).toContain(destination.url);
        expect(exitStatus(error)).toBe(3);
        expect(error.hint).toBeString();
      }
      destination.close();
    });

    test("removing a key that is missing is fine, and removing many takes all of them", async () => {
      const destination = await fresh();
      await destination.write("a/1", text("x"));
      await destination.write("a/2", text("x"));
      await destination.write("b/1", text("x"));
      await destination.remove(["a/1", "not/there", "a/2"]);
      await destination.remove([]);
      await destination.remove(["a/1"]);
      expect(await keysOf(destination, "")).toEqual(["b/1"]);
      expect(await foldersOf(destination, "")).toEqual(["b"]);
      await destination.write("a/1", text("again"));
      expect(await readText(destination, "a/1")).toBe("again");
    });

    // Goal: lists are complete and in byte order, so that a reader may stop or go on anywhere.

    test("keys come in byte order, whatever folders they are in", async () => {
      const destination = await fresh();
      const keys = ["a", "a-b/1", "a.b", "a0", "ab/1", "ab/c/d", "b/1", "B/1", "é/1", "z/1", "\uff5e/1", "😀/1"];
      const deep = ["d/1", "d/1.x", "d-/1", "d/2/3", "d0/1"];
      for (const key of [...keys, ...deep]) await destination.write(key, text("x"));
      expect(await keysOf(destination, "")).toEqual([...keys, ...deep].sort(compareKeys));
      expect(await keysOf(destination, "d/")).toEqual(["d/1", "d/1.x", "d/2/3"]);
      expect(await foldersOf(destination, "")).toEqual([
        "B",
        "a-b",
        "ab",
        "b",
        "d-",
        "d",
        "d0",
        "z",
        "é",
        "\uff5e",
        "😀",
      ]);
      expect(await foldersOf(destination, "d/")).toEqual(["2"]);
      for (const startAfter of ["a", "ab", "ab/", "ab/1", "d/1", "d/1.x", "d/2/", "zz", "\uffff"]) {
        const expected = [...keys, ...deep].filter((key) => compareKeys(key, startAfter) > 0).sort(compareKeys);
        expect(await keysOf(destination, "", startAfter)).toEqual(expected);
      }
    });

    if (!isWrapper) {
      test("more keys than one page holds are all listed, once, and a reader may stop early", async () => {
        const destination = await fresh();
        const keys = Array.from({ length: 2300 }, (_, i) => `many/${String(i).padStart(8, "0")}.ltx`);
        await inBatches(keys, 16, (key) => destination.write(key, text("x")));
        expect(await keysOf(destination, "many/")).toEqual(keys);
        expect(await keysOf(destination, "many/", keys[999])).toEqual(keys.slice(1000));
        for await (const info of destination.list("many/")) {
          expect(info.key).toBe(keys[0]!);
          break;
        }
        await destination.remove(keys);
        expect(await keysOf(destination, "")).toEqual([]);
      }, 60_000);
    }

    // Goal: of two writers that claim one key exactly one wins, and whoever lost changed nothing.

    test('"absent" writes once, and then refuses and leaves the old bytes', async () => {
      const destination = await fresh();
      expect((await destination.write("n/1", text("first"), { condition: "absent" })).kind).toBe("written");
      expect(await destination.write("n/1", text("second"), { condition: "absent" })).toEqual({ kind: "refused" });
      expect(await readText(destination, "n/1")).toBe("first");
      expect(await keysOf(destination, "")).toEqual(["n/1"]);
    });

    test("of 20 writers at once exactly one wins, and its bytes stay", async () => {
      const destination = await fresh();
      for (let round = 0; round < 5; round++) {
        const key = `race/${round}`;
        const results = await Promise.all(
          Array.from({ length: 20 }, (_, i) => destination.write(key, text(`writer ${i}`), { condition: "absent" })),
        );
        const winners = results.flatMap((result, i) => (result.kind === "written" ? [i] : []));
        expect(winners).toHaveLength(1);
        expect(await readText(destination, key)).toBe(`writer ${winners[0]}`);
      }
    });

    test('"absent" holds for a file in parts as well: refused, and the old bytes stay', async () => {
      const destination = await fresh();
      const { source } = await makeFile(join(folder, "parts"), 9 * MiB);
      await destination.write("big", text("old"));
      expect(await destination.write("big", source, { condition: "absent" })).toEqual({ kind: "refused" });
      expect(await readText(destination, "big")).toBe("old");
      expect(await subject.leftovers()).toEqual([]);
    });

    test("of 3 writers that send files in parts at once exactly one wins, its bytes stay, and no part is left", async () => {
      const destination = await fresh();
      const files = await Promise.all([1, 2, 3].map((i) => makeFile(join(folder, `race-${i}`), 9 * MiB, i)));
      const results = await Promise.all(
        files.map((file) => destination.write("race", file.source, { condition: "absent" })),
      );
      const winners = files.filter((_, i) => results[i]?.kind === "written");
      expect(winners).toHaveLength(1);
      expect(await sha256Of(await destination.read("race"))).toBe(winners[0]?.sha256 ?? "");
      expect(await subject.leftovers()).toEqual([]);
    });

    test("an etag condition holds for a file in parts as well", async () => {
      const destination = await fresh();
      const { source, sha256 } = await makeFile(join(folder, "parts-match"), 9 * MiB);
      const old = await destination.write("big", text("old"));
      if (old.kind !== "written") throw new Error("the first write has no condition");
      expect((await destination.write("big", source, { condition: { etag: old.etag } })).kind).toBe("written");
      const late = await destination.write("big", source, { condition: { etag: old.etag } });
      expect(late).toEqual({ kind: "refused" });
      expect(await sha256Of(await destination.read("big"))).toBe(sha256);
      expect(await subject.leftovers()).toEqual([]);
    });

    test("an etag condition holds for the content it names, and for no other", async () => {
      const destination = await fresh();
      const first = await destination.write("manifest.json", text("1"));
      if (first.kind !== "written") throw new Error("the first write has no condition");
      const second = await destination.write("manifest.json", text("2"), { condition: { etag: first.etag } });
      expect(second.kind).toBe("written");
      expect(await destination.write("manifest.json", text("3"), { condition: { etag: first.etag } })).toEqual({
        kind: "refused",
      });
      expect(await readText(destination, "manifest.json")).toBe("2");
      const listed = (await listOf(destination, ""))[0];
      const third = await destination.write("manifest.json", text("4"), { condition: { etag: listed?.etag ?? "" } });
      expect(third.kind).toBe("written");
      const gone = await destination.write("other.json", text("x"), { condition: { etag: first.etag } });
      expect(gone.kind).toBe("refused");
      expect(await destination.head("other.json")).toBeNull();
    });

    test("of 10 writers that hold the same etag exactly one wins", async () => {
      const destination = await fresh();
      const start = await destination.write("manifest.json", text("start"));
      if (start.kind !== "written") throw new Error("the first write has no condition");
      const results = await Promise.all(
        Array.from({ length: 10 }, (_, i) =>
          destination.write("manifest.json", text(`w${i}`), { condition: { etag: start.etag } }).catch(() => null),
        ),
      );
      const winners = results.flatMap((result, i) => (result?.kind === "written" ? [i] : []));
      expect(winners).toHaveLength(1);
      expect(await readText(destination, "manifest.json")).toBe(`w${winners[0]}`);
    });

    // Goal: a range is what HTTP calls one, cut to the object.

    test.each([
      ["from the start", { first: 0, last: 3 }, "0123"],
      ["inside", { first: 4, last: 6 }, "456"],
      ["one byte", { first: 9, last: 9 }, "9"],
      ["to the end", { first: 7 }, "789"],
      ["past the end", { first: 7, last: 99 }, "789"],
      ["behind the end", { first: 10, last: 12 }, ""],
      ["far behind the end", { first: 99 }, ""],
      ["from the end", { first: -3 }, "789"],
      ["more than all from the end", { first: -99 }, "0123456789"],
    ])("a range %s", async (_law, range, expected) => {
      const destination = await fresh();
      await destination.write("digits", text("0123456789"));
      const body = await destination.read("digits", { range });
      expect(body?.sizeBytes).toBe(10);
      expect(await collectText(body)).toBe(expected);
    });

    // Goal: stopping stops: the signal's reason comes back, nothing is left behind, and the destination goes on working.

    test("an aborted signal ends every operation with its reason", async () => {
      const destination = await fresh();
      await destination.write("key", text("x"));
      const reason = new Error("stop, says the test");
      const signal = AbortSignal.abort(reason);
      const attempts = [
        () => destination.head("key", { signal }),
        () => destination.read("key", { signal }),
        () => destination.write("key", text("y"), { signal }),
        () => destination.remove(["key"], { signal }),
        () => listOf(destination, "", { signal }),
      ];
      for (const attempt of attempts) expect(await rejection(attempt())).toBe(reason);
      expect(await readText(destination, "key")).toBe("x");
    });

    test("a signal that comes in the middle of a write leaves no object, and in the middle of a read ends it", async () => {
      const destination = await fresh();
      const file = await makeFile(join(folder, "abort"), 30 * MiB);
      const reason = new Error("stop, says the test");
      const writing = new AbortController();
      const write = destination.write("aborted", file.source, {
        signal: writing.signal,
        onProgress: () => writing.abort(reason),
      });
      expect(await rejection(write)).toBe(reason);
      expect(await destination.head("aborted")).toBeNull();
      expect(await keysOf(destination, "")).toEqual([]);
      expect(await subject.leftovers()).toEqual([]);

      await destination.write("there", file.source);
      const reading = new AbortController();
      const body = await destination.read("there", { signal: reading.signal });
      const read = (async () => {
        for await (const _ of body?.chunks ?? []) reading.abort(reason);
      })();
      expect(await rejection(read)).toBe(reason);
      await destination.remove(["there"]);
    });

    test("a body may be left early, or never begun", async () => {
      const destination = await fresh();
      const file = await makeFile(join(folder, "early"), 4 * MiB);
      await destination.write("there", file.source);
      for (let round = 0; round < 50; round++) {
        const body = await destination.read("there");
        if (round % 2 === 0) await body?.chunks[Symbol.asyncIterator]().return?.();
        else for await (const _ of body?.chunks ?? []) break;
      }
      expect((await destination.head("there"))?.sizeBytes).toBe(4 * MiB);
    });

    test("prepare accepts a place that is there", async () => {
      const destination = await fresh();
      await destination.prepare();
      await destination.prepare();
      expect(await keysOf(destination, "")).toEqual([]);
      expect(await subject.leftovers()).toEqual([]);
    });

    destinationModelTest(fresh);
  });
}
