// Goal: whatever happens to a database between two looks, or while nobody looks, what is shipped restores every state
// that was captured, and the newest one at last. Each scenario is a known way to lose data.

import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { copyFileSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { observeDurableSteps } from "../../src/durable.ts";
import { NO_SNAPSHOTS } from "../../src/replication/due.ts";
import { PinnedDatabase } from "../../src/sqlite/database.ts";
import { framesOf, resealed } from "../support/sqlite-wal.ts";
import { tempDir } from "../support/temp.ts";
import { Host, type HostOptions } from "./host.ts";

const dir = tempDir();
let hosts: Host[] = [];

afterEach(async () => {
  const ending = hosts;
  hosts = [];
  for (const host of ending) await host.end();
});

function makeHost(bucket?: string, options?: HostOptions): Host {
  const host = new Host(join(dir, crypto.randomUUID()), bucket, options);
  hosts.push(host);
  return host;
}

/** A host that replicates, with some rows shipped. */
async function liveHost(pageSize = 4096): Promise<Host> {
  const host = makeHost();
  host.create(pageSize);
  host.insert(20);
  await host.start();
  await host.settle();
  return host;
}

/** Another host that begins to replicate to the same name. */
async function otherWriterOf(host: Host): Promise<Host> {
  const other = makeHost(join(host.bucketFolder, ".."));
  other.create();
  await other.start();
  await other.settle();
  return other;
}

async function expectNewest(host: Host): Promise<void> {
  await host.settle();
  expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
}

/** The application goes away, something happens to its files, and walsync comes back. */
async function whileDown(host: Host, event: () => void): Promise<void> {
  await host.stop();
  event();
  await host.start();
}

describe("between two looks", () => {
  test.each([512, 1024, 4096, 65536])("every commit becomes a restore point, page size %p", async (pageSize) => {
    const host = await liveHost(pageSize);
    const states = new Map([[host.txid, host.content()]]);
    for (let i = 0; i < 5; i++) {
      host.insert(3, 3000);
      await host.settle();
      states.set(host.txid, host.content());
    }
    expect([...states.keys()]).toEqual([1n, 2n, 3n, 4n, 5n, 6n]);
    for (const [txid, content] of states) {
      expect(Buffer.compare(await host.restored({ kind: "txid", txid }), content)).toBe(0);
    }
  });

  test("commits of one look become one increment", async () => {
    const host = await liveHost();
    for (let i = 0; i < 7; i++) host.insert();
    await expectNewest(host);
    expect(host.txid).toBe(2n);
  });

  test.each(["PASSIVE", "FULL", "RESTART", "TRUNCATE"] as const)(
    "the application's %s checkpoints lose nothing and need no comparison",
    async (mode) => {
      const host = await liveHost();
      host.app.run("pragma busy_timeout = 0");
      for (let i = 0; i < 10; i++) {
        host.insert(2);
        host.checkpoint(mode);
        if (i % 3 === 2) await host.settle();
      }
      await expectNewest(host);
      expect(host.logged("comparing")).toBe(false);
    },
  );

  test("a WAL that restarts in place with fewer frames is captured from its beginning", async () => {
    const host = await liveHost();
    host.insert(200, 1000);
    await host.settle();
    // Quiet for half a second: everything is copied back, and the pin rests where the next writer restarts the WAL.
    await Bun.sleep(520);
    await host.settle();
    host.insert(1);
    await expectNewest(host);
    expect(host.logged("comparing")).toBe(false);
  });

  test("VACUUM that shrinks the database, and the growth after it", async () => {
    const host = await liveHost();
    host.insert(500, 2000);
    await host.settle();
    const large = { txid: host.txid, content: host.content() };
    host.app.run("delete from item where id > 5");
    host.app.run("vacuum");
    await expectNewest(host);
    expect(host.content().length).toBeLessThan(large.content.length / 10);
    host.insert(300, 2000);
    await expectNewest(host);
    const before = await host.restored({ kind: "txid", txid: large.txid });
    expect(Buffer.compare(before, large.content)).toBe(0);
  });

  test.each(["full", "incremental"] as const)("auto_vacuum = %s", async (mode) => {
    const host = makeHost();
    host.create(4096, mode);
    await host.start();
    for (let i = 0; i < 4; i++) {
      host.insert(50, 3000);
      await host.settle();
      host.app.run("delete from item where id % 2 = 0");
      host.app.run("pragma incremental_vacuum(7)");
      await expectNewest(host);
    }
  });

  test("a transaction of many times the page cache, and one that is rolled back", async () => {
    const host = await liveHost();
    host.app.run("pragma cache_size = 10");
    host.insert(3000, 4000);
    await expectNewest(host);
    const { txid } = host;
    host.app.run("begin");
    host.insert(500, 4000);
    host.app.run("rollback");
    await host.settle();
    expect(host.txid).toBe(txid);
    host.insert();
    await expectNewest(host);
  });

  test("the smallest databases: without a table, and with one page", async () => {
    const host = makeHost();
    host.app.run("pragma journal_mode = wal");
    host.app.run("pragma user_version = 7");
    await host.start();
    await expectNewest(host);
    expect(host.content().length).toBe(4096);
    host.app.run("pragma user_version = 8");
    await expectNewest(host);
  });
});

describe("the database file changes hands", () => {
  test("another database is renamed over it", async () => {
    const host = await liveHost();
    const other = join(dir, `${crypto.randomUUID()}.db`);
    host.app.run("vacuum into ?", [other]);
    host.insert(5);
    await host.settle();
    host.closeApp();
    rmSync(`${host.path}-wal`, { force: true });
    rmSync(`${host.path}-shm`, { force: true });
    renameSync(other, host.path);
    host.app.run("pragma journal_mode = wal");
    host.look();
    await host.until("the new file is open", () => host.replicator.position !== null);
    await expectNewest(host);
    expect(host.logged("comparing")).toBe(true);
  });

  test("it is deleted and made anew", async () => {
    const host = await liveHost();
    host.closeApp();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
    host.look();
    host.create();
    host.insert(3);
    await host.until("the new file is open", () => host.replicator.position !== null);
    await expectNewest(host);
  });

  test("it is replaced and nobody tells: stopping finds out", async () => {
    const host = await liveHost();
    const other = join(dir, `${crypto.randomUUID()}.db`);
    host.app.run("vacuum into ?", [other]);
    host.insert(5);
    await host.settle();
    host.closeApp();
    for (const suffix of ["-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
    renameSync(other, host.path);
    host.app.run("pragma journal_mode = wal");
    host.insert(1);
    expect(await host.stop()).toBe(0);
    expect(host.replicator.failure).toBeNull();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("it is deleted for good: the failure is told, and what was shipped stays", async () => {
    const host = await liveHost();
    const content = host.content();
    host.closeApp();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
    host.look();
    expect(host.replicator.failure?.code).toBe("E_DATABASE");
    expect(Buffer.compare(await host.restored(), content)).toBe(0);
  });
});

describe("while nobody looks", () => {
  test("commits wait in the WAL", async () => {
    const host = await liveHost();
    await whileDown(host, () => host.insert(5));
    await expectNewest(host);
    expect(host.logged("comparing")).toBe(false);
  });

  test.each([1, 2, 5])("the WAL restarts %p times", async (times) => {
    const host = await liveHost();
    await whileDown(host, () => {
      for (let i = 0; i < times; i++) {
        host.insert(5);
        host.checkpoint("RESTART");
        host.insert(2);
      }
    });
    await expectNewest(host);
    expect(host.logged("comparing")).toBe(true);
  });

  test("the last connection closes and deletes the WAL", async () => {
    const host = await liveHost();
    await whileDown(host, () => {
      host.insert(5);
      host.closeApp();
    });
    host.insert(2);
    await expectNewest(host);
    expect(host.logged("comparing")).toBe(true);
  });

  test("the WAL is as long as before, but another one", async () => {
    const host = await liveHost();
    host.insert(1, 10);
    await host.settle();
    await whileDown(host, () => {
      host.checkpoint("TRUNCATE");
      host.insert(1, 10);
    });
    await expectNewest(host);
  });

  // A writer that is killed between its last frame and the WAL index leaves a commit that nobody sees, until the WAL is
  // recovered by whoever opens it first.
  test("a writer that died in the middle of a commit: what nobody could see does not come back", async () => {
    const host = await liveHost();
    host.insert(2);
    await host.settle();
    const content = host.content();
    const wal = readFileSync(`${host.path}-wal`);
    const frame = Buffer.alloc(24 + 4096);
    frame.writeUInt32BE(2, 0);
    frame.writeUInt32BE(content.length / 4096, 4);
    wal.copy(frame, 8, 16, 24);
    frame.set(content.subarray(4096, 8192), 24);
    frame[24 + 4000]! ^= 1;
    const isBigEndian = wal.readUInt8(3) === 0x83;
    const committed = framesOf(wal, 4096).filter(({ offset }) => wal.readUInt32BE(offset + 8) === wal.readUInt32BE(16));
    const end = committed.at(-1)!.offset + 24 + 4096;
    const withHidden = resealed(Buffer.concat([wal.subarray(0, end), frame]), 4096, isBigEndian);
    host.closeApp();
    writeFileSync(`${host.path}-wal`, withHidden);
    await host.stop();
    expect(Buffer.compare(host.content(), content)).toBe(0);
    await host.start();
    await expectNewest(host);
  });

  test("nothing happens, and nothing is shipped", async () => {
    const host = await liveHost();
    host.insert();
    await host.settle();
    const { txid } = host;
    await whileDown(host, () => {});
    await host.settle();
    expect(host.txid).toBe(txid);
    expect(host.logged("comparing")).toBe(false);
  });

  test("a backup is restored underneath", async () => {
    const host = await liveHost();
    const backup = join(dir, `${crypto.randomUUID()}.db`);
    host.app.run("vacuum into ?", [backup]);
    host.insert(9, 4000);
    await host.settle();
    await whileDown(host, () => {
      host.closeApp();
      for (const suffix of ["-wal", "-shm"]) rmSync(host.path + suffix, { force: true });
      copyFileSync(backup, host.path);
      host.app.run("pragma journal_mode = wal");
    });
    await expectNewest(host);
    expect(host.logged("comparing")).toBe(true);
  });

  test("the state folder is deleted: the chain is taken over where it ends", async () => {
    const host = await liveHost();
    host.insert(5);
    await host.settle();
    const { txid } = host;
    await whileDown(host, () => {
      rmSync(host.stateFolder, { recursive: true });
      host.insert(1);
    });
    await expectNewest(host);
    expect(host.txid).toBe(txid + 1n);
  });

  test("a database that is what the chain ends with ships nothing, as after a restore", async () => {
    const host = await liveHost();
    const { txid } = host;
    await whileDown(host, () => rmSync(host.stateFolder, { recursive: true }));
    await host.settle();
    expect(host.txid).toBe(txid);
    expect(host.logged("chain continued")).toBe(true);
  });

  test("journal mode leaves WAL: told until it is back, then compared", async () => {
    const host = await liveHost();
    await whileDown(host, () => {
      host.app.run("pragma journal_mode = delete");
      host.insert(3);
    });
    expect(host.log.at(-1)).toContain("E_DATABASE");
    host.app.run("pragma journal_mode = wal");
    host.insert(1);
    await whileDown(host, () => {});
    await expectNewest(host);
  });

  test.each([
    [4096, 512],
    [1024, 65536],
  ])("VACUUM changes the page size from %p to %p: a snapshot follows, and earlier points stay", async (from, to) => {
    const host = await liveHost(from);
    const before = { txid: host.txid, content: host.content() };
    await whileDown(host, () => {
      host.app.run("pragma journal_mode = delete");
      host.app.run(`pragma page_size = ${to}`);
      host.app.run("vacuum");
      host.app.run("pragma journal_mode = wal");
    });
    await expectNewest(host);
    host.insert(4);
    await expectNewest(host);
    const restored = await host.restored({ kind: "txid", txid: before.txid });
    expect(Buffer.compare(restored, before.content)).toBe(0);
  });
});

describe("the destination", () => {
  const objectsOf = (host: Host) => readdirSync(host.bucketFolder).filter((name) => name.endsWith(".ltx"));

  test.each([1, 3])("the newest %p objects are lost: a snapshot replaces them", async (count) => {
    const host = await liveHost();
    for (let i = 0; i < 4; i++) {
      host.insert();
      await host.settle();
    }
    await whileDown(host, () => {
      for (const name of objectsOf(host).sort().slice(-count)) rmSync(join(host.bucketFolder, name));
    });
    await host.until("a snapshot is there", () => objectsOf(host).some((name) => /^0*1-0*5\.ltx$/.test(name)));
    await expectNewest(host);
  });

  test("an older snapshot that still waits does not stand for the one that is owed", async () => {
    const host = await liveHost();
    host.insert();
    await host.settle();
    await host.replicator.requests.snapshot();
    await host.settle();
    host.insert();
    await host.settle();
    expect(host.txid).toBe(3n);
    await whileDown(host, () => {
      const [state] = readdirSync(host.stateFolder).filter((name) => /^[0-9a-f]{12}$/.test(name));
      const waiting = join(
        host.stateFolder,
        state!,
        "outbox",
        `${"1".padStart(16, "0")}-${"2".padStart(16, "0")}.0.ltx`,
      );
      renameSync(join(host.bucketFolder, "00000001-00000002.ltx"), waiting);
      rmSync(join(host.bucketFolder, "00000003-00000003.ltx"));
    });
    await host.until("a snapshot of the newest state is there", () =>
      objectsOf(host).includes("00000001-00000003.ltx"),
    );
    await expectNewest(host);
  });

  test("another host goes on with the chain: this one stops and touches nothing", async () => {
    const host = await liveHost();
    await host.stop();
    const other = makeHost(join(host.bucketFolder, ".."));
    other.create();
    other.insert(7);
    await other.start();
    await other.settle();
    expect(other.txid).toBe(2n);
    const objects = objectsOf(host);
    host.insert();
    await host.start();
    await host.until("it is fenced", () => host.replicator.fencedBy !== null);
    expect(host.replicator.fencedBy).toMatchObject({ code: "E_FENCED" });
    expect(objectsOf(host)).toEqual(objects);
    host.insert();
    expect(Buffer.compare(await other.restored(), other.content())).toBe(0);
    // The application is not hindered by a walsync that has stopped.
    host.checkpoint("TRUNCATE");
    expect(host.app.query("pragma wal_checkpoint(TRUNCATE)").values()[0]).toEqual([0, 0, 0]);
  });

  test("two hosts at once on one name: one of them is fenced, and the chain is one history", async () => {
    const host = await liveHost();
    const other = await otherWriterOf(host);
    host.insert();
    await host.until("it is fenced", () => host.replicator.fencedBy !== null);
    expect(Buffer.compare(await host.restored(), other.content())).toBe(0);
  });

  test("the outbox is full: capture pauses, says so, and goes on", async () => {
    const host = await liveHost();
    await host.stop();
    const locked = `${host.bucketFolder}.away`;
    await host.start({ maxOutboxBytes: 20_000 });
    await host.settle();
    renameSync(host.bucketFolder, locked);
    await Bun.write(host.bucketFolder, "not a folder");
    for (let i = 0; i < 8; i++) {
      host.insert(1, 10_000);
      host.look();
      await Bun.sleep(5);
    }
    expect(host.logged("the outbox is full")).toBe(true);
    const { txid } = host;
    host.insert(1, 10_000);
    host.look();
    expect(host.txid).toBe(txid);
    rmSync(host.bucketFolder);
    renameSync(locked, host.bucketFolder);
    await expectNewest(host);
  });
});

describe("whoever waits until all is shipped", () => {
  /** What a call ends with. Waits for nothing, as `expect(...).rejects` would. */
  const errorOf = (call: Promise<unknown>): Promise<unknown> =>
    call.then(
      () => null,
      (error) => error,
    );

  /** Nothing can be put there until the result is called. */
  const block = async (host: Host): Promise<() => void> => {
    const away = `${host.bucketFolder}-away`;
    renameSync(host.bucketFolder, away);
    await Bun.write(host.bucketFolder, "not a folder");
    return () => {
      rmSync(host.bucketFolder);
      renameSync(away, host.bucketFolder);
    };
  };

  test.each(["increment", "snapshot"])("is not told so when the watch stops before: %s", async (kind) => {
    const host = await liveHost();
    if (kind === "snapshot") {
      host.insert();
      await host.settle();
    }
    await block(host);
    if (kind === "increment") host.insert();
    const txid = await (kind === "snapshot"
      ? host.replicator.requests.snapshot()
      : host.replicator.requests.captureNow());
    const told = errorOf(host.replicator.requests.shipped(txid));
    expect(await host.replicator.stop(AbortSignal.timeout(50))).toBe(1);
    expect(await told).toMatchObject({ code: "E_UNREACHABLE" });
    expect(await errorOf(host.replicator.requests.captureNow())).toMatchObject({ code: "E_UNREACHABLE" });
  });

  test("before first contact hears of the end", async () => {
    const host = makeHost(undefined, { ready: new Promise(() => {}) });
    host.create();
    await host.start();
    const told = errorOf(host.replicator.requests.captureNow());
    await host.replicator.stop(AbortSignal.abort());
    expect(await told).toMatchObject({ code: "E_UNREACHABLE", message: expect.stringContaining("app.db: expected") });
  });

  test("hears of the other writer, now and later", async () => {
    const host = await liveHost();
    await otherWriterOf(host);
    host.insert();
    const txid = await host.replicator.requests.captureNow();
    expect(await errorOf(host.replicator.requests.shipped(txid))).toMatchObject({ code: "E_FENCED" });
    expect(await errorOf(host.replicator.requests.captureNow())).toMatchObject({ code: "E_FENCED" });
  });

  test("waits until a full outbox has taken the rest; who does not wait hears of it", async () => {
    const host = await liveHost();
    await host.stop();
    await host.start({ maxOutboxBytes: 1 });
    await host.settle();
    const release = await block(host);
    host.insert();
    await host.replicator.requests.captureNow();
    host.insert();
    expect(await errorOf(host.replicator.requests.captureNow())).toMatchObject({ code: "E_DISK" });
    const waiting = host.replicator.requests.captureNow({ waitsForRoom: true });
    await Bun.sleep(20);
    release();
    await host.replicator.requests.shipped(await waiting);
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("gets what was committed during a comparison, too", async () => {
    const host = await liveHost();
    await host.stop();
    host.insert(100, 200_000);
    host.checkpoint("TRUNCATE");
    await host.start();
    while (host.replicator.state !== "scanning") {
      host.look();
      await Bun.sleep(0);
    }
    host.insert();
    await host.replicator.requests.shipped(await host.replicator.requests.captureNow());
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });
});

describe("stopping", () => {
  const slow = async (host: Host): Promise<() => void> => {
    // The gate of the scans is taken: whatever wants to read the whole database has to wait.
    const { promise, resolve } = Promise.withResolvers<void>();
    void host.scans.run(() => promise);
    await Bun.sleep(0);
    return resolve;
  };

  test("waits for a comparison that is under way", async () => {
    const host = await liveHost();
    const release = await slow(host);
    host.closeApp();
    rmSync(host.path);
    host.create();
    host.insert(5);
    await host.until("a comparison waits", () => host.logged("comparing the whole database"));
    const stopping = host.stop();
    setTimeout(release, 100);
    await stopping;
    expect(host.replicator.failure).toBeNull();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("in the middle of the first snapshot captures what was committed since it began", async () => {
    const host = makeHost();
    host.create();
    host.insert(100, 200_000);
    await host.start();
    while (host.replicator.state !== "scanning") await Bun.sleep(0);
    let stopping: Promise<number> | null = null;
    for (; host.replicator.state === "scanning"; await Bun.sleep(0)) {
      host.insert();
      stopping ??= host.stop();
    }
    expect(await stopping).toBe(0);
    expect(host.replicator.failure).toBeNull();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("with too little time for a comparison says so", async () => {
    const host = await liveHost();
    const release = await slow(host);
    host.closeApp();
    rmSync(host.path);
    host.create();
    await host.until("a comparison waits", () => host.logged("comparing the whole database"));
    await host.replicator.stop(AbortSignal.timeout(50));
    release();
    expect(host.replicator.failure?.code).toBe("E_UNREACHABLE");
  });

  test("with a full outbox captures the rest as soon as there is room", async () => {
    const host = await liveHost();
    await host.stop();
    await host.start({ maxOutboxBytes: 1 });
    await host.settle();
    const locked = `${host.bucketFolder}-gone`;
    renameSync(host.bucketFolder, locked);
    await Bun.write(host.bucketFolder, "not a folder");
    for (let i = 0; i < 4; i++) {
      host.insert(1, 10_000);
      host.look();
      await Bun.sleep(5);
    }
    expect(host.replicator.trouble).toContain("outbox is full");
    rmSync(host.bucketFolder);
    renameSync(locked, host.bucketFolder);
    expect(await host.stop()).toBe(0);
    expect(host.replicator.failure).toBeNull();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });
});

test("a start that finds everything captured knows the count of commits: a WAL that restarts needs no comparison", async () => {
  const host = await liveHost();
  host.checkpoint("FULL");
  await whileDown(host, () => {});
  await host.settle();
  host.look();
  host.insert(2);
  await expectNewest(host);
  expect(host.log.filter((line) => line.includes("comparing"))).toEqual([]);
});

test("a disk that is full at the first snapshot is tried again at leisure, whatever events opening makes", async () => {
  const host = makeHost();
  host.create();
  host.insert(20);
  let steps = 0;
  let isFull = true;
  observeDurableSteps((_, path) => {
    if (!isFull || !path.endsWith(".ltx.tmp")) return;
    steps++;
    throw Object.assign(new Error("ENOSPC: simulated"), { code: "ENOSPC" });
  });
  try {
    await host.start();
    host.closeApp();
    for (let i = 0; i < 100; i++) {
      host.look();
      await Bun.sleep(5);
    }
    expect(steps).toBe(1);
    expect(host.replicator.trouble).toContain("ENOSPC");
    isFull = false;
  } finally {
    observeDurableSteps(null);
  }
});

test("a disk that is full of what is acknowledged gets room at once, not when the next record is due", async () => {
  const host = await liveHost();
  const outbox = new Bun.Glob("**/outbox/*.ltx");
  const filesLeft = () => [...outbox.scanSync({ cwd: host.stateFolder, dot: true })].length;
  // The manifest of the first snapshot is a record, too, and takes its time.
  for (let i = 0; i < 20 && filesLeft() === 0; i++) {
    host.insert();
    await host.settle();
  }
  expect(filesLeft()).toBeGreaterThan(0);
  // As long as files are left there is no room for another one.
  observeDurableSteps((_, path) => {
    if (!path.endsWith(".ltx.tmp") || filesLeft() === 0) return;
    throw Object.assign(new Error("ENOSPC: simulated"), { code: "ENOSPC" });
  });
  try {
    const { txid } = host;
    host.insert();
    const startMs = performance.now();
    await host.until("the commit is captured", () => host.txid > txid);
    expect(performance.now() - startMs).toBeLessThan(5000);
    await host.settle();
  } finally {
    observeDurableSteps(null);
  }
});

describe("snapshots", () => {
  test("a periodic one is taken while the application writes, and restores the same as the increments", async () => {
    const host = await liveHost();
    await host.stop();
    await host.start({ snapshot: { ...NO_SNAPSHOTS, intervalMs: 50 } });
    const states = new Map<bigint, Uint8Array>();
    for (let i = 0; i < 12; i++) {
      host.insert(20, 2000);
      if (i % 4 === 0) host.checkpoint("PASSIVE");
      await host.settle();
      states.set(host.txid, host.content());
      await Bun.sleep(20);
    }
    const names = readdirSync(host.bucketFolder).filter((name) => /^0*1-\d+\.ltx$/.test(name));
    expect(names.length).toBeGreaterThan(2);
    for (const [txid, content] of states) {
      expect(Buffer.compare(await host.restored({ kind: "txid", txid }), content)).toBe(0);
    }
    // Without any increment the newest snapshot alone gives its state.
    for (const name of readdirSync(host.bucketFolder)) {
      if (name.endsWith(".ltx") && !names.includes(name)) rmSync(join(host.bucketFolder, name));
    }
    const newest = BigInt(names.sort().at(-1)!.split("-")[1]!.replace(".ltx", ""));
    expect(Buffer.compare(await host.restored({ kind: "newest" }), states.get(newest)!)).toBe(0);
  });

  test.each([
    ["after so many frames", { maxFrames: 10 }],
    ["when it is idle", { onIdleMs: 60 }],
    ["at the latest after a time", { maxIntervalMs: 60 }],
  ])("are taken %s, and not again without a change", async (_, trigger) => {
    const host = await liveHost();
    await host.stop();
    await host.start({ snapshot: { ...NO_SNAPSHOTS, ...trigger } });
    await host.settle();
    const snapshots = () =>
      readdirSync(host.bucketFolder)
        .filter((name) => /^0*1-\d+\.ltx$/.test(name))
        .sort();
    expect(snapshots()).toEqual(["00000001-00000001.ltx"]);
    for (let i = 0; i < 6; i++) host.insert(2, 5000);
    await host.until("a snapshot is there", () => snapshots().length === 2);
    await Bun.sleep(150);
    await host.settle();
    expect(snapshots()).toHaveLength(2);
    await expectNewest(host);
  });

  test("are taken at the start if that was asked for, and anything changed", async () => {
    const host = await liveHost();
    const snapshot = { ...NO_SNAPSHOTS, onStartup: true };
    const snapshots = () => readdirSync(host.bucketFolder).filter((name) => /^0*1-\d+\.ltx$/.test(name)).length;
    await host.stop();
    await host.start({ snapshot });
    await host.settle();
    expect(snapshots()).toBe(1);
    await host.stop();
    host.insert();
    await host.start({ snapshot });
    await host.until("a snapshot is there", () => snapshots() === 2);
    host.insert();
    await host.settle();
    expect(snapshots()).toBe(2);
  });

  test("asked for twice without a change, there is one", async () => {
    const host = await liveHost();
    host.insert();
    const first = await host.replicator.requests.snapshot();
    await host.settle();
    const second = await host.replicator.requests.snapshot();
    await host.settle();
    expect(second).toBe(first);
  });
});

describe("a scan of a large database", () => {
  const { isCheckpointWaiting } = PinnedDatabase.prototype;
  afterEach(() => {
    PinnedDatabase.prototype.isCheckpointWaiting = isCheckpointWaiting;
  });
  const gaveWay = (host: Host) => host.log.filter((line) => line.includes("gives way")).length;

  /** A host with more pages than are read in one go; a checkpoint waits whenever `isWaiting` says so. */
  async function largeHost(isWaiting: () => boolean): Promise<Host> {
    const host = makeHost();
    host.create();
    host.insert(8, 1 << 20);
    PinnedDatabase.prototype.isCheckpointWaiting = isWaiting;
    await host.start();
    return host;
  }

  test.each([
    ["once", 1],
    ["again and again: then the checkpoint waits", 1e9],
  ])(
    "gives way to a checkpoint %s, and is right in the end",
    async (_, times) => {
      let left = times;
      const host = await largeHost(() => left-- > 0);
      await expectNewest(host);
      expect(gaveWay(host)).toBe(Math.min(times, 3));
      host.insert(3, 5000);
      await host.settle();
      left = times;
      const { txid } = host;
      const snapshot = host.replicator.requests.snapshot();
      host.insert(2, 5000);
      await snapshot;
      await host.settle();
      left = 0;
      await expectNewest(host);
      const content = await host.restored({ kind: "txid", txid });
      expect(content.length).toBeGreaterThan(8 << 20);
    },
    20_000,
  );
});

describe("the user's database", () => {
  test("holds nothing of ours, and is left usable", async () => {
    const host = await liveHost();
    host.insert();
    await host.settle();
    await host.end();
    const database = new Database(host.path, { readwrite: true });
    expect(database.query("select name from sqlite_schema").values()).toEqual([["item"]]);
    expect(database.query("pragma integrity_check").values()).toEqual([["ok"]]);
    expect(database.query("pragma wal_checkpoint(TRUNCATE)").values()[0]?.[0]).toBe(0);
    database.close();
  });
});
