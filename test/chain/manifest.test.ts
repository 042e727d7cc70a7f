// Goal: the manifest says exactly what was put in, whatever two writers do to it, and a damaged one is told.
import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  formatManifest,
  type Manifest,
  type ManifestEntry,
  parseManifest,
  readHashes,
  readManifest,
  withEntries,
} from "../../src/chain/manifest.ts";
import { openDestination } from "../../src/destination/open.ts";
import { updateManifest } from "../../src/replication/manifest-keeper.ts";
import { makeChain } from "../restore/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const hex = (length: number) =>
  fc
    .array(fc.constantFrom(..."0123456789abcdef"), { minLength: length, maxLength: length })
    .map((digits) => digits.join(""));
const timeMs = fc.integer({ min: 0, max: 4e12 });

const entry: fc.Arbitrary<ManifestEntry> = fc
  .record({
    minTxid: fc.bigInt(1n, 10n ** 8n - 1n),
    length: fc.bigInt(0n, 99n),
    sizeBytes: fc.nat(),
    createdAtMs: timeMs,
    sha256: hex(64),
    pre: hex(16),
    post: hex(16),
  })
  .map(({ minTxid, length, sizeBytes, createdAtMs, sha256, pre, post }) => ({
    key: `${String(minTxid).padStart(8, "0")}-${String(minTxid + length).padStart(8, "0")}.ltx`,
    kind: minTxid === 1n ? "snapshot" : "increment",
    minTxid,
    maxTxid: minTxid + length,
    sizeBytes,
    createdAtMs,
    sha256,
    preChecksum: BigInt(`0x${pre}`),
    postChecksum: BigInt(`0x${post}`),
  }));
const manifest: fc.Arbitrary<Manifest> = fc.record({
  name: fc.constantFrom("app", "tenants/7", 'a "b" \\ c'),
  lineage: hex(16),
  pageSize: fc.constantFrom(512, 4096, 65536),
  updatedAtMs: timeMs,
  files: fc.array(entry, { maxLength: 8 }),
});

describe("the text", () => {
  test("gives back what was put in, and is JSON with one line a file", () => {
    fc.assert(
      fc.property(manifest, (given) => {
        const text = formatManifest(given);
        expect(parseManifest(text, given.name)).toEqual(given);
        expect(JSON.parse(text).files).toHaveLength(given.files.length);
        expect(text.split("\n").filter((line) => line.includes('"sha256"'))).toHaveLength(given.files.length);
      }),
    );
  });

  test("is refused when any part of it is missing or of another kind", () => {
    const [whole] = fc
      .sample(manifest, { numRuns: 1, seed: 5 })
      .map((one) => ({ ...one, files: fc.sample(entry, { numRuns: 2, seed: 6 }) }));
    const values = JSON.parse(formatManifest(whole!));
    const wrong = [null, -1, 1.5, "x", [], {}];
    let refused = 0;
    for (const target of [values, values.files[1]]) {
      for (const field of Object.keys(target)) {
        const right = target[field];
        for (const value of [undefined, ...wrong]) {
          if (Array.isArray(value) && field === "files") continue;
          if (value === "x" && field === "name") continue;
          target[field] = value;
          expect(() => parseManifest(JSON.stringify(values), "app")).toThrow(
            expect.objectContaining({ code: "E_INTEGRITY" }),
          );
          refused++;
        }
        target[field] = right;
      }
    }
    expect(refused).toBeGreaterThan(90);
    for (const text of ["", "{", "[]", "null", formatManifest(whole!).slice(0, -9)]) {
      expect(() => parseManifest(text, "app")).toThrow("app/manifest.json");
    }
  });

  test("with entries added holds each key once, by last txid", () => {
    fc.assert(
      fc.property(manifest, fc.array(entry, { maxLength: 8 }), (before, added) => {
        const { files } = withEntries(before, added, 7);
        expect(files.map(({ key }) => key).sort()).toEqual(
          [...new Set([...before.files, ...added].map(({ key }) => key))].sort(),
        );
        for (const one of added) expect(files.some(({ key }) => key === one.key)).toBe(true);
        for (let i = 1; i < files.length; i++) expect(files[i]!.maxTxid).toBeGreaterThanOrEqual(files[i - 1]!.maxTxid);
      }),
    );
  });
});

describe("at a destination", () => {
  test("it lists every object of a chain with its size and sha256", async () => {
    const chain = await makeChain(join(dir, "chain"));
    const { manifest: found } = (await readManifest(chain.destination, "app"))!;
    expect(found.files.map(({ key }) => key).sort()).toEqual(chain.objects);
    const hashes = await readHashes(chain.destination, "app");
    for (const { key, sizeBytes, sha256, maxTxid, createdAtMs } of found.files) {
      const bytes = readFileSync(join(chain.folder, key));
      expect(sizeBytes).toBe(bytes.length);
      expect(sha256).toBe(new Bun.CryptoHasher("sha256").update(bytes).digest("hex"));
      expect(hashes.get(`app/${key}`)).toBe(sha256);
      expect(createdAtMs).toBe(chain.timestamps.get(maxTxid)!);
    }
  });

  test("two writers at once lose no entry", async () => {
    const root = join(dir, "race");
    mkdirSync(join(root, "app"), { recursive: true });
    const destination = await openDestination(root);
    const identity = { name: "app", lineage: "0123456789abcdef", pageSize: 4096 };
    const entries = fc.sample(entry, { numRuns: 12, seed: 9 });
    const signal = AbortSignal.timeout(10_000);
    const writer = async (mine: ManifestEntry[]) => {
      for (const one of mine) await updateManifest(destination, identity, [one], true, Date.now(), signal);
    };
    await Promise.all([writer(entries.slice(0, 6)), writer(entries.slice(6))]);
    const found = (await readManifest(destination, "app"))!;
    expect(found.manifest.files.map(({ key }) => key).sort()).toEqual(
      [...new Set(entries.map(({ key }) => key))].sort(),
    );
  });

  test("none is no manifest, and no hashes", async () => {
    const destination = await openDestination(join(dir, "race"));
    expect(await readManifest(destination, "nobody")).toBeNull();
    expect((await readHashes(destination, "nobody")).size).toBe(0);
  });
});
