/** A file that was restored, as SQLite sees it: without locks, and without files beside it. */
import { constants, Database } from "bun:sqlite";
import { messageOf } from "../errors.ts";

/** Opens it to be read only, as a file that nobody changes. Throws what SQLite throws. */
export function openRestored(path: string): Database {
  const uri = `file:${encodeURI(path).replaceAll("?", "%3f").replaceAll("#", "%23")}?immutable=1`;
  return new Database(uri, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI);
}

/** What the check says: "ok", or what is wrong. A database that is damaged too badly to be checked fails in other ways: that is an answer, too. */
export function integrityOf(path: string, pragma: "quick_check" | "integrity_check"): string {
  try {
    const connection = openRestored(path);
    try {
      const rows = connection.query(`PRAGMA ${pragma}(10)`).values();
      return rows.map((row) => String(row[0])).join("; ");
    } finally {
      connection.close();
    }
  } catch (error) {
    return messageOf(error);
  }
}
