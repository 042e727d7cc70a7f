// Goal: whatever the official Litestream leaves at a destination, with its levels, snapshots, retention and restarts, walsync
// reads as Litestream itself does: the same bytes at the same txid and time, or an error that says truthfully why not.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Chain, readChain, readTimeOf } from "../../src/chain/chain.ts";
import { pointsOf, restorePoints } from "../../src/chain/plan.ts";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { type Finished, runBinary } from "../support/binary.ts";
import { Litestream, type LitestreamPlace, type LitestreamRestore } from "../support/litestream.ts";
import { SqliteProcess } from "../support/sqlite-process.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { startVersitygw, type Versitygw } from "../support/versitygw.ts";
import { interopMatrix } from "./matrix.ts";

const skipped = requireTool("litestream") === null || requireTool("versitygw") === null;
const dir = tempDir();
const { record } = interopMatrix("litestream-written");
const BUCKET = "litestream";
let server: Versitygw;

beforeAll(async () => {
  if (skipped) return;
  server = (await startVersitygw())!;
  await server.createBucket(BUCKET);
});
afterAll(async () => await server?.stop());

/** Small intervals: a few seconds give all levels, several snapshots, and files that retention removed. */
const BUSY = {
  levels: ["1s", "2s", "4s"],
  snapshotInterval: "3s",
  snapshotRetention: "7s",
  l0Retention: "1s",
  checkpointInterval: "1s",
  minCheckpointPageCount: 20,
} as const;

interface Place {
  where: "bucket" | "directory";
  /** What the replica's name is below `url`. */
  url: string;
  env: Record<string, string>;
  of(name: string): LitestreamPlace;
}

function placeOf(where: "bucket" | "directory", prefix: string): Place {
  if (where === "directory") {
    const root = join(dir, prefix);
    return { where, url: root, env: {}, of: (name) => ({ kind: "file", path: join(root, name) }) };
  }
  return {
    where,
    url: `s3://${BUCKET}/${prefix}`,
    env: {
      AWS_ENDPOINT_URL_S3: server.endpoint,
      AWS_REGION: server.region,
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    },
    of: (name) => ({ kind: "s3", server, bucket: BUCKET, path: `${prefix}/${name}` }),
  };
}

const walsync = (place: Place, ...args: string[]): Promise<Finished> => runBinary(args, place.env);
const destinationAt = (place: Place): Promise<Destination> => openDestination(place.url, { env: place.env });
let outputs = 0;
const newOutput = (): string => join(dir, `restored-${outputs++}.db`);

/** What the writer promises of every state: entries without a hole, as many as the total says, after every commit. */
function entriesOf(path: string): number {
  const database = new Database(path, { readonly: true });
  try {
    const row = database
      .query<{ entries: number; last: number; total: number }, []>(
        "select count(*) entries, coalesce(max(id), 0) last, (select entries from total) total from entry",
      )
      .get()!;
    expect([row.last, row.total]).toEqual([row.entries, row.entries]);
    return row.entries;
  } finally {
    database.close();
  }
}

/** An application in a process of its own. */
class Writer {
  readonly process = new SqliteProcess();
  entries = 0;

  async open(path: string): Promise<void> {
    await this.process.open({ path, journalMode: "wal", busyTimeoutMs: 10_000 });
    await this.process.run("create table entry (id integer primary key, body blob)");
    await this.process.run("create table total (entries integer)");
    await this.process.run("insert into total values (0)");
  }

  async commit(bodySize = 400): Promise<void> {
    await this.process.run("begin immediate");
    await this.process.run("insert into entry (body) values (randomblob(?))", bodySize);
    if (this.entries % 5 === 0) await this.process.run("update entry set body = randomblob(200) where id % 7 = 3");
    await this.process.run("update total set entries = entries + 1");
    await this.process.run("commit");
    this.entries++;
    if (this.entries % 40 === 0) await this.process.checkpoint("PASSIVE");
  }

  async writeFor(durationMs: number): Promise<void> {
    const endMs = performance.now() + durationMs;
    while (performance.now() < endMs) {
      await this.commit();
      await Bun.sleep(30);
    }
  }
}

const levelsOf = ({ files }: Chain): number[] => [...new Set(files.map(({ level }) => level))].sort();

/** Some of many, the first and the last among them. */
function someOf<T>(values: readonly T[], count: number): T[] {
  if (values.length <= count) return [...values];
  return Array.from({ length: count }, (_, i) => values[Math.round((i * (values.length - 1)) / (count - 1))]!);
}

describe.skipIf(skipped).each(["directory", "bucket"] as const)("in a %s", (where) => {
  const database = join(dir, `${where}.db`);
  let place: Place;
  let litestream: Litestream;
  let destination: Destination;
  let chain: Chain;
  let written = 0;
  /** What was restored while Litestream merged and pruned. */
  const restoredMeanwhile: number[] = [];
  const refusals: Finished[] = [];

  beforeAll(async () => {
    place = placeOf(where, `busy-${where}`);
    destination = await destinationAt(place);
    litestream = Litestream.configured(dir, [{ path: database, place: place.of("app") }], BUSY)!;
    const writer = new Writer();
    await writer.open(database);
    let isWriting = true;
    const restoring = (async () => {
      while (isWriting) {
        await Bun.sleep(50);
        const output = newOutput();
        const finished = await walsync(place, "restore", "app", "-b", place.url, "-o", output);
        if (finished.status === 0) restoredMeanwhile.push(entriesOf(output));
        else refusals.push(finished);
        rmSync(output, { force: true });
      }
    })();
    litestream.start();
    await writer.writeFor(5000);
    // A crash, writes that nobody sees, and another run.
    await litestream.kill();
    await writer.writeFor(300);
    litestream.start();
    await writer.writeFor(5000);
    for (let waited = 0; waited < 60 && !(await isComplete()); waited++) await writer.writeFor(500);
    await litestream.stop();
    isWriting = false;
    await restoring;
    written = writer.entries;
    await writer.process.stop();
    chain = await readChain(destination, "app");

    /** All levels are there, and level 0 does not begin at 1 any more. */
    async function isComplete(): Promise<boolean> {
      const now = await readChain(destination, "app");
      const oldestFine = now.files.filter(({ level }) => level === 0).map(({ minTxid }) => minTxid);
      return [0, 1, 2, 3, 9].every((level) => levelsOf(now).includes(level)) && !oldestFine.includes(1n);
    }
  }, 120_000);
  afterAll(() => destination?.close());

  /** What walsync restores, and says of it, and what Litestream does; null if that finds nothing. */
  async function restoreBoth(point: string | null, target: LitestreamRestore) {
    const [ours, output] = [newOutput(), newOutput()];
    const flags = point === null ? [] : ["--point-in-time", point];
    const finished = await walsync(place, "restore", "app", "-b", place.url, "-o", ours, "--json", ...flags);
    expect({ point, ...finished }).toMatchObject({ point, status: 0 });
    const { status } = await litestream.restore(database, output, target);
    const told: { txid: number; time: string } = JSON.parse(finished.stdout);
    return { ours, told, theirs: status === 0 ? output : null };
  }

  function expectEqual(point: unknown, ours: string, theirs: string | null): void {
    expect({ point, theirs }).toEqual({ point, theirs: expect.any(String) });
    expect({ point, order: Buffer.compare(readFileSync(ours), readFileSync(theirs!)) }).toEqual({ point, order: 0 });
  }

  /** Both restore the same thing; returns how many entries it has. */
  async function compare(txid?: bigint): Promise<number> {
    const restored = txid === undefined ? restoreBoth(null, {}) : restoreBoth(`txid:${txid}`, { txid });
    const { ours, theirs } = await restored;
    expectEqual(txid, ours, theirs);
    const entries = entriesOf(ours);
    for (const path of [ours, theirs!]) rmSync(path);
    return entries;
  }

  test("Litestream wrote all its levels and removed what its retention does not keep", () => {
    expect(levelsOf(chain)).toEqual([0, 1, 2, 3, 9]);
    expect(pointsOf(chain.files).lost).toEqual([]);
  });

  test("the newest state is the last that was committed, for both", async () => {
    expect(await compare()).toBe(written);
    record({
      writer: "litestream",
      where,
      reader: "walsync",
      command: "restore",
      result: "same bytes as litestream restore",
    });
  });

  test("earlier txids are the same bytes for both", async () => {
    const { restorable } = pointsOf(chain.files);
    expect(restorable.length).toBeGreaterThan(3);
    const entries: number[] = [];
    for (const txid of someOf(restorable, 5)) entries.push(await compare(txid));
    expect(entries).toEqual(entries.toSorted((a, b) => a - b));
    const result = "same bytes as litestream restore -txid";
    record({ writer: "litestream", where, reader: "walsync", command: "restore --point-in-time txid:N", result });
  });

  // Litestream leaves out the very millisecond, so what it gives a millisecond later is what walsync gives.
  test("a time is the newest restore point that is not of after it, as for litestream restore -timestamp", async () => {
    const { restorable } = pointsOf(chain.files);
    const timeOf = (txid: bigint) => readTimeOf(destination, chain.files, txid);
    const endsWithSnapshot = new Set(chain.files.filter(({ level }) => level === 9).map(({ maxTxid }) => maxTxid));
    let compared = 0;
    for (const [i, txid] of someOf([...restorable.slice(0, -1).entries()], 6)) {
      const [atMs, nextMs] = [await timeOf(txid), await timeOf(restorable[i + 1]!)];
      if (atMs === nextMs) continue;
      for (const ms of new Set([atMs, Math.floor((atMs + nextMs) / 2)])) {
        const [time, timestamp] = [new Date(ms), new Date(ms + 1)].map((at) => at.toISOString());
        const { ours, theirs, told } = await restoreBoth(time!, { timestamp: timestamp! });
        expect(told.txid).toBe(Number(txid));
        expect(Date.parse(told.time)).toBeLessThanOrEqual(ms);
        // A snapshot has the time at which it was taken. If nothing else leads to its state, Litestream finds an earlier one.
        if (endsWithSnapshot.has(txid)) {
          if (theirs !== null) expect(entriesOf(theirs)).toBeLessThanOrEqual(entriesOf(ours));
        } else {
          expectEqual(time, ours, theirs);
          compared++;
        }
        for (const path of [ours, theirs]) if (path !== null) rmSync(path);
      }
    }
    expect(compared).toBeGreaterThan(3);
    const row = { writer: "litestream", where, reader: "walsync", command: "restore --point-in-time TIME" } as const;
    record({ ...row, result: "same bytes as litestream restore -timestamp a millisecond later" });
  }, 60_000);

  test("a txid that retention left nothing of is not found, and the nearest are named", async () => {
    const { restorable } = pointsOf(chain.files);
    const gone = restorable.find((txid, i) => i > 0 && restorable[i - 1]! < txid - 1n)! - 1n;
    const args = ["restore", "app", "-b", place.url, "-o", newOutput(), "--point-in-time", `txid:${gone}`];
    const { status, stderr } = await walsync(place, ...args);
    expect({ status, stderr }).toMatchObject({ status: 4, stderr: expect.stringContaining(`txid:${gone + 1n}`) });
  });

  test("a restore in a loop meanwhile was always a state that the application had, and never went back", () => {
    expect(restoredMeanwhile.length).toBeGreaterThan(3);
    expect(restoredMeanwhile).toEqual(restoredMeanwhile.toSorted((a, b) => a - b));
    // At first there is nothing yet, not even the folder.
    const isBefore = ({ status, stderr }: Finished) => status === 4 || stderr.includes("does not exist");
    expect(refusals.filter((finished) => !isBefore(finished))).toEqual([]);
    const result = "always a state that was committed";
    record({
      writer: "litestream",
      where,
      reader: "walsync",
      command: "restore, while Litestream merges and prunes",
      result,
    });
  });

  test("list tells the newest txid in decimal, and from when to when", async () => {
    const { status, stdout } = await walsync(place, "list", "-b", place.url, "--json");
    expect(status).toBe(0);
    const newest = restorePoints(chain.files).at(-1)!;
    const [row, ...others] = JSON.parse(stdout).databases;
    expect(others).toEqual([]);
    expect(row).toMatchObject({ name: "app", layout: "litestream", txid: Number(newest) });
    expect(row.snapshots + row.increments).toBe(chain.files.length);
    expect(Date.parse(row.oldest)).toBeLessThan(Date.parse(row.newest));
    expect((await walsync(place, "list", "-b", place.url)).stdout).toMatch(/^app +litestream +\d+/m);
    record({ writer: "litestream", where, reader: "walsync", command: "list", result: "name, txid and times" });
  });

  test.each(["verify NAME", "verify NAME --quick", "verify --all"])(
    "%s: everything in order, and what is not proven is a note",
    async (command) => {
      const args = command.replace("NAME", "app").split(" ");
      const { status, stdout } = await walsync(place, ...args, "-b", place.url, "--json");
      const [report] = JSON.parse(stdout).databases;
      expect({ status, report }).toMatchObject({
        status: 0,
        report: { name: "app", ok: true, files: chain.files.length },
      });
      // What is left of before the oldest snapshot is one, too.
      const notes = report.findings.filter(({ code }: { code: string }) => code !== "unreachable");
      expect(notes).toMatchObject([{ code: "no-checksums", severity: "note" }]);
      for (const { severity } of report.findings) expect(severity).toBe("note");
      const { restorable, stranded } = pointsOf(chain.files);
      expect(report).toMatchObject({
        points: restorable.length + stranded.length,
        proven: args.includes("--quick") ? 0 : restorable.length,
      });
      record({
        writer: "litestream",
        where,
        reader: "walsync",
        command,
        result: "ok, with a note: no checksums of the database",
      });
    },
  );

  test("compact tells, and deletes nothing, with --force or without", async () => {
    const dry = await walsync(place, "compact", "app", "-b", place.url);
    expect(dry).toMatchObject({ status: 0, stdout: expect.stringContaining("RESTORE POINT") });
    const policy = ["--hourly", "1", "--daily", "0", "--weekly", "0", "--monthly", "0", "--point-in-time", "0"];
    const forced = await walsync(place, "compact", "app", "-b", place.url, "--force", ...policy);
    expect(forced).toMatchObject({ status: 2, stderr: expect.stringContaining("litestream") });
    expect((await walsync(place, "compact", "--all", "-b", place.url, "--force", ...policy)).status).toBe(0);
    expect((await readChain(destination, "app")).files).toHaveLength(chain.files.length);
    record({ writer: "litestream", where, reader: "walsync", command: "compact", result: "shows what a policy keeps" });
    record({ writer: "litestream", where, reader: "walsync", command: "compact --force", result: "refused" });
  });

  test("the replica's own path is a destination, too", async () => {
    const own = `${place.url}/app`;
    const output = newOutput();
    expect(await walsync(place, "restore", ".", "-b", own, "-o", output)).toMatchObject({ status: 0 });
    expect(entriesOf(output)).toBe(written);
    expect(JSON.parse((await walsync(place, "list", "-b", own, "--json")).stdout).databases).toMatchObject([
      { name: "." },
    ]);
    expect((await walsync(place, "verify", ".", "-b", own)).status).toBe(0);
    const mistaken = await walsync(place, "restore", "app", "-b", own, "-o", newOutput());
    expect(mistaken).toMatchObject({ status: 4, stderr: expect.stringContaining("right here") });
    record({
      writer: "litestream",
      where,
      reader: "walsync",
      command: "restore . from the replica's own path",
      result: "the newest state",
    });
  });

  test("replicate follows what Litestream ships, and notices a source that was made anew", async () => {
    const [path, local] = [join(dir, `${where}-followed.db`), join(dir, `${where}-copy.db`)];
    const source = `${place.url}/followed`;
    const follow = async () => {
      const { status, stdout, stderr } = await walsync(
        place,
        "replicate",
        source,
        "--local",
        local,
        "--once",
        "--json",
      );
      expect({ status, stderr }).toMatchObject({ status: 0 });
      return { entries: entriesOf(local), reason: JSON.parse(stdout).reason };
    };
    for (const expected of ["bootstrap", "increments"]) {
      const first = await ship(path, place.of("followed"), 6);
      expect(await follow()).toEqual({ entries: first, reason: expected });
    }
    // Another database takes the place of the one before, txids and all, and reaches further.
    for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true });
    rmSync(join(dir, `.${where}-followed.db-litestream`), { recursive: true, force: true });
    const old = await readChain(destination, "followed");
    await destination.remove(old.files.map(({ key }) => key));
    const anew = await ship(path, place.of("followed"), 40);
    const now = await readChain(destination, "followed");
    expect(restorePoints(now.files).at(-1)! > restorePoints(old.files).at(-1)!).toBe(true);
    expect(await follow()).toEqual({ entries: anew, reason: "bootstrap" });
    record({
      writer: "litestream",
      where,
      reader: "walsync",
      command: "replicate",
      result: "the newest state, by increments",
    });
  }, 60_000);

  test("many databases below one prefix are each found", async () => {
    const many = placeOf(where, `many-${where}`);
    const names = ["a", "nested/b", "c.db"];
    const paths = names.map((_, i) => join(dir, `${where}-many-${i}.db`));
    const running = Litestream.configured(
      dir,
      names.map((name, i) => ({ path: paths[i]!, place: many.of(name) })),
    )!;
    for (const [i, path] of paths.entries()) fill(path, i + 1);
    expect(await running.replicateOnce()).toMatchObject({ status: 0 });
    const { stdout } = await walsync(many, "list", "-b", many.url, "--json");
    expect(JSON.parse(stdout).databases.map(({ name }: { name: string }) => name)).toEqual(names.toSorted());
    for (const [i, name] of names.entries()) {
      const output = newOutput();
      expect(await walsync(many, "restore", name, "-b", many.url, "-o", output)).toMatchObject({ status: 0 });
      expect(entriesOf(output)).toBe(i + 1);
    }
    expect((await walsync(many, "verify", "--all", "-b", many.url)).status).toBe(0);
  });
});

/** Puts entries into a database, more each time. Returns how many it has. */
function fill(path: string, count: number): number {
  const database = new Database(path);
  database.run("pragma journal_mode = wal");
  database.run("create table if not exists entry (id integer primary key, body blob)");
  database.run("create table if not exists total (entries integer)");
  database.run("insert into total select 0 where not exists (select 1 from total)");
  for (let i = 0; i < count; i++) {
    database.transaction(() => {
      database.run("insert into entry (body) values (randomblob(300))");
      database.run("update total set entries = entries + 1");
    })();
  }
  const { entries } = database.query<{ entries: number }, []>("select entries from total").get()!;
  database.close();
  return entries;
}

/** A txid for every entry, by as many runs of Litestream. Returns how many entries there are. */
async function ship(path: string, place: LitestreamPlace, count: number): Promise<number> {
  const litestream = Litestream.configured(dir, [{ path, place }], { levels: ["1h"], l0Retention: "1h" })!;
  let entries = 0;
  for (let i = 0; i < count; i++) {
    entries = fill(path, 1);
    expect(await litestream.replicateOnce()).toMatchObject({ status: 0 });
  }
  return entries;
}

describe.skipIf(skipped)("damage", () => {
  const root = join(dir, "whole");
  const place: Place = {
    where: "directory",
    url: root,
    env: {},
    of: (name) => ({ kind: "file", path: join(root, name) }),
  };
  const level = (folder: string, number: number) => join(folder, "app/ltx", String(number));
  const filesIn = (folder: string) =>
    readdirSync(folder)
      .filter((name) => name.endsWith(".ltx"))
      .sort();
  const txid = (value: number) => value.toString(16).padStart(16, "0");
  const isWide = (name: string) => Number(`0x${name.slice(17, 33)}`) - Number(`0x${name.slice(0, 16)}`) > 4;
  let damaged = 0;

  // Level 0 complete, and level 1 over some of it.
  beforeAll(async () => {
    const path = join(dir, "whole.db");
    const litestream = Litestream.configured(dir, [{ path, place: place.of("app") }], {
      levels: ["1s"],
      l0Retention: "1h",
    })!;
    const writer = new Writer();
    await writer.open(path);
    litestream.start();
    for (let waited = 0; waited < 60; waited++) {
      await writer.writeFor(500);
      try {
        if (filesIn(level(root, 1)).filter((name) => isWide(name) && !name.startsWith(txid(1))).length > 1) break;
      } catch {} // Not there yet.
    }
    await litestream.stop();
    await writer.process.stop();
  }, 60_000);

  /** A copy to damage, and the middle of a file of level 1. */
  function copy(): { folder: string; merged: string; middle: number } {
    const folder = join(dir, `damaged-${damaged++}`);
    cpSync(root, folder, { recursive: true });
    const merged = filesIn(level(folder, 1)).find((name) => isWide(name) && !name.startsWith(txid(1)))!;
    const [min, max] = [Number(`0x${merged.slice(0, 16)}`), Number(`0x${merged.slice(17, 33)}`)];
    return { folder, merged, middle: Math.floor((min + max) / 2) };
  }
  const restore = (folder: string, ...flags: string[]) =>
    walsync(place, "restore", "app", "-b", folder, "-o", newOutput(), ...flags);
  const verify = async (folder: string) => {
    const { status, stdout } = await walsync(place, "verify", "app", "-b", folder, "--json");
    return { status, codes: JSON.parse(stdout).databases[0].findings.map(({ code }: { code: string }) => code) };
  };

  test("a missing level-0 file that level 1 covers is what retention leaves: its txid is not found, all else is there", async () => {
    const { folder, middle } = copy();
    rmSync(join(level(folder, 0), `${txid(middle)}-${txid(middle)}.ltx`));
    expect((await restore(folder)).status).toBe(0);
    expect((await restore(folder, "--point-in-time", `txid:${middle}`)).status).toBe(4);
    expect((await restore(folder, "--point-in-time", `txid:${middle + 1}`)).status).toBe(4);
    expect(await verify(folder)).toEqual({ status: 0, codes: ["no-checksums"] });
    const result = "the newest state; that txid is not found (4)";
    record({
      writer: "litestream",
      where: "directory",
      reader: "walsync",
      command: "restore, a level-0 file gone that level 1 covers",
      result,
    });
  });

  test("a file that nothing covers is a gap for every target behind it", async () => {
    const { folder, merged, middle } = copy();
    rmSync(join(level(folder, 0), `${txid(middle)}-${txid(middle)}.ltx`));
    rmSync(join(level(folder, 1), merged));
    rmSync(level(folder, 9), { recursive: true, force: true });
    for (const flags of [[], ["--point-in-time", `txid:${middle + 1}`], ["--point-in-time", "2999-01-01"]]) {
      expect(await restore(folder, ...flags)).toMatchObject({
        status: 5,
        stderr: expect.stringContaining("E_CHAIN_GAP"),
      });
    }
    expect((await restore(folder, "--point-in-time", `txid:${middle - 1}`)).status).toBe(0);
    expect(await verify(folder)).toEqual({ status: 5, codes: ["chain-gap", "no-checksums"] });
    const result = "E_CHAIN_GAP (5) for what is behind it";
    record({
      writer: "litestream",
      where: "directory",
      reader: "walsync",
      command: "restore, a file gone that nothing covers",
      result,
    });
  });

  test("a flipped bit is found by whoever reads the file", async () => {
    const { folder, middle } = copy();
    const path = join(level(folder, 0), `${txid(middle)}-${txid(middle)}.ltx`);
    const bytes = readFileSync(path);
    bytes[bytes.length >> 1]! ^= 1;
    writeFileSync(path, bytes);
    const { status, codes } = await verify(folder);
    expect({ status, damaged: codes.includes("file-damaged") }).toEqual({ status: 5, damaged: true });
    expect((await restore(folder, "--point-in-time", `txid:${middle}`)).status).toBe(5);
    record({
      writer: "litestream",
      where: "directory",
      reader: "walsync",
      command: "restore, verify, a bit flipped",
      result: "E_LTX (5)",
    });
  });

  test("a replica of Litestream 0.3 is told as such", async () => {
    const folder = join(dir, "old");
    mkdirSync(join(folder, "app/generations/0123456789abcdef/snapshots"), { recursive: true });
    writeFileSync(join(folder, "app/generations/0123456789abcdef/snapshots/00000000.snapshot.lz4"), "old");
    for (const command of [
      ["restore", "app", "-o", newOutput()],
      ["verify", "app"],
    ]) {
      const { status, stderr } = await walsync(place, ...command, "-b", folder);
      expect({ status, stderr }).toMatchObject({
        status: 4,
        stderr: expect.stringContaining("Litestream 0.3 replica"),
      });
    }
  });
});

test.skipIf(skipped)("a replica at the root of a bucket is read, which Litestream does not find again", async () => {
  await server.createBucket("root-bucket");
  const path = join(dir, "root.db");
  const litestream = Litestream.configured(dir, [
    { path, place: { kind: "s3", server, bucket: "root-bucket", path: "" } },
  ])!;
  const entries = fill(path, 3);
  expect(await litestream.replicateOnce()).toMatchObject({ status: 0 });
  expect((await litestream.restore(path, newOutput())).status).not.toBe(0);
  const { env } = placeOf("bucket", "");
  const output = newOutput();
  expect(await runBinary(["restore", ".", "-b", "s3://root-bucket", "-o", output], env)).toMatchObject({ status: 0 });
  expect(entriesOf(output)).toBe(entries);
  // Whoever follows gives destination and name in one: nothing behind the bucket.
  const local = join(dir, "root-copy.db");
  const follow = () => runBinary(["replicate", "s3://root-bucket", "--local", local, "--once", "--json"], env);
  expect(await follow()).toMatchObject({ status: 0, stdout: expect.stringContaining('"reason":"bootstrap"') });
  const more = fill(path, 2);
  expect(await litestream.replicateOnce()).toMatchObject({ status: 0 });
  expect(await follow()).toMatchObject({ status: 0, stdout: expect.stringContaining('"reason":"increments"') });
  expect(entriesOf(local)).toBe(more);
  const other = await runBinary(["replicate", `s3://${BUCKET}`, "--local", join(dir, "x.db"), "--once"], env);
  expect(other).toMatchObject({ status: 4, stderr: expect.stringContaining("There is: ") });
});
