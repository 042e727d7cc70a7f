/**
 * The pages of a pinned database as of one commit, in order, in bounded memory.
 *
 * A page is its newest frame in the WAL up to the pinned commit, or else what the database file holds: no checkpoint
 * copies frames behind the pin, so those bytes cannot change while the pin is held. The lock page is left out.
 */
import { WalsyncError } from "../errors.ts";
import { lockPgno, pageOffset } from "../page.ts";
import type { PinnedDatabase } from "./database.ts";
import { type FrameList, readFramePage, readFully, type WalCursor } from "./wal-reader.ts";

/** Frames of the WAL that override the database file. */
export interface WalOverlay {
  cursor: WalCursor;
  pages: FrameList;
}

/**
 * Calls `onPage` for every page from `firstPgno` to `lastPgno`, ascending. `page` is borrowed: valid during the call.
 * Throws E_DATABASE if a page can be found nowhere, and E_WAL if the WAL changed under the pin.
 */
export function readPages(
  database: PinnedDatabase,
  overlay: WalOverlay | null,
  firstPgno: number,
  lastPgno: number,
  onPage: (pgno: number, page: Uint8Array) => void,
): void {
  const { pageSize } = database;
  const skipped = lockPgno(pageSize);
  const part = partBuffer(pageSize);
  const framePage = part.subarray(0, pageSize);
  const filePart = part.subarray(pageSize);
  const pagesPerPart = filePart.byteLength / pageSize;
  let next = overlay === null ? 0 : lowerBound(overlay.pages.pgnos, firstPgno);

  for (let start = firstPgno; start <= lastPgno; start += pagesPerPart) {
    const count = Math.min(pagesPerPart, lastPgno - start + 1);
    const filled = readFully(database.databaseFd, filePart, count * pageSize, pageOffset(start, pageSize));
    for (let i = 0; i < count; i++) {
      const pgno = start + i;
      if (pgno === skipped) continue;
      if (overlay !== null && overlay.pages.pgnos[next] === pgno) {
        const frameIndex = overlay.pages.frameIndexes[next++]!;
        if (!readFramePage(database.walFd, overlay.cursor, frameIndex, framePage)) throw walChanged(database, pgno);
        onPage(pgno, framePage);
      } else if ((i + 1) * pageSize <= filled) {
        onPage(pgno, filePart.subarray(i * pageSize, (i + 1) * pageSize));
      } else if (overlay !== null) {
        // A transaction may grow the database without writing every new page. SQLite reads zeros there, until a
        // checkpoint extends the file.
        filePart.fill(0, Math.max(filled, i * pageSize), (i + 1) * pageSize);
        onPage(pgno, filePart.subarray(i * pageSize, (i + 1) * pageSize));
      } else {
        throw new WalsyncError(
          "E_DATABASE",
          `${database.path}: expected page ${pgno} of ${lastPgno} in the WAL or the database file, found neither`,
          { hint: "The database is cut short. Run PRAGMA integrity_check, and restore if it fails." },
        );
      }
    }
  }
}

// --- internal ---

/** Pages read from the database file at once, and room for one page of the WAL. */
const PART_SIZE = 512 * 1024;
let sharedPart: Uint8Array | undefined;

/** One frame page, then whole file pages. Shared by all databases: reads are synchronous, so no two overlap. */
function partBuffer(pageSize: number): Uint8Array {
  sharedPart ??= new Uint8Array(PART_SIZE);
  return sharedPart.subarray(0, Math.floor(PART_SIZE / pageSize) * pageSize);
}

function lowerBound(sorted: Uint32Array, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function walChanged(database: PinnedDatabase, pgno: number): WalsyncError {
  return new WalsyncError(
    "E_WAL",
    `${database.path}: expected page ${pgno} in the pinned WAL, found another generation`,
    {
      hint: "Something truncated or replaced the -wal file. Restart walsync; it will compare the whole database.",
    },
  );
}
