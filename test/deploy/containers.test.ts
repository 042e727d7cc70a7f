// Goal: the image of walsync holds all it needs, and what Compose and Kubernetes are told to run does what they are for: the
// application starts on its restored database, and what it wrote last is shipped. The steps of the Dockerfile are carried out, and
// its program runs with nothing but the C library around it, as the user and with the health check of the image.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { Container, canRunContainers, installProgram } from "../support/container.ts";
import { execForm, readDockerfile } from "../support/dockerfile.ts";
import { tempDir } from "../support/temp.ts";
import { freePort, startVersitygw } from "../support/versitygw.ts";

const ROOT = resolve(import.meta.dir, "../..");
const dir = tempDir();
// Others than root run in there.
chmodSync(dir, 0o755);
const root = join(dir, "root");
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
const image = readDockerfile(join(ROOT, "examples/deploy/docker/Dockerfile"));
const USER = 65532;
const HEALTHY_WITHIN_MS = 10_000;
setDefaultTimeout(30_000);

const isPossible = canRunContainers();
const server = isPossible ? await startVersitygw() : null;
const running: Container[] = [];
afterAll(async () => {
  for (const container of running) await container.stop(0);
  await server?.stop();
});

describe("the image", () => {
  test("is built by the Bun that package.json pins, from what its .dockerignore lets through", () => {
    expect(image[0]?.text).toBe(`oven/bun:${packageJson.devDependencies.bun} AS build`);
    const copied = image
      .filter(({ name, text }) => name === "COPY" && !text.startsWith("--from"))
      .flatMap(({ text }) => text.split(" ").slice(0, -1));
    const ignore = read("examples/deploy/docker/Dockerfile.dockerignore").split("\n");
    expect(
      ignore
        .filter((line) => line.startsWith("!"))
        .map((line) => line.slice(1))
        .sort(),
    ).toEqual(copied.sort());
  });

  test("is not root's", () => {
    expect(image.findLast(({ name }) => name === "USER")?.text).toBe(`${USER}:${USER}`);
  });
});

describe.skipIf(server === null)("a container", () => {
  beforeAll(() => {
    const source = join(dir, "src");
    buildStage(source);
    for (const folder of ["tmp", "data", "proc", "app"]) mkdirSync(join(root, folder), { recursive: true });
    chmodSync(join(root, "tmp"), 0o1777);
    chownSync(join(root, "data"), USER, USER);
    const program = join(dir, "walsync");
    renameSync(join(source, "dist/walsync"), program);
    installProgram(root, program, "/usr/local/bin/walsync");
    // The application's image.
    copyFileSync(join(ROOT, "examples/deploy/app/server.js"), join(root, "app/server.js"));
    installProgram(root, process.execPath, "/usr/local/bin/node");
  });

  test.each([
    ["Compose", composeService],
    ["Kubernetes", kubernetesSidecar],
  ])("of %s restores before the application starts, and ships what that wrote last", async (name, read) => {
    const { args, env, app, graceMs, probe } = read();
    await server!.createBucket(name.toLowerCase());
    const settings = { ...env, ...accessTo(server!) };
    const command = [...execForm(image, "ENTRYPOINT"), ...atHome(args, name.toLowerCase())];

    for (const [before, entry] of [
      ["", "first"],
      ["first\n", "second"],
    ] as const) {
      const walsync = await start("/data", command, settings);
      await healthy(walsync, probe);
      const port = freePort();
      const book = await start("/app", app, { HOST: "127.0.0.1", PORT: String(port) });
      const url = `http://127.0.0.1:${port}`;
      expect((await answer(url)).trimStart()).toBe(before);
      expect((await fetch(url, { method: "POST", body: entry })).status).toBe(201);
      expect([await book.stop(5000), await walsync.stop(graceMs)]).toEqual([0, 0]);
      // The machine is gone.
      for (const file of readdirSync(join(root, "data"))) rmSync(join(root, "data", file), { recursive: true });
    }
  });
});

// --- internal ---

interface Service {
  args: string[];
  env: Record<string, string>;
  /** The application's command. */
  app: string[];
  graceMs: number;
  /** What makes the application start once it succeeds. */
  probe: string[];
}

function composeService(): Service {
  const { services } = Bun.YAML.parse(read("examples/deploy/docker/compose.yaml")) as {
    services: Record<
      "app" | "walsync" | "s3",
      {
        command: string[];
        environment: Record<string, string>;
        user?: string;
        stop_grace_period: string;
        depends_on: Record<string, { condition: string }>;
      }
    >;
  };
  const { app, walsync, s3 } = services;
  expect(app.depends_on.walsync?.condition).toBe("service_healthy");
  expect(app.user).toBe(`${USER}:${USER}`);
  expect(s3.environment).toEqual({
    ROOT_ACCESS_KEY: walsync.environment.AWS_ACCESS_KEY_ID!,
    ROOT_SECRET_KEY: walsync.environment.AWS_SECRET_ACCESS_KEY!,
  });
  const graceMs = Number.parseInt(walsync.stop_grace_period, 10) * 1000;
  return {
    args: walsync.command,
    env: walsync.environment,
    app: app.command,
    graceMs,
    probe: execForm(image, "HEALTHCHECK"),
  };
}

function kubernetesSidecar(): Service {
  const objects = Bun.YAML.parse(read("examples/deploy/kubernetes/statefulset.yaml")) as {
    kind: string;
    stringData: Record<string, string>;
    spec: { template: { spec: PodSpec } };
  }[];
  const env = objects.find(({ kind }) => kind === "Secret")!.stringData;
  const pod = objects.find(({ kind }) => kind === "StatefulSet")!.spec.template.spec;
  const [sidecar] = pod.initContainers;
  expect([sidecar!.restartPolicy, pod.securityContext.runAsUser]).toEqual(["Always", USER]);
  const args = sidecar!.args.map((arg) => arg.replaceAll(/\$\((\w+)\)/g, (_, name) => env[name]!));
  return {
    args,
    env,
    app: pod.containers[0]!.command,
    graceMs: pod.terminationGracePeriodSeconds * 1000,
    probe: sidecar!.startupProbe.exec.command,
  };
}

interface PodSpec {
  initContainers: { restartPolicy: string; args: string[]; startupProbe: { exec: { command: string[] } } }[];
  containers: { command: string[] }[];
  securityContext: { runAsUser: number };
  terminationGracePeriodSeconds: number;
}

/** COPY and RUN of the first stage, in a folder that stands for its WORKDIR. */
function buildStage(folder: string): void {
  const end = image.findIndex(({ name }, i) => name === "FROM" && i > 0);
  for (const { name, text } of image.slice(0, end)) {
    if (name === "COPY") {
      const words = text.split(" ");
      const to = words.pop()!;
      for (const from of words) {
        const isFolder = to.endsWith("/") || words.length > 1;
        cpSync(join(ROOT, from), join(folder, to, isFolder ? from.split("/").at(-1)! : ""), { recursive: true });
      }
    } else if (name === "RUN") {
      const env = { ...process.env, PATH: `${join(ROOT, "node_modules/.bin")}:${process.env.PATH}` };
      const done = Bun.spawnSync(["sh", "-c", text], { cwd: folder, env, stdin: "ignore" });
      if (!done.success) throw new Error(`RUN ${text}: expected exit 0, found ${done.exitCode}: ${done.stderr}`);
    }
  }
}

/** The same command for a bucket of its own, and metrics that nobody else on this machine has or can ask. */
function atHome(args: string[], bucket: string): string[] {
  const changed = args.map((arg) =>
    arg.replace("=s3://backups/", `=s3://${bucket}/`).replace("--metrics-listen=0.0.0.0", "--metrics-listen=127.0.0.1"),
  );
  expect(changed.filter((arg, i) => arg !== args[i])).toHaveLength(2);
  return [...changed, `--metrics-port=${freePort()}`];
}

function accessTo({ endpoint, region, accessKeyId, secretAccessKey }: NonNullable<typeof server>) {
  return {
    AWS_ENDPOINT_URL_S3: endpoint,
    AWS_REGION: region,
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
  };
}

async function start(workdir: string, command: string[], env: Record<string, string>): Promise<Container> {
  const container = await Container.start({ root, workdir, user: USER, command, env });
  running.push(container);
  return container;
}

async function healthy(container: Container, probe: string[]): Promise<void> {
  const endMs = performance.now() + HEALTHY_WITHIN_MS;
  while ((await container.exec(probe)) !== 0) {
    if (performance.now() < endMs) continue;
    await container.stop(0);
    throw new Error(`waited in vain for ${probe.join(" ")}; output:\n${await container.output}`);
  }
}

/** Of the application, once it listens. */
async function answer(url: string): Promise<string> {
  const endMs = performance.now() + HEALTHY_WITHIN_MS;
  for (;;) {
    try {
      return await (await fetch(url)).text();
    } catch (error) {
      if (performance.now() > endMs) throw error;
      await Bun.sleep(20);
    }
  }
}
