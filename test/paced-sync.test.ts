// Goal: a large file reaches the disk in parts while it is written; a disk that fails is told of, and at the end nothing
// is left to an fsync on this thread.
import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "../src/bytes.ts";
import { observeDurableSteps } from "../src/durable.ts";
import { PacedSync } from "../src/paced-sync.ts";
import { tempDir } from "./support/temp.ts";

const path = join(tempDir(), "large");
const part = Buffer.alloc(MiB, 7);
let syncs = 0;
afterEach(() => observeDurableSteps(null));

/** Writes so many MiB, with a chance to sync after each. */
async function write(fd: number, sync: PacedSync, megabytes: number): Promise<void> {
  for (let i = 0; i < megabytes; i++) {
    writeSync(fd, part);
    sync.wrote(part.length);
    await sync.pace();
  }
}

function opened(): { fd: number; sync: PacedSync } {
  syncs = 0;
  observeDurableSteps((step, of) => {
    if (step === "sync" && of === path) syncs++;
  });
  const fd = openSync(path, "w+");
  return { fd, sync: new PacedSync(fd, path) };
}

describe("a file that is synced while it is written", () => {
  test("gets one fsync for each 16 MiB, and one at the end for what is left", async () => {
    const { fd, sync } = opened();
    await write(fd, sync, 15);
    expect(syncs).toBe(0);
    await write(fd, sync, 1);
    expect(syncs).toBe(1);
    await write(fd, sync, 33);
    expect(syncs).toBe(3);
    await sync.finish();
    expect(syncs).toBe(4);
    closeSync(fd);
  });

  test("that is small gets none", async () => {
    const { fd, sync } = opened();
    sync.wrote(MiB - 1);
    await sync.pace();
    await sync.finish();
    expect(syncs).toBe(0);
    closeSync(fd);
  });

  test("waits for an fsync before it begins the next, and not before", async () => {
    const { fd, sync } = opened();
    await write(fd, sync, 16);
    const order: string[] = [];
    sync.wrote(16 * MiB);
    const next = sync.pace().then(() => order.push("next"));
    order.push("goes on");
    await next;
    expect(order).toEqual(["goes on", "next"]);
    expect(syncs).toBe(2);
    await sync.finish();
    closeSync(fd);
  });

  test("on a disk that fails says so: between parts, and at the end", async () => {
    const { fd, sync } = opened();
    closeSync(fd);
    sync.wrote(16 * MiB);
    await sync.pace();
    sync.wrote(16 * MiB);
    expect(sync.pace()).rejects.toMatchObject({ code: "E_DISK" });
    expect(sync.finish()).rejects.toMatchObject({ code: "E_DISK" });
    const last = new PacedSync(fd, path);
    last.wrote(2 * MiB);
    expect(last.finish()).rejects.toMatchObject({ code: "E_DISK", message: expect.stringContaining(path) });
  });

  test("whose writer gave up in between does not end the process", async () => {
    const { fd, sync } = opened();
    closeSync(fd);
    sync.wrote(16 * MiB);
    await sync.pace();
    await Bun.sleep(20); // An unhandled rejection fails this test.
  });
});
