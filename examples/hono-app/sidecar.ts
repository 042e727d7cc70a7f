/**
 * The watcher beside the application, in a process of its own: `bun sidecar.ts FILE`. It restores the database if it is not there,
 * says "ready", tells its status when it is asked, and ships what is left when it is told to stop.
 */
import { WalSync } from "walsync";
import type { Answer, Question } from "./messages.ts";

const [, , path = "app.db"] = process.argv;
const say = (answer: Answer) => process.send?.(answer);
const walsync = new WalSync(process.env.BACKUP_URL ?? "backups");
const watcher = await walsync.watch(path, { restoreIfMissing: true, walSyncIntervalMs: 200 });
watcher.on("alert", ({ alert, database, message }) => console.error(`${database}: ${alert}: ${message}`));

process.on("message", (question: Question) => {
  if (question === "status") say({ kind: "status", databases: watcher.status().databases.map(toPlain) });
  else {
    watcher.sync().then(
      () => say({ kind: "synced", error: null }),
      (error) => say({ kind: "synced", error: String(error) }),
    );
  }
});
// The application ends first, and then asks for the end of this one. What is typed at a terminal reaches both.
process.on("SIGINT", () => {});
process.once("SIGTERM", () => void watcher.stop());
// An application that crashed asks for nothing.
process.once("disconnect", () => void watcher.stop());

say({ kind: "ready" });
await watcher.ended.catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});
process.disconnect?.();

function toPlain({ name, state, lagMs, error }: ReturnType<typeof watcher.status>["databases"][number]) {
  return { name, state, lagMs, error };
}
