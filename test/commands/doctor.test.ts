// Goal: doctor finds what is wrong before a watch does, says what to do, and changes nothing: no byte of a database, no file
// beside it, no object at the destination, also when it is stopped in the middle.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { type Check, failed, ok, runChecks, warning } from "../../src/doctor/check.ts";
import { DESTINATION_CHECKS, DestinationToCheck } from "../../src/doctor/destination-checks.ts";
import { judgeClock, judgeDescriptors } from "../../src/doctor/host-checks.ts";
import { decodeSample, makeSample } from "../../src/doctor/ltx-sample.ts";
import { WalsyncError } from "../../src/errors.ts";
import { acquireLock } from "../../src/replication/lock.ts";
import { makeKeys } from "../encryption/make.ts";
import { compiledBinary } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";
import { nobodyPrefix, treeOf, walsync } from "./run.ts";

const dir = tempDir();
let open: Database[] = [];
let locks: { release(): void }[] = [];

afterEach(() => {
  for (const database of open) database.close();
  for (const lock of locks) lock.release();
  open = [];
  locks = [];
});

interface Result {
  subject: string;
  check: string;
  result: string;
  message: string;
  hint: string | null;
}

function makeFolder(): string {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  return folder;
}

function makeDatabase(folder: string, mode = "wal"): string {
  const path = join(folder, "app.db");
  const database = new Database(path, { create: true });
  open.push(database);
  database.run(`pragma journal_mode = ${mode}`);
  database.run("create table item (body)");
  return path;
}

async function diagnose(args: string[], status: number): Promise<Result[]> {
  const finished = await walsync(["doctor", ...args, "--json"], { cwd: dir });
  expect({ args, ...finished }).toMatchObject({ args, status });
  const { checks } = JSON.parse(finished.stdout) as { checks: Result[] };
  for (const { result, hint } of checks)
    expect([result, hint !== null]).toEqual([result, /warning|failed/.test(result)]);
  return checks;
}

const find = (results: Result[], check: string) => results.find((result) => result.check === check);

describe("what it is given", () => {
  test("nothing: the host alone", async () => {
    const checks = await diagnose([], 0);
    expect(new Set(checks.map(({ subject }) => subject))).toEqual(new Set(["host"]));
    expect(checks.map(({ check }) => check)).toEqual(["open files", "inotify", "file events", "clock"]);
  });

  test("databases and a directory: all of it in order, as a table that lines up, and nothing is changed", async () => {
    const folder = makeFolder();
    const path = makeDatabase(folder);
    const before = treeOf(folder);
    const { status, stdout } = await walsync(["doctor", path, "-b", join(folder, "new/bucket")]);
    expect(status).toBe(0);
    const [header, ...lines] = stdout.trimEnd().split("\n");
    expect(header).toMatch(/^RESULT {2}SUBJECT +CHECK +FOUND$/);
    for (const line of lines) {
      expect(line).toMatch(/^(ok|skip) /);
      for (const column of ["SUBJECT", "CHECK", "FOUND"]) {
        expect(line.slice(header!.indexOf(column) - 2).slice(0, 3)).toMatch(/^ {2}\S$/);
      }
    }
    // The time of the folder itself is not looked at: a probe for file events came and went.
    expect(treeOf(folder)).toEqual(before);
  });

  test("walsync.toml names databases and a bucket", async () => {
    const folder = makeFolder();
    makeDatabase(folder, "delete");
    const config = `[s3]\nbucket = "bucket"\n[sync]\nenable_wal = true\n[[databases]]\npath = "app.db"\n`;
    writeFileSync(join(folder, "walsync.toml"), config);
    const { status, stdout } = await walsync(["doctor", "--json"], { cwd: folder });
    const { checks } = JSON.parse(stdout) as { checks: Result[] };
    expect([status, find(checks, "journal mode")?.result, find(checks, "delete")?.result]).toEqual([
      0,
      "warning",
      "ok",
    ]);
    expect(readdirSync(folder).sort()).toEqual(["app.db", "walsync.toml"]);
  });

  test("an address that is none is wrong usage", async () => {
    expect((await walsync(["doctor", "-b", "ftp://x"])).status).toBe(2);
  });
});

describe("a database", () => {
  test.each<[string, string, number, (folder: string) => void]>([
    ["that is missing", "file", 7, (folder) => rmSync(join(folder, "app.db"))],
    ["that is empty", "file", 7, (folder) => truncateSync(join(folder, "app.db"))],
    ["that is none", "file", 7, (folder) => writeFileSync(join(folder, "app.db"), "x".repeat(4096))],
    [
      "with a file where its state folder goes",
      "state folder",
      7,
      (f) => writeFileSync(join(f, ".app.db-walsync"), ""),
    ],
    ["whose state folder is a link", "state folder", 7, (f) => symlinkSync("/tmp", join(f, ".app.db-walsync"))],
    ["whose WAL has grown without end", "WAL size", 0, (f) => truncateSync(join(f, "app.db-wal"), 100 * 1024 * 1024)],
  ])("%s is told", async (_law, check, status, damage) => {
    const folder = makeFolder();
    const path = makeDatabase(folder);
    damage(folder);
    const found = find(await diagnose([path], status), check);
    expect(found).toMatchObject({ subject: path, result: status === 0 ? "warning" : "failed" });
  });

  test("not in WAL mode fails, and asks for the flag", async () => {
    const path = makeDatabase(makeFolder(), "delete");
    expect(find(await diagnose([path], 7), "journal mode")?.hint).toContain("--enable-wal");
  });

  test("that another process watches is in order, and says who it is", async () => {
    const path = makeDatabase(makeFolder());
    locks.push(acquireLock(join(path, "..", ".app.db-walsync"), path));
    expect(find(await diagnose([path], 0), "watcher")?.message).toContain(`process ${process.pid}`);
  });

  test.skipIf(process.platform !== "linux")(
    "that is locked by one connection alone fails, one that is read does not",
    async () => {
      const path = makeDatabase(makeFolder());
      open[0]!.run("begin");
      open[0]!.query("select * from item").all();
      expect(find(await diagnose([path], 0), "locking mode")?.result).toBe("ok");
      open.pop()!.close();
      const owner = new Database(path, { readwrite: true, create: false });
      open.push(owner);
      owner.run("pragma locking_mode = exclusive");
      owner.run("insert into item values (1)");
      expect(find(await diagnose([path], 7), "locking mode")?.message).toContain(`process ${process.pid}`);
    },
  );

  test("that may not be written fails", async () => {
    const folder = makeFolder();
    const prefix = nobodyPrefix(makeFolder());
    if (prefix === null) return;
    const path = makeDatabase(folder);
    Bun.spawnSync(["chmod", "755", dir, folder]);
    Bun.spawnSync(["chmod", "444", path]);
    const { status, stdout } = await walsync(["doctor", path, "--json"], { prefix });
    expect(status).toBe(7);
    const { checks } = JSON.parse(stdout) as { checks: Result[] };
    expect(find(checks, "permissions")?.message).toContain(path);
  });
});

describe("encryption", () => {
  const folder = makeFolder();
  const place = () => join(makeFolder(), "bucket");

  test("with an identity a database goes there and back; without one it is the same object; nothing is left", async () => {
    const { recipient, identityFile } = await makeKeys(join(folder, "key.txt"));
    const bucket = place();
    const open = await diagnose(["-b", bucket, "--recipient", recipient, "--identity", identityFile], 0);
    expect(find(open, "recipients")).toMatchObject({ subject: "encryption", result: "ok" });
    expect(find(open, "identity")?.result).toBe("ok");
    expect(find(open, "LTX round trip")).toMatchObject({
      result: "ok",
      message: expect.stringContaining("encrypted, written, read"),
    });
    const sealed = await diagnose(["-b", bucket, "--recipient", recipient], 0);
    expect(find(sealed, "identity")?.result).toBe("skipped");
    expect(find(sealed, "LTX round trip")).toMatchObject({
      result: "ok",
      message: expect.stringContaining("cannot be read"),
    });
    expect(readdirSync(join(bucket, ".."))).toEqual([]);
    const clear = await diagnose(["-b", bucket], 0);
    expect(clear.filter(({ subject }) => subject === "encryption")).toEqual([]);
  });

  test("what is in walsync.toml counts", async () => {
    const own = makeFolder();
    const { recipient } = await makeKeys(join(own, "key.txt"));
    writeFileSync(join(own, "walsync.toml"), `[s3]\nbucket = "bucket"\n[encryption]\nrecipients = ["${recipient}"]\n`);
    const { stdout } = await walsync(["doctor", "--json"], { cwd: own });
    expect(find((JSON.parse(stdout) as { checks: Result[] }).checks, "LTX round trip")?.message).toContain("encrypted");
  });

  test("keys that cannot be read fail with status 2, and the round trip is skipped", async () => {
    const { recipient } = await makeKeys(join(folder, "fine.txt"));
    writeFileSync(join(folder, "rubbish.txt"), "no key\n");
    for (const keys of [
      ["--recipients-file", join(folder, "none.txt")],
      ["--recipient", "age1x"],
      ["--recipient", recipient, "--identity", join(folder, "rubbish.txt")],
    ]) {
      const checks = await diagnose(["-b", place(), ...keys], 2);
      expect(find(checks, "keys")?.result).toBe("failed");
      expect(find(checks, "LTX round trip")?.result).toBe("skipped");
      expect(find(checks, "delete")?.result).toBe("ok");
    }
  });

  test("an identity that none of the recipients is of is found out by the round trip", async () => {
    const [ours, other] = [await makeKeys(join(folder, "a.txt")), await makeKeys(join(folder, "b.txt"))];
    const bucket = place();
    const checks = await diagnose(["-b", bucket, "--recipient", ours.recipient, "--identity", other.identityFile], 3);
    expect(find(checks, "LTX round trip")).toMatchObject({
      result: "failed",
      hint: expect.stringContaining("--identity"),
    });
    expect(readdirSync(join(bucket, ".."))).toEqual([]);
  });

  test("an identity alone reads, and is no watch's", async () => {
    const { identityFile } = await makeKeys(join(folder, "alone.txt"));
    const checks = await diagnose(["-b", place(), "--identity", identityFile], 0);
    expect(find(checks, "recipients")).toMatchObject({
      result: "warning",
      hint: expect.stringContaining("--recipient"),
    });
  });
});

describe("a destination", () => {
  test("that does not answer fails with status 3, and the rest is skipped", async () => {
    const env = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test-secret" };
    const args = ["doctor", "-b", "s3://bucket", "--endpoint", "http://127.0.0.1:9", "--json"];
    const { status, stdout } = await walsync(args, { env });
    const { checks } = JSON.parse(stdout) as { checks: Result[] };
    expect([status, find(checks, "list")?.result, find(checks, "write")?.result]).toEqual([3, "failed", "skipped"]);
  });

  test("without credentials fails with status 3 and says which", async () => {
    expect(find(await diagnose(["-b", "s3://bucket"], 3), "credentials")?.message).toContain("AWS_ACCESS_KEY_ID");
  });

  test("local faults count for more than its own", async () => {
    await diagnose([join(dir, "none.db"), "-b", "s3://bucket"], 7);
  });

  /** A directory that does one thing wrong. */
  class Faulty extends DirectoryDestination {
    fault: "ignores conditions" | "other bytes" | "ignores ranges" | "keeps what is deleted" | "" = "";
    override async write(...[key, source, options = {}]: Parameters<DirectoryDestination["write"]>) {
      const { condition: _condition, ...rest } = options;
      return await super.write(key, source, this.fault === "ignores conditions" ? rest : options);
    }
    override async read(...[key, options = {}]: Parameters<DirectoryDestination["read"]>) {
      const { range: _range, ...rest } = options;
      const body = await super.read(key, this.fault === "ignores ranges" ? rest : options);
      if (body === null || this.fault !== "other bytes") return body;
      const { chunks } = body;
      async function* flipped() {
        for await (const chunk of chunks) {
          const copy = chunk.slice();
          copy[copy.length >> 1]! ^= 1;
          yield copy;
        }
      }
      return { ...body, chunks: flipped() };
    }
    override async remove(...args: Parameters<DirectoryDestination["remove"]>) {
      if (this.fault !== "keeps what is deleted") await super.remove(...args);
    }
  }

  test.each([
    ["ignores conditions", ["conditional write", "conditional replace"]],
    ["other bytes", ["read", "LTX round trip"]],
    ["ignores ranges", ["ranged read"]],
    ["keeps what is deleted", ["delete"]],
    ["", []],
  ] as const)("that %s is found out, by these checks and no others", async (fault, expected) => {
    const destination = new Faulty(join(makeFolder(), "bucket"));
    destination.fault = fault;
    const context = new DestinationToCheck(destination, null, new AbortController().signal);
    const results = await runChecks({ subject: "bucket", checks: DESTINATION_CHECKS, context });
    expect(results.filter(({ result }) => result === "failed").map(({ check }) => check)).toEqual([...expected]);
  });

  test("what was written is removed when the checks are given up in the middle", async () => {
    const stop = new AbortController();
    const folder = makeFolder();
    const destination = new DirectoryDestination(join(folder, "bucket"));
    const context = new DestinationToCheck(destination, null, stop.signal);
    const [first, second] = DESTINATION_CHECKS;
    const giveUp: Check<DestinationToCheck> = {
      check: "give up",
      run: ({ signal }) => {
        stop.abort(new Error("given up"));
        signal.throwIfAborted();
        return ok("");
      },
    };
    const checks = [first!, second!, giveUp];
    expect(runChecks({ subject: "bucket", checks, context })).rejects.toThrow("given up");
    while (!stop.signal.aborted) await Bun.sleep(5);
    expect(readdirSync(join(folder, "bucket"))).toHaveLength(1);
    await context.clean();
    expect(readdirSync(join(folder, "bucket"))).toEqual([]);
  });

  test("nothing is left there after SIGTERM at any moment", async () => {
    for (const delayMs of [40, 60, 80, 100]) {
      const folder = makeFolder();
      const child = Bun.spawn([compiledBinary(), "doctor", "-b", join(folder, "bucket")], {
        env: { PATH: process.env.PATH ?? "" },
        stdin: "ignore",
        stdout: "ignore",
        stderr: "ignore",
      });
      await Bun.sleep(delayMs);
      child.kill("SIGTERM");
      expect([0, 143]).toContain(await child.exited);
      expect(readdirSync(folder)).toEqual([]);
    }
  });
});

describe("the pure parts", () => {
  test.each([
    [0, "ok"],
    [-60_000, "ok"],
    [60_001, "warning"],
    [-899_999, "warning"],
    [900_000, "failed"],
    [-3_600_000, "failed"],
  ])("a clock that is %p ms ahead is %s", (aheadMs, result) =>
    expect(judgeClock(aheadMs).result).toBe(result as never),
  );

  test.each([
    [1024, 0, "ok"],
    [64, 0, "ok"],
    [1024, 50, "ok"],
    [1024, 100, "warning"],
    [1024, 120, "warning"],
    [1024, 121, "failed"],
    [20_000, 10_000, "warning"],
    [65_536, 10_000, "ok"],
    [4096, 1000, "warning"],
    [4096, 3000, "failed"],
  ])("%p descriptors for %p databases are %s", (limit, databases, result) => {
    expect(judgeDescriptors(limit, databases).result).toBe(result as never);
  });

  test("an LTX sample comes back as the database it was, and one flipped bit is noticed", () => {
    const { database, file } = makeSample();
    expect(Buffer.compare(decodeSample(file), database)).toBe(0);
    const damaged = file.slice();
    damaged[damaged.length >> 1]! ^= 1;
    expect(() => decodeSample(damaged)).toThrow();
  });

  test("a check whose ground is missing is skipped, a fault of the world is a failure, a bug is neither", async () => {
    const checks: Check<null>[] = [
      { check: "a", run: () => ok("") },
      { check: "b", needs: ["a"], run: () => warning("", "do") },
      { check: "c", needs: ["b"], run: () => failed("", "do") },
      { check: "d", needs: ["c"], run: () => ok("") },
      {
        check: "e",
        run: () => {
          throw new WalsyncError("E_DISK", "broken", { hint: "repair" });
        },
      },
    ];
    const results = await runChecks({ subject: "s", checks, context: null });
    expect(results.map(({ result }) => result)).toEqual(["ok", "warning", "failed", "skipped", "failed"]);
    expect(results[4]).toMatchObject({ message: "broken", hint: "repair" });
    const bug: Check<null> = {
      check: "bug",
      run: () => {
        throw new TypeError("x is not a function");
      },
    };
    expect(runChecks({ subject: "s", checks: [bug], context: null })).rejects.toThrow(TypeError);
  });
});
