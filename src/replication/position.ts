/**
 * How far one database is replicated to one destination: position.json in its state folder.
 * Written only after the destination acknowledged, and always durably. The newest file of the outbox may be ahead of it.
 */
import { readFileSync } from "node:fs";
import { writeFileDurably } from "../durable.ts";
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import type { PinnedDatabase } from "../sqlite/database.ts";
import { cursorAtStart, readWalHeaderOf, type WalCursor } from "../sqlite/wal-reader.ts";

/** The state after the newest captured transaction. */
export interface Captured {
  txid: Txid;
  /** Database checksum: the post-apply checksum of the file with this txid. */
  checksum: bigint;
  /** Database size in pages. */
  commit: number;
  pageSize: number;
  /** Of the LTX file with this txid. Timestamps never decrease along a chain, whatever the clock does. */
  timestampMs: number;
  /** Behind the last captured frame; null when only a comparison of the whole database can go on from here. */
  cursor: WalCursor | null;
  /**
   * The WAL index's count of commits at the cursor. Not kept on disk, and null until it is known again: while nobody has
   * the database open the WAL index may be made anew, and its count then starts at zero.
   */
  changeCount: number | null;
}

export interface Position {
  /** The destination and name this position is about. Never holds secrets. */
  destination: string;
  name: string;
  /** Names the chain: 16 hex digits, chosen when it began. */
  lineage: string;
  /** Newest txid that the destination acknowledged; 0 before the first. */
  shippedTxid: Txid;
  /** Txid and time of the newest snapshot that was shipped; 0 before the first. */
  snapshotTxid: Txid;
  snapshotAtMs: number;
  /** Its page size. Another one than the database's means that a snapshot is owed: nothing else can be restored. */
  snapshotPageSize: number;
  /** Files up to this txid are missing at the destination: a snapshot of it or a later one is owed. 0 if none is. */
  owedTxid: Txid;
  /** When the whole database was last read and found to be what is captured. */
  validatedAtMs: number;
  /** Everything shipped up to this txid is listed in the manifest. */
  manifestTxid: Txid;
  /**
   * Fingerprint of the database file, if it held all that was captured when this was recorded: proof that what was committed since
   * is in the WAL, or in the outbox. Else null.
   */
  file: string | null;
  captured: Captured;
}

/**
 * Nobody has written to the database file since it held all that is captured: whatever the WAL holds was committed after that, and
 * none of it is gone, since the WAL restarts only when it is copied back.
 */
export function continueFromFile(captured: Captured, database: PinnedDatabase): void {
  const head = database.walIndex();
  if (head.frameCount === 0) {
    captured.cursor = null;
    captured.changeCount = head.changeCount;
    return;
  }
  const { cursor } = captured;
  if (cursor !== null && cursor.salt1 === head.salt1 && cursor.salt2 === head.salt2) return;
  const header = readWalHeaderOf(database.walFd, head);
  if (header !== null) captured.cursor = cursorAtStart(header);
}

/** The position at `path`, or null if there is none. Throws E_INTEGRITY if the file is not a position. */
export function readPosition(path: string): Position | null {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return null;
    throw new WalsyncError("E_DISK", `${path}: cannot be read`, { cause: error });
  }
  try {
    return parsePosition(text);
  } catch (error) {
    throw new WalsyncError("E_INTEGRITY", `${path}: ${messageOf(error)}`, {
      hint: "Delete the folder it is in: walsync then continues the chain at the destination with a full comparison.",
      cause: error,
    });
  }
}

export function writePosition(path: string, position: Position): void {
  writeFileDurably(path, Buffer.from(formatPosition(position)));
}

// --- internal ---

/** JSON, with the SHA-256 of itself at the end: a position is trusted with where a chain goes on. */
function formatPosition(position: Position): string {
  const { changeCount: _changeCount, ...captured } = position.captured;
  const values = { version: VERSION, ...position, captured };
  const text = JSON.stringify(
    values,
    (_key, value) => (typeof value === "bigint" ? `0x${value.toString(16)}` : value),
    2,
  );
  return `${text.slice(0, -CLOSING.length)}${SEAL_BEFORE}${digest(text)}${SEAL_AFTER}`;
}

/** Throws RangeError for anything that `formatPosition` did not write. */
function parsePosition(text: string): Position {
  const sealAt = text.lastIndexOf(SEAL_BEFORE);
  const sealed = `${text.slice(0, Math.max(0, sealAt))}${CLOSING}`;
  if (sealAt < 0 || text.slice(sealAt) !== `${SEAL_BEFORE}${digest(sealed)}${SEAL_AFTER}`) {
    throw new RangeError("expected the sha256 of its contents at the end, found none or another");
  }
  const values = JSON.parse(sealed, (key, value) => (BIGINT_KEYS.has(key) ? BigInt(value) : value));
  if (values.version !== VERSION) throw new RangeError(`expected version ${VERSION}, found ${values.version}`);
  const { version: _version, ...position } = values;
  return { ...position, captured: { ...position.captured, changeCount: null } };
}

const VERSION = 1;
const BIGINT_KEYS = new Set(["shippedTxid", "snapshotTxid", "owedTxid", "manifestTxid", "txid", "checksum"]);
const CLOSING = "\n}";
const SEAL_BEFORE = ',\n  "sha256": "';
const SEAL_AFTER = `"${CLOSING}\n`;

function digest(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
