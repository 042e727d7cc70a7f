// Goal: whatever happens to the objects of a chain, a restore gives the exact bytes of the point it was asked for, or an
// error of the right kind. Never other bytes, and never something under the output's name.
import { afterEach, describe, expect, test } from "bun:test";
import { cpSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ChecksumAccumulator, pageChecksum } from "../../src/ltx/checksum.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { encodeFile, type PageMap, randomFrom } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";
import { type MadeChain, makeChain, outcomeOf, timeTarget, txidTarget } from "./make.ts";

const dir = tempDir();
const output = join(dir, "restored.db");
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
const random = randomFrom(seed);
const chain = await makeChain(join(dir, "chain"));
const txids = [...chain.states.keys()];
const newest = txids.at(-1)!;
const original = `${chain.folder}.original`;
cpSync(chain.folder, original, { recursive: true });

afterEach(() => {
  rmSync(chain.folder, { recursive: true });
  cpSync(original, chain.folder, { recursive: true });
});

const pathOf = (name: string) => join(chain.folder, name);
const rangeOf = (name: string) => name.replace(".ltx", "").split("-").map(BigInt) as [bigint, bigint];
/** Without the manifest nothing but the files themselves tells whether they are whole. */
const dropManifest = () => rmSync(pathOf("manifest.json"));
const nameOf = (minTxid: bigint, maxTxid: bigint) =>
  chain.objects.find((name) => rangeOf(name)[0] === minTxid && rangeOf(name)[1] === maxTxid)!;

async function expectExactOr(codes: readonly string[], targets = txids): Promise<string[]> {
  const errors: string[] = [];
  for (const txid of targets) {
    const outcome = await outcomeOf(chain, output, txidTarget(txid));
    if (typeof outcome !== "string") expect(Buffer.compare(outcome, chain.states.get(txid)!)).toBe(0);
    else {
      expect(codes).toContain(outcome);
      errors.push(`${outcome} at ${txid}`);
    }
  }
  return errors;
}

describe(`damaged objects, seed ${seed}`, () => {
  test("any bit flipped", async () => {
    dropManifest();
    let errors = 0;
    for (let i = 0; i < 300; i++) {
      const path = pathOf(chain.objects[random() % chain.objects.length]!);
      const bytes = readFileSync(path);
      const damaged = Buffer.from(bytes);
      damaged[random() % damaged.length]! ^= 1 << (random() % 8);
      writeFileSync(path, damaged);
      const target = txids[random() % txids.length]!;
      errors += (await expectExactOr(["E_LTX", "E_INTEGRITY"], [target])).length;
      writeFileSync(path, bytes);
    }
    expect(errors).toBeGreaterThan(50);
  });

  test("any bit of a header flipped, asked for by time", async () => {
    dropManifest();
    for (let i = 0; i < 300; i++) {
      const path = pathOf(chain.objects[random() % chain.objects.length]!);
      const bytes = readFileSync(path);
      const damaged = Buffer.from(bytes);
      damaged[random() % 100]! ^= 1 << (random() % 8);
      writeFileSync(path, damaged);
      const atMs = chain.timestamps.get(txids[random() % txids.length]!)!;
      const meant = txids.findLast((txid) => chain.timestamps.get(txid)! <= atMs)!;
      const outcome = await outcomeOf(chain, output, timeTarget(atMs));
      if (typeof outcome === "string") expect(["E_LTX", "E_INTEGRITY"]).toContain(outcome);
      else expect(Buffer.compare(outcome, chain.states.get(meant)!)).toBe(0);
      writeFileSync(path, bytes);
    }
  });

  test("cut off, or longer by a byte", async () => {
    dropManifest();
    for (const name of chain.objects) {
      const bytes = readFileSync(pathOf(name));
      const [, maxTxid] = rangeOf(name);
      for (const length of [0, 1, 99, 100, 106, random() % bytes.length, bytes.length - 1, bytes.length + 1]) {
        writeFileSync(pathOf(name), Buffer.concat([bytes, Buffer.from([0])]).subarray(0, length));
        const errors = await expectExactOr(["E_LTX"], [maxTxid]);
        // Where a snapshot stands beside the increment of one txid, only the snapshot is read.
        const isRead = rangeOf(name)[0] === 1n || nameOf(1n, maxTxid) === undefined;
        expect(errors.length).toBe(isRead ? 1 : 0);
      }
      writeFileSync(pathOf(name), bytes);
    }
  });

  test("with the contents of another one, any two", async () => {
    dropManifest();
    for (const a of chain.objects) {
      for (const b of chain.objects) {
        if (a >= b) continue;
        renameSync(pathOf(a), pathOf("x"));
        renameSync(pathOf(b), pathOf(a));
        renameSync(pathOf("x"), pathOf(b));
        const errors = await expectExactOr(["E_LTX"], [rangeOf(a)[1], rangeOf(b)[1], newest]);
        expect(errors.length).toBeGreaterThan(0);
        renameSync(pathOf(a), pathOf("x"));
        renameSync(pathOf(b), pathOf(a));
        renameSync(pathOf("x"), pathOf(b));
      }
    }
  });
});

describe("missing objects", () => {
  test("any one of them: a gap is an error for every point behind it, the newest too", async () => {
    for (const name of chain.objects) {
      rmSync(pathOf(name));
      const [minTxid, maxTxid] = rangeOf(name);
      const errors = await expectExactOr(["E_CHAIN_GAP", "E_NOT_FOUND"]);
      if (name === nameOf(2n, 2n)) expect(errors).toEqual(["E_NOT_FOUND at 2", "E_CHAIN_GAP at 3"]);
      if (name === nameOf(6n, 6n)) {
        expect(errors).toEqual(["E_CHAIN_GAP at 6", "E_CHAIN_GAP at 7"]);
        expect(await outcomeOf(chain, output, { kind: "newest" })).toBe("E_CHAIN_GAP");
      }
      // The increments bridge a missing snapshot, but for the first.
      if (minTxid === 1n && maxTxid > 1n) expect(errors).toEqual([]);
      cpSync(join(original, name), pathOf(name));
    }
  });

  test("all snapshots", async () => {
    for (const name of chain.objects) if (rangeOf(name)[0] === 1n) rmSync(pathOf(name));
    expect(await outcomeOf(chain, output, { kind: "newest" })).toBe("E_CHAIN_GAP");
    expect(await outcomeOf(chain, output, timeTarget(Date.now()))).toBe("E_CHAIN_GAP");
  });

  test("everything", async () => {
    for (const name of readdirSync(chain.folder)) rmSync(pathOf(name));
    expect(await outcomeOf(chain, output, { kind: "newest" })).toBe("E_NOT_FOUND");
  });
});

describe("valid files that do not belong", () => {
  test("of another database", async () => {
    const other = await makeChain(join(dir, "other"));
    for (const name of chain.objects) {
      const [minTxid, maxTxid] = rangeOf(name);
      cpSync(join(other.folder, name), pathOf(name));
      // A snapshot depends on no other file: only the manifest knows that it is a stranger.
      const manifest = readFileSync(pathOf("manifest.json"));
      if (minTxid > 1n) dropManifest();
      const errors = await expectExactOr(["E_INTEGRITY"]);
      const isRead = minTxid === 1n || nameOf(1n, maxTxid) === undefined;
      expect(errors.length > 0).toBe(isRead);
      writeFileSync(pathOf("manifest.json"), manifest);
      cpSync(join(original, name), pathOf(name));
    }
  });

  test("with pages of another size", async () => {
    const other = await makeChain(join(dir, "other-size"), { pageSize: 1024 });
    dropManifest();
    cpSync(join(other.folder, nameOf(6n, 6n)), pathOf(nameOf(6n, 6n)));
    expect(await expectExactOr(["E_INTEGRITY"], [6n, 7n])).toHaveLength(2);
  });

  test("a page changed and every checksum made anew: the chain tells, or the manifest", async () => {
    const name = nameOf(7n, 7n);
    const forged = forge(chain, name);
    writeFileSync(pathOf(name), forged);
    expect(await outcomeOf(chain, output, txidTarget(7n))).toBe("E_INTEGRITY");
    // In the middle of the chain the next file's pre-apply checksum tells too.
    dropManifest();
    cpSync(join(original, name), pathOf(name));
    writeFileSync(pathOf(nameOf(6n, 6n)), forge(chain, nameOf(6n, 6n)));
    expect(await outcomeOf(chain, output, txidTarget(7n))).toBe("E_INTEGRITY");
  });

  test("a manifest that is damaged is told, not skipped", async () => {
    writeFileSync(pathOf("manifest.json"), readFileSync(pathOf("manifest.json")).subarray(0, -10));
    expect(await outcomeOf(chain, output, { kind: "newest" })).toBe("E_INTEGRITY");
  });

  test("files that are none of ours", async () => {
    for (const name of ["README", "notes.ltx", "1-1.ltx", "00000001-x.ltx"]) writeFileSync(pathOf(name), "hello");
    expect(await expectExactOr([])).toEqual([]);
  });
});

/** The file with one byte of one page changed, and with the checksums that such a file must have. */
function forge({ folder, states }: MadeChain, name: string): Uint8Array {
  const pages: PageMap = new Map();
  const decoder = new LtxDecoder({ name, onPage: (pgno, page) => void pages.set(pgno, page.slice()) });
  decoder.push(readFileSync(join(folder, name)));
  const { header } = decoder.finish();
  const content = Buffer.from(states.get(header.maxTxid)!);
  const [pgno, page] = [...pages].at(-1)!;
  page[page.length - 1]! ^= 1;
  content.set(page, (pgno - 1) * header.pageSize);
  const sum = { hi: 0, lo: 0 };
  const total = new ChecksumAccumulator();
  for (let i = 0; i < header.commit; i++) {
    pageChecksum(i + 1, content.subarray(i * header.pageSize, (i + 1) * header.pageSize), sum);
    total.xorPage(sum.hi, sum.lo);
  }
  return encodeFile(header, pages, total.value());
}
