// Goal: verify finds every damage of every kind, says which file it is, and finds nothing where nothing is wrong. What it calls
// proven can be restored, and what cannot be restored it calls an error.
import { afterAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { readChain } from "../../src/chain/chain.ts";
import { pointsOf, restorePoints } from "../../src/chain/plan.ts";
import { formatKey } from "../../src/destination/layout.ts";
import { openDestination } from "../../src/destination/open.ts";
import type { Finding, FindingCode } from "../../src/upkeep/findings.ts";
import { removeOrphans } from "../../src/upkeep/manifest-check.ts";
import { type VerifyReport, verifyDatabase } from "../../src/upkeep/verify.ts";
import { ChainFolder, ltxBytes } from "../chain/make.ts";
import { randomFrom } from "../ltx/make.ts";
import { makeChain, outcomeOf, txidTarget } from "../restore/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
const random = randomFrom(seed);
const chain = await makeChain(join(dir, "chain"), { count: 9, snapshotsAt: [4n, 7n] });
const ltxFiles = chain.objects;

afterAll(() => chain.destination.close());

/** A copy of the chain that a test may damage. */
function copyOf(damage: (folder: string) => void): string {
  const root = join(dir, crypto.randomUUID());
  cpSync(join(chain.folder, ".."), root, { recursive: true });
  damage(join(root, "app"));
  return root;
}

async function verify(root: string, quick = false): Promise<VerifyReport> {
  const destination = await openDestination(root);
  try {
    return await verifyDatabase(destination, "app", { quick });
  } finally {
    destination.close();
  }
}

const errorsOf = ({ findings }: { findings: Finding[] }) => findings.filter(({ severity }) => severity === "error");
const codesOf = (report: VerifyReport) => [...new Set(errorsOf(report).map(({ code }) => code))].sort();
const pick = <T>(items: readonly T[]): T => items[random() % items.length]!;

describe(`verify, seed ${seed}`, () => {
  test("finds nothing in a chain that is whole, and proves every restore point", async () => {
    for (const quick of [false, true]) {
      const report = await verify(join(chain.folder, ".."), quick);
      expect(report.findings).toEqual([]);
      expect(report).toMatchObject({ files: 11, points: 9, proven: quick ? 0 : 9, layout: "walsync" });
      expect(report.bytes).toBeGreaterThan(1000);
    }
  });

  test("any bit flipped in any file is told, with its key", async () => {
    for (const name of ltxFiles) {
      const at = random() % (readFileSync(join(chain.folder, name)).length * 8);
      const root = copyOf((folder) => {
        const bytes = readFileSync(join(folder, name));
        bytes[at >> 3]! ^= 1 << (at & 7);
        writeFileSync(join(folder, name), bytes);
      });
      const report = await verify(root);
      expect([name, at, errorsOf(report).some(({ key }) => key === `app/${name}`)]).toEqual([name, at, true]);
    }
  });

  test("any file cut short, or longer by a byte", async () => {
    for (const name of ltxFiles) {
      const size = readFileSync(join(chain.folder, name)).length;
      for (const to of [0, random() % size, size + 1]) {
        const root = copyOf((folder) => truncateSync(join(folder, name), to));
        for (const quick of [false, true]) {
          const report = await verify(root, quick);
          expect([name, to, errorsOf(report).some(({ key }) => key === `app/${name}`)]).toEqual([name, to, true]);
        }
      }
    }
  });

  test("any file with the contents of another one", async () => {
    for (const name of ltxFiles) {
      const other = pick(ltxFiles.filter((one) => one !== name));
      const root = copyOf((folder) => writeFileSync(join(folder, name), readFileSync(join(chain.folder, other))));
      for (const quick of [false, true]) expect(codesOf(await verify(root, quick))).toContain("file-damaged");
    }
  });

  test("any file missing: an orphan of the manifest, and a gap wherever a restore fails", async () => {
    for (const name of ltxFiles) {
      const root = copyOf((folder) => rmSync(join(folder, name)));
      const report = await verify(root);
      expect(report.findings.filter(({ code }) => code === "manifest-orphan").map(({ key }) => key)).toEqual([
        `app/${name}`,
      ]);
      const { proven, points } = report;
      const destination = await openDestination(root);
      const { files } = await readChain(destination, "app");
      let restorable = 0;
      for (const txid of restorePoints(files)) {
        const outcome = await outcomeOf({ ...chain, destination }, join(root, "out", "app.db"), txidTarget(txid));
        if (typeof outcome !== "string") restorable++;
      }
      expect([name, proven, points]).toEqual([name, restorable, restorePoints(files).length]);
      const isTold = report.findings.some(({ code }) => code === "chain-gap" || code === "unreachable");
      if (restorable < points) expect([name, isTold]).toEqual([name, true]);
      if (/^0*1-0*[47]\./.test(name)) expect([name, isTold, restorable]).toEqual([name, false, points]);
      destination.close();
    }
  });

  test("of random damage: a point that it calls proven can be restored, and one that cannot be is an error", async () => {
    for (let round = 0; round < 25; round++) {
      const root = copyOf((folder) => {
        for (let i = random() % 3; i >= 0; i--) {
          const path = join(folder, pick(ltxFiles));
          if (!existsSync(path)) continue;
          if (random() % 2 === 0) rmSync(path);
          else {
            const bytes = readFileSync(path);
            bytes[random() % bytes.length]! ^= 1 + (random() % 255);
            writeFileSync(path, bytes);
          }
        }
      });
      const report = await verify(root);
      const destination = await openDestination(root);
      const { files } = await readChain(destination, "app");
      let failing = 0;
      for (const txid of restorePoints(files)) {
        const outcome = await outcomeOf({ ...chain, destination }, join(root, "out", "app.db"), txidTarget(txid));
        if (typeof outcome === "string") failing++;
        else expect(Buffer.compare(outcome, chain.states.get(txid)!)).toBe(0);
      }
      expect(report.points - report.proven).toBeGreaterThanOrEqual(failing);
      if (failing > 0) expect(report.findings.length).toBeGreaterThan(0);
      destination.close();
    }
  });
});

describe("the manifest", () => {
  const edit = (change: (text: string) => string) =>
    copyOf((folder) => {
      const path = join(folder, "manifest.json");
      writeFileSync(path, change(readFileSync(path, "utf8")));
    });

  test.each([
    ["missing", () => copyOf((folder) => rmSync(join(folder, "manifest.json"))), "manifest-missing"],
    ["empty", () => edit((text) => text.replace(/"files": \[[^\]]*\]/, '"files": []')), "manifest-missing"],
    ["no JSON", () => edit((text) => text.slice(0, -9)), "manifest-damaged"],
    ["of another name", () => edit((text) => text.replace('"name": "app"', '"name": "other"')), "manifest-differs"],
    ["with another size", () => edit((text) => text.replace(/"size":(\d)/, '"size":9$1')), "manifest-differs"],
    [
      "with another checksum",
      () => edit((text) => text.replace(/"post_checksum":"[0-9a-f]{2}/, '"post_checksum":"80')),
      "manifest-differs",
    ],
    [
      "with another sha256",
      () => edit((text) => text.replace(/"sha256":"[0-9a-f]{8}/, '"sha256":"00000000')),
      "sha256-differs",
    ],
  ])("%s is an error", async (_, make, code) => {
    const root = make();
    expect(codesOf(await verify(root))).toEqual([code as FindingCode]);
  });

  test("that lacks old files is behind, which is a warning", async () => {
    const root = edit((text) =>
      text
        .replace(/ *\{"key":"00000003-00000003.ltx".*\n/, "")
        .replace(/"updated_at": "[^"]*"/, `"updated_at": "${new Date(Date.now() + 3_600_000).toISOString()}"`),
    );
    const { findings } = await verify(root, true);
    expect(findings.map(({ code, severity }) => [code, severity])).toContainEqual(["manifest-behind", "warning"]);
    expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
  });

  test("loses its orphans by --fix, and nothing else", async () => {
    const root = copyOf((folder) => {
      rmSync(join(folder, "00000002-00000002.ltx"));
      rmSync(join(folder, "00000005-00000005.ltx"));
    });
    const before = readFileSync(join(root, "app/manifest.json"), "utf8");
    const destination = await openDestination(root);
    expect(await removeOrphans(destination, "app")).toEqual(["app/00000002-00000002.ltx", "app/00000005-00000005.ltx"]);
    expect(await removeOrphans(destination, "app")).toEqual([]);
    destination.close();
    const kept = (text: string) =>
      text
        .split("\n")
        .filter((line) => line.includes('"key"'))
        .map((line) => line.replace(/,$/, ""));
    expect(kept(readFileSync(join(root, "app/manifest.json"), "utf8"))).toEqual(
      kept(before).filter((line) => !/"key":"0000000[25]-/.test(line)),
    );
    expect(codesOf(await verify(root))).not.toContain("manifest-orphan");
  });
});

test("a file that is pruned while it is read is not missing", async () => {
  const root = copyOf(() => {});
  const destination = await openDestination(root);
  const { read } = destination;
  let isPruned = false;
  destination.read = (key, options) => {
    if (!isPruned && key.endsWith("00000002-00000002.ltx")) {
      isPruned = true;
      // A merged file takes the place of the first ones; here all that the second snapshot makes superfluous goes.
      for (const name of readdirSync(join(root, "app"))) {
        if (/^0000000[123]-0000000[123]\.ltx$/.test(name)) renameSync(join(root, "app", name), join(root, name));
      }
    }
    return read.call(destination, key, options);
  };
  const report = await verifyDatabase(destination, "app", { quick: false });
  expect(isPruned).toBe(true);
  expect(report.findings.map(({ code }) => code)).not.toContain("file-missing");
  expect(report.proven).toBe(6);
  destination.close();
});

describe("what Litestream's retention leaves", () => {
  type Listed = [level: number, minTxid: number, maxTxid: number];

  async function verifyListed(listing: readonly Listed[]): Promise<VerifyReport & { lost: bigint[] }> {
    const folder = new ChainFolder(join(dir, crypto.randomUUID()));
    const { destination } = folder;
    for (const [level, ...range] of listing) {
      const [minTxid, maxTxid] = range.map(BigInt) as [bigint, bigint];
      const key = formatKey({ layout: "litestream", folders: "directory", name: "app", level, minTxid, maxTxid });
      folder.put(key, ltxBytes(minTxid, maxTxid, { withoutChecksums: true }));
    }
    const { files } = await readChain(destination, "app");
    return { ...(await verifyDatabase(destination, "app", { quick: false })), lost: pointsOf(files).lost };
  }

  // Level 0 lost its first files, level 1 holds them, and a snapshot was taken in the middle of those.
  const left: Listed[] = [
    [9, 1, 3],
    [1, 4, 5],
    [0, 8, 8],
    [0, 9, 9],
    [9, 1, 9],
    [1, 6, 10],
    [0, 10, 10],
  ];

  test("is no gap where a merged file leads past it, whatever snapshot is between", async () => {
    const report = await verifyListed(left);
    expect(errorsOf(report)).toEqual([]);
    expect(report).toMatchObject({ points: 4, proven: 4 });
  });

  test("is one where nothing leads past it", async () => {
    const report = await verifyListed(left.filter(([level, minTxid]) => level !== 1 || minTxid !== 6));
    expect(errorsOf(report)).toMatchObject([
      { code: "chain-gap", key: "app/ltx/0/0000000000000008-0000000000000008.ltx" },
    ]);
  });

  test(`is a gap exactly where restore points are lost, in any listing, seed ${seed}`, async () => {
    let gaps = 0;
    for (let round = 0; round < 40; round++) {
      const listing = new Map<string, Listed>([["first", [9, 1, 1]]]);
      for (let i = 0; i < 12; i++) {
        const level = pick([0, 0, 0, 1, 1, 2, 9]);
        const maxTxid = 2 + (random() % 14);
        const minTxid = level === 9 ? 1 : level === 0 ? maxTxid : 2 + (random() % (maxTxid - 1));
        listing.set(`${level} ${minTxid} ${maxTxid}`, [level, minTxid, maxTxid]);
      }
      const report = await verifyListed([...listing.values()]);
      const told = errorsOf(report).map(({ code }) => code);
      if (told.length > 0) gaps++;
      expect({ listing, told: [...new Set(told)] }).toEqual({
        listing,
        told: report.lost.length > 0 ? ["chain-gap"] : [],
      });
    }
    expect(gaps).toBeGreaterThan(3);
  }, 30_000);
});
