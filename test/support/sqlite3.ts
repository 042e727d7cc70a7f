/**
 * Stands in for the program sqlite3 where it is not installed: `bun sqlite3.ts FILE STATEMENTS…` prints rows as it does.
 * Statements are told apart by ";", so none may hold one.
 */
import { Database } from "bun:sqlite";

const [file, ...scripts] = process.argv.slice(2);
const database = new Database(file!, { create: true, readwrite: true });
try {
  for (const statement of scripts.flatMap((script) => script.split(";"))) {
    if (statement.trim() === "") continue;
    for (const row of database.query(statement).values()) console.log(row.map((value) => value ?? "").join("|"));
  }
} finally {
  database.close();
}
