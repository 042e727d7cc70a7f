// Goal: docs/MIGRATION.md works as it is written, step by step and back, and nothing that was committed is lost at any change-over.
import { Database } from "bun:sqlite";
import { afterAll, expect, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { openDestination } from "../../src/destination/open.ts";
import { s3Access } from "../commands/run.ts";
import { compiledBinary } from "../support/binary.ts";
import { runShell } from "../support/shell.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { startVersitygw } from "../support/versitygw.ts";

const guide = readFileSync(resolve(import.meta.dir, "../../docs/MIGRATION.md"), "utf8");
const commands = [...guide.matchAll(/^```sh\n(.*?)^```$/gms)].flatMap((match) => match[1]!.trimEnd().split("\n"));
const config = /^```yaml\n(.*?)^```$/ms.exec(guide)![1]!;

const dir = tempDir();
const server = await startVersitygw();
const litestream = requireTool("litestream");
afterAll(() => server?.stop());

const PATIENCE_MS = 60_000;
/** What the guide's units run. */
const UNITS: Record<string, string> = {
  litestream: "litestream replicate -config litestream.yml",
  walsync: "walsync watch --config walsync.toml",
};

test("the guide has commands of every kind", () => {
  expect(commands.length).toBeGreaterThan(15);
  for (const kind of [
    /^walsync migrate litestream\.yml/,
    /^walsync migrate --convert/,
    /^systemctl stop/,
    /^litestream restore/,
  ]) {
    expect(commands.some((command) => kind.test(command))).toBe(true);
  }
});

test.skipIf(server === null || litestream === null)(
  "every command, in order",
  async () => {
    await server!.createBucket("backups");
    const bin = join(dir, "bin");
    mkdirSync(bin);
    symlinkSync(compiledBinary(), join(bin, "walsync"));
    copyFileSync(litestream!, join(bin, "litestream"));
    writeFileSync(join(dir, "litestream.yml"), config);
    const app = new Database(join(dir, "app.db"), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("pragma busy_timeout = 5000");
    app.run("create table item (id integer primary key, body)");
    let rows = 0;
    const write = (): void => {
      app.run("insert into item (body) values (randomblob(5000))");
      rows++;
    };
    const env = {
      PATH: `${bin}:${process.env.PATH}`,
      HOME: dir,
      XDG_RUNTIME_DIR: dir,
      AWS_ENDPOINT_URL_S3: server!.endpoint,
      ...s3Access(server!).env,
    };
    const running = new Map<string, Bun.Subprocess>();
    const start = (name: string, command: string): void => {
      const log = Bun.file(join(dir, `${name}.log`));
      const child = Bun.spawn(["bash", "-c", `exec ${command}`], {
        cwd: dir,
        env,
        stdin: "ignore",
        stdout: log,
        stderr: log,
      });
      running.set(name, child);
    };
    const stop = async (name: string): Promise<void> => {
      const child = running.get(name);
      if (child === undefined) return;
      running.delete(name);
      child.kill("SIGTERM");
      expect([name, await child.exited]).toEqual([name, 0]);
    };
    const run = (command: string) => runShell(command, { cwd: dir, env });
    const rowsIn = (file: string): number => {
      const copy = new Database(join(dir, file), { readwrite: true });
      try {
        return (copy.query("select count(*) as rows from item").get() as { rows: number }).rows;
      } finally {
        copy.close();
      }
    };
    const { endpoint, region } = server!;
    const replica = await openDestination("s3://backups", { endpoint, region, env });
    const keys = async (prefix: string) => await Array.fromAsync(replica.list(prefix), ({ key }) => key);
    /** Until what is committed now is in a new file at the destination. */
    const shipped = async (prefix: string): Promise<void> => {
      const before = new Set(await keys(prefix));
      const deadline = Date.now() + PATIENCE_MS;
      while (!(await keys(prefix)).some((key) => !before.has(key) && key.endsWith(".ltx"))) {
        // A first look may still be under way: what it finds is shipped at the latest with the next row.
        write();
        await Bun.sleep(300);
        if (Date.now() > deadline) throw new Error(`${prefix}: expected a new file`);
      }
    };

    try {
      write();
      start("litestream", UNITS.litestream!);
      await shipped("prod/app/");
      for (const command of commands) {
        const [, verb, unit] = /^systemctl (start|stop) (\w+)$/.exec(command) ?? [];
        if (verb === "stop") {
          await stop(unit!);
          // Nobody replicates: it must not be lost.
          write();
        } else if (verb === "start") {
          start(unit!, UNITS[unit!]!);
          await shipped("prod/app/");
        } else if (command.startsWith("walsync watch ")) {
          start("watch", command);
          await shipped("walsync/app/");
          await stop("watch");
        } else await run(command);

        if (command.startsWith("walsync sync")) write();
        if (command.includes("--force -b")) expect(rowsIn("check.db")).toBeGreaterThan(0);
        if (command.startsWith("litestream restore -config")) {
          expect(rowsIn("official.db")).toBeGreaterThanOrEqual(rowsIn("check.db"));
        }
        if (verb === "stop") {
          // Everything up to the stop is there, whoever wrote it, for whoever reads it.
          rmSync(join(dir, "now.db"), { force: true });
          await run("walsync restore app -o now.db -b s3://backups/prod");
          expect([command, rowsIn("now.db")]).toEqual([command, rows - 1]);
          rmSync(join(dir, "now.db"), { force: true });
          await run("litestream restore -config litestream.yml -o now.db app.db");
          expect([command, rowsIn("now.db")]).toEqual([command, rows - 1]);
        }
      }
      expect(existsSync(join(dir, "walsync.toml"))).toBe(true);
      expect(rowsIn("back.db")).toBe(rows);
    } finally {
      for (const child of running.values()) child.kill("SIGKILL");
      replica.close();
      app.close();
    }
  },
  180_000,
);
