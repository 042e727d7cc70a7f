/** Small readers and writers shared by every binary format: sizes, u64, unsigned varints. */
import { assert } from "./assert.ts";

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/** A 64-bit unsigned value as `number`, or null if it is beyond 2^53 - 1 and would lose digits. */
export function u64ToNumber(value: bigint): number | null {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : null;
}

/** Sixteen lower-case hex digits of a u64. */
export function hex64(value: bigint): string {
  return value.toString(16).padStart(16, "0");
}

/**
 * Writes `value` at `offset` as an unsigned varint (base 128, least significant group first, as in protobuf and Go); returns the
 * offset behind it.
 */
export function putUvarint(target: Uint8Array, offset: number, value: number): number {
  assert(Number.isSafeInteger(value) && value >= 0, "uvarint is a non-negative safe integer");
  let at = offset;
  let rest = value;
  while (rest >= 0x80) {
    target[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  target[at++] = rest;
  return at;
}
