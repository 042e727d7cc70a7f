// Goal: a scrape reads true counts in Prometheus' format from loopback alone, and health says which database is in trouble.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Counter, defineGauge, renderMetrics } from "../src/metrics.ts";
import { serveMetrics } from "../src/metrics-server.ts";
import { compiledBinary } from "./support/binary.ts";
import { tempDir } from "./support/temp.ts";
import { freePort } from "./support/versitygw.ts";

const dir = tempDir();
let children: Bun.Subprocess[] = [];

afterEach(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
    await child.exited;
  }
  children = [];
});

describe("the text", () => {
  test("has one head for each metric, and values by labels, escaped", () => {
    const counter = new Counter("walsync_test_total", "Tests.");
    counter.add({ database: 'a "b" \\ c\nd' });
    counter.add({ database: 'a "b" \\ c\nd' }, 2);
    counter.add({ database: "other" }, 0.5);
    defineGauge("walsync_test_bytes", "Bytes.", () => [[{}, 7]]);
    const lines = renderMetrics().split("\n");
    expect(lines).toContain('walsync_test_total{database="a \\"b\\" \\\\ c\\nd"} 3');
    expect(lines).toContain('walsync_test_total{database="other"} 0.5');
    expect(lines).toContain("walsync_test_bytes 7");
    expect(lines.filter((line) => line === "# TYPE walsync_test_total counter")).toHaveLength(1);
    expect(counter.valueOf({ database: "other" })).toBe(0.5);
    const line = /^(# (HELP|TYPE) walsync_[a-z_]+ .+|walsync_[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)+\})? [0-9.e+-]+)$/;
    for (const each of lines.slice(0, -1)) expect(each).toMatch(line);
  });
});

describe("the server", () => {
  test("answers two paths, and reads only", async () => {
    let fault: string | null = null;
    const server = serveMetrics("127.0.0.1", 0, () => fault);
    const get = (path: string, method = "GET") => fetch(`http://127.0.0.1:${server.port}${path}`, { method });
    expect((await get("/metrics")).headers.get("content-type")).toContain("version=0.0.4");
    expect((await get("/healthz")).status).toBe(200);
    fault = "app: gone";
    const sick = await get("/healthz");
    expect([sick.status, await sick.text()]).toEqual([503, "app: gone\n"]);
    expect((await get("/")).status).toBe(404);
    expect((await get("/metrics", "POST")).status).toBe(405);
    server.stop();
  });

  test("that cannot have its port says so", () => {
    const server = serveMetrics("127.0.0.1", 0, () => null);
    expect(() => serveMetrics("127.0.0.1", server.port, () => null)).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringContaining(String(server.port)) }),
    );
    server.stop();
  });
});

describe("watch", () => {
  async function startWatch(...args: string[]) {
    const folder = join(dir, crypto.randomUUID());
    mkdirSync(folder);
    const path = join(folder, "app.db");
    const app = new Database(path, { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id)");
    const child = Bun.spawn([compiledBinary(), "watch", path, "-b", join(folder, "bucket"), ...args], {
      env: { PATH: process.env.PATH ?? "" },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    children.push(child);
    let log = "";
    void (async () => {
      for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) log += chunk;
    })();
    return { app, path, child, log: () => log };
  }

  async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
    for (let i = 0; i < 500 && !(await condition()); i++) await Bun.sleep(20);
    expect(await condition()).toBe(true);
  }

  test("serves what it counts, on loopback alone", async () => {
    const port = freePort();
    const { app, path } = await startWatch("--metrics-port", String(port), "--wal-sync-interval", "0");
    const read = async (name: string) => {
      const text = await fetch(`http://127.0.0.1:${port}/metrics`).then(
        (response) => response.text(),
        () => "",
      );
      return Number(new RegExp(`^${name.replace(/[{}]/g, "\\$&")} (.*)$`, "m").exec(text)?.[1]);
    };
    await until(async () => (await read('walsync_shipped_txid{database="app"}')) === 1);
    app.run("insert into item values (1)");
    await until(async () => (await read('walsync_shipped_txid{database="app"}')) === 2);
    expect(await read('walsync_commits_captured_total{database="app"}')).toBe(1);
    expect(await read('walsync_files_shipped_total{database="app",kind="increment"}')).toBe(1);
    expect(await read('walsync_lag_seconds{database="app"}')).toBe(0);
    expect(await read('walsync_database_up{database="app"}')).toBe(1);
    expect(await read("walsync_process_resident_bytes")).toBeGreaterThan(1e7);
    expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
    const sockets = Bun.spawnSync(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout.toString();
    const hex = port.toString(16).toUpperCase().padStart(4, "0");
    const listening = sockets.split("\n").filter((line) => line.includes(`:${hex} `) && / 0A /.test(line));
    expect(listening).toHaveLength(1);
    expect(listening[0]).toContain(`0100007F:${hex}`);

    app.close();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true });
    await until(async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).status === 503);
    expect(await read('walsync_database_up{database="app"}')).toBe(0);
  });

  test("on a chosen port that is taken ends; on the default it goes on without", async () => {
    const taken = serveMetrics("127.0.0.1", 0, () => null);
    const refused = await startWatch("--metrics-port", String(taken.port));
    expect(await refused.child.exited).toBe(2);
    expect(refused.log()).toContain("E_CONFIG");
    taken.stop();
    const first = await startWatch();
    await until(() => /watching|metrics are off/.test(first.log()));
    const second = await startWatch();
    await until(() => second.log().includes("replicating"));
    expect(second.log()).toContain("metrics are off");
  });

  test("serves nothing with --no-metrics", async () => {
    const { log } = await startWatch("--no-metrics");
    await until(() => log().includes("replicating"));
    expect(log()).not.toContain("port=");
    expect(log()).not.toContain("metrics are off");
  });
});
