// Goal: first contact leaves no case open, and what it judges by is what the destination truly holds: where the chain
// ends is read from the last file, a gap is seen wherever it is, and what cannot be read is an error, never "nothing".
import { describe, expect, test } from "bun:test";
import { readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { layoutRules, WALSYNC_RULES } from "../../src/chain/layout-rules.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { formatKey } from "../../src/destination/layout.ts";
import { DestinationError, LtxError } from "../../src/errors.ts";
import { type ContactPlan, planContact, type RemoteEnd, readRemoteEnd } from "../../src/replication/contact.ts";
import type { Position } from "../../src/replication/position.ts";
import { ChainFolder, ltxBytes, stateChecksum } from "../chain/make.ts";
import { rejection } from "../conformance/helpers.ts";
import { header } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
let count = 0;
const newChain = () => new ChainFolder(join(dir, String(count++)));

const OURS = (1n << 63n) | 1n;
const OTHER = (1n << 63n) | 2n;

function position(shippedTxid: bigint, capturedTxid: bigint): Position {
  const place = { txid: capturedTxid, checksum: OURS, cursor: null, changeCount: null };
  return {
    destination: "/backups",
    name: "app",
    lineage: "0123456789abcdef",
    shippedTxid,
    snapshotTxid: 0n,
    snapshotAtMs: 0,
    snapshotPageSize: 4096,
    owedTxid: 0n,
    validatedAtMs: 0,
    manifestTxid: 0n,
    file: null,
    captured: { ...place, commit: 1, pageSize: 4096, timestampMs: 0 },
  };
}

function remoteEnd(txid: bigint, checksum: bigint | null = OURS, whole = true): RemoteEnd {
  return { txid, checksum, whole, timestampMs: 0, pageSize: 4096, snapshotTxid: 1n, snapshotAtMs: 0 };
}

interface Case {
  shipped: bigint;
  captured: bigint;
  /** Our checksum after `shipped`, if it is known. */
  atShipped: bigint | null;
  remote: RemoteEnd | null;
}

/** Every order of the three txids, with every answer to each other question. */
function allCases(): Case[] {
  const cases: Case[] = [];
  for (let captured = 1n; captured <= 4n; captured++) {
    for (let shipped = 0n; shipped <= captured; shipped++) {
      // What was captured and shipped last are one state if they are one txid.
      for (const atShipped of shipped === captured ? [OURS, null] : [OURS, OTHER, null]) {
        cases.push({ shipped, captured, atShipped, remote: null });
        for (let txid = 1n; txid <= 6n; txid++) {
          // Not told by anything; and not told by a file of a destination where one of ours would tell it.
          for (const checksum of [OURS, OTHER, null, 0n]) {
            for (const whole of [true, false])
              cases.push({ shipped, captured, atShipped, remote: remoteEnd(txid, checksum, whole) });
          }
        }
      }
    }
  }
  return cases;
}

/** The remote end reaches further than ours, or has another state where we know ours. */
function isForeign({ shipped, captured, atShipped, remote }: Case): boolean {
  if (remote === null) return false;
  const known = new Map([[captured, OURS]]);
  if (atShipped !== null) known.set(shipped, atShipped);
  if (remote.txid > captured) return true;
  return remote.checksum !== null && (known.get(remote.txid) ?? remote.checksum) !== remote.checksum;
}

function expectedPlan(one: Case): ContactPlan {
  if (isForeign(one)) return { kind: "fenced" };
  if ((one.remote?.txid ?? 0n) < one.shipped) return { kind: "snapshot", reason: "files-missing" };
  return one.remote?.whole === false ? { kind: "snapshot", reason: "chain-gap" } : { kind: "continue" };
}

describe("first contact with a position here", () => {
  test("is the row of the table, in every case there is", () => {
    const seen = new Map<string, number>();
    for (const one of allCases()) {
      const plan = planContact(position(one.shipped, one.captured), one.atShipped, one.remote);
      expect({ one, plan }).toEqual({ one, plan: expectedPlan(one) });
      const kind = "reason" in plan ? plan.reason : plan.kind;
      seen.set(kind, (seen.get(kind) ?? 0) + 1);
    }
    expect([...seen.keys()].sort()).toEqual(["chain-gap", "continue", "fenced", "files-missing"]);
    for (const times of seen.values()) expect(times).toBeGreaterThan(20);
  });

  test("one txid makes the difference, however large it is", () => {
    fc.assert(
      fc.property(fc.bigInt(1n, 2n ** 63n), fc.bigInt(0n, 2n ** 20n), (shipped, ahead) => {
        const kindAt = (txid: bigint) => planContact(position(shipped, shipped + ahead), OURS, remoteEnd(txid)).kind;
        const kinds = [shipped - 1n, shipped, shipped + ahead, shipped + ahead + 1n].map(kindAt);
        expect(kinds).toEqual(["snapshot", "continue", "continue", "fenced"]);
      }),
    );
  });
});

describe("the remote end", () => {
  test("of a destination without files of this name is null, whatever else lies there", async () => {
    const chain = newChain();
    expect(await readRemoteEnd(chain.destination, "app", WALSYNC_RULES)).toBeNull();
    for (const name of ["app2", "ap", "app/nested", "app-x"]) chain.add(name, 1n, 1n);
    for (const file of ["manifest.json", "README", "1-1.ltx", "00000002-00000001.ltx"]) chain.put(`app/${file}`, "x");
    expect(await readRemoteEnd(chain.destination, "app", WALSYNC_RULES)).toBeNull();
  });

  test("of a destination that is not there is an error, never null", async () => {
    const missing = new DirectoryDestination(join(dir, "missing"));
    expect(await rejection(readRemoteEnd(missing, "app", WALSYNC_RULES))).toBeInstanceOf(DestinationError);
  });

  test("is what header and trailer of the last file say, and the time of the snapshot object", async () => {
    const chain = newChain();
    const snapshot = chain.add("app", 1n, 1n);
    const last = chain.add("app", 2n, 2n, { timestampMs: 123_456, seed: 77 });
    utimesSync(snapshot, 5000, 5000);
    utimesSync(last, 10, 10);
    expect(await readRemoteEnd(chain.destination, "app", WALSYNC_RULES)).toEqual({
      txid: 2n,
      checksum: stateChecksum(77),
      timestampMs: 123_456,
      pageSize: 512,
      snapshotTxid: 1n,
      snapshotAtMs: 5_000_000,
      whole: true,
    });
  });

  test("counts txids as numbers: one digit more sorts first as text", async () => {
    const chain = newChain();
    chain.add("app", 1n, 99_999_999n);
    chain.add("app", 100_000_000n, 100_000_000n, { seed: 3 });
    const expected = { txid: 100_000_000n, checksum: stateChecksum(3), snapshotTxid: 99_999_999n, whole: true };
    expect(await readRemoteEnd(chain.destination, "app", WALSYNC_RULES)).toMatchObject(expected);
  });

  test.each<[law: string, ranges: string, txid: bigint, snapshotTxid: bigint, whole: boolean]>([
    ["increments alone are a gap", "2-2 3-3", 3n, 0n, false],
    ["a missing file in the middle is a gap", "1-1 3-3", 3n, 1n, false],
    ["a gap behind the newest snapshot counts", "1-4 6-6", 6n, 4n, false],
    ["one before the newest snapshot does not", "1-1 3-3 1-5", 5n, 5n, true],
    ["a snapshot beside the last increment", "1-1 2-2 1-2", 2n, 2n, true],
    ["the newest of several snapshots", "1-9 1-1 1-4 10-10", 10n, 9n, true],
    ["merged files bridge", "1-1 2-7 8-8", 8n, 1n, true],
  ])("%s", async (_, ranges, txid, snapshotTxid, whole) => {
    const chain = newChain();
    for (const range of ranges.split(" ")) chain.add("app", ...(range.split("-").map(BigInt) as [bigint, bigint]));
    const found = await readRemoteEnd(chain.destination, "app", WALSYNC_RULES);
    expect(found).toMatchObject({ txid, snapshotTxid, whole });
    expect(found!.snapshotAtMs === 0).toBe(snapshotTxid === 0n);
  });

  test("comes from a last file that has both its ends, or it is an error", async () => {
    const chain = newChain();
    chain.add("app", 1n, 1n);
    const path = chain.add("app", 2n, 2n);
    const whole = readFileSync(path);
    // Up to here the bytes before the end are no checksum: the flag that every one has is missing.
    for (let length = 0; length < 110; length += 5) {
      truncateSync(path, length);
      expect(await rejection(readRemoteEnd(chain.destination, "app", WALSYNC_RULES))).toBeInstanceOf(LtxError);
      writeFileSync(path, whole);
    }
    writeFileSync(path, ltxBytes(3n, 3n));
    expect(await rejection(readRemoteEnd(chain.destination, "app", WALSYNC_RULES))).toBeInstanceOf(LtxError);
    rmSync(path);
    expect(await readRemoteEnd(chain.destination, "app", WALSYNC_RULES)).toMatchObject({ txid: 1n });
  });

  test.each(["0000", "ltx/0"])("of another tool's chain is refused, in %s", async (folder) => {
    const chain = newChain();
    chain.put(`app/${folder}/0000000000000001-0000000000000001.ltx`, ltxBytes(1n, 1n));
    expect(await rejection(readRemoteEnd(chain.destination, "app", WALSYNC_RULES))).toMatchObject({ code: "E_CONFIG" });
    chain.add("app", 1n, 1n);
    expect(await rejection(readRemoteEnd(chain.destination, "app", WALSYNC_RULES))).toMatchObject({
      code: "E_INTEGRITY",
    });
  });
});

describe("the remote end in the litestream layout", () => {
  const rules = layoutRules("litestream", { metadata: false, levelFolders: "directory" });
  const put = (chain: ChainFolder, level: number, minTxid: bigint, maxTxid: bigint) => {
    const key = formatKey({ layout: "litestream", folders: "directory", name: "app", level, minTxid, maxTxid });
    chain.put(key, ltxBytes(minTxid, maxTxid, { withoutChecksums: true }));
  };

  test.each<[law: string, files: [number, bigint, bigint][], txid: bigint, whole: boolean]>([
    [
      "the last file of level 0",
      [
        [9, 1n, 1n],
        [0, 1n, 1n],
        [0, 2n, 2n],
      ],
      2n,
      true,
    ],
    [
      "a merged file, where level 0 ends before",
      [
        [9, 1n, 1n],
        [0, 2n, 2n],
        [1, 2n, 4n],
      ],
      4n,
      true,
    ],
    [
      "a snapshot that was uploaded before what led to it",
      [
        [9, 1n, 1n],
        [0, 2n, 2n],
        [9, 1n, 7n],
      ],
      7n,
      true,
    ],
    [
      "no end of a whole chain, behind a gap",
      [
        [9, 1n, 1n],
        [0, 2n, 2n],
        [0, 4n, 4n],
      ],
      4n,
      false,
    ],
  ])("is %s", async (_law, files, txid, whole) => {
    const chain = newChain();
    for (const [level, minTxid, maxTxid] of files) put(chain, level, minTxid, maxTxid);
    expect(await readRemoteEnd(chain.destination, "app", rules)).toMatchObject({ txid, whole, checksum: null });
  });

  test("of a chain in the walsync layout is refused, and the hint says how to go on", async () => {
    const chain = newChain();
    chain.add("app", 1n, 1n);
    const refused = await rejection(readRemoteEnd(chain.destination, "app", rules));
    expect(refused).toMatchObject({ code: "E_CONFIG", hint: expect.stringContaining("--layout walsync") });
  });

  test("is told by metadata where there is any; a file without it is certainly not ours", () => {
    const inBucket = layoutRules("litestream", { metadata: true, levelFolders: "bucket" });
    const ends = { header: header({ minTxid: 5n, maxTxid: 5n }), trailer: { postApplyChecksum: 0n, fileChecksum: 0n } };
    const facts = { sha256: "00", commits: 3, checksums: { pre: OURS, post: OTHER }, timestampMs: 1_700_000_000_123 };
    const { metadata = {}, modifiedAt } = inBucket.attributesOf(facts);
    expect(metadata).toEqual({
      sha256: "00",
      commits: "3",
      "pre-checksum": "8000000000000001",
      "post-checksum": "8000000000000002",
      "litestream-timestamp": "2023-11-14T22:13:20.123Z",
    });
    expect(modifiedAt?.getTime()).toBe(facts.timestampMs);
    expect(inBucket.checksumsOf({ ...ends, metadata })).toEqual(facts.checksums);
    expect(inBucket.checksumsOf({ ...ends, metadata: {} })).toEqual({ pre: 0n, post: 0n });
    expect(inBucket.checksumsOf({ ...ends, metadata: { "post-checksum": "nonsense" } })).toEqual({ pre: 0n, post: 0n });
    expect(rules.checksumsOf({ ...ends, metadata: {} })).toBeNull();
  });
});
