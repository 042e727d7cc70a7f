// Goal: what walsync writes with --layout litestream, Litestream restores to every point and verifies, takes over and goes on
// with; and walsync goes on with what Litestream wrote. The official programs are the judges, in a directory and in a bucket.
import { Database } from "bun:sqlite";
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readChain } from "../../src/chain/chain.ts";
import { restorePoints } from "../../src/chain/plan.ts";
import { parseKey } from "../../src/destination/layout.ts";
import { verifyDatabase } from "../../src/upkeep/verify.ts";
import { Host } from "../replication/host.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { Litestream, type LitestreamRestore } from "../support/litestream.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { interopMatrix, type MatrixRow, type Tool } from "./matrix.ts";
import { copyObjects, type SharedReplica, startPlaces } from "./places.ts";

const dir = tempDir();
const { record } = interopMatrix("walsync-wrote");
const { places, stop } = await startPlaces();
const ltx = requireTool("ltx");
const isReady = requireTool("litestream") !== null && ltx !== null;
let hosts: Host[] = [];

afterEach(async () => {
  for (const host of hosts) await host.end();
  hosts = [];
});

afterAll(async () => {
  await stop();
});

const newFolder = () => join(dir, crypto.randomUUID());

function hostOf(folder: string, replica: SharedReplica): Host {
  const host = new Host(folder, undefined, { layout: "litestream", open: replica.open });
  hosts.push(host);
  return host;
}

function litestreamOf(folder: string, path: string, replica: SharedReplica): Litestream {
  return Litestream.configured(folder, [{ path, place: replica.litestream }])!;
}

/** What the official program restores. */
async function official(litestream: Litestream, path: string, target: LitestreamRestore = {}): Promise<Uint8Array> {
  const output = join(newFolder(), "official.db");
  const run = await litestream.restore(path, output, target);
  expect({ target, ...run }).toMatchObject({ status: 0 });
  const bytes = readFileSync(output);
  rmSync(output);
  return bytes;
}

function expectSame(what: unknown, found: Uint8Array, expected: Uint8Array): void {
  expect([what, differingPages(expected, found)]).toEqual([what, []]);
}

/** Everything that is there, by every reader there is. */
async function expectAgreed(host: Host, replica: SharedReplica, litestream: Litestream): Promise<void> {
  const content = host.content();
  expectSame("walsync", await host.restored(), content);
  expectSame("litestream", await official(litestream, host.path), content);
  const destination = await replica.open();
  const { findings, points, proven } = await verifyDatabase(destination, "app", { quick: false });
  expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
  expect(proven).toBe(points);
  destination.close();
}

/** What a user of the database does: it grows, shrinks and is packed, and the WAL starts anew. */
const STEPS: readonly ((host: Host) => void)[] = [
  (host) => host.insert(3, 400),
  (host) => host.insert(1, 300_000),
  (host) => host.checkpoint("TRUNCATE"),
  (host) => host.app.run("delete from item where length(body) > 1000"),
  (host) => host.app.run("vacuum"),
  (host) => host.insert(200, 900),
  (host) => host.app.run("create table other as select id, body from item limit 20"),
  (host) => host.app.run("delete from item"),
];

describe.skipIf(!isReady).each(places)("in $label", (place) => {
  const { where } = place;
  const saw = (writer: Tool, reader: MatrixRow["reader"], command: string, result: string): void =>
    record({ writer, where, reader, command, result });

  test.each([512, 4096, 65536])(
    "every point of pages of %d bytes is what Litestream restores",
    async (pageSize) => {
      const folder = newFolder();
      const replica = await place.begin(folder);
      const host = hostOf(folder, replica);
      host.create(pageSize);
      await host.start();
      await host.settle();
      const states = new Map([[host.txid, host.content()]]);
      const times = new Map<string, bigint>();
      for (const [i, step] of STEPS.entries()) {
        await Bun.sleep(4);
        times.set(new Date().toISOString(), host.txid);
        await Bun.sleep(4);
        step(host);
        await host.settle();
        states.set(host.txid, host.content());
        if (i === 4) await host.replicator.requests.snapshot();
        await host.settle();
      }
      const litestream = litestreamOf(folder, host.path, replica);
      for (const [txid, content] of states) {
        expectSame(txid, await official(litestream, host.path, { txid }), content);
        expectSame(txid, await host.restored({ kind: "txid", txid }), content);
      }
      for (const [timestamp, txid] of times) {
        expectSame(timestamp, await official(litestream, host.path, { timestamp }), states.get(txid)!);
      }
      await expectAgreed(host, replica, litestream);

      const destination = await replica.open();
      expect(restorePoints((await readChain(destination, "app")).files)).toEqual([...states.keys()]);
      for (const [key, path] of await copyObjects(destination, join(folder, "copies"))) {
        const run = Bun.spawnSync([ltx!, "verify", path]);
        expect([key, run.exitCode, String(run.stderr)]).toEqual([key, 0, ""]);
      }
      destination.close();
      saw("walsync", "litestream", "restore", "the newest state, byte for byte, pages of 512 to 65536 bytes");
      saw("walsync", "litestream", "restore -txid", "the state of each txid");
      saw("walsync", "litestream", "restore -timestamp", "the last state before the time");
      saw("walsync", "walsync", "restore", "the same bytes at every point");
      saw("walsync", "ltx", "verify", "every file");
    },
    60_000,
  );

  test("verify proves every point, by the checksums beside the files where the destination keeps any", async () => {
    const folder = newFolder();
    const replica = await place.begin(folder);
    const host = hostOf(folder, replica);
    host.create();
    await host.start();
    for (let i = 0; i < 4; i++) {
      host.insert(i + 1, 3000);
      await host.settle();
    }
    const destination = await replica.open();
    const { metadata } = destination.capabilities;
    for (const quick of [false, true]) {
      const { findings, points, proven } = await verifyDatabase(destination, "app", { quick });
      expect(findings.map(({ code, severity }) => [code, severity])).toEqual(
        metadata ? [] : [["no-checksums", "note"]],
      );
      expect(proven).toBe(quick ? 0 : points);
    }
    destination.close();
    const note = ", with a note: no checksums of the database";
    saw(
      "walsync",
      "walsync",
      "verify NAME",
      metadata ? "every point proven by its checksum" : `every point proven${note}`,
    );
    saw("walsync", "walsync", "verify NAME --quick", metadata ? "ok" : `ok${note}`);
  });

  test("a database that was restored is continued without an upload, where the checksum is told", async () => {
    const folder = newFolder();
    const replica = await place.begin(folder);
    const host = hostOf(folder, replica);
    host.create();
    host.insert(50);
    await host.start();
    await host.settle();
    host.insert(5);
    await host.settle();
    const { txid } = host;
    await host.end();

    const again = hostOf(join(folder, "again"), replica);
    await Bun.write(again.path, await host.restored());
    again.app.run("pragma journal_mode = wal");
    await again.start();
    await again.settle();
    const destination = await replica.open();
    expect(again.txid).toBe(destination.capabilities.metadata ? txid : txid + 1n);
    again.insert(3);
    await again.settle();
    await expectAgreed(again, replica, litestreamOf(folder, again.path, replica));
    destination.close();
  }, 30_000);

  test("a second writer is fenced, and touches nothing", async () => {
    const folder = newFolder();
    const replica = await place.begin(folder);
    const first = hostOf(folder, replica);
    first.create();
    first.insert();
    await first.start();
    await first.settle();
    const second = hostOf(join(folder, "second"), replica);
    await Bun.write(second.path, await first.restored());
    second.app.run("pragma journal_mode = wal");
    await second.start();
    await second.settle();
    second.insert(9);
    await second.settle();
    first.insert(2);
    await first.until("the first is fenced", () => first.replicator.state === "fenced");
    await expectAgreed(second, replica, litestreamOf(folder, second.path, replica));
  }, 30_000);

  test.each(["wrote", "restored"])(
    "Litestream goes on with a database that walsync %s",
    async (how) => {
      const folder = newFolder();
      const replica = await place.begin(folder);
      const host = hostOf(folder, replica);
      host.create();
      host.insert(30);
      await host.start();
      await host.settle();
      host.app.run("create table ours as select id from item");
      await host.settle();
      const { txid } = host;
      await host.stop();
      host.closeApp();
      let { path } = host;
      if (how === "restored") {
        path = join(folder, "restored", "app.db");
        await Bun.write(path, await host.restored());
      }
      const litestream = litestreamOf(folder, path, replica);
      const database = new Database(path);
      database.run("pragma busy_timeout = 5000");
      database.run("pragma journal_mode = wal");
      // Neither of them sees this when it is written.
      database.run("insert into item (body) values (randomblob(3000))");
      litestream.start();
      for (let i = 0; i < 20; i++) {
        database.run("insert into item (body) values (randomblob(2000))");
        await Bun.sleep(20);
      }
      database.run("create table theirs as select id from item");
      database.close();
      const log = await litestream.stop();
      expect(log).not.toMatch(/level=ERROR/);
      const expected = contentOf(path);
      expectSame("litestream", await official(litestream, path), expected);
      expectSame("walsync", await host.restored(), expected);
      // What walsync wrote before is what it was.
      expect((await official(litestream, path, { txid })).length).toBeGreaterThan(0);
      const destination = await replica.open();
      expect(restorePoints((await readChain(destination, "app")).files).at(-1)).toBeGreaterThan(txid);
      destination.close();
      saw(
        "walsync",
        "litestream",
        `replicate, of a database that walsync ${how}`,
        "goes on; both restore what both wrote",
      );
    },
    60_000,
  );

  test("walsync goes on with what Litestream wrote, and Litestream with that", async () => {
    const folder = newFolder();
    const replica = await place.begin(folder);
    const host = hostOf(folder, replica);
    host.create();
    host.insert(20);
    const litestream = litestreamOf(folder, host.path, replica);
    const theirTurn = async (): Promise<void> => {
      litestream.start();
      for (let i = 0; i < 10; i++) {
        host.insert(2, 500);
        await Bun.sleep(50);
      }
      await litestream.stop();
    };
    await theirTurn();
    const destination = await replica.open();
    const before = restorePoints((await readChain(destination, "app")).files).at(-1)!;

    await host.start();
    await host.settle();
    expect(host.txid).toBe(before + 1n);
    host.insert(7);
    await host.settle();
    host.app.run("vacuum");
    await host.settle();
    expect(host.txid).toBe(before + 3n);
    await expectAgreed(host, replica, litestream);
    const claimed: string[] = [];
    for await (const { key } of destination.list("")) {
      const parsed = parseKey(key);
      if (parsed?.is === "ltx" && parsed.layout === "litestream" && parsed.minTxid > before)
        claimed.push(`${parsed.level} ${parsed.minTxid}-${parsed.maxTxid}`);
    }
    expect(claimed).toEqual([1n, 2n, 3n].map((n) => `0 ${before + n}-${before + n}`));
    await host.stop();
    // The files that walsync closed held the locks of this process: Litestream would think that nobody has the database open.
    host.closeApp();

    await theirTurn();
    await expectAgreed(host, replica, litestream);
    destination.close();
    saw("litestream", "walsync", "watch --layout litestream", "goes on with its txids; both restore what both wrote");
  }, 60_000);
});
