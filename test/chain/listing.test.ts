// Goal: what a listing means is told by its keys alone, in whatever order they come; and a moment is found by headers
// that belong to the keys they are read from.
import { describe, expect, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  type Chain,
  findTxidAt,
  hashObject,
  readChain,
  readChains,
  readFileEnds,
  readFileHeader,
  verifyFile,
} from "../../src/chain/chain.ts";
import { planChain } from "../../src/chain/plan.ts";
import type { Destination, ObjectInfo } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { DestinationError, LtxError } from "../../src/errors.ts";
import { rejection } from "../conformance/helpers.ts";
import { decodeFile, randomFrom } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";
import { ChainFolder, codeOf, ltxBytes, stateChecksum } from "./make.ts";

const dir = tempDir();
let count = 0;
const newChain = () => new ChainFolder(join(dir, String(count++)));
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));

/** As the directory, but its listing is `keys` in this order. */
function listing(keys: readonly string[]): Destination {
  const empty = newChain().destination;
  const infos = keys.map(
    (key, i): ObjectInfo => ({ key, sizeBytes: i, modifiedAt: new Date(i), storedAt: new Date(i), etag: String(i) }),
  );
  return Object.assign(Object.create(empty) as Destination, {
    async *list() {
      yield* infos;
    },
  });
}

const rangesOf = ({ files }: Chain) => files.map(({ minTxid, maxTxid }) => `${minTxid}-${maxTxid}`).sort();
const hex = (txid: number) => txid.toString(16).padStart(16, "0");

describe("a listing", () => {
  test("becomes one chain for each name, by name, with what the destination says of each file", async () => {
    const chain = newChain();
    const path = chain.add("b", 1n, 12n);
    chain.add("a", 1n, 1n);
    chain.add("a", 2n, 3n);
    chain.add("a/nested", 1n, 1n);
    const chains = await readChains(chain.destination, "");
    expect(chains.map(({ name, layout }) => [name, layout])).toEqual([
      ["a", "walsync"],
      ["a/nested", "walsync"],
      ["b", "walsync"],
    ]);
    const info = await chain.destination.head("b/00000001-00000012.ltx");
    expect(chains[2]!.files).toEqual([
      {
        key: "b/00000001-00000012.ltx",
        kind: "snapshot",
        minTxid: 1n,
        maxTxid: 12n,
        sizeBytes: readFileSync(path).length,
        modifiedAt: info!.modifiedAt,
        storedAt: info!.storedAt,
        level: 0,
      },
    ]);
    expect(chains[0]!.files.map(({ kind }) => kind)).toEqual(["snapshot", "increment"]);
  });

  test("of one name leaves out names below it and beside it", async () => {
    const chain = newChain();
    for (const name of ["app", "app/nested", "app2", "ap"]) chain.add(name, 1n, 1n);
    chain.add("app", 2n, 2n);
    const [only, ...others] = await readChains(chain.destination, "app/", "app");
    expect(others).toEqual([]);
    expect(rangesOf(only!)).toEqual(["1-1", "2-2"]);
  });

  test.each([
    "app/README",
    "app/manifest.json",
    "app/manifest.json.bak",
    "app/1-1.ltx",
    "app/00000002-00000001.ltx",
    "app/00000000-00000001.ltx",
    "app/000000002-000000002.ltx",
    "app/00000002-00000002.ltx.tmp",
    "app/00000002-00000002.LTX",
    "app/0000000000000002-0000000000000002.ltx",
    "app/0000/00000002-00000002.ltx",
    "app/000a/0000000000000002-0000000000000002.ltx",
    "app/ltx/10/0000000000000002-0000000000000002.ltx",
    "app/99999999999999999999-99999999999999999999.ltx",
  ])("leaves out a key that is none of ours: %s", async (key) => {
    const chain = newChain();
    chain.add("app", 1n, 1n);
    chain.put(key, ltxBytes(2n, 2n));
    for (const found of [await readChains(chain.destination, ""), [await readChain(chain.destination, "app")]]) {
      expect(found.map((one) => [one.name, rangesOf(one)])).toEqual([["app", ["1-1"]]]);
    }
  });

  test("of nothing but foreign keys holds no chain", async () => {
    expect(await readChains(listing(["README", "app/manifest.json", "app/x.ltx"]), "")).toEqual([]);
    expect(await readChains(listing([]), "")).toEqual([]);
  });

  test.each([
    ["bucket", (level: number) => `app/000${level}`],
    ["directory", (level: number) => `app/ltx/${level}`],
  ])("of another tool's layout in a %s: files from txid 1 on are snapshots, at whatever level", async (_, folder) => {
    const keys = [
      `${folder(0)}/${hex(1)}-${hex(1)}.ltx`,
      `${folder(0)}/${hex(10)}-${hex(10)}.ltx`,
      `${folder(2)}/${hex(1)}-${hex(9)}.ltx`,
      `${folder(9)}/${hex(1)}-${hex(16)}.ltx`,
    ];
    const [chain, ...others] = await readChains(listing(keys), "");
    expect(others).toEqual([]);
    expect(chain).toMatchObject({ name: "app", layout: "litestream" });
    const byKey = Object.fromEntries(chain!.files.map(({ key, kind, maxTxid }) => [key, [kind, maxTxid]]));
    expect(byKey).toEqual({
      [keys[0]!]: ["snapshot", 1n],
      [keys[1]!]: ["increment", 10n],
      [keys[2]!]: ["snapshot", 9n],
      [keys[3]!]: ["snapshot", 16n],
    });
  });

  test("of two layouts below one name is an error in either order, and names the name", async () => {
    const keys = ["app/00000001-00000001.ltx", `app/0000/${hex(1)}-${hex(1)}.ltx`];
    for (const order of [keys, keys.toReversed()]) {
      const error = await rejection(readChains(listing([...order, "b/00000001-00000001.ltx"]), ""));
      expect(error).toMatchObject({ code: "E_INTEGRITY", message: expect.stringContaining("below app") });
    }
    // Two names may be of two tools.
    expect(await readChains(listing([keys[0]!, `b/0000/${hex(1)}-${hex(1)}.ltx`]), "")).toHaveLength(2);
  });

  test("gives the same chains, and the same plans, in any order", async () => {
    const name = fc.constantFrom("a", "b", "a/c");
    const file = fc.tuple(name, fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 5 }));
    const keyOf = ([folder, min, length]: [string, number, number]) =>
      `${folder}/${String(min).padStart(8, "0")}-${String(min + length).padStart(8, "0")}.ltx`;
    const keys = fc
      .uniqueArray(file, { minLength: 1, maxLength: 20, selector: keyOf })
      .map((files) => [...files.map(keyOf), "README", "a/manifest.json"]);
    const shuffles = keys.chain((one) =>
      fc.tuple(fc.constant(one), fc.shuffledSubarray(one, { minLength: one.length, maxLength: one.length })),
    );
    const planOf = ({ name, files }: Chain) =>
      codeOf(() => planChain(name, files, null)) ?? planChain(name, files, null).map(({ key }) => key);
    await fc.assert(
      fc.asyncProperty(shuffles, async ([one, other]) => {
        const [expected, found] = await Promise.all([one, other].map((each) => readChains(listing(each), "")));
        expect(found!.map((chain) => [chain.name, rangesOf(chain), planOf(chain)])).toEqual(
          expected!.map((chain) => [chain.name, rangesOf(chain), planOf(chain)]),
        );
        // Gaps, overlaps and any number of snapshots are for the plan to judge: nothing is dropped here.
        expect(found!.reduce((sum, { files }) => sum + files.length, 0)).toBe(one.length - 2);
      }),
      { numRuns: 200 },
    );
  });
});

describe("a name without files", () => {
  test("is not found, and some of what is there is told", async () => {
    const chain = newChain();
    expect(await rejection(readChain(chain.destination, "app"))).toMatchObject({
      code: "E_NOT_FOUND",
      hint: expect.stringContaining("nothing at all"),
    });
    for (let i = 10; i < 30; i++) chain.add(`db${i}`, 1n, 1n);
    const error = await rejection(readChain(chain.destination, "app"));
    expect(error).toMatchObject({ code: "E_NOT_FOUND" });
    const { hint } = error as { hint: string };
    expect([...(hint.match(/db\d\d/g) ?? [])]).toEqual(Array.from({ length: 10 }, (_, i) => `db${i + 10}`));
  });

  test("is not the same as a destination that is not there", async () => {
    const missing = new DirectoryDestination(join(dir, "missing"));
    expect(await rejection(readChain(missing, "app"))).toBeInstanceOf(DestinationError);
    expect(await rejection(readChains(missing, ""))).toBeInstanceOf(DestinationError);
  });
});

describe("one file", () => {
  test("tells its ends, its hash and its wholeness", async () => {
    const folder = newChain();
    const path = folder.add("app", 2n, 5n, { timestampMs: 42, seed: 9 });
    const [file] = (await readChain(folder.destination, "app")).files;
    expect(await readFileHeader(folder.destination, file!)).toMatchObject({
      minTxid: 2n,
      maxTxid: 5n,
      timestampMs: 42,
    });
    const { trailer } = await readFileEnds(folder.destination, file!);
    expect(trailer.postApplyChecksum).toBe(stateChecksum(9));
    const sha256 = new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
    expect(await hashObject(folder.destination, file!)).toBe(sha256);
    await verifyFile(folder.destination, file!);
  });

  test("of other transactions than its key says is damaged, for every reader", async () => {
    const folder = newChain();
    folder.add("app", 2n, 5n, { inside: { minTxid: 2n, maxTxid: 4n } });
    const [file] = (await readChain(folder.destination, "app")).files;
    for (const read of [readFileHeader, readFileEnds, verifyFile]) {
      const error = await rejection(read(folder.destination, file!));
      expect(error).toBeInstanceOf(LtxError);
      expect((error as LtxError).message).toContain("expected txids 2-5 in its header, found 2-4");
    }
  });

  test("that is gone since it was listed is worth another attempt, for every reader", async () => {
    const folder = newChain();
    rmSync(folder.add("app", 1n, 1n));
    folder.add("app", 2n, 2n);
    const [file] = (await readChain(folder.destination, "app")).files;
    rmSync(join(folder.root, file!.key));
    folder.put("app/other", "x");
    for (const read of [readFileHeader, readFileEnds, verifyFile, hashObject]) {
      const error = await rejection(read(folder.destination, file!));
      expect(error).toMatchObject({ code: "E_UNREACHABLE", retryable: true });
    }
  });

  test("with any bit flipped, or cut off anywhere, is not whole, or it holds the same pages", async () => {
    const folder = newChain();
    const path = folder.add("app", 2n, 2n);
    const whole = readFileSync(path);
    const { pages } = decodeFile(whole);
    const [file] = (await readChain(folder.destination, "app")).files;
    const flipped = Array.from({ length: whole.length }, (_, i) => whole.with(i, whole[i]! ^ (1 << (i % 8))));
    const cutOff = Array.from({ length: 40 }, (_, i) => whole.subarray(0, Math.floor((whole.length * i) / 40)));
    let errors = 0;
    for (const damaged of [...flipped, ...cutOff]) {
      writeFileSync(path, damaged);
      try {
        await verifyFile(folder.destination, file!);
        // Checksums cover what a compressed block stands for: a bit of it that means nothing may differ.
        expect(decodeFile(damaged)).toMatchObject({ header: decodeFile(whole).header, pages });
      } catch (error) {
        if (!(error instanceof LtxError)) throw error;
        errors++;
      }
    }
    expect(errors).toBeGreaterThan(whole.length);
  });
});

describe(`a moment, seed ${seed}`, () => {
  /** A chain with its times, which never decrease, some of them equal. */
  async function timedChain(random: () => number) {
    const folder = newChain();
    const times = new Map<bigint, number>();
    let timestampMs = 1000;
    const first = 1 + (random() % 5);
    const last = first + (random() % 12);
    // Older increments that no snapshot leads to are no restore points.
    for (let txid = 2; txid < first; txid++) folder.add("app", BigInt(txid), BigInt(txid), { timestampMs });
    for (let txid = first; txid <= last; txid++) {
      timestampMs += (random() % 3) * 10;
      times.set(BigInt(txid), timestampMs);
      if (txid > first || random() % 2 === 0) folder.add("app", BigInt(txid), BigInt(txid), { timestampMs });
      if (txid === first || random() % 4 === 0) folder.add("app", 1n, BigInt(txid), { timestampMs });
    }
    return { folder, times, chain: await readChain(folder.destination, "app") };
  }

  test("is the newest restore point at or before it, as found by looking at every one", async () => {
    const random = randomFrom(seed);
    for (let round = 0; round < 25; round++) {
      const { folder, times, chain } = await timedChain(random);
      const moments = [...new Set([...times.values()].flatMap((ms) => [ms - 1, ms, ms + 1])), Number.MAX_SAFE_INTEGER];
      for (const atMs of moments) {
        const expected = [...times].findLast(([, ms]) => ms <= atMs)?.[0];
        const found = findTxidAt(folder.destination, chain, Math.min(atMs, 8e15));
        if (expected === undefined) expect(await rejection(found)).toMatchObject({ code: "E_NOT_FOUND" });
        else expect(await found).toBe(expected);
      }
    }
  });

  test("before the first one is not found, and the first is told", async () => {
    const folder = newChain();
    folder.add("app", 1n, 3n, { timestampMs: Date.UTC(2026, 0, 2) });
    const error = await rejection(findTxidAt(folder.destination, await readChain(folder.destination, "app"), 0));
    expect(error).toMatchObject({ code: "E_NOT_FOUND", hint: expect.stringContaining("2026-01-02T00:00:00.000Z") });
  });

  test("needs few reads, however long the chain is", async () => {
    const folder = newChain();
    for (let txid = 1n; txid <= 200n; txid++) folder.add("app", txid, txid);
    const chain = await readChain(folder.destination, "app");
    let reads = 0;
    const counting: Destination = Object.assign(Object.create(folder.destination) as Destination, {
      read: (...args: Parameters<Destination["read"]>) => {
        reads++;
        return folder.destination.read(...args);
      },
    });
    expect(await findTxidAt(counting, chain, 77_000)).toBe(77n);
    expect(reads).toBeLessThan(12);
  });

  test("is never one that a damaged header made up: an error, or the right one once its own file is verified", async () => {
    const random = randomFrom(seed + 1);
    let errors = 0;
    for (let round = 0; round < 60; round++) {
      const folder = newChain();
      for (let txid = 1n; txid <= 9n; txid++) folder.add("app", txid, txid);
      const chain = await readChain(folder.destination, "app");
      const victim = chain.files[random() % chain.files.length]!;
      const path = join(folder.root, victim.key);
      const bytes = readFileSync(path);
      bytes.writeBigInt64BE(BigInt(random() % 12_000), 32);
      writeFileSync(path, bytes);
      const atMs = 1000 + (random() % 9000);
      try {
        const txid = await findTxidAt(folder.destination, chain, atMs);
        await verifyFile(folder.destination, chain.files.find(({ maxTxid }) => maxTxid === txid)!);
        expect(txid).toBe(BigInt(Math.floor(atMs / 1000)));
      } catch (error) {
        if (!(error instanceof LtxError)) throw error;
        errors++;
      }
    }
    expect(errors).toBeGreaterThan(5);
  });
});
