// Goal: a scrape reads true counts in Prometheus' format from loopback alone, and health says which database is in trouble.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Counter, Duration, defineGauge, forgetDatabase, Histogram, renderMetrics } from "../src/metrics.ts";
import { serveMetrics } from "../src/metrics-server.ts";
import { compiledBinary } from "./support/binary.ts";
import { ownChildren, textOf } from "./support/children.ts";
import { type Families, parseExposition, valueIn } from "./support/exposition.ts";
import { documentedMetrics } from "./support/metrics-doc.ts";
import { tempDir } from "./support/temp.ts";
import { freePort } from "./support/versitygw.ts";

const dir = tempDir();
const children = ownChildren();

describe("the text", () => {
  test("has one head for each metric, and values by labels, escaped; a database can be forgotten", () => {
    const counter = new Counter("walsync_test_total", "Tests.", ["database"]);
    const byKind = new Counter("walsync_test_kinds_total", "Tests.", ["database", "kind"]);
    const hostile = 'a "b" \\ c\nd';
    counter.add({ database: hostile });
    counter.add({ database: hostile }, 2);
    counter.add({ database: "other" }, 0.5);
    byKind.add({ database: "other", kind: "x" });
    byKind.add({ database: hostile, kind: "x" }, 4);
    const duration = new Duration("walsync_test_seconds", "Tests.", ["database"]);
    duration.observe({ database: "other" }, 1500);
    duration.observe({ database: "other" }, 500);
    const histogram = new Histogram("walsync_test_spread_seconds", "Tests.", ["operation"]);
    for (const ms of [1, 3, 2000, 1e9]) histogram.observe({ operation: "read" }, ms);
    defineGauge("walsync_test_bytes", "Bytes.", [], () => [[{}, 7]]);
    const families = parseExposition([...renderMetrics()].join(""));
    const valueAt = (name: string, labels: Record<string, string>) => valueIn(families, name, labels);
    expect(valueAt("walsync_test_total", { database: hostile })).toBe(3);
    expect(valueAt("walsync_test_total", { database: "other" })).toBe(0.5);
    expect(valueAt("walsync_test_kinds_total", { database: hostile, kind: "x" })).toBe(4);
    expect(valueAt("walsync_test_bytes", {})).toBe(7);
    expect(valueAt("walsync_test_seconds_sum", { database: "other" })).toBe(2);
    expect(valueAt("walsync_test_seconds_count", { database: "other" })).toBe(2);
    expect(valueAt("walsync_test_spread_seconds_bucket", { operation: "read", le: "0.005" })).toBe(2);
    expect(valueAt("walsync_test_spread_seconds_bucket", { operation: "read", le: "2.5" })).toBe(3);
    expect(valueAt("walsync_test_spread_seconds_count", { operation: "read" })).toBe(4);

    forgetDatabase("other");
    const after = parseExposition([...renderMetrics()].join(""));
    expect(valueIn(after, "walsync_test_total", { database: "other" })).toBeUndefined();
    expect(valueIn(after, "walsync_test_seconds_count", { database: "other" })).toBeUndefined();
    expect(valueIn(after, "walsync_test_kinds_total", { database: hostile, kind: "x" })).toBe(4);
    expect(counter.valueOf({ database: "other" })).toBe(0);
  });

  test.each([
    ["a family without a type", "# HELP a_total A.\na_total 1\n"],
    ["a series twice", '# HELP a A.\n# TYPE a gauge\na{b="1",c="2"} 1\na{c="2",b="1"} 1\n'],
    ["a family in two pieces", "# HELP a A.\n# TYPE a gauge\na 1\n# HELP b B.\n# TYPE b gauge\n# HELP a A.\n"],
    ["a label that is not escaped", '# HELP a A.\n# TYPE a gauge\na{b="x"y"} 1\n'],
    ["buckets that shrink", '# HELP a A.\n# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\n'],
    ["a value that is none", "# HELP a A.\n# TYPE a gauge\na undefined\n"],
    ["no line break at the end", "# HELP a A.\n# TYPE a gauge\na 1"],
  ])("%s is refused by the parser of these tests", (_, text) => {
    expect(() => parseExposition(text)).toThrow();
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

/** Every family of a scrape stands in docs/METRICS.md, with its type and no other labels. */
function expectDocumented(families: Families): void {
  const documented = new Map(documentedMetrics().map((metric) => [metric.name, metric]));
  expect(families.size).toBeGreaterThan(25);
  for (const [name, { type, samples }] of families) {
    expect([name, documented.get(name)?.type]).toEqual([name, type]);
    const labels = new Set(samples.flatMap((sample) => Object.keys(sample.labels)));
    if (type === "histogram") labels.delete("le");
    expect(
      [name, ...labels].filter((label) => label !== name && !documented.get(name)?.labels.includes(label)),
    ).toEqual([]);
  }
}

describe("watch", () => {
  async function startWatch(...args: string[]) {
    return await startWatchWith({}, ...args);
  }

  async function startWatchWith(env: Record<string, string>, ...args: string[]) {
    const folder = join(dir, crypto.randomUUID());
    mkdirSync(folder);
    const path = join(folder, "app.db");
    const app = new Database(path, { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id)");
    const child = Bun.spawn([compiledBinary(), "watch", path, "-b", join(folder, "bucket"), ...args], {
      env: { PATH: process.env.PATH ?? "", ...env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    children.push(child);
    const log = textOf(child.stderr);
    return { app, path, bucket: join(folder, "bucket"), child, log };
  }

  async function until(condition: () => Promise<boolean> | boolean, withinMs = 20_000): Promise<void> {
    const untilMs = Date.now() + withinMs;
    while (Date.now() < untilMs && !(await condition())) await Bun.sleep(20);
    expect(await condition()).toBe(true);
  }

  test("serves what it counts, on loopback alone", async () => {
    const port = freePort();
    const { app, path } = await startWatch("--metrics-port", String(port), "--wal-sync-interval", "0");
    const scrape = (): Promise<Families> =>
      fetch(`http://127.0.0.1:${port}/metrics`)
        .then((response) => response.text())
        .then(parseExposition, () => new Map());
    const read = async (name: string, labels: Record<string, string> = { database: "app" }) =>
      valueIn(await scrape(), name, labels);
    await until(async () => (await read("walsync_shipped_txid")) === 1);
    app.run("insert into item values (1)");
    await until(async () => (await read("walsync_shipped_txid")) === 2);
    expect(await read("walsync_captured_commits_total")).toBe(1);
    expect(await read("walsync_shipped_files_total", { database: "app", kind: "increment" })).toBe(1);
    expect(await read("walsync_lag_seconds")).toBe(0);
    expect(await read("walsync_database_up")).toBe(1);
    expect(await read("walsync_sync_seconds_count")).toBe(1);
    expect(await read("walsync_snapshot_seconds_count")).toBe(1);
    expect(await read("walsync_database_bytes")).toBe(8192);
    const isRecent = (seconds: number | undefined) => Math.abs((seconds ?? 0) - Date.now() / 1000) < 120;
    for (const what of ["last_success", "snapshot", "validation"])
      expect([what, isRecent(await read(`walsync_${what}_timestamp_seconds`))]).toEqual([what, true]);
    const passive = { database: "app", mode: "passive", result: "done" };
    await until(async () => ((await read("walsync_checkpoints_total", passive)) ?? 0) > 0);
    expect(await read("walsync_destination_requests_total", { operation: "write", result: "ok" })).toBeGreaterThan(1);
    expect(await read("walsync_destination_sent_bytes_total", {})).toBeGreaterThanOrEqual(
      (await read("walsync_shipped_bytes_total"))!,
    );
    expect(await read("process_resident_memory_bytes", {})).toBeGreaterThan(1e7);
    expect(await read("process_open_fds", {})).toBeGreaterThan(5);
    expect(isRecent(await read("process_start_time_seconds", {}))).toBe(true);
    expectDocumented(await scrape());
    expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
    const sockets = Bun.spawnSync(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout.toString();
    const hex = port.toString(16).toUpperCase().padStart(4, "0");
    const listening = sockets.split("\n").filter((line) => line.includes(`:${hex} `) && / 0A /.test(line));
    expect(listening).toHaveLength(1);
    expect(listening[0]).toContain(`0100007F:${hex}`);

    app.close();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true });
    await until(async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).status === 503);
    expect(await read("walsync_database_up")).toBe(0);
  });

  test("tells of a lag once and of its end, in health and by webhook, and of what is wrong at the end; the URL is told to nobody", async () => {
    const alerts: Record<string, string>[] = [];
    let refusals = 2;
    const receiver = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: async (request) => {
        if (refusals-- > 0) return new Response("", { status: 503 });
        alerts.push({ ...((await request.json()) as Record<string, string>), path: new URL(request.url).pathname });
        return new Response("");
      },
    });
    const hook = { WALSYNC_WEBHOOK_URL: `http://127.0.0.1:${receiver.port}/SECRET-PATH` };
    const port = freePort();
    const args = ["--metrics-port", String(port), "--wal-sync-interval", "0", "--max-lag", "1s", "--verbose"];
    const { app, path, bucket, child, log } = await startWatchWith(hook, ...args);
    const health = () => fetch(`http://127.0.0.1:${port}/healthz`);
    await until(async () => log().includes("snapshot shipped") && (await health()).status === 200);
    // The destination is gone.
    renameSync(bucket, `${bucket}-away`);
    writeFileSync(bucket, "");
    app.run("insert into item values (1)");
    await until(async () => (await health()).status === 503);
    expect(await (await health()).text()).toMatch(/^app: not shipped for .* --max-lag\n$/);
    await until(() => alerts.length === 1);
    rmSync(bucket);
    renameSync(`${bucket}-away`, bucket);
    await until(async () => (await health()).status === 200, 60_000);
    await until(() => alerts.length === 2);

    app.close();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true });
    await until(async () => (await health()).status === 503);
    child.kill("SIGTERM");
    await child.exited;
    expect(alerts.map(({ event, code }) => [event, code])).toEqual([
      ["lag", null],
      ["recovered", null],
      ["failed", "E_DATABASE"],
    ] as never);
    for (const alert of alerts) expect(alert).toMatchObject({ database: "app", destination: expect.any(String) });
    for (const alert of alerts) expect(alert.path).toBe("/SECRET-PATH");
    expect(new Set(alerts.map(({ id }) => id)).size).toBe(3);
    expect(log()).not.toContain("SECRET");
    expect(log()).toContain("alert is not accepted");
    receiver.stop(true);
  }, 120_000);

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
