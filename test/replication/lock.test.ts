// Goal: one process watches a database, and a process that died holds nothing.
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { acquireLock } from "../../src/replication/lock.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const HOLDER = `
  import { acquireLock } from "${join(import.meta.dir, "../../src/replication/lock.ts")}";
  acquireLock(process.argv[1], "app.db");
  console.log("held");
  for (;;) await Bun.sleep(1000);
`;

async function spawnHolder(path: string): Promise<Bun.Subprocess<"ignore", "pipe", "inherit">> {
  const child = Bun.spawn([process.execPath, "-e", HOLDER, path], { stdin: "ignore", stdout: "pipe" });
  for await (const _ of child.stdout) break;
  return child;
}

test("another process is refused and told who holds it; when the holder is killed it is free", async () => {
  const path = join(dir, "lock");
  const holder = await spawnHolder(path);
  expect(() => acquireLock(path, "/data/app.db")).toThrow(
    expect.objectContaining({ code: "E_LOCKED", message: expect.stringContaining(`process ${holder.pid}`) }),
  );
  expect(() => acquireLock(path, "/data/app.db")).toThrow("/data/app.db");
  holder.kill("SIGKILL");
  await holder.exited;
  const lock = acquireLock(path, "/data/app.db");
  expect(readFileSync(path, "utf8")).toBe(`walsync, process ${process.pid}\n`);
  lock.release();
});

test("twice in one process is refused too, and a released lock can be taken", () => {
  const path = join(dir, "own");
  const lock = acquireLock(path, "app.db");
  expect(() => acquireLock(path, "app.db")).toThrow(expect.objectContaining({ code: "E_LOCKED" }));
  lock.release();
  acquireLock(path, "app.db").release();
});
