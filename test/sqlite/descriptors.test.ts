// Goal: walsync in the process of an application takes no lock away from the application's own connections, whatever it opens and
// closes beside them, and keeps no descriptor longer than it has to.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { join, resolve } from "node:path";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const libc = resolve(import.meta.dir, "../../src/libc.ts");

/** Runs `body` in a process of its own: what shares its process does so for good. Returns what it prints as JSON. */
function inAProcess(body: string): unknown {
  const script = `
    import { Database } from "bun:sqlite";
    import { readdirSync, readlinkSync } from "node:fs";
    import { closeDescriptors, openDescriptor, shareProcess } from "${resolve(import.meta.dir, "../../src/sqlite/descriptors.ts")}";
    import { isSqliteFile, PinnedDatabase } from "${resolve(import.meta.dir, "../../src/sqlite/database.ts")}";
    const linkOf = (fd) => { try { return readlinkSync("/proc/self/fd/" + fd); } catch { return ""; } };
    const descriptorsOf = (path) => readdirSync("/proc/self/fd").filter((fd) => linkOf(fd).startsWith(path)).length;
    // Asked by another process: nobody is told of locks of their own.
    const holder = (file, byte) => {
      const ask = 'import { lockHolder } from "${libc}"; import { openSync } from "node:fs"; console.log(lockHolder(openSync(process.argv[1], "r"), Number(process.argv[2])))';
      return Number(Bun.spawnSync([process.execPath, "-e", ask, file, String(byte)]).stdout.toString()) === process.pid;
    };
    ${body}`;
  const { stdout, stderr, exitCode } = Bun.spawnSync([process.execPath, "-e", script], { cwd: dir });
  expect({ exitCode, stderr: stderr.toString() }).toMatchObject({ exitCode: 0 });
  return JSON.parse(stdout.toString());
}

function makeDatabase(name: string): string {
  const path = join(dir, name);
  const database = new Database(path);
  database.run("PRAGMA journal_mode=WAL");
  database.run("CREATE TABLE t (x)");
  database.close();
  return path;
}

/** SQLite's lock of a connection in WAL mode on the index: https://www.sqlite.org/walformat.html#wal_locks */
const IN_USE = 128;

describe.if(process.platform === "linux")("an application that has the database open in the same process", () => {
  const open = `
    const app = new Database(path);
    app.query("SELECT * FROM t").all();
    const before = holder(path + "-shm", ${IN_USE});`;

  test.each([
    ["keeps its locks when the database is let go of", "PinnedDatabase.open(path).closeFiles();"],
    ["keeps its locks when somebody looks whether it is a database", "isSqliteFile(path);"],
  ])("%s", (_law, action) => {
    const path = makeDatabase(`keeps${action.length}.db`);
    const look = `[before, holder(path + "-shm", ${IN_USE}), (app.run("INSERT INTO t VALUES (1)"), app.query("SELECT count(*) c FROM t").get().c)]`;
    const found = inAProcess(
      `shareProcess(); const path = ${JSON.stringify(path)}; ${open} ${action} console.log(JSON.stringify(${look}))`,
    );
    expect(found).toEqual([true, true, 1]);
  });

  test("loses them where the process is said to be walsync's alone: the test above can fail", () => {
    const path = makeDatabase("alone.db");
    const found = inAProcess(
      `const path = ${JSON.stringify(path)}; ${open} PinnedDatabase.open(path).closeFiles();
       console.log(JSON.stringify([before, holder(path + "-shm", ${IN_USE})]))`,
    );
    expect(found).toEqual([true, false]);
  });

  test("bounds the descriptors that wait: they are taken again, and closed once the application is done", () => {
    const path = makeDatabase("bounded.db");
    const found = inAProcess(
      `shareProcess(); const path = ${JSON.stringify(path)}; ${open}
       const ofApp = descriptorsOf(path);
       const use = () => { isSqliteFile(path); PinnedDatabase.open(path).closeFiles(); };
       use();
       const waiting = descriptorsOf(path) - ofApp;
       for (let i = 0; i < 5; i++) use();
       const more = descriptorsOf(path) - ofApp - waiting;
       app.close();
       closeDescriptors([openDescriptor(${JSON.stringify(libc)})]);
       console.log(JSON.stringify([waiting >= 3, more, descriptorsOf(path)]));`,
    );
    expect(found).toEqual([true, 0, 0]);
  });
});
