/**
 * A web application on Hono, with walsync in a process beside it: `BACKUP_URL=s3://backups/prod PORT=3000 bun app.ts`.
 *
 * The database is restored before the application opens it. Two processes, because SQLite's checkpoints and large answers of the
 * application then never wait for walsync, and because the sidecar outlives a crash of the application for as long as it takes to
 * ship its last transaction.
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { Hono } from "hono";
import type { Answer, Question } from "./messages.ts";

const path = process.env.DATABASE ?? "app.db";
const waiting = new Map<Answer["kind"], ((answer: Answer) => void)[]>();
const sidecar = Bun.spawn([process.execPath, join(import.meta.dir, "sidecar.ts"), path], {
  stdio: ["ignore", "inherit", "inherit"],
  ipc: (answer: Answer) => {
    for (const resolve of waiting.get(answer.kind)?.splice(0) ?? []) resolve(answer);
  },
});
await Promise.race([next("ready"), sidecar.exited.then(() => process.exit(1))]);

const database = new Database(path);
database.run("PRAGMA journal_mode=WAL");
database.run("PRAGMA busy_timeout=5000");
database.run("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)");

const app = new Hono();
app.get("/notes", (c) => c.json(database.query("SELECT id, text FROM notes").all()));
app.post("/notes", async (c) => {
  database.run("INSERT INTO notes (text) VALUES (?)", [await c.req.text()]);
  // "?durable" answers once the note survives the loss of this machine.
  if (c.req.query("durable") === undefined) return c.text("noted\n", 201);
  const { error } = await ask("sync", "synced");
  return error === null ? c.text("noted, and shipped\n", 201) : c.text(`noted, not shipped: ${error}\n`, 503);
});
app.get("/health", async (c) => {
  const { databases } = await ask("status", "status");
  return c.json({ databases }, databases.every(({ error }) => error === null) ? 200 : 503);
});

const server = Bun.serve({ hostname: "127.0.0.1", port: Number(process.env.PORT ?? 3000), fetch: app.fetch });
console.log(`listening on ${server.url}`);

for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, async () => {
    await server.stop();
    database.close();
    sidecar.kill("SIGTERM");
    process.exit(await sidecar.exited);
  });
}

function ask<K extends Answer["kind"]>(question: Question, kind: K): Promise<Extract<Answer, { kind: K }>> {
  const answer = next(kind);
  sidecar.send(question);
  return answer;
}

/** The next answer of this kind. */
function next<K extends Answer["kind"]>(kind: K): Promise<Extract<Answer, { kind: K }>> {
  return new Promise((resolve) => {
    const all = waiting.get(kind) ?? [];
    all.push((answer) => resolve(answer as Extract<Answer, { kind: K }>));
    waiting.set(kind, all);
  });
}
