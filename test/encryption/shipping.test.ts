// Goal: a lost answer, or a crash before an upload was recorded, never passes for another writer, although the same file is
// other bytes each time it is encrypted; and another writer never passes for us.
import { expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { layoutRules } from "../../src/chain/layout-rules.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { DestinationError } from "../../src/errors.ts";
import { Outbox, type OutboxFile } from "../../src/replication/outbox.ts";
import { type Shipped, Shipper } from "../../src/replication/shipper.ts";
import { StateTags } from "../../src/replication/state-tags.ts";
import { header, makePage } from "../ltx/make.ts";
import { checksumOf, pagesOf } from "../replication/make.ts";
import { tempDir } from "../support/temp.ts";
import { encryptedWith, makeKeys } from "./make.ts";

const folder = tempDir();
const { recipient } = await makeKeys(join(folder, "key.txt"));
const PRE = 1n << 63n;
let count = 0;

/** One host: an outbox and the key of its tags. `loses`: answers of this many uploads are lost. */
function makeHost(bucket: string, { state = join(folder, `state${count++}`), loses = 0 } = {}) {
  const sealed = encryptedWith(new DirectoryDestination(bucket), { recipients: [recipient] });
  const destination: Destination = {
    url: sealed.url,
    capabilities: sealed.capabilities,
    ...(sealed.stored && { stored: sealed.stored }),
    prepare: (options) => sealed.prepare(options),
    list: (prefix, options) => sealed.list(prefix, options),
    listFolders: (prefix, options) => sealed.listFolders(prefix, options),
    head: (key, options) => sealed.head(key, options),
    read: (key, options) => sealed.read(key, options),
    remove: (keys, options) => sealed.remove(keys, options),
    close: () => sealed.close(),
    async write(key, source, options) {
      const result = await sealed.write(key, source, options);
      if (loses-- > 0) throw new DestinationError("the answer was lost", { retryable: true });
      return result;
    },
  };
  const outbox = new Outbox(join(state, "outbox"), layoutRules("walsync", destination.capabilities));
  const shipped: Shipped[] = [];
  const stops: unknown[] = [];
  const shipper = new Shipper(destination, "app", outbox, new StateTags(join(state, "tags.key")), {
    onShipped: (one) => void shipped.push(one),
    onFailure: () => {},
    onStop: (error) => void stops.push(error),
  });
  const ship = async () => {
    shipper.start();
    await shipper.settled();
    return { shipped: shipped.map(({ file }) => `${file.minTxid}-${file.maxTxid}`), stops };
  };
  return { state, outbox, ship, shipper, shipped };
}

function stage(outbox: Outbox, minTxid: bigint, maxTxid = minTxid, timestampMs = 1000, content = 7): OutboxFile {
  const preApplyChecksum = minTxid === 1n ? 0n : PRE;
  const staging = outbox.stage(header({ flags: 0, minTxid, maxTxid, preApplyChecksum, timestampMs }), 1);
  const page = makePage(512, content);
  staging.encoder.encodePage(1, page);
  return staging.commit(checksumOf(pagesOf(page)));
}

const newBucket = () => join(folder, `bucket${count++}`);

test("a lost answer is found out, and what the manifest will say is true of the object", async () => {
  const bucket = newBucket();
  const host = makeHost(bucket, { loses: 1 });
  stage(host.outbox, 1n);
  expect(await host.ship()).toEqual({ shipped: ["1-1"], stops: [] });
  const object = await Bun.file(join(bucket, "app/00000001-00000001.ltx")).bytes();
  expect(host.shipped[0]!.sha256).toBe(new Bun.CryptoHasher("sha256").update(object).digest("hex"));
  // By which contents could be guessed.
  expect(host.shipped[0]!.checksums).toEqual({ pre: 0n, post: 0n });
});

test("after a crash between upload and record the next process finds its own files", async () => {
  const bucket = newBucket();
  const before = makeHost(bucket);
  for (const txid of [1n, 2n]) stage(before.outbox, txid);
  stage(before.outbox, 1n, 2n);
  await before.ship();
  // Nothing was recorded: the files are still on the disk.
  const after = makeHost(bucket, { state: before.state });
  expect(after.outbox.files).toHaveLength(3);
  const { shipped, stops } = await after.ship();
  expect([shipped.sort(), stops]).toEqual([["1-1", "1-2", "2-2"], []]);
});

test("another host's file under the same key is another writer's, be it the same file", async () => {
  const bucket = newBucket();
  const [first, second] = [makeHost(bucket), makeHost(bucket)];
  stage(first.outbox, 1n);
  stage(second.outbox, 1n);
  await first.ship();
  expect(await second.ship()).toMatchObject({ shipped: [], stops: [{ code: "E_FENCED" }] });
});

test.each<[string, (host: { state: string; outbox: Outbox }) => void]>([
  ["of another state", ({ outbox }) => void stage(outbox, 2n, 2n, 1000, 8)],
  ["of the same state at another time", ({ outbox }) => void stage(outbox, 2n, 2n, 2000)],
  [
    "when the key of the tags is gone",
    ({ state, outbox }) => {
      rmSync(join(state, "tags.key"));
      stage(outbox, 2n);
    },
  ],
  [
    "when the key of the tags is damaged",
    ({ state, outbox }) => {
      writeFileSync(join(state, "tags.key"), "short");
      stage(outbox, 2n);
    },
  ],
])("a claimed txid is not taken for our own %s", async (_law, change) => {
  const bucket = newBucket();
  const before = makeHost(bucket);
  stage(before.outbox, 2n);
  await before.ship();
  before.outbox.purge();
  change(before);
  const after = makeHost(bucket, { state: before.state });
  expect(await after.ship()).toMatchObject({ shipped: [], stops: [{ code: "E_FENCED" }] });
});

test("a later snapshot of the same state, taken at another time, is as good as the one that is there", async () => {
  const bucket = newBucket();
  const before = makeHost(bucket);
  stage(before.outbox, 1n, 5n, 1000);
  await before.ship();
  before.outbox.purge();
  const after = makeHost(bucket, { state: before.state });
  stage(after.outbox, 1n, 5n, 2000);
  expect(await after.ship()).toEqual({ shipped: ["1-5"], stops: [] });
});

test("a tag is the same for the same state, another for any other, and another on any other host", () => {
  const path = (i: number) => join(folder, `tags${i}.key`);
  const [ours, again, theirs] = [new StateTags(path(1)), new StateTags(path(1)), new StateTags(path(2))];
  fc.assert(
    fc.property(fc.bigInt(1n, 1n << 40n), fc.bigInt(0n, (1n << 64n) - 1n), (txid, checksum) => {
      const tag = ours.of(txid, checksum);
      expect(tag).toMatch(/^[0-9a-f]{32}$/);
      expect(again.of(txid, checksum)).toBe(tag);
      for (const another of [theirs.of(txid, checksum), ours.of(txid + 1n, checksum), ours.of(txid, checksum ^ 1n)]) {
        expect(another).not.toBe(tag);
      }
    }),
    { numRuns: 100 },
  );
});
