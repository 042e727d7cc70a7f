/** A source that ships to a directory, and followers that keep a copy of it. */
import { Database } from "bun:sqlite";
import { afterEach, expect } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { Follower } from "../../src/restore/follow.ts";
import { Host } from "../replication/host.ts";

export interface Pair {
  host: Host;
  destination: Destination;
  local: string;
  /** A follower as a new process would have it. */
  follower(): Follower;
}

/** Makes pairs below `dir`, each for one test. What else has to be ended after a test goes to `ends`. */
export function pairsIn(dir: string): { makePair: (pageSize?: number) => Promise<Pair>; ends: (() => unknown)[] } {
  const ends: (() => unknown)[] = [];
  afterEach(async () => {
    observeDurableSteps(null);
    for (const end of ends.splice(0).reverse()) await end();
  });
  return { ends, makePair: (pageSize = 512) => makePair(join(dir, crypto.randomUUID()), ends, pageSize) };
}

async function makePair(folder: string, ends: (() => unknown)[], pageSize: number): Promise<Pair> {
  mkdirSync(folder);
  const host = new Host(folder);
  host.create(pageSize);
  host.insert(10, 300);
  await host.start();
  ends.push(() => host.end());
  await host.settle();
  const destination = await openDestination(dirname(host.bucketFolder));
  ends.push(() => destination.close());
  const local = join(folder, "copy", "copy.db");
  mkdirSync(join(folder, "copy"));
  const follower = (): Follower => {
    const made = new Follower(destination, "app", local);
    ends.push(() => made.close());
    return made;
  };
  return { host, destination, local, follower };
}

/** Without what a copy has of its own (docs/FORMATS.md): journal mode, change counter, and which version wrote it. */
export function comparable(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  for (const [start, end] of [
    [18, 20],
    [24, 28],
    [92, 96],
  ] as const)
    copy.fill(0, start, end);
  return copy;
}

export function expectState(local: string, expected: Uint8Array): void {
  expect(comparable(readFileSync(local)).equals(comparable(expected))).toBe(true);
  const reader = new Database(local, { readonly: true });
  expect(reader.query("pragma integrity_check").values()).toEqual([["ok"]]);
  expect(reader.query("pragma journal_mode").values()).toEqual([["delete"]]);
  reader.close();
}

/** Changes the source, growing or shrinking it by the number of the step, and ships that. */
export async function change(host: Host, step: number): Promise<void> {
  if (step % 4 === 3) {
    host.app.run("delete from item where id % 2 = 0");
    host.app.run("vacuum");
  } else host.insert(1 + step * 2, 400);
  await host.settle();
}

/** The source goes on with pages of another size. */
export async function changePageSize(host: Host, pageSize: number): Promise<void> {
  await host.stop();
  host.app.run("pragma journal_mode = delete");
  host.app.run(`pragma page_size = ${pageSize}`);
  host.app.run("vacuum");
  host.app.run("pragma journal_mode = wal");
  await host.start();
  await host.settle();
}
