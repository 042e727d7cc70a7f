/** What --version prints. The build puts version and commit in; run from source, they are "source" and "unknown". */
import { Database } from "bun:sqlite";

declare const WALSYNC_VERSION: string | undefined;
declare const WALSYNC_COMMIT: string | undefined;

/** Version of walsync as in package.json. */
export const VERSION: string = typeof WALSYNC_VERSION === "string" ? WALSYNC_VERSION : "source";
/** Short hash of the commit this was built from. */
export const COMMIT: string = typeof WALSYNC_COMMIT === "string" ? WALSYNC_COMMIT : "unknown";

export function formatVersion(): string {
  return [
    `walsync ${VERSION} (commit ${COMMIT}, ${process.platform}-${process.arch})`,
    `bun ${Bun.version}`,
    `sqlite ${sqliteVersion()}`,
  ].join("\n");
}

// --- internal ---

function sqliteVersion(): string {
  const database = new Database(":memory:");
  try {
    return database.query<{ version: string }, []>("select sqlite_version() as version").get()?.version ?? "unknown";
  } finally {
    database.close();
  }
}
