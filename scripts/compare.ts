/**
 * Compares two SQLite databases byte for byte, page by page: `bun compare.ts EXPECTED FOUND`. Content that is still in a
 * WAL counts. Prints one line; exits 1 if anything differs. Holds both databases in memory: for samples.
 */
import { Database } from "bun:sqlite";

const [expectedPath, foundPath] = process.argv.slice(2);
if (expectedPath === undefined || foundPath === undefined) throw new Error("usage: compare.ts EXPECTED FOUND");

const PAGE_SIZE_OFFSET = 16;
const MAX_NAMED_PAGES = 8;

const expected = read(expectedPath);
const found = read(foundPath);
const differing = differingPages();
const rows = [...expected.rows].map(([table, count]) => `${count} rows in ${table}`).join(", ");
if (differing.length === 0 && expected.bytes.length === found.bytes.length) {
  console.log(`equal: all ${expected.bytes.length / expected.pageSize} pages of ${expected.pageSize} bytes, ${rows}`);
} else {
  const named = differing.slice(0, MAX_NAMED_PAGES).join(", ") + (differing.length > MAX_NAMED_PAGES ? ", …" : "");
  const sizes = `${expected.bytes.length} bytes expected, ${found.bytes.length} found`;
  console.log(`DIFFERENT: ${differing.length} pages differ (${named}), ${sizes}, ${rows} expected`);
  process.exit(1);
}

interface Content {
  bytes: Uint8Array;
  pageSize: number;
  rows: Map<string, number>;
}

function read(path: string): Content {
  const database = new Database(path, { readwrite: true, create: false });
  try {
    const tables = database.query<{ name: string }, []>("select name from sqlite_schema where type = 'table'").all();
    const count = (table: string) =>
      database.query<{ count: number }, []>(`select count(*) as count from "${table.replaceAll('"', '""')}"`).get()!
        .count;
    const bytes = database.serialize();
    // The header says 1 for 65536, which two bytes cannot hold.
    const pageSize = (bytes[PAGE_SIZE_OFFSET]! << 8) | bytes[PAGE_SIZE_OFFSET + 1]!;
    return {
      bytes,
      pageSize: pageSize === 1 ? 65536 : pageSize,
      rows: new Map(tables.map(({ name }) => [name, count(name)])),
    };
  } finally {
    database.close();
  }
}

/** Numbers, from 1, of pages that are not the same in both or are in one only. */
function differingPages(): number[] {
  const { pageSize } = expected;
  const pages = Math.ceil(Math.max(expected.bytes.length, found.bytes.length) / pageSize);
  return Array.from({ length: pages }, (_, i) => i + 1).filter((pgno) => {
    const page = (content: Content) => content.bytes.subarray((pgno - 1) * pageSize, pgno * pageSize);
    return Buffer.compare(page(expected), page(found)) !== 0;
  });
}
