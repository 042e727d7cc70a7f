/** Looks at whole databases, for comparing. Holds them in memory: for tests. */
import { Database } from "bun:sqlite";

/** Every byte of a database, what is still in its WAL included. */
export function contentOf(path: string): Uint8Array {
  const database = new Database(path, { readwrite: true, create: false });
  try {
    return database.serialize();
  } finally {
    database.close();
  }
}

/** Numbers, from 1, of the pages that differ or that only one of the two has. */
export function differingPages(expected: Uint8Array, found: Uint8Array): number[] {
  const header = (expected[16]! << 8) | expected[17]!;
  const pageSize = header === 1 ? 65536 : header;
  const pages = Math.ceil(Math.max(expected.length, found.length) / pageSize);
  const page = (content: Uint8Array, pgno: number) => content.subarray((pgno - 1) * pageSize, pgno * pageSize);
  return Array.from({ length: pages }, (_, i) => i + 1).filter(
    (pgno) => Buffer.compare(page(expected, pgno), page(found, pgno)) !== 0,
  );
}

/** Names of all tables, but for SQLite's own. */
export function tablesOf(path: string): string[] {
  const database = new Database(path, { readwrite: true, create: false });
  try {
    const rows = database.query<{ name: string }, []>(
      "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' order by name",
    );
    return rows.all().map(({ name }) => name);
  } finally {
    database.close();
  }
}
