// Goal: tables share one block of memory, and none of them ever holds what another was given.
import { afterEach, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { observeDurableSteps } from "../../src/durable.ts";
import { type PageChecksums, PageTable, PageTableWriter } from "../../src/replication/page-table.ts";
import { randomFrom } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const PAGES = 1700; // More than three blocks.
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));

afterEach(() => observeDurableSteps(null));

/** A table, and what it must hold. */
function makeTable(name: string, random: () => number): { table: PageTable; held: Map<number, [number, number]> } {
  mkdirSync(dir, { recursive: true });
  const writer = new PageTableWriter(join(dir, name), 4096);
  const held = new Map<number, [number, number]>();
  for (let pgno = 1; pgno <= PAGES; pgno++) {
    held.set(pgno, [random(), random()]);
    writer.add(pgno, ...held.get(pgno)!);
  }
  return { table: writer.install(PAGES, 1n), held };
}

function change(held: Map<number, [number, number]>, random: () => number): PageChecksums {
  const pgnos = [...new Set(Array.from({ length: 9 }, () => 1 + (random() % PAGES)))].sort((a, b) => a - b);
  for (const pgno of pgnos) held.set(pgno, [random(), random()]);
  const part = (i: 0 | 1) => Uint32Array.from(pgnos, (pgno) => held.get(pgno)![i]);
  return { pgnos: Uint32Array.from(pgnos), high: part(0), low: part(1) };
}

function checksumOf(held: Map<number, [number, number]>): bigint {
  let [high, low] = [0, 0];
  for (const [one, other] of held.values()) {
    high ^= one;
    low ^= other;
  }
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0) | (1n << 63n);
}

test(`used in turns, each holds its own, seed ${seed}`, () => {
  const random = randomFrom(seed);
  const tables = ["a", "b", "c"].map((name) => makeTable(name, random));
  for (let turn = 0; turn < 300; turn++) {
    const { table, held } = tables[random() % tables.length]!;
    const next = new Map(held);
    const made = change(next, random);
    expect(table.checksumAfter(made, PAGES)).toBe(checksumOf(next));
    table.applyChange(made, PAGES);
    for (const [pgno, pair] of next) held.set(pgno, pair);
    const other = tables[random() % tables.length]!;
    const pgno = 1 + (random() % PAGES);
    expect(other.table.matches(pgno, ...other.held.get(pgno)!)).toBe(true);
  }
  for (const [i, { table, held }] of tables.entries()) {
    expect(table.checksum).toBe(checksumOf(held));
    table.close();
    const again = PageTable.open(join(dir, ["a", "b", "c"][i]!), 4096)!;
    expect(again.checksum).toBe(checksumOf(held));
    for (const [pgno, pair] of held) expect([pgno, again.matches(pgno, ...pair)]).toEqual([pgno, true]);
    again.close();
  }
});

test("one that cannot be written to does not hinder the others", () => {
  const random = randomFrom(seed);
  const [broken, good] = [makeTable("broken", random), makeTable("good", random)];
  const made = change(broken.held, random);
  broken.table.close();
  expect(() => broken.table.applyChange(made, PAGES)).toThrow();
  const pgno = 7;
  expect(good.table.matches(pgno, ...good.held.get(pgno)!)).toBe(true);
  good.table.applyChange(change(good.held, random), PAGES);
  expect(good.table.checksum).toBe(checksumOf(good.held));
  good.table.close();
});
