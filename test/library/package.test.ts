// Goal: what is published works where it is installed: in an empty project, with its types, as a library and as a command; and the
// examples run on it as they are.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { publint } from "publint";
import { WalSync } from "../../src/library/index.ts";
import { ownChildren } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { freePort } from "../support/versitygw.ts";
import { makeDatabase, rowsOf } from "./make.ts";

const root = resolve(import.meta.dir, "../..");
const dir = tempDir();
const project = join(dir, "project");
const bun = process.execPath;
const children = ownChildren();

const isInstalled = install();
const SNIPPET = /^```ts\n(.*?)^```$/gms;

describe.if(isInstalled)("the package", () => {
  test("holds what it says, and nothing of the repository beside that", () => {
    const installed = join(project, "node_modules/walsync");
    const top = readdirSync(installed).filter((name) => name !== ".bun-tag");
    expect(top.sort()).toEqual(["LICENSE", "README.md", "dist", "package.json"]);
    expect(readdirSync(join(installed, "dist"))).toEqual(["package"]);
    const declarations = [...new Bun.Glob("**/*.d.ts").scanSync({ cwd: join(installed, "dist/package") })].sort();
    expect(declarations.filter((name) => !name.startsWith("library/"))).toEqual(["errors.d.ts", "log.d.ts"]);
  });

  test("has nothing that publint finds fault with", async () => {
    const { messages } = await publint({ pkgDir: join(project, "node_modules/walsync"), strict: true, pack: false });
    expect(messages).toEqual([]);
  });

  test("is used from a script, which is all it takes", () => {
    makeDatabase(project, "app.db", 3).close();
    writeFileSync(
      join(project, "use.ts"),
      `import { WalSync, WalsyncError } from "walsync";
       const walsync = new WalSync("bucket");
       {
         await using watcher = await walsync.watch("app.db");
         await watcher.sync();
       }
       const { txid } = await walsync.restore("app", "restored.db");
       const code = await walsync.restore("nobody", "no.db").catch((e) => (e instanceof WalsyncError ? e.code : "other"));
       console.log(String(txid), code);`,
    );
    expect(run([bun, "use.ts"], project)).toEqual({ status: 0, stdout: "1 E_NOT_FOUND\n", stderr: "" });
    expect(rowsOf(join(project, "restored.db"))).toBe(3);
  });

  test("brings the command along", () => {
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
    const { status, stdout } = run([bun, "x", "walsync", "--version"], project);
    expect({ status, says: stdout.split("\n")[0] }).toEqual({
      status: 0,
      says: expect.stringContaining(`walsync ${version} `),
    });
    const listed = run([bun, "x", "walsync", "list", "-b", "bucket", "--json"], project);
    expect(JSON.parse(listed.stdout)).toMatchObject({ databases: [{ name: "app", txid: 1 }] });
  });

  test("has types that a strict consumer checks against, and that refuse what is wrong", () => {
    mkdirSync(join(project, "node_modules/@types"), { recursive: true });
    for (const name of ["@types/bun", "@types/node", "bun-types", "undici-types"]) {
      symlinkSync(join(root, "node_modules", name), join(project, "node_modules", name));
    }
    writeFileSync(
      join(project, "types.ts"),
      `import { type ErrorCode, WalSync, type Watcher, type WatcherEvents, WalsyncError } from "walsync";
       const walsync: WalSync = new WalSync(new URL("file:///backups"), { layout: "litestream" });
       const watcher: Watcher = await walsync.watch(["a.db", "b/*.db"], { snapshotIntervalMs: 60_000, retention: { hourly: 1 } });
       const off: () => void = watcher.on("shipped", ({ txid, file, database }) => {
         const newest: bigint = txid;
         const kind: "snapshot" | "increment" = file;
         console.log(newest, kind, database);
       });
       const alert = (event: WatcherEvents["alert"]): ErrorCode | null => event.code;
       watcher.on("alert", alert);
       off();
       const [first] = await walsync.list({ signal: AbortSignal.timeout(1000) });
       const oldest: Date | null | undefined = first?.oldest;
       console.log(oldest, new WalsyncError("E_USAGE", "mine").hint);
       // @ts-expect-error: a time has its unit in its name
       await walsync.watch("a.db", { snapshotInterval: 60 });
       // @ts-expect-error: no such event
       watcher.on("finished", () => {});
       // @ts-expect-error: a txid is no text
       await walsync.restore("a", "a.db", { txid: "1" });
       // @ts-expect-error: internals are not there
       watcher.nameOf("a.db");
       await watcher[Symbol.asyncDispose]();`,
    );
    const compilerOptions = {
      target: "ESNext",
      module: "NodeNext",
      lib: ["ESNext"],
      types: ["bun"],
      strict: true,
      noEmit: true,
    };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["types.ts"] }));
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    expect(run([bun, tsc, "-p", "."], project)).toEqual({ status: 0, stdout: "", stderr: "" });
    // What the guide shows is meant as it stands.
    for (const [i, [, code]] of [...readFileSync(join(root, "docs/LIBRARY.md"), "utf8").matchAll(SNIPPET)].entries()) {
      const given = code!.includes("const walsync =") ? "" : 'declare const walsync: import("walsync").WalSync;\n';
      writeFileSync(join(project, "examples", `guide-${i}.ts`), `${given}${code}\nexport {};\n`);
    }
    // Examples import each other as .ts files, as programs on Bun do.
    const options = { ...compilerOptions, module: "Preserve", allowImportingTsExtensions: true };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: options, include: ["examples"] }));
    expect(run([bun, tsc, "-p", "."], project)).toEqual({ status: 0, stdout: "", stderr: "" });
  }, 20_000);
});

describe.if(isInstalled)("examples", () => {
  const bucket = join(project, "backups");

  test("backup.ts saves every database, and says which it could not", () => {
    makeDatabase(project, "shop.db", 5).close();
    const good = run([bun, "examples/backup.ts", "app.db", "shop.db"], project, { BACKUP_URL: bucket });
    expect(good).toMatchObject({ status: 0, stderr: "" });
    const lines = good.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines).toMatchObject([
      { path: "app.db", name: "app", ok: true },
      { path: "shop.db", name: "shop", ok: true },
    ]);
    const bad = run([bun, "examples/backup.ts", "missing.db", "app.db"], project, { BACKUP_URL: bucket });
    expect(bad.status).toBe(1);
    expect(JSON.parse(bad.stderr)).toMatchObject({ path: "missing.db", code: "E_DATABASE" });
    expect(JSON.parse(bad.stdout)).toMatchObject({ path: "app.db", ok: true });
  });

  test("restore-drill.ts restores every database, asks, and fails if the answer is no", () => {
    const drill = (question: string) =>
      run([bun, "examples/restore-drill.ts", question], project, { BACKUP_URL: bucket });
    const good = drill("select count(*) >= 3 from t");
    expect(good).toMatchObject({ status: 0, stderr: "" });
    const lines = good.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines).toMatchObject([
      { name: "app", ok: true, seconds: expect.any(Number), ageSeconds: expect.any(Number) },
      { name: "shop", ok: true },
    ]);
    expect(drill("select count(*) > 4 from t")).toMatchObject({ status: 1 });
    expect(drill("select 1 from nothing")).toMatchObject({ status: 1 });
  });

  test("multi-tenant.ts: tenants come, write and go, and every one of them can be restored", async () => {
    const port = freePort();
    const url = `http://127.0.0.1:${port}`;
    const child = start("examples/multi-tenant.ts", { PORT: String(port), TENANTS: "tenants" });
    await answering(`${url}/status`);
    for (const name of ["romneys", "smiths"]) {
      expect((await fetch(`${url}/tenants/${name}`, { method: "PUT" })).status).toBe(201);
    }
    for (let i = 0; i < 5; i++) await fetch(`${url}/tenants/smiths/notes`, { method: "POST", body: `note ${i}` });
    expect(await (await fetch(`${url}/status`)).json()).toMatchObject({
      databases: [{ error: null }, { error: null }],
    });
    expect((await fetch(`${url}/tenants/romneys`, { method: "DELETE" })).status).toBe(200);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    const walsync = new WalSync(bucket);
    for (const [name, notes] of [
      ["romneys", 0],
      ["smiths", 5],
    ] as const) {
      const { path } = await walsync.restore(name, join(project, `restored-${name}.db`));
      expect(notesIn(path)).toBe(notes);
    }
  }, 20_000);

  test("hono-app: what it answered to as durable survives its machine, and a new machine begins with it", async () => {
    for (const [round, machine] of ["first", "second"].entries()) {
      const port = freePort();
      const url = `http://127.0.0.1:${port}`;
      mkdirSync(join(project, machine), { recursive: true });
      const child = start("examples/hono-app/app.ts", {
        PORT: String(port),
        DATABASE: join(project, machine, "hono.db"),
      });
      await answering(`${url}/notes`);
      expect(await (await fetch(`${url}/notes`)).json()).toHaveLength(round);
      expect((await fetch(`${url}/notes?durable`, { method: "POST", body: "kept" })).status).toBe(201);
      expect(await (await fetch(`${url}/health`)).json()).toMatchObject({ databases: [{ name: "hono", error: null }] });
      if (round === 0) child.kill("SIGKILL");
      else child.kill("SIGTERM");
      await child.exited;
    }
    const { path } = await new WalSync(bucket).restore("hono", join(project, "restored-hono.db"));
    expect(notesIn(path)).toBe(2);
  }, 20_000);

  function start(example: string, env: Record<string, string>) {
    const child = Bun.spawn([bun, example], {
      cwd: project,
      env: { PATH: process.env.PATH ?? "", XDG_RUNTIME_DIR: dir, BACKUP_URL: bucket, ...env },
      stdio: ["ignore", "ignore", "inherit"],
    });
    children.push(child);
    return child;
  }
});

/** Packs the package, and installs it with what it needs. False, with a warning, without a registry; throws in CI. */
function install(): boolean {
  const packed = run([bun, "pm", "pack", "--destination", dir], root);
  if (packed.status !== 0) throw new Error(`bun pm pack: expected a tarball, found: ${packed.stderr}`);
  const [tarball] = readdirSync(dir).filter((name) => name.endsWith(".tgz"));
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "consumer", type: "module" }));
  const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const added = run([bun, "add", "--exact", join(dir, tarball!), `hono@${devDependencies.hono}`], project);
  if (added.status !== 0 && process.env.CI === "true") throw new Error(`bun add: expected it to work: ${added.stderr}`);
  if (added.status !== 0)
    console.warn(`SKIPPED: tests of the package, because its dependencies cannot be installed: ${added.stderr}`);
  else cpSync(join(root, "examples"), join(project, "examples"), { recursive: true });
  return added.status === 0;
}

function run(command: string[], cwd: string, env: Record<string, string> = {}) {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, {
    cwd,
    env: { ...process.env, XDG_RUNTIME_DIR: dir, ...env },
    stdin: "ignore",
  });
  return { status: exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

/** Waits until a server answers. */
async function answering(url: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    try {
      await (await fetch(url)).text();
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await Bun.sleep(30);
    }
  }
}

function notesIn(path: string): number {
  using database = new Database(path);
  return database.query<{ n: number }, []>("SELECT count(*) AS n FROM notes").get()!.n;
}
