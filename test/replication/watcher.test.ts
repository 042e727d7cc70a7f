// Goal: whatever happens in a directory, and however often, everybody else gets a turn: events are noted, and looked at later,
// once.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { monotonicMs } from "../../src/clock.ts";
import { FolderEvents } from "../../src/replication/folder-events.ts";
import type { Replicator } from "../../src/replication/replicator.ts";
import { Watcher } from "../../src/replication/watcher.ts";
import { nextTurn } from "../../src/turn.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
let events: FolderEvents;
let watcher: Watcher;
beforeEach(() => {
  events = new FolderEvents();
  watcher = new Watcher(events, 256);
});
afterEach(() => {
  watcher.stop();
  events.close();
});

/** Only what a watcher asks of a database. */
class Database {
  readonly path: string;
  ticks = 0;
  notices = 0;
  onWake = () => {};
  readonly fencedBy = null;
  readonly isPinned = true;
  waitingFiles = 0;
  leastIntervalMs = 0;

  constructor(name: string) {
    this.path = join(dir, name);
    writeFileSync(this.path, "");
  }

  begin(): void {}

  notice(): void {
    this.notices++;
  }

  poll(): void {}

  tick(): number {
    this.ticks++;
    return Number.POSITIVE_INFINITY;
  }
}

test("a thousand events of busy databases are noted at once, and answered with one look each, in turns with others", async () => {
  const databases = Array.from({ length: 100 }, (_, i) => new Database(`db${i}`));
  let deliver: (name: string) => void = () => {};
  events.listen = (_path, [name], listener) => {
    const before = deliver;
    deliver = (of) => (of === name ? listener(of, false) : before(of));
    return () => {};
  };
  for (const database of databases) watcher.add(database as unknown as Replicator);
  while (databases.some(({ ticks }) => ticks === 0)) await nextTurn();
  for (const database of databases) Object.assign(database, { ticks: 0, notices: 0 });

  for (let i = 0; i < 1000; i++) deliver(`db${i % 100}`);
  expect(databases.map(({ notices, ticks }) => [notices, ticks])).toEqual(databases.map(() => [10, 0]));

  let othersTurns = 0;
  for (; databases.some(({ ticks }) => ticks === 0) && othersTurns < 100; othersTurns++) await nextTurn();
  expect(databases.map(({ ticks }) => ticks)).toEqual(databases.map(() => 1));
  // Not all of them in one go.
  expect(othersTurns).toBeGreaterThan(3);
});

test("a database to which something happens all the time has its turn as often as all others", async () => {
  const others = Array.from({ length: 100 }, (_, i) => new Database(`other${i}`));
  const busy = new Database("busy");
  for (const database of [...others, busy]) watcher.add(database as unknown as Replicator);
  // All of them are due again as soon as they were looked at: more than one turn of the event loop can do.
  for (const database of others) {
    database.tick = () => {
      database.ticks++;
      return monotonicMs();
    };
  }
  for (let turn = 0; turn < 200; turn++) {
    busy.onWake();
    await nextTurn();
  }
  const least = Math.min(...others.map(({ ticks }) => ticks));
  expect(least).toBeGreaterThan(10);
  expect(busy.ticks).toBeGreaterThan(least / 2);
});

test("files of many databases that wait keep the captures of all of them apart, until they are shipped", async () => {
  const [busy, other] = [new Database("busy"), new Database("other")];
  const look = async (database: Database) => {
    const before = database.ticks;
    database.onWake();
    while (database.ticks === before) await nextTurn();
    return database.leastIntervalMs;
  };
  for (const database of [busy, other]) watcher.add(database as unknown as Replicator);
  expect(await look(other)).toBe(0);
  busy.waitingFiles = 5000;
  await look(busy);
  expect(await look(other)).toBe(10_000);
  busy.waitingFiles = 10;
  await look(busy);
  expect(await look(other)).toBe(0);
  busy.waitingFiles = 5000;
  await look(busy);
  watcher.remove(busy as unknown as Replicator);
  expect(await look(other)).toBe(0);
});
