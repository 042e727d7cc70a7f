// Goal: a replica that is copied into the other layout restores to the same bytes at every point, by whichever program reads that
// layout; either program goes on with its copy; a kill in the middle costs nothing but time; the source is only read.
import { Database } from "bun:sqlite";
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readChain } from "../../src/chain/chain.ts";
import { restorePoints } from "../../src/chain/plan.ts";
import { MIGRATE_RESULT } from "../../src/commands/results.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import { verifyDatabase } from "../../src/upkeep/verify.ts";
import { succeed, walsync } from "../commands/run.ts";
import { Host } from "../replication/host.ts";
import { compiledBinary } from "../support/binary.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { schemaFaults } from "../support/json-schema.ts";
import { Litestream } from "../support/litestream.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { interopMatrix, type MatrixRow, type Tool } from "./matrix.ts";
import { type SharedReplica, startPlaces } from "./places.ts";

const dir = tempDir();
const { record } = interopMatrix("converted");
const { places, stop } = await startPlaces();
const isReady = requireTool("litestream") !== null;
const hosts: Host[] = [];

afterEach(async () => {
  for (const host of hosts.splice(0)) await host.end();
});
afterAll(stop);

const newFolder = () => {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  return folder;
};

interface Converted {
  name: string;
  from: string;
  layout: string;
  txid: number;
  points: number;
  files: { copied: number; existing: number };
  bytes: number;
  skipped: { key: string; reason: string }[];
}

function convertArgs(from: SharedReplica, to: SharedReplica): string[] {
  return ["migrate", "--convert", "app", "-b", from.url, "--to", to.url, ...from.flags, "--json"];
}

async function convert(from: SharedReplica, to: SharedReplica, env: Record<string, string> = {}): Promise<Converted> {
  const { stdout } = await succeed(convertArgs(from, to), { env: { ...from.env, ...env } });
  const printed: unknown = JSON.parse(stdout);
  expect(schemaFaults(MIGRATE_RESULT, printed)).toEqual([]);
  return (printed as { converted: Converted }).converted;
}

/** Key, size and version of everything there. */
async function objectsOf(replica: SharedReplica): Promise<string[]> {
  const destination = await replica.open();
  const found = await Array.fromAsync(
    destination.list(""),
    ({ key, sizeBytes, etag }) => `${key} ${sizeBytes} ${etag}`,
  );
  destination.close();
  return found;
}

async function restored(destination: Destination, txid: bigint): Promise<Uint8Array> {
  const output = join(newFolder(), "restored.db");
  const signal = new AbortController().signal;
  const target = { kind: "txid", txid } as const;
  await restoreDatabase(destination, "app", output, { target, integrity: "full", force: false, signal });
  const bytes = readFileSync(output);
  rmSync(output);
  return bytes;
}

async function official(litestream: Litestream, path: string, txid: bigint | null): Promise<Uint8Array> {
  const output = join(newFolder(), "official.db");
  const run = await litestream.restore(path, output, txid === null ? {} : { txid });
  expect({ txid, ...run }).toMatchObject({ status: 0 });
  const bytes = readFileSync(output);
  rmSync(output);
  return bytes;
}

function expectSame(what: unknown, found: Uint8Array, expected: Uint8Array): void {
  expect([what, differingPages(expected, found)]).toEqual([what, []]);
}

async function expectProven(replica: SharedReplica, points: number): Promise<void> {
  const destination = await replica.open();
  const report = await verifyDatabase(destination, "app", { quick: false });
  expect(report.findings.filter(({ severity }) => severity !== "note")).toEqual([]);
  expect([report.points, report.proven]).toEqual([points, points]);
  destination.close();
}

/** First, last, and some between. */
function someOf<T>(all: readonly T[], count: number): T[] {
  if (all.length <= count) return [...all];
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * (all.length - 1)) / (count - 1))]!);
}

describe.skipIf(!isReady).each(places)("in $label", (place) => {
  const saw = (writer: Tool, reader: MatrixRow["reader"], command: string, result: string): void =>
    record({ writer, where: place.where, reader, command, result });

  test("what Litestream wrote, merged and pruned is the same at every point in both layouts, and back", async () => {
    const folder = newFolder();
    const source = await place.begin(join(folder, "source"));
    const path = join(folder, "app.db");
    const app = new Database(path, { create: true });
    app.run("pragma busy_timeout = 5000");
    app.run("pragma journal_mode = wal");
    app.run("create table item (id integer primary key, body)");
    const litestream = Litestream.configured(folder, [{ path, place: source.litestream }], {
      levels: ["700ms", "2s"],
      snapshotInterval: "3s",
      snapshotRetention: "1h",
      l0Retention: "1s",
    })!;
    litestream.start();
    // Until it has merged into both levels, taken a second snapshot, and removed files of level 0.
    const seen = new Set<string>();
    const deadline = Date.now() + 60_000;
    for (let i = 0; !["0", "1", "2", "9"].every((level) => seen.has(level)) || seen.size < 40; i++) {
      app.run("insert into item (body) values (randomblob(9000))");
      if (i % 11 === 5) app.run("delete from item where id % 3 = 0");
      if (i % 29 === 20) app.run("vacuum");
      await Bun.sleep(60);
      // Litestream removes files while they are listed: not every look succeeds.
      for (const object of await objectsOf(source).catch(() => [])) {
        const [, level, file] = /(?:ltx\/|000)(\d)\/([0-9a-f-]+)\.ltx/.exec(object) ?? [];
        if (level !== undefined) seen.add(level).add(`${level}/${file}`);
      }
      expect([Date.now() < deadline, [...seen]]).toEqual([true, expect.anything()]);
    }
    await litestream.stop();
    const content = contentOf(path);
    const before = await objectsOf(source);

    const copy = await place.begin(join(folder, "copy"));
    const report = await convert(source, copy);
    expect(report).toMatchObject({ from: "litestream", layout: "walsync", files: { existing: 0 } });
    expect(await objectsOf(source)).toEqual(before);
    await expectProven(copy, report.points);
    const copied = await copy.open();
    const points = restorePoints((await readChain(copied, "app")).files);
    expect(points).toHaveLength(report.points);
    const states = new Map<bigint, Uint8Array>();
    for (const txid of someOf(points, 12)) {
      const state = await restored(copied, txid);
      expectSame(txid, state, await official(litestream, path, txid));
      states.set(txid, state);
    }
    expectSame("newest", states.get(points.at(-1)!)!, await official(litestream, path, null));
    const reopened = join(folder, "reopened.db");
    await Bun.write(reopened, states.get(points.at(-1)!)!);
    const rows = (file: string) => new Database(file).query("select * from item order by id").values();
    expect(rows(reopened)).toEqual(rows(path));
    expect(content.length).toBeGreaterThan(0);

    const back = await place.begin(join(folder, "back"));
    expect(await convert(copy, back)).toMatchObject({ layout: "litestream", points: report.points, skipped: [] });
    const reader = Litestream.configured(folder, [{ path, place: back.litestream }])!;
    for (const [txid, state] of states) expectSame(txid, await official(reader, path, txid), state);
    expectSame("newest", await official(reader, path, null), states.get(points.at(-1)!)!);
    // A second run has nothing to do.
    expect((await convert(copy, back)).files).toEqual({ copied: 0, existing: (await objectsOf(back)).length });

    // Litestream goes on with its copy, and walsync with its own.
    app.run("insert into item (body) values ('later')");
    expect(await reader.replicateOnce()).toMatchObject({ status: 0 });
    const later = join(folder, "later.db");
    await Bun.write(later, await official(reader, path, null));
    expect(rows(later)).toEqual(rows(path));
    app.close();
    copied.close();
    const { stdout } = await succeed(["snapshot", `app=${path}`, "-b", copy.url, ...copy.flags, "--json"], {
      env: copy.env,
    });
    expect((JSON.parse(stdout) as { txid: number }).txid).toBe(report.txid + 1);
    const again = await copy.open();
    await Bun.write(later, await restored(again, BigInt(report.txid + 1)));
    expect(rows(later)).toEqual(rows(path));
    again.close();
    saw("litestream", "walsync", "migrate --convert", "restored to every point as litestream restore -txid does");
    saw("litestream", "walsync", "snapshot, of the converted replica", "goes on with its txids");
    saw("walsync", "litestream", "restore, -txid, of the converted replica", "the state of each txid");
    saw("walsync", "litestream", "replicate, of the converted replica", "goes on with it");
  }, 120_000);

  test("a kill in the middle: the next run sends only what is missing, and the result is that of one run", async () => {
    const folder = newFolder();
    const source = await place.begin(join(folder, "source"));
    const host = new Host(join(folder, "host"), undefined, { layout: "walsync", open: source.open });
    hosts.push(host);
    host.create();
    await host.start();
    for (let i = 0; i < 80; i++) {
      host.insert(1, 20_000);
      await host.settle();
    }
    await host.end();
    const copy = await place.begin(join(folder, "copy"));
    const env = { ...source.env, TMPDIR: newFolder() };
    const child = Bun.spawn([compiledBinary(), ...convertArgs(source, copy)], {
      env: { PATH: process.env.PATH ?? "", ...env },
      stdio: ["ignore", "ignore", "ignore"],
    });
    let sent = 0;
    while (sent < 10 && child.exitCode === null) sent = (await objectsOf(copy).catch(() => [])).length;
    child.kill("SIGKILL");
    await child.exited;
    const left = await objectsOf(copy);
    const report = await convert(source, copy, env);
    expect(left.length).toBeGreaterThan(0);
    // What was on its way to a server when the kill came may have arrived since.
    expect(report.files.existing).toBeGreaterThanOrEqual(left.length);
    expect(report.files.copied).toBeGreaterThan(0);
    const finished = await objectsOf(copy);
    expect(finished).toHaveLength(report.files.existing + report.files.copied);
    expect(finished).toEqual(expect.arrayContaining(left));
    expect(readdirSync(env.TMPDIR)).toEqual([]);
    await expectProven(copy, report.points);
    const reader = Litestream.configured(folder, [{ path: host.path, place: copy.litestream }])!;
    expectSame("newest", await official(reader, host.path, null), host.content());
  }, 90_000);

  test("a name that holds anything else is refused, and neither side is touched", async () => {
    const folder = newFolder();
    const [source, other] = [await place.begin(join(folder, "source")), await place.begin(join(folder, "other"))];
    for (const [i, replica] of [source, other].entries()) {
      const path = join(folder, `${i}.db`);
      const app = new Database(path, { create: true });
      app.run("pragma journal_mode = wal");
      app.run(`create table item${i} (body)`);
      app.close();
      const args = ["snapshot", `app=${path}`, "-b", replica.url, ...replica.flags];
      await succeed(i === 0 ? args : [...args, "--layout", "litestream"], { env: replica.env });
    }
    const before = [await objectsOf(source), await objectsOf(other)];
    for (const target of [other, source]) {
      const { status, stderr } = await walsync(convertArgs(source, target), { env: source.env });
      expect([status, stderr]).toEqual([2, expect.stringMatching(/^walsync: E_OUTPUT_EXISTS .*\nhint: /m)]);
    }
    expect([await objectsOf(source), await objectsOf(other)]).toEqual(before);
  });
});
