// Goal: the compiled program, as a user runs it: a watch that holds recipients alone ships, is killed, goes on and prunes, and
// whoever has the identity restores. Each way to get it wrong is told by its code.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { s3Access, succeed, walsync } from "../commands/run.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { contentOf, differingPages } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { makeKeys } from "./make.ts";

const dir = tempDir();
const keys = await makeKeys(join(dir, "key.txt"));
const other = await makeKeys(join(dir, "other.txt"));
const FOR_US = ["--recipient", keys.recipient];
const WITH_KEY = ["--identity", keys.identityFile];
const children = ownChildren();

const server = await startVersitygw();
afterAll(() => server?.stop());
await server?.createBucket("encrypted");

interface Place {
  bucket: string;
  flags: string[];
  env: Record<string, string>;
}

let count = 0;
function newPlace(kind: "directory" | "bucket"): Place & { folder: string } {
  const folder = join(dir, `place${count++}`);
  mkdirSync(folder);
  if (kind === "directory") return { folder, bucket: join(folder, "bucket"), flags: [], env: {} };
  return { folder, bucket: `s3://encrypted/p${count}`, ...s3Access(server!) };
}

function write(path: string, rows: number): void {
  const database = new Database(path);
  database.run("pragma journal_mode = wal");
  database.run("create table if not exists t (a integer primary key, b text)");
  for (let i = 0; i < rows; i++) database.run("insert into t (b) values (?)", [`row ${i} ${"x".repeat(100)}`]);
  database.close();
}

/** Starts a watch; resolves to what it said once `path` is shipped as it is now. */
function watch({ bucket, flags, env }: Place, path: string, more: string[]) {
  const args = ["watch", path, "-b", bucket, "--no-metrics", "--wal-sync-interval", "0", ...flags, ...more];
  const runtime = join(dir, "runtime");
  const child = Bun.spawn([compiledBinary(), ...args], {
    env: { PATH: process.env.PATH ?? "", XDG_RUNTIME_DIR: runtime, ...env },
    stdout: "ignore",
    stderr: "pipe",
  });
  children.push(child);
  return { child, said: textOf(child.stderr) };
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > endMs) throw new Error(`expected ${what} within 10 s`);
    await Bun.sleep(50);
  }
}

async function txidAt({ bucket, flags, env }: Place): Promise<number> {
  const { status, stdout } = await walsync(["list", "-b", bucket, "--json", ...FOR_US, ...flags], { env });
  return status === 0 ? (JSON.parse(stdout).databases[0]?.txid ?? 0) : 0;
}

describe.each(server === null ? (["directory"] as const) : (["directory", "bucket"] as const))("in a %s", (kind) => {
  test("a watch with recipients alone is killed, goes on, stops, and everything it shipped is restored", async () => {
    const place = newPlace(kind);
    const { folder, bucket, flags, env } = place;
    const path = join(folder, "app.db");
    write(path, 50);
    const first = watch(place, path, FOR_US);
    await until("the first snapshot", async () => (await txidAt(place)) >= 1);
    write(path, 20);
    await until("an increment", async () => (await txidAt(place)) >= 2);
    first.child.kill("SIGKILL");
    await first.child.exited;
    expect(first.said()).toContain("increments are not merged");

    write(path, 20);
    const second = watch(place, path, FOR_US);
    const reached = await txidAt(place);
    await until("what was written meanwhile", async () => (await txidAt(place)) > reached);
    write(path, 5);
    second.child.kill("SIGTERM");
    expect([await second.child.exited, second.said()]).toMatchObject([0, expect.not.stringContaining("E_")]);

    const output = join(folder, "restored.db");
    await succeed(["restore", "app", "-o", output, "-b", bucket, ...flags, ...WITH_KEY], { env });
    expect(differingPages(contentOf(path), contentOf(output))).toEqual([]);
    const verify = (more: string[]) => succeed(["verify", "app", "-b", bucket, "--json", ...flags, ...more], { env });
    const whole = JSON.parse((await verify(WITH_KEY)).stdout).databases[0];
    expect(whole).toMatchObject({ ok: true, findings: [], proven: whole.points });
    // Without an identity, whether or not somebody says that it is encrypted.
    for (const more of [[], FOR_US, ["--quick"]]) {
      const seen = JSON.parse((await verify(more)).stdout).databases[0];
      expect(seen).toMatchObject({ ok: true, proven: 0, findings: [{ code: "encrypted", severity: "warning" }] });
    }
    const compact = ["compact", "app", "-b", bucket, "--point-in-time", "0", "--force", ...flags, ...FOR_US];
    await succeed(compact, { env });
    const copy = join(folder, "copy.db");
    const source = kind === "directory" ? join(bucket, "app") : `${bucket}/app`;
    await succeed(["replicate", source, "--local", copy, "--once", ...flags], {
      env: { ...env, WALSYNC_IDENTITY_FILE: keys.identityFile },
    });
    const rows = (file: string) => new Database(file, { readonly: true }).query("select count(*) as n from t").get();
    expect(rows(copy)).toEqual(rows(path));
  }, 40_000);
});

test("a watch with an identity merges, and what it merged is proven", async () => {
  const place = newPlace("directory");
  const path = join(place.folder, "app.db");
  write(path, 5);
  const { child, said } = watch(place, path, [...FOR_US, ...WITH_KEY, "--merge", "1s,2s"]);
  const merged = () => {
    const objects = existsSync(join(place.bucket, "app")) ? readdirSync(join(place.bucket, "app")) : [];
    return objects.some((name) => !/^0*1-/.test(name) && /^(\d+)-(?!\1)\d+\.ltx$/.test(name));
  };
  await until("a merged file", () => {
    write(path, 1);
    return merged();
  });
  child.kill("SIGTERM");
  expect([await child.exited, said()]).toMatchObject([0, expect.not.stringContaining("E_")]);
  const { stdout } = await succeed(["verify", "app", "-b", place.bucket, "--json", ...WITH_KEY]);
  expect(JSON.parse(stdout).databases[0]).toMatchObject({ ok: true, findings: [] });
}, 20_000);

describe("a drill", () => {
  const rows = "SELECT count(*) = 5 FROM t";

  test("of a watch with an identity reads what is encrypted, and so does walsync drill", async () => {
    const place = newPlace("directory");
    const { folder, bucket } = place;
    const drills = ["--drill-interval", "1s", "--drill-temp-dir", folder, "--drill-assert", rows];
    write(join(folder, "app.db"), 5);
    const { child, said } = watch(place, join(folder, "app.db"), [...FOR_US, ...WITH_KEY, ...drills]);
    await until("a drill", () => said().includes("restore drill went well database=app"));
    child.kill("SIGTERM");
    expect([await child.exited, said()]).toMatchObject([0, expect.not.stringContaining("E_")]);
    const drill = (...more: string[]) => walsync(["drill", "app", "-b", bucket, "--temp-dir", folder, ...more]);
    expect((await drill(...WITH_KEY, "--assert", rows)).status).toBe(0);
    for (const more of [[], FOR_US, ["--identity", other.identityFile]]) {
      expect(await drill(...more)).toMatchObject({ status: 2, stderr: expect.stringContaining("E_IDENTITY") });
    }
  }, 20_000);

  test("of a watch without one is refused at the start, for all databases or for one", async () => {
    const { folder, bucket } = newPlace("directory");
    write(join(folder, "app.db"), 1);
    const args = ["watch", "app.db", "-b", bucket, ...FOR_US, "--drill-interval", "7d"];
    expect(await walsync(args, { cwd: folder })).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/walsync: E_IDENTITY .*\n *hint: /),
    });
    const own = `[[databases]]\npath = "app.db"\ndrill = { interval = "7d" }\n`;
    writeFileSync(join(folder, "walsync.toml"), `[encryption]\nrecipients = ["${keys.recipient}"]\n${own}`);
    expect(await walsync(["watch", "-b", bucket], { cwd: folder })).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("walsync: E_IDENTITY "),
    });
    expect(existsSync(bucket)).toBe(false);
  });
});

describe("what is wrong is told:", () => {
  const folder = join(dir, "wrong");
  const database = join(folder, "app.db");
  const [encrypted, plain] = [join(folder, "encrypted"), join(folder, "plain")];
  const restore = (bucket: string, more: string[]) => [
    "restore",
    "app",
    "-o",
    join(folder, "out.db"),
    "-b",
    bucket,
    ...more,
  ];

  beforeAll(async () => {
    mkdirSync(folder);
    write(database, 50);
    await succeed(["snapshot", database, "-b", encrypted, ...FOR_US]);
    write(database, 1);
    await succeed(["snapshot", database, "-b", encrypted, ...FOR_US]);
    await succeed(["snapshot", database, "-b", plain]);
  });

  const snapshot = (bucket: string, ...more: string[]) => ["snapshot", database, "-b", bucket, ...more];
  test.each<[string, () => string[], number, string]>([
    ["no identity", () => restore(encrypted, []), 2, "E_IDENTITY"],
    ["recipients, and no identity", () => restore(encrypted, FOR_US), 2, "E_IDENTITY"],
    ["another identity", () => restore(encrypted, ["--identity", other.identityFile]), 2, "E_IDENTITY"],
    ["an identity file that is not there", () => restore(encrypted, ["--identity", join(folder, "x")]), 2, "E_CONFIG"],
    ["files in the clear, where keys say otherwise", () => restore(plain, WITH_KEY), 5, "E_INTEGRITY"],
    ["a chain in the clear, to be gone on with encrypted", () => snapshot(plain, ...FOR_US), 5, "E_INTEGRITY"],
    ["an encrypted chain, to be gone on with in the clear", () => snapshot(encrypted), 2, "E_IDENTITY"],
    ["no recipient", () => snapshot(encrypted, ...WITH_KEY), 2, "E_USAGE"],
    ["a recipient that is none", () => snapshot(encrypted, "--recipient", "age1x"), 2, "E_CONFIG"],
    [
      "the layout of Litestream",
      () => snapshot(join(folder, "ls"), ...FOR_US, "--layout", "litestream"),
      2,
      "E_CONFIG",
    ],
  ])("%s", async (_law, args, status, code) => {
    const { stderr, ...found } = await walsync(args());
    expect([found.status, stderr]).toEqual([status, expect.stringContaining(`walsync: ${code} `)]);
    expect(stderr).toContain("hint: ");
    expect(existsSync(join(folder, "out.db"))).toBe(false);
  });

  test("files in the clear, where the environment alone says otherwise: the hint names it", async () => {
    const { status, stderr } = await walsync(restore(plain, []), { env: { WALSYNC_IDENTITY_FILE: keys.identityFile } });
    expect([status, stderr]).toEqual([5, expect.stringMatching(/E_INTEGRITY .*hint: .*WALSYNC_IDENTITY_FILE/s)]);
  });

  test("a changed object, to whoever restores, and to whoever verifies with an identity and without", async () => {
    const changed = join(folder, "changed");
    cpSync(encrypted, changed, { recursive: true });
    const object = join(changed, "app/00000001-00000002.ltx");
    const bytes = readFileSync(object);
    bytes[2000]! ^= 1;
    writeFileSync(object, bytes);
    expect((await walsync(restore(changed, WITH_KEY))).stderr).toContain("E_INTEGRITY");
    for (const [more, code] of [
      [WITH_KEY, "file-damaged"],
      [[], "sha256-differs"],
    ] as const) {
      const { status, stdout } = await walsync(["verify", "app", "-b", changed, "--json", ...more]);
      const { findings } = JSON.parse(stdout).databases[0];
      expect([status, findings.map((one: { code: string }) => one.code)]).toEqual([5, expect.arrayContaining([code])]);
    }
  });

  test("a host that knows nothing of the chain needs the identity once, and then no more", async () => {
    const taken = join(folder, "taken");
    cpSync(encrypted, taken, { recursive: true });
    const first = await walsync(snapshot(taken, ...FOR_US));
    expect([first.status, first.stderr]).toEqual([2, expect.stringContaining("walsync: E_IDENTITY ")]);
    await succeed(snapshot(taken, ...FOR_US, ...WITH_KEY));
    write(database, 1);
    await succeed(snapshot(taken, ...FOR_US));
    const { stdout } = await succeed(["verify", "app", "-b", taken, "--json", ...WITH_KEY]);
    expect(JSON.parse(stdout).databases[0]).toMatchObject({ ok: true });
  });

  test("recipients may be in the configuration, for who writes and for who reads", async () => {
    const own = join(folder, "configured");
    mkdirSync(own);
    writeFileSync(
      join(own, "walsync.toml"),
      `[s3]\nbucket = "there"\n[encryption]\nrecipients = ["${keys.recipient}"]\n`,
    );
    await succeed(["snapshot", database], { cwd: own });
    expect((await walsync(["restore", "app", "-o", "out.db"], { cwd: own })).stderr).toContain("E_IDENTITY");
    await succeed(["restore", "app", "-o", "out.db", ...WITH_KEY], { cwd: own });
  });

  const age = requireTool("age");
  const ltx = requireTool("ltx");
  test.skipIf(age === null || ltx === null)(
    "and what is right is read without walsync: age and ltx restore it",
    async () => {
      const plainFiles = ["00000001-00000001.ltx", "00000002-00000002.ltx"].map((name) => {
        const decrypted = join(folder, name);
        const found = spawnSync(age!, ["-d", "-i", keys.identityFile, "-o", decrypted, join(encrypted, "app", name)]);
        expect([found.status, found.stderr.toString()]).toEqual([0, ""]);
        return decrypted;
      });
      const [applied, restored] = [join(folder, "applied.db"), join(folder, "restored.db")];
      expect(spawnSync(ltx!, ["apply", "-db", applied, ...plainFiles]).status).toBe(0);
      await succeed(["restore", "app", "-o", restored, "-b", encrypted, ...WITH_KEY]);
      expect(differingPages(readFileSync(restored), readFileSync(applied))).toEqual([]);
      rmSync(restored);
    },
  );
});

test("whoever does not encrypt never loads the cryptography", async () => {
  const root = join(import.meta.dir, "../..");
  const seen = new Set<string>();
  const packages = new Set<string>();
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  const visit = async (file: string): Promise<void> => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const { path, kind } of transpiler.scanImports(await Bun.file(file).text())) {
      // Imported only by who was given keys.
      if (kind === "dynamic-import" && /\/destination\/(encrypted|age-keys)\.ts$/.test(path)) continue;
      if (path.endsWith(".ts")) await visit(Bun.resolveSync(path, join(file, "..")));
      else packages.add(path);
    }
  };
  await visit(join(root, "src/main.ts"));
  expect(seen.size).toBeGreaterThan(150);
  expect([...packages].filter((name) => /^(age-encryption|@noble)/.test(name))).toEqual([]);
});
