/** Writes the matrix of docs/LITESTREAM.md from what the interop tests of this checkout have seen: part of `bun run docs`. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { formatRows, MATRIX_DOCUMENT, type MatrixRow, ROWS_FOLDER } from "../test/interop/matrix.ts";

const BEGIN = "<!-- Up to the next mark: bun run docs, after bun test test/interop -->";
const END = "<!-- End of the matrix -->";
const PART = /interopMatrix\("([\w-]+)"\)/g;
const HEADER = ["| Written by | Where | Read by | Command | Result |", "| --- | --- | --- | --- | --- |"];

/** The parts that the tests keep rows of, by the name that each test file gives `interopMatrix`. */
function partsOfTests(): string[] {
  const folder = join(import.meta.dir, "../test/interop");
  const files = readdirSync(folder).filter((name) => name.endsWith(".test.ts"));
  return files.flatMap((name) =>
    [...readFileSync(join(folder, name), "utf8").matchAll(PART)].map((match) => match[1]!),
  );
}

/** Without all parts the matrix would lose lines: it stays as it is. */
function rowsOfAllParts(): MatrixRow[] | null {
  const paths = partsOfTests().map((part) => join(ROWS_FOLDER, `${part}.json`));
  if (!paths.every((path) => existsSync(path))) return null;
  return paths.flatMap((path): MatrixRow[] => JSON.parse(readFileSync(path, "utf8")));
}

const rows = rowsOfAllParts();
if (rows === null) console.log(`${MATRIX_DOCUMENT} stays as it is: first run bun test test/interop`);
else {
  const document = readFileSync(MATRIX_DOCUMENT, "utf8");
  const table = [...HEADER, ...formatRows(rows)].join("\n");
  const [before, rest] = document.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`${MATRIX_DOCUMENT}: expected the marks of the matrix`);
  await Bun.write(MATRIX_DOCUMENT, `${before}${BEGIN}\n\n${table}\n\n${END}${after}`);
}
