// Goal: one process watches a database, and a process that died holds nothing.
import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { acquireLock } from "../../src/replication/lock.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
let children: Bun.Subprocess[] = [];

afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  children = [];
});

const HOLDER = `
  import { acquireLock } from "${join(import.meta.dir, "../../src/replication/lock.ts")}";
  acquireLock(process.argv[1], "app.db");
  console.log("held");
  for (;;) await Bun.sleep(1000);
`;

async function spawnHolder(path: string): Promise<Bun.Subprocess<"ignore", "pipe", "inherit">> {
  const child = Bun.spawn([process.execPath, "-e", HOLDER, path], { stdin: "ignore", stdout: "pipe" });
  children.push(child);
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

test("it goes with its holder, also when a child of the holder lives on", async () => {
  const folder = join(dir, "parent");
  const script = `${HOLDER.split("for (;;)")[0]}
    console.log(Bun.spawn(["sleep", "60"], { stdio: ["ignore", "ignore", "ignore"] }).pid);
    for (;;) await Bun.sleep(1000);
  `;
  const holder = Bun.spawn([process.execPath, "-e", script, folder], { stdin: "ignore", stdout: "pipe" });
  children.push(holder);
  let said = "";
  for await (const text of holder.stdout.pipeThrough(new TextDecoderStream())) {
    said += text;
    if (/held\n\d+\n/.test(said)) break;
  }
  const child = Number(said.split("\n")[1]);
  try {
    expect(() => acquireLock(folder, "app.db")).toThrow(`process ${holder.pid}`);
    holder.kill("SIGKILL");
    await holder.exited;
    process.kill(child, 0);
    acquireLock(folder, "app.db").release();
  } finally {
    process.kill(child, "SIGKILL");
  }
});

test("a lock file that says nothing, or names a dead process, is only a file", () => {
  for (const text of ["", "walsync, process 1\n", `walsync, process ${"9".repeat(300)}\n`]) {
    const folder = join(dir, crypto.randomUUID());
    mkdirSync(folder);
    writeFileSync(join(folder, "lock"), text);
    const lock = acquireLock(folder, "app.db");
    expect(readFileSync(join(folder, "lock"), "utf8")).toBe(`walsync, process ${process.pid}\n`);
    lock.release();
  }
});

test("a holder that has not written its name yet is another walsync", () => {
  const folder = join(dir, "nameless");
  const lock = acquireLock(folder, "app.db");
  truncateSync(join(folder, "lock"));
  expect(() => acquireLock(folder, "app.db")).toThrow("found another walsync");
  lock.release();
});

test("folder and file are for their owner alone", () => {
  const folder = join(dir, "private", "state");
  const lock = acquireLock(folder, "app.db");
  for (const path of [folder, join(folder, "lock")]) expect(statSync(path).mode & 0o077).toBe(0);
  lock.release();
});

test("a place where no folder can be made is E_DISK and named", () => {
  writeFileSync(join(dir, "file"), "");
  for (const folder of [join(dir, "file"), join(dir, "file", "state")]) {
    expect(() => acquireLock(folder, "app.db")).toThrow(
      expect.objectContaining({ code: "E_DISK", message: expect.stringContaining(folder) }),
    );
  }
});

test("refused attempts and released locks hold no descriptor", () => {
  const folder = join(dir, "descriptors");
  const open = () => readdirSync("/proc/self/fd").length;
  acquireLock(folder, "app.db").release();
  const before = open();
  for (let i = 0; i < 20; i++) {
    const lock = acquireLock(folder, "app.db");
    expect(() => acquireLock(folder, "app.db")).toThrow();
    lock.release();
  }
  expect(open()).toBe(before);
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
