/**
 * A restore drill: every database at a destination is restored to a temporary place, checked whole by SQLite, and asked a question
 * of your own. Backups that were never restored are a hope.
 *
 *   BACKUP_URL=s3://backups/prod bun restore-drill.ts "select count(*) > 0 from orders"
 *
 * Prints one line of JSON for each: how long it took (RTO), and how old what came back is (RPO). Ends with status 1 if one failed.
 */
import { Database } from "bun:sqlite";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WalSync } from "walsync";

const walsync = new WalSync(process.env.BACKUP_URL ?? "backups");
const question = process.argv[2];
const folder = mkdtempSync(join(tmpdir(), "restore-drill-"));

try {
  const databases = await walsync.list();
  for (const [i, { name }] of databases.entries()) {
    const startedMs = performance.now();
    try {
      const restored = await walsync.restore(name, join(folder, `${i}.db`), { integrity: "full" });
      const seconds = Math.round(performance.now() - startedMs) / 1000;
      const ageSeconds = Math.round((Date.now() - restored.time.getTime()) / 1000);
      const answer = question === undefined ? true : ask(restored.path, question);
      report({ name, ok: answer, txid: String(restored.txid), seconds, ageSeconds, bytes: restored.sizeBytes });
    } catch (error) {
      report({ name, ok: false, error: String(error) });
    }
  }
  if (databases.length === 0) report({ name: null, ok: false, error: "there is no database" });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** True if the first column of the first row is. */
function ask(path: string, sql: string): boolean {
  const database = new Database(path);
  try {
    return Boolean(database.query(sql).values()[0]?.[0]);
  } finally {
    database.close();
  }
}

function report(drill: { name: string | null; ok: boolean } & Record<string, unknown>): void {
  console.log(JSON.stringify(drill));
  if (!drill.ok) process.exitCode = 1;
}
