// Goal: a manifest is read back exactly or refused, and never loses what a writer was told is in it: between processes
// on a real directory, where each replaces only what it has read.
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { MiB } from "../../src/bytes.ts";
import {
  formatManifest,
  type Manifest,
  type ManifestEntry,
  parseManifest,
  readHashes,
  readManifest,
  withEntries,
} from "../../src/chain/manifest.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { DestinationError, WalsyncError } from "../../src/errors.ts";
import { ownFilesIn, rejection } from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";
import { ChainFolder } from "./make.ts";

const dir = tempDir();
let count = 0;
const newFolder = () => new ChainFolder(join(dir, String(count++)));

function entry(txid: bigint, changes: Partial<ManifestEntry> = {}): ManifestEntry {
  return {
    key: `${String(txid).padStart(8, "0")}-${String(txid).padStart(8, "0")}.ltx`,
    kind: txid === 1n ? "snapshot" : "increment",
    minTxid: txid,
    maxTxid: txid,
    sizeBytes: 1234,
    createdAtMs: 1_700_000_000_123,
    sha256: "0123456789abcdef".repeat(4),
    preChecksum: txid === 1n ? 0n : (1n << 63n) | 5n,
    postChecksum: (1n << 64n) - 1n,
    ...changes,
  };
}

function manifestOf(files: ManifestEntry[], changes: Partial<Manifest> = {}): Manifest {
  return { name: "app", lineage: "00c0ffee00c0ffee", pageSize: 4096, updatedAtMs: 0, files, ...changes };
}

const whole = manifestOf([entry(1n), entry(2n)]);

function refusal(text: string): WalsyncError {
  try {
    parseManifest(text, "app");
  } catch (error) {
    if (error instanceof WalsyncError) return error;
    throw error;
  }
  throw new Error(`expected a refusal of ${text.slice(0, 500)}`);
}

/** The manifest as JSON with the value at this path replaced; undefined removes it. */
function replaced(path: readonly (string | number)[], value: unknown): string {
  const json = JSON.parse(formatManifest(whole));
  const parent = path.slice(0, -1).reduce((at, step) => at[step], json);
  parent[path.at(-1)!] = value;
  return JSON.stringify(json);
}

describe("the text", () => {
  test("is the documented one: names, numbers, times in UTC, sixteen hex digits", () => {
    const { files, ...head } = JSON.parse(formatManifest(whole));
    expect(head).toEqual({
      version: 1,
      name: "app",
      lineage: "00c0ffee00c0ffee",
      page_size: 4096,
      updated_at: "1970-01-01T00:00:00.000Z",
    });
    expect(files[0]).toEqual({
      key: "00000001-00000001.ltx",
      kind: "snapshot",
      min_txid: 1,
      max_txid: 1,
      size: 1234,
      created_at: "2023-11-14T22:13:20.123Z",
      sha256: "0123456789abcdef".repeat(4),
      pre_checksum: "0000000000000000",
      post_checksum: "ffffffffffffffff",
    });
    expect(files[1].pre_checksum).toBe("8000000000000005");
  });

  test.each<[string, Manifest]>([
    ["without files", manifestOf([])],
    ["with the largest txid that JSON holds", manifestOf([entry(2n ** 53n - 1n)])],
    [
      "with times at both ends of what a date holds",
      manifestOf([entry(2n, { createdAtMs: 8.64e15 })], { updatedAtMs: -8.64e15 }),
    ],
    ["with a name that JSON must escape", manifestOf([], { name: 'ä/"\\ \u2028/x' })],
  ])("is read back, %s", (_, manifest) => {
    expect(parseManifest(formatManifest(manifest), manifest.name)).toEqual(manifest);
  });

  test("cut off anywhere is refused, and names its file and a way out", () => {
    const text = formatManifest(whole).trimEnd();
    for (let length = 0; length < text.length; length++) {
      const error = refusal(text.slice(0, length));
      expect(error).toMatchObject({ code: "E_INTEGRITY", message: expect.stringMatching(/^app\/manifest\.json: /) });
      expect(error.hint).toContain("Move it away");
      expect(error.cause).toBeInstanceOf(Error);
    }
  });

  test.each([0, 2, 99, "1", null, undefined, true])("of version %p is refused, and the version is told", (version) => {
    expect(refusal(replaced(["version"], version)).message).toContain(`expected version 1, found ${String(version)}`);
  });

  const FIELDS: Record<string, readonly unknown[]> = {
    name: ["", 7, null, ["app"]],
    lineage: ["", "00c0ffee", "00C0FFEE00C0FFEE", "00c0ffee00c0ffee0", "00c0ffee00c0ffeg", 7, null],
    page_size: [-1, 0.5, 2 ** 53, "4096", null],
    updated_at: ["", "yesterday", "2026-13-01T00:00:00Z", 1_700_000_000_000, null],
    files: [null, {}, "x", 7],
  };
  const ENTRY_FIELDS: Record<string, readonly unknown[]> = {
    key: ["", "1-1.ltx", "app/00000001-00000001.ltx", "../00000001-00000001.ltx", "00000001-00000001.ltx\n", 7, null],
    kind: ["", "full", "snapshot ", "increments", null],
    min_txid: [-1, 1.5, 2 ** 53, "1", null],
    max_txid: [-1, 1.5, 2 ** 53, "1", null],
    size: [-1, 1.5, 2 ** 53, "1234", null],
    created_at: ["", "yesterday", 0, null],
    sha256: ["", "0".repeat(63), "0".repeat(65), "A".repeat(64), null],
    pre_checksum: ["", "0".repeat(15), "0".repeat(17), "0x00000000000000", 0, null],
    post_checksum: ["", "0".repeat(15), "-".repeat(16), "F".repeat(16), null],
  };
  const damages = [
    ...Object.entries(FIELDS).map(([field, values]) => [field, [field], values] as const),
    ...Object.entries(ENTRY_FIELDS).map(([field, values]) => [field, ["files", 1, field], values] as const),
  ];
  test.each(damages)("is refused for its %s alone, and the field is told", (field, path, values) => {
    for (const value of [undefined, true, [], { a: 1 }, ...values]) {
      if (field === "files" && Array.isArray(value)) continue;
      expect(refusal(replaced(path, value)).message).toContain(`${field}: expected`);
    }
  });

  test("with an entry that is no object is refused, and its place is told", () => {
    for (const value of [null, 7, "x", [], true]) {
      expect(refusal(replaced(["files", 1], value)).message).toContain("files[1]: expected an object");
    }
    for (const text of ["null", "[]", "7", '"x"']) expect(refusal(text).message).toContain("the manifest: expected");
  });

  test("with any one character changed is refused, or still a manifest of as many files", () => {
    const text = formatManifest(whole);
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.constantFrom(...'0f9x"{}[],:-. \n'), (at, character) => {
        try {
          expect(parseManifest(text.slice(0, at) + character + text.slice(at + 1), "app").files).toHaveLength(2);
        } catch (error) {
          if (!(error instanceof WalsyncError)) throw error;
          expect(error.code).toBe("E_INTEGRITY");
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("entries", () => {
  test("that are added replace those of their key, stand by last txid and then by first, and change nothing else", () => {
    const before = manifestOf([entry(1n), entry(9n), entry(10n)], { updatedAtMs: 5 });
    const copy = structuredClone(before);
    const merged = entry(10n, { key: "00000002-00000010.ltx", minTxid: 2n });
    const renewed = entry(9n, { sizeBytes: 77 });
    const after = withEntries(before, [entry(100_000_000n), merged, renewed], 6);
    expect(after).toEqual({
      ...copy,
      updatedAtMs: 6,
      files: [entry(1n), renewed, merged, entry(10n), entry(100_000_000n)],
    });
    expect(before).toEqual(copy);
  });
});

describe("at a destination", () => {
  test("hashes are found under whole keys, also for names with parts", async () => {
    const folder = newFolder();
    folder.put("a/b/manifest.json", formatManifest(manifestOf([entry(1n)], { name: "a/b" })));
    expect([...(await readHashes(folder.destination, "a/b"))]).toEqual([
      ["a/b/00000001-00000001.ltx", entry(1n).sha256],
    ]);
    expect((await readHashes(folder.destination, "a")).size).toBe(0);
  });

  test("one that is damaged is an error, never none", async () => {
    const folder = newFolder();
    folder.put("app/manifest.json", "");
    for (const read of [readManifest, readHashes])
      expect(await rejection(read(folder.destination, "app"))).toMatchObject({ code: "E_INTEGRITY" });
    const missing = new DirectoryDestination(join(dir, "missing"));
    expect(await rejection(readManifest(missing, "app"))).toBeInstanceOf(DestinationError);
  });

  test("one beyond every bound is refused before all of it is read", async () => {
    const { destination } = newFolder();
    let givenBytes = 0;
    const chunk = new Uint8Array(64 * MiB);
    const endless: Destination = Object.assign(Object.create(destination) as Destination, {
      async read() {
        const chunks = (async function* () {
          for (; givenBytes < 2 ** 40; givenBytes += chunk.length) yield chunk;
        })();
        return { key: "", sizeBytes: 2 ** 40, modifiedAt: new Date(0), etag: "", metadata: {}, chunks };
      },
    });
    const error = await rejection(readManifest(endless, "app"));
    expect(error).toMatchObject({ code: "E_INTEGRITY", message: expect.stringContaining("expected at most") });
    expect(givenBytes).toBeLessThan(1024 * MiB);
  });

  test("its etag replaces only what was read: of writers that read the same, one writes", async () => {
    const folder = newFolder();
    folder.put("app/manifest.json", formatManifest(whole));
    const { etag } = (await readManifest(folder.destination, "app"))!;
    const writers = Array.from({ length: 8 }, (_, i) => {
      const bytes = Buffer.from(formatManifest(withEntries(whole, [entry(BigInt(i + 3))], i)));
      const destination = new DirectoryDestination(folder.root);
      return destination.write("app/manifest.json", { kind: "bytes", bytes }, { condition: { etag } });
    });
    const results = await Promise.all(writers);
    const winners = results.flatMap(({ kind }, i) => (kind === "written" ? [BigInt(i + 3)] : []));
    expect(winners).toHaveLength(1);
    const found = (await readManifest(folder.destination, "app"))!;
    expect(found.manifest.files.map(({ maxTxid }) => maxTxid)).toEqual([1n, 2n, winners[0]!]);
    expect(found.etag).not.toBe(etag);
  });

  test("processes that race lose no entry that they were told is written, and no reader sees half a manifest", async () => {
    const folder = newFolder();
    const keeper = join(import.meta.dir, "../../src/replication/manifest-keeper.ts");
    const directory = join(import.meta.dir, "../../src/destination/directory.ts");
    const child = (first: number) => `
      import { updateManifest } from ${JSON.stringify(keeper)};
      import type { Destination } from "../../src/destination/destination.ts";
import { DirectoryDestination } from ${JSON.stringify(directory)};
      const destination = new DirectoryDestination(${JSON.stringify(folder.root)});
      const identity = { name: "app", lineage: "00c0ffee00c0ffee", pageSize: 4096 };
      for (let txid = ${first}; txid < ${first + 12}; txid++) {
        const digits = String(txid).padStart(8, "0");
        const entry = { key: digits + "-" + digits + ".ltx", kind: "increment", minTxid: BigInt(txid),
          maxTxid: BigInt(txid), sizeBytes: 1, createdAtMs: 0, sha256: "0".repeat(64), preChecksum: 1n, postChecksum: 1n };
        try {
          await updateManifest(destination, identity, [entry], true, Date.now());
          console.log(txid);
        } catch (error) {
          if (error.retryable !== true) throw error;
        }
      }`;
    folder.put("app/README", "x");
    const children = [100, 200, 300].map((first) =>
      Bun.spawn([process.execPath, "-e", child(first)], { stdout: "pipe", stderr: "inherit" }),
    );
    let running = true;
    const exits = Promise.all(children.map(({ exited }) => exited)).finally(() => (running = false));
    let reads = 0;
    while (running) {
      const found = await readManifest(folder.destination, "app").catch((error: unknown) => {
        // Replaced between the look and the read: honest, and worth another attempt.
        if (error instanceof DestinationError && error.retryable) return null;
        throw error;
      });
      if (found !== null) reads++;
      await Bun.sleep(1);
    }
    expect(await exits).toEqual([0, 0, 0]);
    const told = (await Promise.all(children.map(({ stdout }) => new Response(stdout).text())))
      .flatMap((text) => text.trim().split("\n"))
      .map(BigInt);
    const found = (await readManifest(folder.destination, "app"))!;
    const listed = new Set(found.manifest.files.map(({ maxTxid }) => maxTxid));
    expect(told.filter((txid) => !listed.has(txid))).toEqual([]);
    expect(told.length).toBeGreaterThan(18);
    expect(reads).toBeGreaterThan(5);
    expect(ownFilesIn(folder.root)).toEqual([]);
  });
});
