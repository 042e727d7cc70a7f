// Goal: what the unit starts replicates: its command, with its environment and configuration, as a user without privileges who can
// write to nothing but what the unit names; it reloads, and ends in time. systemd itself is not asked to run it.
import { Database } from "bun:sqlite";
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parse } from "smol-toml";
import { splitWords } from "../../src/words.ts";
import { succeed } from "../commands/run.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";

const EXAMPLE = resolve(import.meta.dir, "../../examples/deploy/systemd");
const NOBODY = 65534;
const dir = tempDir();
chmodSync(dir, 0o755);
setDefaultTimeout(20_000);

const server = await startVersitygw();
afterAll(async () => await server?.stop());
const running = ownChildren();

const unit = readUnit(readFileSync(join(EXAMPLE, "walsync.service"), "utf8"));
const one = (name: string) => {
  expect([name, unit.get(name)?.length]).toEqual([name, 1]);
  return unit.get(name)![0]!;
};
const config = readFileSync(join(EXAMPLE, "walsync.toml"), "utf8");
/** Folders of the host, and what stands for them here. */
const at = (path: string) => join(dir, path);

test("the unit waits longer for the end than walsync takes for it, and does not repeat what cannot succeed", () => {
  const { sync } = parse(config) as { sync: { shutdown_timeout: string } };
  expect(Number.parseInt(one("TimeoutStopSec"), 10)).toBeGreaterThan(Number.parseInt(sync.shutdown_timeout, 10));
  expect(one("RestartPreventExitStatus")).toBe("2 6");
});

// Only root can become somebody else and make file systems read-only.
const box = sandbox();
test.skipIf(server === null)("ExecStart replicates, ExecReload reloads, and the end is clean", async () => {
  await server!.createBucket("backups");
  const program = at("usr/local/bin/walsync");
  for (const path of ["usr/local/bin", "etc/walsync", "run/walsync", "var/lib/app"])
    mkdirSync(at(path), { recursive: true });
  copyFileSync(compiledBinary(), program);
  const file = at("etc/walsync/walsync.toml");
  writeFileSync(file, config.replace("/var/lib/app", at("var/lib/app")).concat("[metrics]\nenabled = false\n"));
  const db = new Database(at("var/lib/app/shop.db"), { create: true });
  db.run("pragma journal_mode = wal");
  db.run("create table item (body)");
  for (const path of [
    "run/walsync",
    "var/lib/app",
    ...["", "-wal", "-shm"].map((end) => `var/lib/app/shop.db${end}`),
  ]) {
    if (box !== null) chownSync(at(path), NOBODY, NOBODY);
  }

  const words = splitWords(one("ExecStart"));
  expect(words).toMatchObject({ kind: "words" });
  const command = (words as { words: string[] }).words.map((word) => (word.startsWith("/") ? at(word) : word));
  const environment = { ...variables(one("Environment")), ...variables(credentials()) };
  expect(Object.keys(environment).sort()).toEqual(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "XDG_RUNTIME_DIR"]);
  const env = {
    ...environment,
    XDG_RUNTIME_DIR: at(environment.XDG_RUNTIME_DIR!),
    AWS_ACCESS_KEY_ID: server!.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server!.secretAccessKey,
    AWS_ENDPOINT_URL_S3: server!.endpoint,
  };
  const writable = [one("ReadWritePaths"), `/run/${one("RuntimeDirectory")}`].map(at);
  const child = Bun.spawn([...(box?.(writable) ?? []), ...command], {
    cwd: "/",
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  running.push(child);
  const log = textOf(child.stderr);
  const says = async (text: string) => {
    for (const endMs = performance.now() + 10_000; !log().includes(text); await Bun.sleep(10)) {
      if (performance.now() > endMs) throw new Error(`waited in vain for ${text}; log:\n${log()}`);
    }
  };
  await says("snapshot shipped");
  db.run("insert into item values ('last')");
  expect(one("ExecReload")).toEndWith(" -HUP $MAINPID");
  child.kill("SIGHUP");
  await says("configuration reloaded");
  child.kill("SIGTERM");
  expect([await child.exited, log()]).toEqual([0, expect.not.stringContaining(" error ")]);
  db.close();

  const bucket = /^bucket = "(.*)"$/m.exec(config)![1]!;
  await succeed(["restore", "shop", "-o", at("restored.db"), "-b", bucket], { env });
  const restored = new Database(at("restored.db"));
  expect(restored.query("select * from item").all()).toEqual([{ body: "last" }]);
  restored.close();
});

// --- internal ---

/** Values by name, in all sections; a name may come more than once. */
function readUnit(text: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const [, name, value] of text.matchAll(/^(\w+)=(.*)$/gm)) {
    found.set(name!, [...(found.get(name!) ?? []), value!]);
  }
  return found;
}

function credentials(): string {
  const path = one("EnvironmentFile");
  expect(dirname(path)).toBe("/etc/walsync");
  return readFileSync(join(EXAMPLE, "credentials"), "utf8");
}

function variables(text: string): Record<string, string> {
  return Object.fromEntries([...text.matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]));
}

/**
 * What ProtectSystem=strict, NoNewPrivileges and CapabilityBoundingSet= do: starts a command as nobody, who can gain nothing and
 * write only below the given folders. Null, with a warning, where this user may not.
 */
function sandbox(): ((writable: string[]) => string[]) | null {
  const drop = `setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups --no-new-privs --bounding-set=-all`;
  const script = `set -e
    for path; do [ "$path" = -- ] && break; mount --bind "$path" "$path"; done
    mount -o remount,bind,ro "$(stat -c %m "$0")"
    while [ "$1" != -- ]; do shift; done; shift
    exec ${drop} "$@"`;
  const command = (writable: string[]) => ["unshare", "--mount", "sh", "-c", script, dir, ...writable, "--"];
  if (Bun.which("unshare") !== null && Bun.spawnSync([...command([]), "test", "!", "-w", dir]).success) return command;
  console.warn("SKIPPED: the sandbox of the systemd unit, because unshare and setpriv are not there or not allowed");
  return null;
}
