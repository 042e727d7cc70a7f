/**
 * What a change means for the copy, found out while readers go on: which pages differ, the journal that undoes it, and the
 * database checksum that it leads to. Nothing of the copy is touched.
 */
import { fstatSync, ftruncateSync } from "node:fs";
import { MiB } from "../bytes.ts";
import { announceWrite, writeFully } from "../durable.ts";
import { ChecksumAccumulator, pageChecksum, type U64Halves } from "../ltx/checksum.ts";
import { lockPgno, pageOffset } from "../page.ts";
import { readFully } from "../sqlite/wal-reader.ts";
import { nextTurn } from "../turn.ts";
import { putOwnFields, stampFirstPage, takeOwnFields } from "./first-page.ts";
import { PageSet } from "./page-set.ts";
import { RollbackJournal } from "./rollback-journal.ts";

/** The next state of the source: its size, and the pages of it that may differ, each once. */
export interface PageChange {
  pageSize: number;
  commit: number;
  /** Pages are borrowed: valid until the next one. Walked through twice. */
  pages(): Iterable<{ pgno: number; page: Uint8Array }>;
}

/** The copy as it is. */
export interface CopyBefore {
  fd: number;
  pageSize: number;
  /** The source's bytes of what page 1 of a copy has of its own. */
  sourceFields: Uint8Array;
  /** Database checksum of the source in this state; null if none is known. */
  checksum: bigint | null;
}

export class PreparedChange {
  readonly journal: RollbackJournal;
  readonly commit: number;
  readonly pageSize: number;
  /** Database checksum of the source after the change; null if none was known before, or with pages of another size. */
  readonly checksum: bigint | null;
  readonly #change: PageChange;
  readonly #differing: PageSet;
  /** Page 1 of the source after the change. */
  readonly #firstPage: Buffer;

  constructor(journal: RollbackJournal, change: PageChange, found: Comparison) {
    this.journal = journal;
    this.commit = change.commit;
    this.pageSize = change.pageSize;
    this.checksum = found.checksum;
    this.#change = change;
    this.#differing = found.differing;
    this.#firstPage = found.firstPage;
  }

  /** The source's bytes of what page 1 of a copy has of its own, after the change. */
  get sourceFields(): Buffer {
    return takeOwnFields(this.#firstPage);
  }

  /** Writes the pages that differ, and page 1 as `changeCounter` marks it, to the copy at `path`. Not durable yet. */
  write(fd: number, path: string, changeCounter: number): void {
    const put = (pgno: number, page: Uint8Array): void => {
      announceWrite(path);
      writeFully(fd, page, pageOffset(pgno, this.pageSize));
    };
    for (const { pgno, page } of this.#change.pages()) {
      if (pgno > 1 && this.#differing.has(pgno)) put(pgno, page);
    }
    const first = Buffer.from(this.#firstPage);
    stampFirstPage(first, this.commit, changeCounter);
    put(1, first);
    announceWrite(path);
    ftruncateSync(fd, this.commit * this.pageSize);
  }
}

/** Compares, and writes the journal to `journalPath`. Lets the event loop run between slices of work. */
export async function prepareChange(
  change: PageChange,
  before: CopyBefore,
  journalPath: string,
): Promise<PreparedChange> {
  const stats = fstatSync(before.fd);
  const commitBefore = Math.ceil(stats.size / before.pageSize);
  const journal = new RollbackJournal(journalPath, before.pageSize, commitBefore);
  try {
    const compare = change.pageSize === before.pageSize ? comparePages : takeAllPages;
    const found = await compare(change, before, commitBefore, journal);
    journal.seal(stats);
    return new PreparedChange(journal, change, found);
  } catch (error) {
    journal.discard();
    throw error;
  }
}

// --- internal ---

/** How many bytes of pages may pass before the event loop gets a turn: some milliseconds of work. */
const BYTES_PER_TURN = 4 * MiB;

interface Comparison {
  differing: PageSet;
  firstPage: Buffer;
  checksum: bigint | null;
}

async function comparePages(
  change: PageChange,
  { fd, pageSize, sourceFields, checksum }: CopyBefore,
  commitBefore: number,
  journal: RollbackJournal,
): Promise<Comparison> {
  const differing = new PageSet(change.commit);
  const sum = new RunningChecksum(checksum);
  const turns = new Turns(pageSize);
  const skipped = lockPgno(pageSize);
  const current = Buffer.alloc(pageSize);
  const read = (pgno: number): void => {
    const filled = readFully(fd, current, pageSize, pageOffset(pgno, pageSize));
    current.fill(0, filled);
  };
  // Page 1 always changes: it holds the mark.
  read(1);
  journal.add(1, current);
  putOwnFields(current, sourceFields);
  const firstPage = Buffer.from(current);
  for (const { pgno, page } of change.pages()) {
    await turns.pass();
    if (pgno === 1) {
      sum.toggle(1, firstPage);
      firstPage.set(page);
      sum.toggle(1, firstPage);
      continue;
    }
    if (pgno <= commitBefore) {
      read(pgno);
      if (current.equals(page)) continue;
      journal.add(pgno, current);
      sum.toggle(pgno, current);
    }
    differing.add(pgno);
    sum.toggle(pgno, page);
  }
  // What is cut off comes back if the change is undone.
  for (let pgno = change.commit + 1; pgno <= commitBefore; pgno++) {
    await turns.pass();
    if (pgno === skipped) continue;
    read(pgno);
    journal.add(pgno, current);
    sum.toggle(pgno, current);
  }
  return { differing, firstPage, checksum: sum.value() };
}

/** Pages of another size: all of the old ones go, and the new ones come. SQLite's own VACUUM does the same. */
async function takeAllPages(
  change: PageChange,
  { fd, pageSize }: CopyBefore,
  commitBefore: number,
  journal: RollbackJournal,
): Promise<Comparison> {
  const turns = new Turns(pageSize);
  const current = Buffer.alloc(pageSize);
  for (let pgno = 1; pgno <= commitBefore; pgno++) {
    await turns.pass();
    if (pgno === lockPgno(pageSize)) continue;
    readFully(fd, current, pageSize, pageOffset(pgno, pageSize));
    journal.add(pgno, current);
  }
  const differing = new PageSet(change.commit);
  const firstPage = Buffer.alloc(change.pageSize);
  for (const { pgno, page } of change.pages()) {
    await turns.pass();
    if (pgno === 1) firstPage.set(page);
    else differing.add(pgno);
  }
  return { differing, firstPage, checksum: null };
}

/** The database checksum while pages come and go, if it was known at the beginning. */
class RunningChecksum {
  readonly #sum: ChecksumAccumulator | null;
  readonly #page: U64Halves = { hi: 0, lo: 0 };

  constructor(checksum: bigint | null) {
    this.#sum = checksum === null ? null : new ChecksumAccumulator();
    if (checksum !== null) this.#sum?.set(checksum);
  }

  /** Adds a page, or takes it away. */
  toggle(pgno: number, page: Uint8Array): void {
    if (this.#sum === null) return;
    pageChecksum(pgno, page, this.#page);
    this.#sum.xorPage(this.#page.hi, this.#page.lo);
  }

  value(): bigint | null {
    return this.#sum === null ? null : this.#sum.value();
  }
}

class Turns {
  readonly #pagesPerTurn: number;
  #passed = 0;

  constructor(pageSize: number) {
    this.#pagesPerTurn = BYTES_PER_TURN / pageSize;
  }

  /** Null unless it is somebody else's turn. */
  pass(): Promise<void> | null {
    return ++this.#passed % this.#pagesPerTurn === 0 ? nextTurn() : null;
  }
}
