// Goal: who shares the host with walsync cannot use it to read a database, or to write or empty a file of somebody else.
// docs/SECURITY.md, "T3" to "T5". The compiled program, as a user runs it.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { compiledBinary, runBinary } from "../support/binary.ts";
import { ownChildren } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { freePort } from "../support/versitygw.ts";

const dir = tempDir();
const PRECIOUS = "somebody else's\n";
const children = ownChildren();

interface Place {
  folder: string;
  path: string;
  bucket: string;
  state: string;
  /** A file that must never change. */
  precious: string;
}

function makePlace(): Place {
  const folder = join(dir, crypto.randomUUID());
  mkdirSync(folder);
  const path = join(folder, "app.db");
  const app = new Database(path, { create: true });
  app.run("pragma journal_mode = wal");
  app.run("create table item (body)");
  app.run("insert into item values (randomblob(3000))");
  app.close();
  const precious = join(folder, "precious");
  writeFileSync(precious, PRECIOUS);
  return { folder, path, bucket: join(folder, "bucket"), state: join(folder, ".app.db-walsync"), precious };
}

const snapshot = ({ path, bucket }: Place) => runBinary(["snapshot", path, "-b", bucket]);

function requireUnharmed({ precious }: Place): void {
  expect(readFileSync(precious, "utf8")).toBe(PRECIOUS);
}

/** The folder of one destination below the state folder. */
function chainFolder({ state }: Place): string {
  return join(state, readdirSync(state).find((name) => /^[0-9a-f]{12}$/.test(name))!);
}

function commit({ path }: Place): void {
  const app = new Database(path);
  app.run("insert into item values (randomblob(3000))");
  app.close();
}

describe("a symbolic link", () => {
  test("in place of the state folder is refused, also one that leads nowhere", async () => {
    for (const exists of [true, false]) {
      const place = makePlace();
      const target = join(place.folder, "elsewhere");
      if (exists) mkdirSync(target);
      symlinkSync(target, place.state);
      const { status, stderr } = await snapshot(place);
      expect({ status, stderr }).toMatchObject({ status: 7, stderr: expect.stringContaining("E_DISK") });
      expect(existsSync(target) ? readdirSync(target) : []).toEqual([]);
    }
  });

  test("in place of the lock is not followed: what it names is not emptied", async () => {
    const place = makePlace();
    mkdirSync(place.state);
    symlinkSync(place.precious, join(place.state, "lock"));
    const { status, stderr } = await snapshot(place);
    expect({ status, stderr }).toMatchObject({ status: 7, stderr: expect.stringContaining("symbolic link") });
    requireUnharmed(place);
  });

  test("in place of any file that walsync writes next is not followed", async () => {
    const place = makePlace();
    expect(await snapshot(place)).toMatchObject({ status: 0 });
    const folder = chainFolder(place);
    const outbox = join(folder, "outbox");
    const second = `${"2".padStart(16, "0")}-${"2".padStart(16, "0")}.ltx.tmp`;
    const names = ["position.json.tmp", "pages.crc.tmp", join("outbox", second), join("outbox", `${second}.index`)];
    for (const name of names) symlinkSync(place.precious, join(folder, name));
    commit(place);
    const { status } = await snapshot(place);
    // Links are cleared away like anything a crash left, or they are refused: both are fine.
    expect([0, 7]).toContain(status);
    requireUnharmed(place);
    expect(readdirSync(outbox).filter((name) => lstatSync(join(outbox, name)).isSymbolicLink())).toEqual([]);
  });

  test("in place of the outbox is refused", async () => {
    const place = makePlace();
    expect(await snapshot(place)).toMatchObject({ status: 0 });
    const outbox = join(chainFolder(place), "outbox");
    const away = join(place.folder, "away");
    mkdirSync(away);
    writeFileSync(join(away, "x.tmp"), PRECIOUS);
    rmSync(outbox, { recursive: true });
    symlinkSync(away, outbox);
    commit(place);
    expect(await snapshot(place)).toMatchObject({ status: 7, stderr: expect.stringContaining("E_DISK") });
    expect(readFileSync(join(away, "x.tmp"), "utf8")).toBe(PRECIOUS);
  });

  test("in place of the output is something that exists; --force replaces the link, not what it names", async () => {
    const place = makePlace();
    expect(await snapshot(place)).toMatchObject({ status: 0 });
    for (const target of [place.precious, join(place.folder, "nowhere")]) {
      const output = join(place.folder, "output.db");
      symlinkSync(target, output);
      const restore = ["restore", "app", "-o", output, "-b", place.bucket];
      expect(await runBinary(restore)).toMatchObject({ status: 2, stderr: expect.stringContaining("E_OUTPUT_EXISTS") });
      expect(readlinkSync(output)).toBe(target);
      expect(await runBinary([...restore, "--force"])).toMatchObject({ status: 0 });
      expect(lstatSync(output).isFile()).toBe(true);
      rmSync(output);
      expect(existsSync(join(place.folder, "nowhere"))).toBe(false);
    }
    requireUnharmed(place);
  });

  test.each(["-wal", "-journal"])(
    "as %s beside the output stops a restore, also one that leads nowhere",
    async (suffix) => {
      const place = makePlace();
      expect(await snapshot(place)).toMatchObject({ status: 0 });
      const output = join(place.folder, "output.db");
      symlinkSync(join(place.folder, "nowhere"), output + suffix);
      const restore = ["restore", "app", "-o", output, "-b", place.bucket, "--force"];
      expect(await runBinary(restore)).toMatchObject({
        status: 2,
        stderr: expect.stringContaining(`output.db${suffix}`),
      });
      expect(existsSync(output)).toBe(false);
    },
  );

  test("in place of a restore's temporary file is not followed", async () => {
    const place = makePlace();
    expect(await snapshot(place)).toMatchObject({ status: 0 });
    const output = join(place.folder, "output.db");
    symlinkSync(place.precious, `${output}.tmp-restore`);
    const { status } = await runBinary(["restore", "app", "-o", output, "-b", place.bucket]);
    expect([0, 7]).toContain(status);
    requireUnharmed(place);
  });

  test("inside a destination is not followed", async () => {
    const place = makePlace();
    expect(await snapshot(place)).toMatchObject({ status: 0 });
    const object = join(place.bucket, "app", "00000001-00000001.ltx");
    const away = join(place.folder, "away.ltx");
    writeFileSync(away, readFileSync(object));
    rmSync(object);
    symlinkSync(away, object);
    const { status, stderr } = await runBinary([
      "restore",
      "app",
      "-o",
      join(place.folder, "output.db"),
      "-b",
      place.bucket,
    ]);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/^walsync: E_/m);
  });
});

describe("permissions", () => {
  test("of all that walsync makes are the owner's alone, whatever the umask", async () => {
    const place = makePlace();
    const output = join(place.folder, "deep", "output.db");
    const run = (...args: string[]) =>
      Bun.spawnSync(["sh", "-c", 'umask 0; exec "$@"', "sh", compiledBinary(), ...args], { env: {} }).exitCode;
    expect(run("snapshot", place.path, "-b", place.bucket)).toBe(0);
    expect(run("restore", "app", "-o", output, "-b", place.bucket)).toBe(0);
    const made: string[] = [output];
    for (const root of [place.state, place.bucket]) {
      made.push(root, ...readdirSync(root, { recursive: true }).map((name) => join(root, String(name))));
    }
    expect(made.length).toBeGreaterThan(7);
    const modes = made.map((path) => [path, (statSync(path).mode & 0o777).toString(8)]);
    expect(modes.filter(([path, mode]) => mode !== (statSync(path!).isDirectory() ? "700" : "600"))).toEqual([]);
  });

  test("of a state folder that others may write to are mended", async () => {
    const place = makePlace();
    expect(await snapshot(place)).toMatchObject({ status: 0 });
    chmodSync(place.state, 0o777);
    expect(await snapshot(place)).toMatchObject({ status: 0 });
    expect(statSync(place.state).mode & 0o777).toBe(0o700);
  });
});

describe("the metrics port", () => {
  const keys = { AWS_ACCESS_KEY_ID: "key-of-the-test", AWS_SECRET_ACCESS_KEY: "secret-of-the-test" };

  test("is open on loopback alone, tells no secret, and takes nothing in", async () => {
    const place = makePlace();
    const port = freePort();
    const args = ["watch", place.path, "-b", `s3://bucket/prefix`, "--endpoint", "http://127.0.0.1:9"];
    const child = Bun.spawn([compiledBinary(), ...args, "--metrics-port", String(port)], {
      env: { PATH: process.env.PATH ?? "", ...keys },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    children.push(child);
    const url = `http://127.0.0.1:${port}`;
    let metrics = "";
    for (let i = 0; i < 250 && metrics === ""; i++) {
      metrics = await fetch(`${url}/metrics`).then(
        (response) => response.text(),
        () => "",
      );
      await Bun.sleep(20);
    }
    expect(metrics).toContain("walsync_");
    const health = await (await fetch(`${url}/healthz`)).text();
    expect(metrics + health).not.toMatch(/secret-of-the-test|key-of-the-test/);
    expect((await fetch(`${url}/metrics`, { method: "PUT", body: "x" })).status).toBe(405);
    expect((await fetch(`${url}/../../../../etc/passwd`)).status).toBe(404);
    expect(listeningOn(child.pid, port)).toEqual(["127.0.0.1"]);
    child.kill("SIGKILL");
    const log = await new Response(child.stderr).text();
    expect(log).not.toMatch(/secret-of-the-test/);
  });
});

test("no flag takes a secret, which every user of the host could read in the list of processes", async () => {
  for (const command of ["watch", "snapshot", "restore", "list"]) {
    const { stdout } = await runBinary([command, "--help"]);
    const flags = [...stdout.matchAll(/^\s+(?:-\w, )?--([\w-]+)/gm)].map((match) => match[1]!);
    expect(flags.length).toBeGreaterThan(4);
    expect(flags.filter((flag) => /secret|password|token|key/.test(flag))).toEqual([]);
  }
});

/** Addresses on which anybody listens on `port`: https://docs.kernel.org/networking/proc_net_tcp.html. */
function listeningOn(pid: number, port: number): string[] {
  const LISTEN = "0A";
  const found: string[] = [];
  for (const [file, digits] of [
    ["tcp", 8],
    ["tcp6", 32],
  ] as const) {
    for (const line of readFileSync(`/proc/${pid}/net/${file}`, "utf8").split("\n").slice(1)) {
      const [, local, , state] = line.trim().split(/\s+/);
      const [address, hexPort] = local?.split(":") ?? [];
      if (state !== LISTEN || Number.parseInt(hexPort!, 16) !== port) continue;
      expect(address).toHaveLength(digits);
      found.push(digits === 8 ? Buffer.from(address!, "hex").reverse().join(".") : `v6 ${address}`);
    }
  }
  return found;
}
