/** What every destination holds true of keys: which ones are allowed, and their order. */
import { DestinationError } from "../errors.ts";

/** Files with these beginnings belong to the directory destination itself; no key may look like one. */
export const TEMP_FILE_PREFIX = ".tmp-";
export const LOCK_FILE_PREFIX = ".lock-";

/** S3 keys hold at most 1024 bytes, the prefix included. */
const KEY_BYTES_MAX = 1024;
/** A file name holds at most 255 bytes on common file systems. This leaves room for `LOCK_FILE_PREFIX` before it. */
const SEGMENT_BYTES_MAX = 240;

/**
 * Says what is wrong with `key`, or null if nothing is. A key is one or more segments joined by "/", and means the
 * same in a bucket and in a directory: no segment is empty, "." or "..", nothing needs escaping.
 */
export function keyFault(key: string): string | null {
  if (key === "") return "is empty";
  if (key.startsWith("/")) return "is absolute";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
  if (/[\u0000-\u001f\u007f-\u009f]/.test(key)) return "holds a control character";
  if (key.includes("\\")) return "holds a backslash";
  if (!key.isWellFormed()) return "is not valid Unicode";
  for (const segment of key.split("/")) {
    if (segment === "") return 'has an empty part between two "/"';
    if (segment === "." || segment === "..") return `has the part "${segment}"`;
    if (isOwnFileName(segment)) return `has the reserved part "${segment}"`;
    if (Buffer.byteLength(segment) > SEGMENT_BYTES_MAX) return `has a part longer than ${SEGMENT_BYTES_MAX} bytes`;
  }
  if (Buffer.byteLength(key) > KEY_BYTES_MAX) return `is longer than ${KEY_BYTES_MAX} bytes`;
  return null;
}

/** Throws a `DestinationError` that will not heal if `key` is not one. */
export function requireKey(url: string, key: string): void {
  const fault = keyFault(key);
  if (fault !== null) {
    throw new DestinationError(`${url}: expected a key, found ${JSON.stringify(key)}, which ${fault}`, {
      retryable: false,
    });
  }
}

/** As `requireKey`, for what `list` takes: "" or a key with "/" behind it. */
export function requirePrefix(url: string, prefix: string): void {
  if (prefix === "") return;
  if (!prefix.endsWith("/")) {
    throw new DestinationError(`${url}: expected a prefix that ends with "/", found ${JSON.stringify(prefix)}`, {
      retryable: false,
    });
  }
  requireKey(url, prefix.slice(0, -1));
}

/** True for the temporary files and locks of the directory destination, which are never listed. */
export function isOwnFileName(fileName: string): boolean {
  return fileName.startsWith(TEMP_FILE_PREFIX) || fileName.startsWith(LOCK_FILE_PREFIX);
}

/** The order of S3: by UTF-8 bytes. JavaScript's own order, by UTF-16 units, differs beyond U+FFFF. */
export function compareKeys(a: string, b: string): number {
  if (a === b) return 0;
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
