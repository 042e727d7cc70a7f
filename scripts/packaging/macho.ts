/**
 * The signature inside a program for macOS. Bun signs what it compiles for Apple silicon; in a program for Intel it leaves
 * the signature of Bun itself, which no longer fits and under which the kernel may end the program. Intel runs programs
 * without a signature, so one that does not fit is taken out. Formats: mach-o/loader.h and kern/cs_blobs.h of Apple's XNU.
 */
import { assert } from "../../src/assert.ts";

/** The program without a signature that covers something else than all that stands before it; else the program itself. */
export function withoutStaleSignature(program: Buffer): Buffer {
  if (program.readUInt32LE(0) !== MACHO_64) return program;
  const { signature, linkedit } = loadCommands(program);
  if (signature === null || linkedit === null) return program;
  const dataOffset = program.readUInt32LE(signature.offset + 8);
  if (codeLimit(program, dataOffset) === dataOffset) return program;

  assert(signature.offset + signature.size === endOfCommands(program), "the signature is the last load command");
  assert(dataOffset + program.readUInt32LE(signature.offset + 12) === program.length, "the signature ends the file");
  const stripped = Buffer.from(program.subarray(0, dataOffset));
  stripped.writeUInt32LE(program.readUInt32LE(16) - 1, 16);
  stripped.writeUInt32LE(program.readUInt32LE(20) - signature.size, 20);
  stripped.fill(0, signature.offset, signature.offset + signature.size);
  // The segment that held it ends where the file ends. In memory it may stay longer: what follows is zeros.
  const segmentOffset = program.readBigUInt64LE(linkedit.offset + 40);
  stripped.writeBigUInt64LE(BigInt(dataOffset) - segmentOffset, linkedit.offset + 48);
  return stripped;
}

// --- internal ---

const MACHO_64 = 0xfeedfacf;
/** Header: magic, cpu type, cpu subtype, file type, number (16) and size (20) of the load commands, flags, reserved. */
const HEADER_SIZE = 32;
const LC_SEGMENT_64 = 0x19;
const LC_CODE_SIGNATURE = 0x1d;
const CODE_DIRECTORY_SLOT = 0;

interface Command {
  offset: number;
  size: number;
}

function loadCommands(program: Buffer): { signature: Command | null; linkedit: Command | null } {
  const found: { signature: Command | null; linkedit: Command | null } = { signature: null, linkedit: null };
  let offset = HEADER_SIZE;
  for (let left = program.readUInt32LE(16); left > 0; left--) {
    const [kind, size] = [program.readUInt32LE(offset), program.readUInt32LE(offset + 4)];
    if (kind === LC_CODE_SIGNATURE) found.signature = { offset, size };
    const isLinkedit =
      kind === LC_SEGMENT_64 && program.toString("latin1", offset + 8, offset + 24).startsWith("__LINKEDIT\0");
    if (isLinkedit) found.linkedit = { offset, size };
    offset += size;
  }
  return found;
}

function endOfCommands(program: Buffer): number {
  return HEADER_SIZE + program.readUInt32LE(20);
}

/** How many bytes the signature covers. Big-endian: a table of (slot, offset) after 12 bytes, the limit 32 into its entry. */
function codeLimit(program: Buffer, signatureOffset: number): number | null {
  for (let i = 0; i < program.readUInt32BE(signatureOffset + 8); i++) {
    const entry = signatureOffset + 12 + 8 * i;
    if (program.readUInt32BE(entry) !== CODE_DIRECTORY_SLOT) continue;
    return program.readUInt32BE(signatureOffset + program.readUInt32BE(entry + 4) + 32);
  }
  return null;
}
