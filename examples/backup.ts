/**
 * A backup from cron: a snapshot of each database, what is too old deleted, and the files of each looked at.
 *
 *   17 * * * *  BACKUP_URL=s3://backups/prod bun backup.ts /data/app.db /data/shop.db
 *
 * Prints one line of JSON for each database, and ends with status 1 if one of them could not be saved.
 */
import { WalSync, WalsyncError } from "walsync";

const walsync = new WalSync(process.env.BACKUP_URL ?? "backups");
// Cron starts the next one: better none than two at once.
const signal = AbortSignal.timeout(30 * 60_000);

for (const path of process.argv.slice(2)) {
  try {
    const { name, txid } = await walsync.snapshot(path, { signal });
    const { deletedFiles } = await walsync.compact(name, { force: true, signal });
    const { ok, points, findings } = await walsync.verify(name, { quick: true, signal });
    console.log(JSON.stringify({ path, name, txid: String(txid), points, deletedFiles, ok }));
    if (!ok) throw new Error(findings.map(({ key, message }) => `${key}: ${message}`).join("; "));
  } catch (error) {
    const [code, hint] = error instanceof WalsyncError ? [error.code, error.hint] : ["failed"];
    console.error(JSON.stringify({ path, code, message: String(error), hint }));
    process.exitCode = 1;
  }
}
