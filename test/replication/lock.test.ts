// Goal: one process watches a database, and a process that died holds nothing.
import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
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
  const folder = join(dir, "other");
  const holder = await spawnHolder(folder);
  expect(() => acquireLock(folder, "/data/app.db")).toThrow(
    expect.objectContaining({ code: "E_LOCKED", message: expect.stringContaining(`process ${holder.pid}`) }),
  );
  expect(() => acquireLock(folder, "/data/app.db")).toThrow("/data/app.db");
  holder.kill("SIGKILL");
  await holder.exited;
  const lock = acquireLock(folder, "/data/app.db");
  expect(readFileSync(join(folder, "lock"), "utf8")).toBe(`walsync, process ${process.pid}\n`);
  lock.release();
});

test("twice in one process is refused too, and a released lock can be taken", () => {
  const folder = join(dir, "own");
  const lock = acquireLock(folder, "app.db");
  expect(() => acquireLock(folder, "app.db")).toThrow(expect.objectContaining({ code: "E_LOCKED" }));
  lock.release();
  acquireLock(folder, "app.db").release();
});

test("a folder that holds nothing but the lock goes with it; one that holds state stays", () => {
  const folder = join(dir, "deep", "state");
  acquireLock(folder, "app.db").release();
  expect(existsSync(folder)).toBe(false);
  const lock = acquireLock(folder, "app.db");
  writeFileSync(join(folder, "position.json"), "{}");
  lock.release();
  expect(readdirSync(folder).sort()).toEqual(["lock", "position.json"]);
});

test("ten processes that take turns never hold it together", async () => {
  const folder = join(dir, "turns");
  const script = `
    import { acquireLock } from "${join(import.meta.dir, "../../src/replication/lock.ts")}";
    import { writeFileSync, rmSync } from "node:fs";
    for (let taken = 0; taken < 30; ) {
      try {
        const lock = acquireLock("${folder}", "app.db");
        writeFileSync("${dir}/held", "", { flag: "wx" });
        rmSync("${dir}/held");
        lock.release();
        taken++;
      } catch (error) {
        if (error.code !== "E_LOCKED") throw error;
        Bun.sleepSync(Math.random());
      }
    }
  `;
  const children = Array.from({ length: 10 }, () => Bun.spawn([process.execPath, "-e", script]));
  expect(await Promise.all(children.map((child) => child.exited))).toEqual(Array(10).fill(0));
});
