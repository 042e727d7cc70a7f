// Goal: a program for macOS never carries a signature of other bytes, and one that fits is left alone.
import { expect, test } from "bun:test";
import { withoutStaleSignature } from "../../scripts/packaging/macho.ts";

const LINKEDIT_OFFSET = 256;
const SIGNATURE_OFFSET = 320;

test("a signature that covers less than the program is taken out: the command, the bytes, and the end of the segment", () => {
  const program = machO(SIGNATURE_OFFSET - 16);
  const stripped = withoutStaleSignature(program);
  expect(stripped.length).toBe(SIGNATURE_OFFSET);
  expect([stripped.readUInt32LE(16), stripped.readUInt32LE(20)]).toEqual([1, 72]);
  expect(stripped.readBigUInt64LE(32 + 48)).toBe(BigInt(SIGNATURE_OFFSET - LINKEDIT_OFFSET));
  expect(stripped.subarray(104, 120).every((byte) => byte === 0)).toBe(true);
  expect(stripped.subarray(LINKEDIT_OFFSET)).toEqual(program.subarray(LINKEDIT_OFFSET, SIGNATURE_OFFSET));
  expect(withoutStaleSignature(stripped)).toBe(stripped);
});

test("a signature that covers all before it stays, and other programs are left as they are", () => {
  const signed = machO(SIGNATURE_OFFSET);
  expect(withoutStaleSignature(signed)).toBe(signed);
  const elf = Buffer.from("\x7fELF and more");
  expect(withoutStaleSignature(elf)).toBe(elf);
});

// --- internal ---

/** The least of a 64-bit Mach-O: header, the segment __LINKEDIT, and a signature at the end that covers `codeLimit` bytes. */
function machO(codeLimit: number): Buffer {
  const program = Buffer.alloc(SIGNATURE_OFFSET + 64, 0xab);
  program.fill(0, 0, LINKEDIT_OFFSET);
  for (const [index, value] of [0xfeedfacf, 0x01000007, 3, 2, 2, 72 + 16].entries())
    program.writeUInt32LE(value, 4 * index);
  program.writeUInt32LE(0x19, 32);
  program.writeUInt32LE(72, 36);
  program.write("__LINKEDIT", 40);
  program.writeBigUInt64LE(BigInt(LINKEDIT_OFFSET), 72);
  program.writeBigUInt64LE(BigInt(program.length - LINKEDIT_OFFSET), 80);
  for (const [index, value] of [0x1d, 16, SIGNATURE_OFFSET, 64].entries())
    program.writeUInt32LE(value, 104 + 4 * index);
  // One blob, the code directory, 20 bytes in.
  for (const [index, value] of [0xfade0cc0, 64, 1, 0, 20].entries())
    program.writeUInt32BE(value, SIGNATURE_OFFSET + 4 * index);
  program.writeUInt32BE(codeLimit, SIGNATURE_OFFSET + 20 + 32);
  return program;
}
