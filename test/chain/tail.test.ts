// Goal: a look at the end of a chain finds every file that a whole listing would, or says that it cannot; for one request.
import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readChain } from "../../src/chain/chain.ts";
import { followOn, restorePoints } from "../../src/chain/plan.ts";
import { anchorAt, readTail } from "../../src/chain/tail.ts";
import { openDestination } from "../../src/destination/open.ts";
import { fakeServer } from "../destination/fake-s3.ts";
import { randomFrom } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const { signal } = new AbortController();
const nameOf = (min: number | bigint, max = min): string =>
  `${String(min).padStart(8, "0")}-${String(max).padStart(8, "0")}.ltx`;

async function makeBucket(files: readonly string[]) {
  const root = join(dir, crypto.randomUUID());
  const folder = join(root, "app");
  mkdirSync(folder, { recursive: true });
  for (const file of files) writeFileSync(join(folder, file), "");
  return { folder, destination: await openDestination(root) };
}

/** What a merge from `first` to `last` makes superfluous. */
function removeInside(folder: string, first: number, last: number): void {
  for (const file of readdirSync(folder)) {
    const [min, max] = file.slice(0, -".ltx".length).split("-").map(Number) as [number, number];
    if (min >= first && max <= last && file !== nameOf(first, last)) rmSync(join(folder, file));
  }
}

test("never misses what is new, whatever was shipped and merged since", async () => {
  const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
  const random = randomFrom(seed);
  for (let round = 0; round < 60; round++) {
    // Across the place where numbers get a ninth digit, too.
    const start = round % 3 === 0 ? 99_999_990 : 2;
    const end = start + 1 + (random() % 20);
    const { folder, destination } = await makeBucket([nameOf(1, start - 1), nameOf(start - 1)]);
    let txid = BigInt(start - 1);
    let anchor = anchorAt((await readChain(destination, "app")).files, txid);
    for (let next = start; next < end; next++) {
      writeFileSync(join(folder, nameOf(next)), "");
      if (random() % 4 === 0) {
        const first = Math.max(start, next - (random() % 6));
        if (first < next) writeFileSync(join(folder, nameOf(first, next)), "");
        if (first < next && random() % 2 === 0) removeInside(folder, first, next);
      }
      if (random() % 3 === 0) continue;
      const { files } = await readChain(destination, "app");
      const newest = restorePoints(files).at(-1)!;
      const tail = anchor === null ? null : await readTail(destination, "app", anchor, signal);
      const path = tail === null ? null : followOn(tail, txid, restorePoints(tail).at(-1)!);
      const found = path === null ? newest : restorePoints(tail!).at(-1)!;
      // Never "nothing new" wrongly. Where digits are added, a merged file may show only some of what is new.
      if (found !== newest)
        expect({ seed, round, isNearer: found > txid, txid }).toMatchObject({ seed, round, isNearer: true });
      if (found !== newest) expect(newest).toBeGreaterThanOrEqual(100_000_000n);
      txid = found;
      anchor = anchorAt(path === null ? files : tail!, txid);
    }
    destination.close();
  }
});

test("an anchor that is gone, or another object under its name, is told", async () => {
  const { folder, destination } = await makeBucket([nameOf(1), nameOf(2), nameOf(3)]);
  const anchor = anchorAt((await readChain(destination, "app")).files, 3n)!;
  expect(await readTail(destination, "app", anchor, signal)).toMatchObject([{ maxTxid: 3n }]);
  utimesSync(join(folder, nameOf(3)), 5, 5);
  expect(await readTail(destination, "app", anchor, signal)).toBeNull();
  rmSync(join(folder, nameOf(3)));
  expect(await readTail(destination, "app", anchor, signal)).toBeNull();
  writeFileSync(join(folder, nameOf(4)), "");
  expect(await readTail(destination, "app", anchor, signal)).toBeNull();
  destination.close();
});

test("merged files of the litestream layout are no anchors: new files come in another folder", () => {
  const file = (level: string) => ({
    key: `app/${level}/0000000000000002-0000000000000002.ltx`,
    kind: "increment" as const,
    minTxid: 2n,
    maxTxid: 2n,
    sizeBytes: 1,
    modifiedAt: new Date(),
    storedAt: new Date(),
    level: Number(level),
  });
  expect(anchorAt([file("0001")], 2n)).toBeNull();
  expect(anchorAt([file("0001"), file("0000")], 2n)?.key).toStartWith("app/0000/");
});

test("costs one request of a chain of 20,000 files, and of one with other names below it", async () => {
  const requests: string[] = [];
  const keys = Array.from({ length: 20_000 }, (_, i) => `app/${nameOf(i + 1)}`);
  keys.push("app/manifest.json");
  for (let i = 1; i < 3000; i++) keys.push(`app/zoo/${nameOf(i)}`);
  await using server = fakeServer(async (request) => {
    const query = new URL(request.url).searchParams;
    requests.push(query.get("start-after") ?? query.get("continuation-token") ?? "");
    const after = query.get("continuation-token") ?? query.get("start-after") ?? "";
    const page = keys.filter((key) => key > after).slice(0, 1000);
    const isMore = page.length === 1000;
    const contents = page.map(
      (key) =>
        `<Contents><Key>${key}</Key><Size>300</Size><ETag>"e"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>`,
    );
    return new Response(
      `<ListBucketResult><Name>bucket</Name><IsTruncated>${isMore}</IsTruncated>${isMore ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : ""}${contents.join("")}</ListBucketResult>`,
      { headers: { "content-type": "application/xml" } },
    );
  });
  const env = { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "bbbbbbbb" };
  const destination = await openDestination("s3://bucket", { endpoint: server.endpoint, region: "us-east-1", env });
  const { files } = await readChain(destination, "app");
  expect(files).toHaveLength(20_000);
  expect(requests.length).toBeGreaterThan(20);
  const anchor = anchorAt(files, 20_000n)!;
  requests.length = 0;
  expect(await readTail(destination, "app", anchor, signal)).toHaveLength(1);
  expect(requests).toHaveLength(1);
  destination.close();
});
