/** Writes the matrix of docs/LITESTREAM.md from what the interop tests of this checkout have seen: part of `bun run docs`. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { formatRows, MATRIX_DOCUMENT, type MatrixRow, ROWS_FOLDER } from "../test/interop/matrix.ts";

const BEGIN = "<!-- Up to the next mark: bun run docs, after bun test test/interop -->";
const END = "<!-- End of the matrix -->";
const HEADER = ["| Written by | Where | Read by | Command | Result |", "| --- | --- | --- | --- | --- |"];

if (import.meta.main && existsSync(ROWS_FOLDER)) {
  const document = readFileSync(MATRIX_DOCUMENT, "utf8");
  const rows = readdirSync(ROWS_FOLDER).flatMap((name) => {
    const part: MatrixRow[] = JSON.parse(readFileSync(join(ROWS_FOLDER, name), "utf8"));
    return part;
  });
  const table = [...HEADER, ...formatRows(rows)].join("\n");
  const [before, rest] = document.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`${MATRIX_DOCUMENT}: expected the marks of the matrix`);
  await Bun.write(MATRIX_DOCUMENT, `${before}${BEGIN}\n\n${table}\n\n${END}${after}`);
}
