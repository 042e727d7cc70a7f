/**
 * Encrypted objects byte by byte: age v1 files (https://age-encryption.org/v1) whose header has always the same length.
 * So the size of a file follows from the size of its object, and any part of it can be found, without a request for either.
 * One stanza of the header is ours: what is kept with the object, in the clear, and padding. age passes over it.
 * Format: docs/FORMATS.md, "Encrypted objects".
 */
import { assert } from "../assert.ts";
import { KiB } from "../bytes.ts";

/** The text at the beginning, up to and with the line of its MAC. */
export const HEADER_BYTES = 1024;
/** Where the first chunk begins: behind the header and a nonce of 16 bytes. */
export const PAYLOAD_OFFSET = HEADER_BYTES + 16;
/** Plain bytes of every chunk but the last. */
export const CHUNK_BYTES = 64 * KiB;
/** Each chunk has a tag behind it. */
export const TAG_BYTES = 16;
/** As many as leave room for what is kept with an object. */
export const MAX_RECIPIENTS = 6;

/** Chunks of a file; an empty one has one, too. */
export function chunkCount(plainBytes: number): number {
  return Math.max(1, Math.ceil(plainBytes / CHUNK_BYTES));
}

/** Size of a file by that of its object. 0 for an object that is too small to be one of ours. */
export function plainSize(storedBytes: number): number {
  const payload = storedBytes - PAYLOAD_OFFSET;
  const chunks = Math.max(1, Math.ceil(payload / (CHUNK_BYTES + TAG_BYTES)));
  return Math.max(0, payload - chunks * TAG_BYTES);
}

/** Size of the object of a file. */
export function storedSize(plainBytes: number): number {
  return PAYLOAD_OFFSET + plainBytes + chunkCount(plainBytes) * TAG_BYTES;
}

/** Where in the object a chunk begins. */
export function chunkOffset(index: number): number {
  return PAYLOAD_OFFSET + index * (CHUNK_BYTES + TAG_BYTES);
}

/** The arguments of our stanza, padded so that the header gets its length. An entry that does not fit is a bug. */
export function stanzaArguments(metadata: Readonly<Record<string, string>>, recipients: number): string[] {
  const entries = Object.entries(metadata).map((entry) => entry.map(encodeURIComponent).join("="));
  const fixed = [STANZA_TYPE, ...entries, PADDING].join(" ").length;
  const room = HEADER_BYTES - FIRST_LINE.length - recipients * RECIPIENT_BYTES - STANZA_FRAME_BYTES - MAC_BYTES - fixed;
  assert(room >= 0, "what is kept with an encrypted object fits into its header");
  return [STANZA_TYPE, ...entries, PADDING + "-".repeat(room)];
}

export type ParsedHeader =
  | { kind: "ours"; metadata: Record<string, string> }
  /** Not encrypted at all; or with age, but not as it is done here. */
  | { kind: "plain" }
  | { kind: "foreign" };

/** Reads the first `HEADER_BYTES` of an object, or as many as it has. What they say is proven only by whoever has an identity. */
export function parseHeader(bytes: Uint8Array): ParsedHeader {
  const header = Buffer.from(bytes).toString("latin1");
  if (!header.startsWith(FIRST_LINE)) return { kind: "plain" };
  const stanza = new RegExp(`\n-> ${STANZA_TYPE} ([!-~ ]+)\n\n--- `).exec(header);
  if (header.length !== HEADER_BYTES || stanza?.index === undefined) return { kind: "foreign" };
  if (stanza.index + stanza[0].length !== HEADER_BYTES - MAC_BYTES + "--- ".length) return { kind: "foreign" };
  const metadata: Record<string, string> = {};
  for (const entry of stanza[1]!.split(" ")) {
    const equals = entry.indexOf("=");
    if (equals > 0 && !entry.startsWith(PADDING))
      metadata[decode(entry.slice(0, equals))] = decode(entry.slice(equals + 1));
  }
  return { kind: "ours", metadata };
}

// --- internal ---

/** The type of our stanza. */
const STANZA_TYPE = "walsync";
const FIRST_LINE = "age-encryption.org/v1\n";
const PADDING = "pad=";
/** "-> X25519 ", 43 characters and a line end, twice: the share and the wrapped file key. */
const RECIPIENT_BYTES = "-> X25519 ".length + 44 + 44;
/** "-> " before the arguments, a line end behind them, and the empty line of a stanza without a body. */
const STANZA_FRAME_BYTES = "-> ".length + 2;
/** "--- ", 43 characters and a line end. */
const MAC_BYTES = "--- ".length + 44;

/** As it stands there if it is not what we write: whoever may write to a destination may have written it. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
