/**
 * What the interop tests have seen work: who wrote, who read, by which command, with which result. Each test file keeps its rows
 * in .cache/interop; `bun run docs` puts them into docs/LITESTREAM.md, and the tests compare what they see with what it says.
 */
import { afterAll, expect } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

export type Tool = "walsync" | "litestream";

export interface MatrixRow {
  writer: Tool;
  where: "bucket" | "directory";
  reader: Tool | "ltx";
  command: string;
  result: string;
}

const ROOT = resolve(import.meta.dir, "../..");
export const ROWS_FOLDER = join(ROOT, ".cache/interop");
export const MATRIX_DOCUMENT = join(ROOT, "docs/LITESTREAM.md");

/** For one test file, called `part`: what `record` is given must stand in the document when its tests are done. */
export function interopMatrix(part: string): { record(row: MatrixRow): void } {
  const rows: MatrixRow[] = [];
  afterAll(() => {
    if (rows.length === 0) return;
    mkdirSync(ROWS_FOLDER, { recursive: true });
    writeFileSync(join(ROWS_FOLDER, `${part}.json`), JSON.stringify(rows, null, 2));
    // The formatter aligns columns.
    const document = readFileSync(MATRIX_DOCUMENT, "utf8").replaceAll(/ +/g, " ");
    // Run `bun run docs` if a line is missing.
    for (const line of formatRows(rows)) expect(document).toContain(line);
  });
  return { record: (row) => void rows.push(row) };
}

/** Lines of a Markdown table, each once, in an order that does not depend on that of the tests. */
export function formatRows(rows: readonly MatrixRow[]): string[] {
  const lines = rows.map(
    ({ writer, where, reader, command, result }) => `| ${writer} | ${where} | ${reader} | ${command} | ${result} |`,
  );
  return [...new Set(lines)].sort();
}
