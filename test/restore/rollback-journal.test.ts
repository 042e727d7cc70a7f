// Goal: SQLite itself takes our journal for its own: whatever was written to a database after the journal was published, another
// program that opens it finds the bytes of before, for every page size, whether the file grew, shrank or got other pages.
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { lockPgno } from "../../src/page.ts";
import { takeOwnFields } from "../../src/restore/first-page.ts";
import { type PageChange, prepareChange } from "../../src/restore/prepared-change.ts";
import { RollbackJournal } from "../../src/restore/rollback-journal.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const ALL_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

function makeDatabase(pageSize: number, rows = 40): string {
  const path = join(dir, `${crypto.randomUUID()}.db`);
  const database = new Database(path, { create: true });
  database.run(`pragma page_size = ${pageSize}`);
  database.run("create table item (id integer primary key, body)");
  for (let i = 0; i < rows; i++) database.run("insert into item (body) values (randomblob(?))", [pageSize / 3]);
  database.close();
  return path;
}

/** Opens and reads it in a process of its own, which undoes what a hot journal says. */
function openElsewhere(path: string): string {
  const script = `
    const { Database } = require("bun:sqlite");
    const database = new Database(process.argv[1], { readwrite: true, create: false });
    console.log(database.query("pragma integrity_check").values().join());`;
  return Bun.spawnSync([process.execPath, "-e", script, path]).stdout.toString().trim();
}

function wholeJournal(path: string, fd: number, pageSize: number): RollbackJournal {
  const bytes = readFileSync(path);
  const journal = new RollbackJournal(`${path}.prepared`, pageSize, bytes.length / pageSize);
  for (let pgno = 1; pgno <= bytes.length / pageSize; pgno++) {
    journal.add(pgno, bytes.subarray((pgno - 1) * pageSize, pgno * pageSize));
  }
  journal.seal(fstatSync(fd));
  journal.publish(path);
  return journal;
}

test.each(ALL_SIZES)(
  "pages of %p bytes come back, whatever they were overwritten with, grown or cut off",
  (pageSize) => {
    for (const newSize of [2, 0.4, 1]) {
      const path = makeDatabase(pageSize);
      const before = readFileSync(path);
      const fd = openSync(path, "r+");
      wholeJournal(path, fd, pageSize);
      const length = Math.ceil((before.length / pageSize) * newSize) * pageSize;
      ftruncateSync(fd, length);
      writeSync(fd, Buffer.alloc(length, 0xee), 0, length, 0);
      closeSync(fd);
      expect(openElsewhere(path)).toBe("ok");
      expect(readFileSync(path).equals(before)).toBe(true);
      expect(existsSync(`${path}-journal`)).toBe(false);
    }
  },
);

test("a record whose checksum does not hold, as after a power loss, ends the journal: SQLite checks ours as its own", () => {
  const path = makeDatabase(1024);
  const before = readFileSync(path);
  const fd = openSync(path, "r+");
  wholeJournal(path, fd, 1024);
  const journalFd = openSync(`${path}-journal`, "r+");
  // The byte of the second record's page that SQLite samples first.
  writeSync(journalFd, Buffer.from([~before[1024 + 824]! & 0xff]), 0, 1, 512 + (4 + 1024 + 4) + 4 + 824);
  closeSync(journalFd);
  writeSync(fd, Buffer.alloc(before.length, 0xee), 0, before.length, 0);
  closeSync(fd);
  openElsewhere(path);
  const found = readFileSync(path);
  expect(found.subarray(0, 1024).equals(before.subarray(0, 1024))).toBe(true);
  expect(found.subarray(1024, 2048).equals(before.subarray(1024, 2048))).toBe(false);
});

test("whoever may use the database may undo what is written to it", () => {
  const path = makeDatabase(512, 3);
  const fd = openSync(path, "r+");
  expect(statSync(path).mode & 0o777).toBe(0o644);
  wholeJournal(path, fd, 512);
  closeSync(fd);
  expect(statSync(`${path}-journal`).mode & 0o777).toBe(0o644);
});

test("beyond 1 GiB, where SQLite locks a byte, that page is left out, and what was cut off behind it comes back", async () => {
  const pageSize = 65536;
  const path = makeDatabase(pageSize, 4);
  const fd = openSync(path, "r+");
  const lock = lockPgno(pageSize);
  const commitBefore = lock + 2;
  // Sparse: SQLite undoes a change whatever the pages hold.
  ftruncateSync(fd, commitBefore * pageSize);
  for (const pgno of [lock - 1, lock + 1, lock + 2]) {
    writeSync(fd, Buffer.alloc(pageSize, pgno), 0, pageSize, (pgno - 1) * pageSize);
  }
  const pages = [1, lock - 1, lock + 1, lock + 2];
  const before = pages.map((pgno) => readPage(fd, pageSize, pgno));
  const copy = { fd, pageSize, sourceFields: takeOwnFields(before[0]!), checksum: null };
  const change: PageChange = { pageSize, commit: lock - 2, *pages() {} };
  const prepared = await prepareChange(change, copy, `${path}.prepared`);
  prepared.journal.publish(path);
  expect(statSync(`${path}-journal`).size).toBe(512 + pages.length * (4 + pageSize + 4));
  prepared.write(fd, path, 12345);
  expect(fstatSync(fd).size).toBe((lock - 2) * pageSize);
  closeSync(fd);
  openElsewhere(path);
  const again = openSync(path, "r");
  expect(fstatSync(again).size).toBe(commitBefore * pageSize);
  expect(pages.map((pgno, i) => readPage(again, pageSize, pgno).equals(before[i]!))).toEqual(pages.map(() => true));
  closeSync(again);
});

function readPage(fd: number, pageSize: number, pgno: number): Buffer {
  const page = Buffer.alloc(pageSize);
  readSync(fd, page, 0, pageSize, (pgno - 1) * pageSize);
  return page;
}
