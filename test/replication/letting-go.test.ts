// Goal: a database that is gone is let go of, whatever else is under way: a deleted -wal file that walsync kept open, or
// pinned, would grow until the disk is full. And nothing is pinned for the sake of a chain that has not begun.

import { afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readlinkSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { untilAborted } from "../../src/replication/delivery.ts";
import { tempDir } from "../support/temp.ts";
import { Host, type HostOptions } from "./host.ts";

const dir = tempDir();
const never = new Promise<never>(() => {});
const SUFFIXES = ["", "-wal", "-shm"];
let hosts: Host[] = [];

afterEach(async () => {
  observeDurableSteps(null);
  const ending = hosts;
  hosts = [];
  for (const host of ending) await host.end();
});

function makeHost(options: HostOptions = {}): Host {
  const folder = join(dir, crypto.randomUUID());
  const host = new Host(folder, join(folder, "bucket"), options);
  hosts.push(host);
  host.create();
  host.insert(20);
  return host;
}

/**
 * How many descriptors of the database's -wal file this process has, deleted or not: the application's are among them. Those
 * of the database file tell less, since SQLite keeps some for as long as the application, in the same process, has locks.
 */
function openWalsOf({ path }: Host): number {
  const isOpen = (fd: string) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith(path) && target.includes("-wal");
    } catch {
      return false; // The one that reads the folder.
    }
  };
  return readdirSync("/proc/self/fd").filter(isOpen).length;
}

function deleteFiles({ path }: Host): void {
  for (const suffix of SUFFIXES) rmSync(path + suffix);
}

/** Commits much more than a WAL holds that is copied back every few pages. Returns how large the WAL became, in bytes. */
function writeOn(host: Host): number {
  host.app.run("pragma wal_autocheckpoint = 8");
  for (let i = 0; i < 200; i++) host.insert(1, 3000);
  return statSync(`${host.path}-wal`).size;
}

const WAL_MAX_SIZE = 200_000;

describe.skipIf(process.platform !== "linux")("a database that is deleted while writers have it open", () => {
  test("and the destination never answered", async () => {
    const host = makeHost({ ready: never });
    const before = openWalsOf(host);
    await host.start();
    expect(host.replicator.state).toBe("waiting");
    expect(openWalsOf(host)).toBeGreaterThan(before);
    deleteFiles(host);
    await host.until("its WAL is closed", () => openWalsOf(host) === before);
  });

  test("and the first snapshot waits for its turn", async () => {
    const host = makeHost();
    const before = openWalsOf(host);
    const turn = Promise.withResolvers<void>();
    const other = host.scans.run(() => turn.promise);
    await host.start();
    await host.until("it waits", () => host.replicator.state === "scanning");
    deleteFiles(host);
    await host.until("its WAL is closed", () => openWalsOf(host) === before);
    turn.resolve();
    await other;
  });

  test("and uploads hang; when it is back it goes on", async () => {
    let hangs = false;
    const open = async (): Promise<Destination> => {
      const inner = await openDestination(join(dir, crypto.randomUUID()));
      const write: Destination["write"] = async (key, source, options = {}) => {
        if (hangs) await untilAborted(options.signal!);
        options.signal?.throwIfAborted();
        return await inner.write(key, source, options);
      };
      return new Proxy(inner, {
        get: (target, name) => {
          const value = name === "write" ? write : Reflect.get(target, name);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    };
    const host = makeHost({ open, mayVanish: true });
    const before = openWalsOf(host);
    await host.start();
    await host.settle();
    hangs = true;
    host.insert(5);
    await host.until("a file waits", () => host.replicator.waitingFiles > 0);
    for (const suffix of SUFFIXES) renameSync(host.path + suffix, `${host.path}.away${suffix}`);
    await host.until("it is missed", () => host.replicator.state === "vanished");
    await host.until("its WAL is closed", () => openWalsOf(host) === before);
    expect(host.replicator.status?.walBytes).toBe(0);
    expect(host.replicator.waitingFiles).toBeGreaterThan(0);
    hangs = false;
    host.insert(5);
    for (const suffix of SUFFIXES) renameSync(`${host.path}.away${suffix}`, host.path + suffix);
    await host.until("it is back", () => host.replicator.state === "live");
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("and is back at the moment of the stop: what was committed meanwhile is shipped", async () => {
    const host = makeHost({ mayVanish: true });
    await host.start();
    await host.settle();
    for (const suffix of SUFFIXES) renameSync(host.path + suffix, `${host.path}.away${suffix}`);
    await host.until("it is missed", () => host.replicator.state === "vanished");
    host.insert(5);
    for (const suffix of SUFFIXES) renameSync(`${host.path}.away${suffix}`, host.path + suffix);
    expect(await host.stop()).toBe(0);
    expect(host.replicator.failure).toBeNull();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });
});

describe("the WAL of a busy application stays small", () => {
  test("while the destination has yet to answer", async () => {
    const ready = Promise.withResolvers<boolean>();
    const host = makeHost({ ready: ready.promise });
    await host.start();
    expect(writeOn(host)).toBeLessThan(WAL_MAX_SIZE);
    ready.resolve(true);
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("while the first snapshot waits for its turn", async () => {
    const host = makeHost();
    const turn = Promise.withResolvers<void>();
    const other = host.scans.run(() => turn.promise);
    await host.start();
    await host.until("it waits", () => host.replicator.state === "scanning");
    expect(writeOn(host)).toBeLessThan(WAL_MAX_SIZE);
    turn.resolve();
    await other;
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });
});

describe("the folder of our own", () => {
  test("that is removed is made anew, and the chain goes on", async () => {
    const host = makeHost();
    await host.start();
    await host.settle();
    rmSync(host.stateFolder, { recursive: true });
    host.insert(5);
    await host.until("the chain goes on", () => host.txid === 2n && host.replicator.waitingFiles === 0);
    expect(host.logged("the outbox is damaged")).toBe(true);
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("that is full is not tried at every event: each try reads all that waits in the WAL", async () => {
    const host = makeHost();
    await host.start();
    await host.settle();
    let tries = 0;
    observeDurableSteps((step, path) => {
      if (step !== "sync" || !path.includes("outbox")) return;
      tries++;
      throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
    });
    for (let i = 0; i < 200; i++) {
      host.insert();
      host.look();
    }
    expect(tries).toBe(1);
    observeDurableSteps(null);
    await host.until("it is tried again", () => host.txid === 2n);
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });
});

test("a folder of locks that was removed, and made by somebody else, is left to them", async () => {
  const { acquireLock, lockHolderIn } = await import("../../src/replication/lock.ts");
  const folder = join(dir, crypto.randomUUID());
  const stale = acquireLock(folder, "app.db");
  expect(stale.isInPlace()).toBe(true);
  rmSync(folder, { recursive: true });
  expect(stale.isInPlace()).toBe(false);
  mkdirSync(folder);
  const theirs = acquireLock(folder, "app.db");
  stale.release();
  expect(theirs.isInPlace()).toBe(true);
  expect(lockHolderIn(folder)).not.toBeNull();
  theirs.release();
});
