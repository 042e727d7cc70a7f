// Goal: files of ours that have no room for database checksums are proven by those kept beside them: what verify calls whole,
// restore and replicate give; what was changed behind our back verify tells, and they refuse. Files that claim nothing, as
// Litestream writes them, are a note, and hide nothing from the next file that claims something.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readChain } from "../../src/chain/chain.ts";
import { restorePoints } from "../../src/chain/plan.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { WalsyncError } from "../../src/errors.ts";
import { Follower } from "../../src/restore/follow.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import { convertReplica } from "../../src/upkeep/convert.ts";
import { verifyDatabase } from "../../src/upkeep/verify.ts";
import { decodeFile, encodeFile } from "../ltx/make.ts";
import { Host } from "../replication/host.ts";
import { comparable } from "../restore/make-copy.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";

const dir = tempDir();
const server = await startVersitygw();
const LAST = 7n;
const SIGNAL = new AbortController().signal;
const opened: Destination[] = [];

afterAll(async () => {
  for (const destination of opened) destination.close();
  await server?.stop();
});

interface Stored {
  bytes: Uint8Array;
  metadata: Record<string, string>;
}
type Objects = Map<string, Stored>;

async function newBucket(): Promise<() => Promise<Destination>> {
  const { endpoint, region, accessKeyId, secretAccessKey } = server!;
  const bucket = `claims-${crypto.randomUUID()}`;
  await server!.createBucket(bucket);
  const env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  return async () => {
    const destination = await openDestination(`s3://${bucket}`, { endpoint, region, env });
    opened.push(destination);
    return destination;
  };
}

/** A history of `LAST` states, with a snapshot in the middle, as `watch --layout litestream` ships it. */
async function ship(): Promise<{ objects: Objects; states: Map<bigint, Uint8Array> }> {
  const open = await newBucket();
  const host = new Host(join(dir, crypto.randomUUID()), undefined, { layout: "litestream", open });
  const states = new Map<bigint, Uint8Array>();
  host.create(512);
  await host.start();
  for (let step = 1n; step <= LAST; step++) {
    await host.settle();
    states.set(host.txid, host.content());
    if (step === 4n) await host.replicator.requests.snapshot();
    await host.settle();
    if (step < LAST) host.insert(2, 700);
  }
  await host.end();
  expect([...states.keys()].at(-1)).toBe(LAST);
  const destination = await open();
  const objects: Objects = new Map();
  for await (const { key } of destination.list("")) {
    const { chunks, metadata } = (await destination.read(key))!;
    const parts: Buffer[] = [];
    for await (const chunk of chunks) parts.push(Buffer.from(chunk));
    objects.set(key, { bytes: Buffer.concat(parts), metadata });
  }
  return { objects, states };
}

async function bucketOf(objects: Objects): Promise<Destination> {
  const destination = await (await newBucket())();
  for (const [key, { bytes, metadata }] of objects)
    await destination.write(key, { kind: "bytes", bytes }, { metadata });
  return destination;
}

const fine = (txid: bigint): string => `app/0000/${hex16(txid)}-${hex16(txid)}.ltx`;
const hex16 = (value: bigint): string => value.toString(16).padStart(16, "0");
const sha256 = (bytes: Uint8Array): string => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");

/** Another byte in its last page, and everything that says how the bytes should be made right again. */
function withOtherPage({ bytes, metadata }: Stored): Stored {
  const { header, trailer, pages } = decodeFile(bytes);
  const page = pages.get(Math.max(...pages.keys()))!;
  page[page.length - 1]! ^= 0x20; // Inside a row: SQLite's own check finds nothing wrong.
  const changed = encodeFile(header, pages, trailer.postApplyChecksum);
  return { bytes: changed, metadata: { ...metadata, sha256: sha256(changed) } };
}

const withMetadata =
  (change: Record<string, string>) =>
  ({ bytes, metadata }: Stored): Stored => ({ bytes, metadata: { ...metadata, ...change } });
const withoutMetadata = ({ bytes }: Stored): Stored => ({ bytes, metadata: {} });

async function verify(destination: Destination, quick = false) {
  const { findings, points, proven } = await verifyDatabase(destination, "app", { quick });
  const told = findings.map(({ key, code, severity }) => `${severity} ${key} ${code}`);
  return { told, points, proven, errors: findings.filter(({ severity }) => severity === "error") };
}

/** The code of what a restore throws; "" if it gives what the database was. */
async function restoreFault(destination: Destination, txid: bigint, states: Map<bigint, Uint8Array>): Promise<string> {
  const output = join(dir, "restored.db");
  try {
    const target = { kind: "txid", txid } as const;
    await restoreDatabase(destination, "app", output, { target, integrity: "full", force: false });
    return Buffer.compare(readFileSync(output), states.get(txid)!) === 0 ? "" : "another state";
  } catch (error) {
    if (!(error instanceof WalsyncError)) throw error;
    return error.code;
  } finally {
    rmSync(output, { force: true });
  }
}

describe.skipIf(server === null)("checksums beside the files", async () => {
  const [whole, other] = server === null ? [] : await Promise.all([ship(), ship()]);
  const { objects, states } = whole ?? { objects: new Map<string, Stored>(), states: new Map<bigint, Uint8Array>() };
  const changed = (key: string, change: (stored: Stored) => Stored): Objects =>
    new Map([...objects].map(([each, stored]) => [each, each === key ? change(stored) : stored]));

  test("everything is claimed and proven: not even a note", async () => {
    const destination = await bucketOf(objects);
    expect(objects.size).toBe(Number(LAST) + 2);
    expect(await verify(destination)).toEqual({ told: [], points: Number(LAST), proven: Number(LAST), errors: [] });
    expect(await verify(destination, true)).toMatchObject({ told: [], proven: 0 });
    const output = join(dir, "proven.db");
    const { postChecksum } = await restoreDatabase(destination, "app", output, {
      target: { kind: "newest" },
      integrity: "none",
      force: false,
    });
    expect(postChecksum).toBe(BigInt(`0x${objects.get(fine(LAST))!.metadata["post-checksum"]}`));
  });

  // `quick` tells what two neighbours say differently. Whoever reads the pages also tells what one file alone says wrongly.
  test.each<[string, bigint, (stored: Stored) => Stored, { quick: boolean; refused: bigint[] }]>([
    [
      "a wrong checksum after a file",
      3n,
      withMetadata({ "post-checksum": "8000000000000001" }),
      { quick: true, refused: [3n] },
    ],
    [
      "a wrong checksum after the last file",
      LAST,
      withMetadata({ "post-checksum": "8000000000000001" }),
      { quick: false, refused: [LAST] },
    ],
    [
      "a wrong checksum before a file",
      6n,
      withMetadata({ "pre-checksum": "8000000000000001" }),
      { quick: true, refused: [6n, 7n] },
    ],
    ["a page that was changed, and its file and sha256 with it", 6n, withOtherPage, { quick: false, refused: [6n] }],
    ["the last of them", LAST, withOtherPage, { quick: false, refused: [LAST] }],
    [
      "a file of another history, whole, with all that is said of it",
      6n,
      () => other!.objects.get(fine(6n))!,
      { quick: true, refused: [6n, 7n] },
    ],
    ["the last file of another history", LAST, () => other!.objects.get(fine(LAST))!, { quick: true, refused: [LAST] }],
  ])("%s is told, and no restore goes by it", async (_, txid, change, { quick, refused }) => {
    const destination = await bucketOf(changed(fine(txid), change));
    const { errors, proven, points } = await verify(destination);
    expect(errors.map(({ code }) => code)).toContain("checksum-differs");
    expect(errors[0]!.key).toBe(fine(txid));
    expect((await verify(destination, true)).errors.length > 0).toBe(quick);
    let restorable = 0;
    for (const point of restorePoints((await readChain(destination, "app")).files)) {
      const fault = await restoreFault(destination, point, states);
      expect([point, ["", "E_INTEGRITY"].includes(fault)]).toEqual([point, true]);
      if (refused.includes(point)) expect([point, fault]).toEqual([point, "E_INTEGRITY"]);
      if (fault === "") restorable++;
    }
    expect(points).toBe(Number(LAST));
    expect(proven).toBeLessThanOrEqual(restorable);
  });

  test("a state that is not the claimed one is not copied to the other layout", async () => {
    for (const change of [withOtherPage, withMetadata({ "post-checksum": "8000000000000001" })]) {
      const folder = join(dir, crypto.randomUUID());
      mkdirSync(folder);
      const target = await openDestination(join(folder, "copy"));
      const source = await bucketOf(changed(fine(6n), change));
      const copying = convertReplica(source, "app", target, { name: "app", folder, signal: SIGNAL });
      await expect(copying).rejects.toMatchObject({ code: "E_INTEGRITY" });
      target.close();
    }
  });

  test("files that claim nothing are a note, and what they changed unseen the next claim tells", async () => {
    const silent = await bucketOf(changed(fine(5n), withoutMetadata));
    const note = "note app no-checksums";
    expect(await verify(silent)).toMatchObject({ told: [note], proven: Number(LAST) });
    expect(await verify(silent, true)).toMatchObject({ told: [note] });
    expect(await restoreFault(silent, 5n, states)).toBe("");

    const damaged = await bucketOf(changed(fine(5n), (stored) => withoutMetadata(withOtherPage(stored))));
    const { errors } = await verify(damaged);
    expect(errors.map(({ key, code }) => [key, code])).toContainEqual([fine(6n), "checksum-differs"]);
    expect((await verify(damaged, true)).errors).toEqual([]);

    const none = await bucketOf(new Map([...objects].map(([key, stored]) => [key, withoutMetadata(stored)])));
    expect(await verify(none)).toMatchObject({ told: [note], proven: Number(LAST) });
    for (const txid of states.keys()) expect(await restoreFault(none, txid, states)).toBe("");
  });

  test("a copy that is followed never shows a state that no claim proves", async () => {
    const keysUpTo = (txid: bigint) =>
      new Map([...objects].filter(([key]) => BigInt(`0x${key.slice(-20, -4)}`) <= txid));
    for (const change of [withOtherPage, () => other!.objects.get(fine(6n))!]) {
      const destination = await bucketOf(keysUpTo(5n));
      const local = join(dir, `${crypto.randomUUID()}.db`);
      const follower = new Follower(destination, "app", local);
      expect(await follower.step(SIGNAL)).toMatchObject({ txid: 5n, kind: "bootstrap" });
      const put = async (key: string, { bytes, metadata }: Stored) =>
        void (await destination.write(key, { kind: "bytes", bytes }, { metadata }));
      await put(fine(6n), change(objects.get(fine(6n))!));
      await expect(follower.step(SIGNAL)).rejects.toMatchObject({ code: "E_INTEGRITY" });
      expect(comparable(readFileSync(local)).equals(comparable(states.get(5n)!))).toBe(true);
      // Made right again, it goes on by increments; what claims nothing is taken by a whole restore.
      await put(fine(6n), objects.get(fine(6n))!);
      expect(await follower.step(SIGNAL)).toMatchObject({ txid: 6n, kind: "increments" });
      await put(fine(LAST), withoutMetadata(objects.get(fine(LAST))!));
      expect(await follower.step(SIGNAL)).toMatchObject({ txid: LAST, kind: "bootstrap" });
      expect(comparable(readFileSync(local)).equals(comparable(states.get(LAST)!))).toBe(true);
      follower.close();
    }
  });
});
