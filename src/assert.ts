/**
 * Assertions about our own code. A failed assertion is a bug in walsync, never a fault of the world (disk, network,
 * user, damaged bytes): those are `WalsyncError`s.
 */

export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Throws `AssertionError` unless `condition` holds. `message` says what should have been true. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(`this should hold but does not: ${message}`);
}
