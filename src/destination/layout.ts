/**
 * How keys name LTX files. Two layouts, told apart by the key alone:
 *
 *   walsync     <name>/00000001-00000012.ltx   decimal, at least 8 digits; <name>/manifest.json beside them
 *   litestream  <name>/0009/0000000000000001-000000000000000c.ltx   level folder of four hex digits, in a bucket
 *               <name>/ltx/9/0000000000000001-000000000000000c.ltx  level folder in decimal below "ltx", in a directory
 *
 * The folder decides, not the digits: sixteen decimal digits are also sixteen hex digits.
 * A destination may also be the folder of one database itself; its files then have no name, and are called ".".
 */
import { assert } from "../assert.ts";
import { WalsyncError } from "../errors.ts";
import { formatTxid, type Txid, type TxidRange } from "../ltx/txid.ts";
import { keyFault } from "./keys.ts";

export type Layout = "walsync" | "litestream";
export type FileKind = "snapshot" | "increment";

/** The prefix, with "/" behind it unless it is empty, that all files of `name` begin with. */
export function folderOf(name: string): string {
  return name === UNNAMED ? "" : `${name}/`;
}

/** Where a litestream level folder lies: `0009/` in a bucket, `ltx/9/` in a directory. */
export type LevelFolders = "bucket" | "directory";

export const SNAPSHOT_LEVEL = 9;
/** Name of the database whose files lie right at the destination, as when somebody gives a replica's own path. */
export const UNNAMED = ".";

/** What the key of an LTX file says. */
export type LtxKey = TxidRange & { name: string; kind: FileKind } & (
    | { layout: "walsync" }
    | { layout: "litestream" /** 0 as shipped, 1 to 8 merged, 9 a snapshot. */; level: number }
  );

export type ParsedKey = ({ is: "ltx" } & LtxKey) | { is: "manifest"; name: string };

/** What to make a key of. */
export type LtxKeyParts = TxidRange & { name: string } & (
    | { layout: "walsync" }
    | { layout: "litestream"; level: number; folders: LevelFolders }
  );

export function formatKey(parts: LtxKeyParts): string {
  const { name, minTxid, maxTxid } = parts;
  assert(minTxid >= 1n && maxTxid >= minTxid && maxTxid <= U64_MAX, "a txid range is 1 <= min <= max");
  if (parts.layout === "walsync") return `${folderOf(name)}${formatDecimal(minTxid)}-${formatDecimal(maxTxid)}.ltx`;
  return `${levelPrefix(name, parts.level, parts.folders)}${formatTxid(minTxid)}-${formatTxid(maxTxid)}.ltx`;
}

/** The prefix, with "/" behind it, of one level of the litestream layout. */
export function levelPrefix(name: string, level: number, folders: LevelFolders): string {
  assert(Number.isInteger(level) && level >= 0 && level <= SNAPSHOT_LEVEL, "a level is 0 to 9");
  const folder = folders === "bucket" ? level.toString(16).padStart(4, "0") : `ltx/${level}`;
  return `${folderOf(name)}${folder}/`;
}

export function manifestKey(name: string): string {
  return `${folderOf(name)}${MANIFEST_FILE}`;
}

/** Null for keys that are not ours: a destination may hold other people's files. */
export function parseKey(key: string): ParsedKey | null {
  const slash = key.lastIndexOf("/");
  if (slash === 0) return null;
  const folder = slash === -1 ? UNNAMED : key.slice(0, slash);
  const fileName = key.slice(slash + 1);
  const leveled = BUCKET_LEVEL.exec(folder) ?? DIRECTORY_LEVEL.exec(folder);
  if (leveled === null) {
    if (listedNameFault(folder) !== null) return null;
    if (fileName === MANIFEST_FILE) return { is: "manifest", name: folder };
    const range = parseRange(fileName, DECIMAL_FILE, "");
    if (range === null) return null;
    // A number has one spelling, or one file could be listed under two names.
    if (formatKey({ ...range, name: folder, layout: "walsync" }) !== key) return null;
    return {
      is: "ltx",
      ...range,
      name: folder,
      layout: "walsync",
      kind: range.minTxid === 1n ? "snapshot" : "increment",
    };
  }
  const name = leveled[1] ?? UNNAMED;
  const level = Number(leveled[2]);
  const range = parseRange(fileName, HEX_FILE, "0x");
  if (range === null || listedNameFault(name) !== null) return null;
  return {
    is: "ltx",
    ...range,
    name,
    layout: "litestream",
    level,
    kind: level === SNAPSHOT_LEVEL ? "snapshot" : "increment",
  };
}

/** Says what is wrong with a database's name in the destination, or null if nothing is. */
export function nameFault(name: string): string | null {
  const fault = keyFault(name);
  if (fault !== null) return fault;
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) return `is longer than ${NAME_BYTES_MAX} bytes`;
  for (const segment of name.split("/")) {
    // In a directory a name that is also a file of the database above it could not exist beside that file.
    if (segment === MANIFEST_FILE || segment.endsWith(".ltx")) return `has the reserved part "${segment}"`;
  }
  // A file right below such a folder would read as a litestream file of the name above it.
  if (BUCKET_LEVEL_SEGMENT.test(name) || DIRECTORY_LEVEL_SEGMENTS.test(name))
    return "ends like a litestream level folder";
  return null;
}

/** Throws `WalsyncError` E_USAGE unless `name` can be a database's name. */
export function requireName(name: string): void {
  requireFaultless(name, nameFault(name));
}

/** As `requireName`, for whoever reads: "." is a name that can be listed, and none that can be given. */
export function requireListedName(name: string): void {
  requireFaultless(name, listedNameFault(name));
}

// --- internal ---

const MANIFEST_FILE = "manifest.json";

function listedNameFault(name: string): string | null {
  return name === UNNAMED ? null : nameFault(name);
}

function requireFaultless(name: string, fault: string | null): void {
  if (fault === null) return;
  throw new WalsyncError(
    "E_USAGE",
    `name ${JSON.stringify(name)}: expected one or more parts with "/" between, found one that ${fault}`,
    {
      hint: "Give the database another name with name=path.",
    },
  );
}

const U64_MAX = (1n << 64n) - 1n;
/** Leaves room in S3's 1024 bytes for a prefix and the file. */
const NAME_BYTES_MAX = 512;

const BUCKET_LEVEL = /^(?:(.+)\/)?000([0-9])$/s;
const DIRECTORY_LEVEL = /^(?:(.+)\/)?ltx\/([0-9])$/s;
const BUCKET_LEVEL_SEGMENT = /(^|\/)000[0-9]$/;
const DIRECTORY_LEVEL_SEGMENTS = /(^|\/)ltx\/[0-9]$/;
const DECIMAL_FILE = /^([0-9]{8,20})-([0-9]{8,20})\.ltx$/;
const HEX_FILE = /^([0-9a-f]{16})-([0-9a-f]{16})\.ltx$/;

function formatDecimal(txid: Txid): string {
  return txid.toString().padStart(8, "0");
}

function parseRange(fileName: string, pattern: RegExp, radix: "" | "0x"): TxidRange | null {
  const match = pattern.exec(fileName);
  if (match === null) return null;
  const minTxid = BigInt(`${radix}${match[1]}`);
  const maxTxid = BigInt(`${radix}${match[2]}`);
  return minTxid >= 1n && minTxid <= maxTxid && maxTxid <= U64_MAX ? { minTxid, maxTxid } : null;
}
