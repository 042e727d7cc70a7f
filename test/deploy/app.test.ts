// Goal: the image of examples/deploy/app and its fly.toml fit each other, and what they start survives the loss of its machine and its volume:
// the entrypoint gives the volume to a user without privileges, the application starts on what the bucket has, and its last entry
// is there.
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { parse } from "smol-toml";
import { WATCH_FLAGS } from "../../src/engine/watch-settings.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren, textOf } from "../support/children.ts";
import { execForm, readDockerfile } from "../support/dockerfile.ts";
import { tempDir } from "../support/temp.ts";
import { freePort, startVersitygw } from "../support/versitygw.ts";

const EXAMPLE = resolve(import.meta.dir, "../../examples/deploy/app");
const dir = tempDir();
chmodSync(dir, 0o755);
const data = join(dir, "data");
setDefaultTimeout(20_000);
const server = await startVersitygw();
afterAll(async () => await server?.stop());
const running = ownChildren();

const image = readDockerfile(join(EXAMPLE, "Dockerfile"));
const config = readFileSync(join(EXAMPLE, "walsync.toml"), "utf8");
const fly = parse(readFileSync(join(EXAMPLE, "fly.toml"), "utf8")) as unknown as {
  kill_signal: string;
  kill_timeout: string;
  build: { dockerfile: string };
  deploy: { strategy: string };
  mounts: { destination: string };
  http_service: { internal_port: number; checks: { path: string }[] };
  checks: { replication: { port: number; path: string } };
  metrics: { port: number; path: string };
};
const settings = parse(config) as unknown as {
  s3: { bucket: string };
  sync: { shutdown_timeout: string; exec: string };
  databases: { path: string }[];
};

test("fly.toml gives the time, the volume and the ports that walsync.toml and the application need", () => {
  const seconds = (text: string) => Number(/^(\d+)s$/.exec(text)![1]);
  expect(seconds(fly.kill_timeout)).toBeGreaterThan(seconds(settings.sync.shutdown_timeout));
  expect(seconds(fly.kill_timeout)).toBeLessThanOrEqual(300);
  expect(fly.kill_signal).toBe("SIGTERM");
  expect(fly.deploy.strategy).toBe("rolling");
  for (const { path } of settings.databases) expect(path).toStartWith(`${fly.mounts.destination}/`);
  const port = Number(WATCH_FLAGS["metrics-port"].default);
  expect([fly.metrics, fly.checks.replication]).toMatchObject([
    { port, path: "/metrics" },
    { port, path: "/healthz" },
  ]);
  const application = readFileSync(join(EXAMPLE, "server.js"), "utf8");
  expect(application).toContain(`process.env.PORT ?? ${fly.http_service.internal_port}`);
  expect(application).toContain(`process.env.DATABASE ?? "${settings.databases[0]!.path}"`);
  expect(readDockerfile(join(EXAMPLE, fly.build.dockerfile))).toEqual(image);
});

// Only root can give a volume away.
const isRoot = process.getuid?.() === 0 && Bun.which("setpriv") !== null;
if (!isRoot) console.warn("SKIPPED: the entrypoint of examples/deploy/app, because only root can run it, with setpriv");

test.skipIf(server === null || !isRoot)(
  "a Machine that is lost with its volume comes back with the last entry",
  async () => {
    await server!.createBucket("guests");
    const metricsPort = freePort();
    installApp(metricsPort);
    for (const [before, entry] of [
      ["", "first"],
      ["first\n", "second"],
    ] as const) {
      mkdirSync(data);
      const port = freePort();
      const child = Bun.spawn([...execForm(image, "ENTRYPOINT").map(atHome), ...execForm(image, "CMD").map(atHome)], {
        cwd: join(dir, "app"),
        env: environment(port),
        stdin: "ignore",
        stdout: "ignore",
        stderr: "pipe",
      });
      running.push(child);
      const log = textOf(child.stderr);
      const url = `http://127.0.0.1:${port}`;
      expect([(await answer(url, log)).trimStart(), log()]).toEqual([before, expect.not.stringContaining(" error ")]);
      expect((await fetch(url, { method: "POST", body: entry })).status).toBe(201);
      expect((await fetch(`http://127.0.0.1:${metricsPort}${fly.checks.replication.path}`)).status).toBe(200);
      expect(statSync(join(data, "app.db")).uid).not.toBe(0);
      child.kill(fly.kill_signal as NodeJS.Signals);
      expect([await child.exited, log()]).toEqual([0, expect.stringContaining("stopped databases=1")]);
      rmSync(data, { recursive: true });
    }
    const files = readdirSync(join(server!.dataFolder, "guests"), { recursive: true });
    expect(files).toContain(`${settings.s3.bucket.split("/").at(-1)}/app/00000001-00000001.ltx`);
  },
);

// --- internal ---

/** Paths and users of the image as they are called here. */
function atHome(word: string): string {
  return word
    .replaceAll("/data", data)
    .replace("node:node", "nobody:nogroup")
    .replace("--reuid=node --regid=node", "--reuid=nobody --regid=nogroup");
}

/** What the Dockerfile copies, in places of their own. */
function installApp(metricsPort: number): void {
  const [app, bin] = [join(dir, "app"), join(dir, "bin")];
  for (const folder of [app, bin]) mkdirSync(folder);
  copyFileSync(compiledBinary(), join(bin, "walsync"));
  copyFileSync(process.execPath, join(bin, "bun"));
  symlinkSync("bun", join(bin, "node"));
  copyFileSync(join(EXAMPLE, "server.js"), join(app, "server.js"));
  const local = config
    .replaceAll("/data", data)
    .replace('listen = "::"', `listen = "127.0.0.1"\nport = ${metricsPort}`);
  expect(local).toContain(`port = ${metricsPort}`);
  writeFileSync(join(app, "walsync.toml"), local);
}

/** As `fly storage create` sets it, and what keeps this apart from everything else on the machine. */
function environment(port: number): Record<string, string> {
  const { accessKeyId, secretAccessKey, endpoint, region } = server!;
  return {
    PATH: `${join(dir, "bin")}:${process.env.PATH}`,
    BUCKET_NAME: "guests",
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_ENDPOINT_URL_S3: endpoint,
    AWS_REGION: region,
    HOST: "127.0.0.1",
    PORT: String(port),
    DATABASE: join(data, "app.db"),
  };
}

/** Of the application, once it listens. */
async function answer(url: string, log: () => string): Promise<string> {
  for (const endMs = performance.now() + 10_000; ; await Bun.sleep(20)) {
    try {
      return await (await fetch(url)).text();
    } catch (error) {
      if (performance.now() > endMs) throw new Error(`waited in vain for ${url}; log:\n${log()}`, { cause: error });
    }
  }
}
