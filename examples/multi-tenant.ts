/**
 * A host of many tenants, each with a database of its own, which come and go while it runs. One watcher replicates them all.
 *
 *   BACKUP_URL=s3://backups/prod TENANTS=/data/tenants PORT=3000 bun multi-tenant.ts
 *
 *   PUT    /tenants/NAME        makes a tenant; answers once its database is at the destination
 *   POST   /tenants/NAME/notes  adds a note
 *   DELETE /tenants/NAME        removes the tenant's files here; what was shipped stays at the destination
 *   GET    /status              how far each is; status 503 if one is not replicated as it should be
 */
import { Database } from "bun:sqlite";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { WalSync } from "walsync";

const folder = process.env.TENANTS ?? "tenants";
mkdirSync(folder, { recursive: true });
const walsync = new WalSync(process.env.BACKUP_URL ?? "backups");
// The folder need not hold a database yet: what appears in it is picked up.
const watcher = await walsync.watch(folder, { walSyncIntervalMs: 500, compactAfterSnapshot: true });
watcher.on("alert", ({ alert, database, message }) => console.error(`${database}: ${alert}: ${message}`));
watcher.on("added", ({ database }) => console.log(`${database}: replicated from now on`));
watcher.on("removed", ({ database }) => console.log(`${database}: let go of`));

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT ?? 3000),
  routes: {
    "/tenants/:name": { PUT: (request) => make(request.params.name), DELETE: (request) => remove(request.params.name) },
    "/tenants/:name/notes": {
      POST: async (request) => addNote(request.params.name, await request.text()),
    },
    "/status": () => {
      const { databases, refused } = watcher.status();
      const isWell = refused.length === 0 && databases.every(({ error }) => error === null);
      const shown = databases.map(({ name, state, lagMs, error }) => ({ name, state, lagMs, error }));
      return Response.json({ databases: shown, refused }, { status: isWell ? 200 : 503 });
    },
  },
});
console.log(`listening on ${server.url}`);

for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, async () => {
    await server.stop();
    // Ships what is left, for at most five seconds.
    await watcher.stop().catch((error) => {
      console.error(String(error));
      process.exitCode = 1;
    });
  });
}

/** Null for what is no name of a tenant. */
function pathOf(name: string): string | null {
  return /^[a-z0-9-]+$/.test(name) ? join(folder, `${name}.db`) : null;
}

async function make(name: string): Promise<Response> {
  const path = pathOf(name);
  if (path === null) return new Response("not a name\n", { status: 400 });
  if (existsSync(path)) return new Response("there already\n", { status: 409 });
  const watched = new Promise<void>((resolve) => {
    const off = watcher.on("replicating", ({ database }) => {
      if (database !== name) return;
      off();
      resolve();
    });
  });
  using database = new Database(path);
  database.run("PRAGMA journal_mode=WAL");
  database.run("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)");
  await watched;
  await watcher.sync({ name });
  return new Response("made\n", { status: 201 });
}

function addNote(name: string, text: string): Response {
  const path = pathOf(name);
  if (path === null || !existsSync(path)) return new Response("no such tenant\n", { status: 404 });
  using database = new Database(path);
  database.run("PRAGMA busy_timeout=5000");
  database.run("INSERT INTO notes (text) VALUES (?)", [text]);
  return new Response("noted\n", { status: 201 });
}

function remove(name: string): Response {
  const path = pathOf(name);
  if (path === null || !existsSync(path)) return new Response("no such tenant\n", { status: 404 });
  for (const suffix of ["", "-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true });
  return new Response("removed\n");
}
