// A guest book, as an example of an application: GET / shows the entries, POST / adds its body as one. Runs on Node.js 24.
import { createServer } from "node:http";
import { DatabaseSync } from "node:sqlite";

const db = new DatabaseSync(process.env.DATABASE ?? "/data/app.db");
// The busy timeout first: all that follows may have to wait for a moment.
db.exec("pragma busy_timeout = 5000");
db.exec("pragma journal_mode = wal");
db.exec("create table if not exists entry (id integer primary key, body text not null)");
const insert = db.prepare("insert into entry (body) values (?)");
const newest = db.prepare("select body from entry order by id desc limit 100");

const server = createServer(async (request, response) => {
  if (request.method === "POST") {
    let body = "";
    for await (const chunk of request) body += chunk;
    insert.run(body);
    response.writeHead(201).end();
  } else {
    response.end(
      `${newest
        .all()
        .map((entry) => entry.body)
        .join("\n")}\n`,
    );
  }
});
server.listen(Number(process.env.PORT ?? 8080), process.env.HOST);

// What is under way is finished; walsync ships it after this process has ended.
process.on("SIGTERM", () => {
  server.close(() => {
    db.close();
    process.exit(0);
  });
  server.closeIdleConnections();
});
