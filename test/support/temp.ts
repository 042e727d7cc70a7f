/** A temporary folder for one test file. */
import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Makes an empty folder; it is removed when the tests of this file are done. Call it at the top of a file. */
export function tempDir(): string {
  const path = mkdtempSync(join(tmpdir(), "walsync-test-"));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
