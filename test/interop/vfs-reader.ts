/**
 * Reads a replica without restoring it, by Litestream's extension of SQLite: `bun vfs-reader.ts EXTENSION`, with the replica in
 * LITESTREAM_REPLICA_URL. Prints the number of items and a digest of them for each line of standard input.
 */
import { constants, Database } from "bun:sqlite";

const [extension] = process.argv.slice(2);
new Database(":memory:").loadExtension(extension!);
const flags = constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI;
const database = new Database("file:app.db?vfs=litestream", flags);
for await (const _line of console) {
  const hash = new Bun.CryptoHasher("sha256");
  const items = database.query<{ id: number; body: Uint8Array }, []>("select id, body from item order by id").all();
  for (const { id, body } of items) hash.update(`${id} `).update(body);
  console.log(`${items.length} ${hash.digest("hex")}`);
}
process.exit(0);
