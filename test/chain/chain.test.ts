// Goal: a listing becomes chains without loss: foreign files are left out, every name is found, and two layouts under one
// name are an error.
import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { findTxidAt, hashObject, readChain, readChains, readFileEnds, readFileHeader } from "../../src/chain/chain.ts";
import { openDestination } from "../../src/destination/open.ts";
import { makeChain } from "../restore/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const made = await makeChain(join(dir, "made"));

async function bucketOf(...keys: string[]) {
  const root = join(dir, crypto.randomUUID());
  for (const key of keys) {
    mkdirSync(dirname(join(root, key)), { recursive: true });
    writeFileSync(join(root, key), "x");
  }
  return openDestination(root);
}

describe("listings", () => {
  test("are sorted into chains by name; what is none of ours is left out", async () => {
    const destination = await bucketOf(
      "shop/00000001-00000001.ltx",
      "shop/00000002-00000002.ltx",
      "shop/manifest.json",
      "shop/notes.txt",
      "tenants/7/00000001-00000009.ltx",
      "README.md",
      "other/app.db",
    );
    const chains = await readChains(destination, "");
    expect(chains.map(({ name, files }) => [name, files.length])).toEqual([
      ["shop", 2],
      ["tenants/7", 1],
    ]);
    expect(chains[0]!.files.map(({ kind }) => kind).sort()).toEqual(["increment", "snapshot"]);
    const [only] = await readChains(destination, "tenants/7/", "tenants/7");
    expect(only!.files[0]).toMatchObject({ kind: "snapshot", minTxid: 1n, maxTxid: 9n, sizeBytes: 1 });
  });

  test("of a name do not take in what lies below another name in it", async () => {
    const destination = await bucketOf(
      "a/00000001-00000001.ltx",
      "a/b/00000001-00000001.ltx",
      "a/b/00000002-00000002.ltx",
    );
    expect((await readChain(destination, "a")).files).toHaveLength(1);
    expect((await readChain(destination, "a/b")).files).toHaveLength(2);
  });

  test("of an unknown name say which names there are", async () => {
    const destination = await bucketOf("shop/00000001-00000001.ltx", "blog/00000001-00000001.ltx");
    await expect(readChain(destination, "shpo")).rejects.toMatchObject({
      code: "E_NOT_FOUND",
      hint: "There is: blog, shop",
    });
    const empty = join(dir, "empty");
    mkdirSync(empty);
    await expect(readChain(await openDestination(empty), "shop")).rejects.toMatchObject({ code: "E_NOT_FOUND" });
    await expect(readChain(await openDestination(join(dir, "missing")), "shop")).rejects.toMatchObject({
      code: "E_REFUSED",
    });
  });

  test("with two layouts under one name are an error", async () => {
    const destination = await bucketOf("a/00000001-00000001.ltx", "a/ltx/0/0000000000000001-0000000000000001.ltx");
    await expect(readChain(destination, "a")).rejects.toMatchObject({ code: "E_INTEGRITY" });
  });
});

describe("files", () => {
  test("tell their header and trailer in small reads", async () => {
    const chain = await readChain(made.destination, "app");
    for (const file of chain.files) {
      const { header, trailer } = await readFileEnds(made.destination, file);
      expect(header.maxTxid).toBe(file.maxTxid);
      expect(header.timestampMs).toBe(made.timestamps.get(file.maxTxid)!);
      expect(trailer.postApplyChecksum >> 63n).toBe(1n);
    }
  });

  test("under a name that is not theirs are an error", async () => {
    const chain = await readChain(made.destination, "app");
    const file = { ...chain.files[0]!, maxTxid: 99n };
    await expect(readFileHeader(made.destination, file)).rejects.toMatchObject({ code: "E_LTX" });
  });

  test("that are cut off are named in the error", async () => {
    const destination = await bucketOf("a/00000001-00000001.ltx");
    const { files } = await readChain(destination, "a");
    await expect(readFileHeader(destination, files[0]!)).rejects.toThrow("a/00000001-00000001.ltx: LTX header");
    await expect(readFileEnds(destination, files[0]!)).rejects.toThrow("a/00000001-00000001.ltx: LTX header");
  });

  test("that vanish after they were listed are an error that says to try again", async () => {
    const other = await makeChain(join(dir, "vanishing"), { count: 2, snapshotsAt: [] });
    const chain = await readChain(other.destination, "app");
    for (const name of readdirSync(other.folder)) rmSync(join(other.folder, name));
    const atMs = other.timestamps.get(2n)!;
    await expect(findTxidAt(other.destination, chain, atMs)).rejects.toMatchObject({
      code: "E_UNREACHABLE",
      retryable: true,
    });
    await expect(hashObject(other.destination, chain.files[0]!)).rejects.toMatchObject({ code: "E_UNREACHABLE" });
  });
});
