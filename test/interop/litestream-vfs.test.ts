// Goal: Litestream's extension of SQLite reads what walsync writes right from the destination, and keeps up with it.
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Host } from "../replication/host.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { interopMatrix } from "./matrix.ts";
import { type SharedReplica, startPlaces } from "./places.ts";

const dir = tempDir();
const { record } = interopMatrix("walsync-vfs");
const extension = requireTool("litestream-vfs.so");
const { places, stop } = await startPlaces();
/** The extension asks for new files every second. */
const PATIENCE_MS = 20_000;

afterAll(async () => {
  await stop();
});

function startReader({ vfsUrl, env }: SharedReplica) {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "vfs-reader.ts"), extension!], {
    env: { PATH: process.env.PATH ?? "", LITESTREAM_REPLICA_URL: vfsUrl, LITESTREAM_LOG_FILE: "/dev/null", ...env },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const look = async (): Promise<string> => {
    child.stdin.write("look\n");
    child.stdin.flush();
    return ((await lines.read()).value ?? "").trim();
  };
  return { child, look };
}

function itemsOf(host: Host): string {
  const hash = new Bun.CryptoHasher("sha256");
  const items = host.app.query<{ id: number; body: Uint8Array }, []>("select id, body from item order by id").all();
  for (const { id, body } of items) hash.update(`${id} `).update(body);
  return `${items.length} ${hash.digest("hex")}`;
}

describe.skipIf(extension === null).each(places)("in $label", (place) => {
  test("every row is read, and those that come later", async () => {
    const folder = join(dir, crypto.randomUUID());
    const replica = await place.begin(folder);
    const host = new Host(folder, undefined, { layout: "litestream", open: replica.open });
    host.create();
    host.insert(40, 3000);
    await host.start();
    await host.settle();
    host.insert(5, 20_000);
    await host.settle();
    await host.replicator.requests.snapshot();
    host.insert(3, 100);
    await host.settle();
    const { child, look } = startReader(replica);
    try {
      expect(await look()).toBe(itemsOf(host));
      host.insert(7, 500);
      await host.settle();
      const endMs = performance.now() + PATIENCE_MS;
      while ((await look()) !== itemsOf(host) && performance.now() < endMs) await Bun.sleep(100);
      expect(await look()).toBe(itemsOf(host));
      const row = { writer: "walsync", where: place.where, reader: "litestream" } as const;
      record({ ...row, command: "SQLite extension litestream-vfs", result: "every row, and those that come later" });
    } finally {
      child.kill("SIGKILL");
      await child.exited;
      await host.end();
    }
  }, 60_000);
});
