/**
 * A copy of a database that is kept current from the frames of its WAL alone: what replication does, in memory and
 * without any of its bookkeeping. For comparing with what another process says that the database holds.
 */
import { createHash } from "node:crypto";
import { lockPgno, pageOffset } from "../../src/page.ts";
import { pinState } from "../../src/replication/full-scan.ts";
import { planCapture, proveScan, type ResyncReason } from "../../src/replication/plan.ts";
import type { PinnedDatabase } from "../../src/sqlite/database.ts";
import { readPages } from "../../src/sqlite/page-source.ts";
import {
  cursorAtStart,
  readFramePage,
  readFully,
  readWalHeader,
  scanWal,
  type WalCursor,
  type WalScan,
} from "../../src/sqlite/wal-reader.ts";

export type LookResult =
  | { kind: "idle" }
  | { kind: "captured"; commits: number; restarted: boolean }
  | { kind: "doubt"; reason: ResyncReason };

export class WalCopy {
  readonly #database: PinnedDatabase;
  #pages: Buffer[] = [];
  #cursor: WalCursor | null = null;
  changeCount = 0;

  /** Begins with all pages of the newest commit, which becomes the pinned one. */
  constructor(database: PinnedDatabase) {
    this.#database = database;
    this.reload();
  }

  /** Reads all pages anew: what a resync does. */
  reload(): void {
    const { head, overlay, cursor } = pinState(this.#database);
    this.#pages = [];
    readPages(this.#database, overlay, 1, head.commit, (pgno, page) => {
      this.#pages[pgno - 1] = Buffer.from(page);
    });
    this.#cursor = cursor;
    this.changeCount = head.changeCount;
  }

  /** Takes what was committed since the last look, if it is proven that nothing is missing. */
  look(): LookResult {
    const { pageSize, walFd } = this.#database;
    let reason: ResyncReason = "wal-unreadable";
    for (let attempt = 0; attempt < 3; attempt++) {
      const head = this.#database.walIndex();
      const captured = { txid: 1n, checksum: 0n, commit: this.#pages.length, pageSize, timestampMs: 0 };
      const plan = planCapture({ ...captured, cursor: this.#cursor, changeCount: this.changeCount }, head);
      if (plan.kind === "idle") return plan;
      if (plan.kind === "resync") return { kind: "doubt", reason: plan.reason };
      const header = readWalHeader(walFd);
      const start = plan.kind === "append" ? this.#cursor : header && cursorAtStart(header);
      if (start === null || start.salt1 !== head.salt1 || start.salt2 !== head.salt2) continue;
      const scan = scanWal(walFd, pageSize, start, head.frameCount);
      const doubt = proveScan(plan, scan, head);
      if (doubt !== null) {
        reason = doubt;
        continue;
      }
      this.#apply(scan);
      this.#cursor = scan.end;
      this.changeCount = head.changeCount;
      return { kind: "captured", commits: scan.commitCount, restarted: plan.kind === "restarted" };
    }
    return { kind: "doubt", reason };
  }

  sha256(): string {
    const hash = createHash("sha256");
    for (const page of this.#pages) hash.update(page);
    return hash.digest("hex");
  }

  get pageCount(): number {
    return this.#pages.length;
  }

  #apply(scan: WalScan): void {
    const { pageSize, walFd, databaseFd } = this.#database;
    const before = this.#pages.length;
    for (let i = 0; i < scan.pages.pgnos.length; i++) {
      const page = Buffer.alloc(pageSize);
      if (!readFramePage(walFd, scan.end, scan.pages.frameIndexes[i]!, page)) throw new Error("a pinned frame is gone");
      this.#pages[scan.pages.pgnos[i]! - 1] = page;
    }
    this.#pages.length = scan.commit;
    // Pages that a transaction grew the database by without writing them.
    for (let pgno = before + 1; pgno <= scan.commit; pgno++) {
      if (this.#pages[pgno - 1] !== undefined || pgno === lockPgno(pageSize)) continue;
      const page = Buffer.alloc(pageSize);
      readFully(databaseFd, page, pageSize, pageOffset(pgno, pageSize));
      this.#pages[pgno - 1] = page;
    }
  }
}
