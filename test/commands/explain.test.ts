// Goal: explain says what watch would do: the same settings, databases and refusals; touches nothing, shows no secret, and names
// what is risky.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rhythmsOf } from "../../src/commands/explain-cost.ts";
import { CONFIG_SECTIONS } from "../../src/config-keys.ts";
import type { WatchReport } from "../../src/control.ts";
import { estimateRequests, PRICES } from "../../src/upkeep/cost.ts";
import { makeKeys } from "../encryption/make.ts";
import { tempDir } from "../support/temp.ts";
import { expectHidden, expectOneError, succeed, treeOf, walsync } from "./run.ts";

const dir = tempDir();
const SECRET = "a-secret-of-the-test";
const env = { AWS_ACCESS_KEY_ID: "AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY: SECRET };

function makeDatabase(name: string, mode: string): void {
  const app = new Database(join(dir, name), { create: true });
  app.run(`pragma journal_mode = ${mode}`);
  app.run("create table item (body)");
  app.close();
}
mkdirSync(join(dir, "tenants"));
makeDatabase("app.db", "wal");
makeDatabase("old.db", "delete");
makeDatabase("tenants/a.db", "wal");
makeDatabase("tenants/b.db", "wal");
writeFileSync(join(dir, "notes.txt"), "no database, but long enough to look at\n");
writeFileSync(
  join(dir, "walsync.toml"),
  `[s3]
bucket = "s3://backups/prod"
endpoint = "http://s3.example.org"
[sync]
wal_sync_interval = "2m"
[[databases]]
path = "app.db"
name = "shop"
[[databases]]
path = "tenants"
prefix = "t"
wal_sync_interval = "10s"
`,
);

interface Explained {
  config: string | null;
  destination: { url: string; endpoint: string | null; credentials: string | null };
  settings: Record<string, unknown>;
  databases: { name: string; path: string; journal_mode: string; bytes: number }[];
  risks: string[];
}

async function explained(...args: string[]): Promise<Explained> {
  const { stdout, stderr } = await succeed(["explain", ...args, "--json"], { cwd: dir, env });
  expect(stderr).toBe("");
  expectHidden(stdout, [SECRET]);
  return JSON.parse(stdout) as Explained;
}

test("a file: destination, databases by name with their journal mode, settings, risks; nothing is touched", async () => {
  const before = treeOf(dir);
  const { config, destination, settings, databases, risks } = await explained();
  expect(config).toBe("walsync.toml");
  expect(destination).toMatchObject({ url: "s3://backups/prod", endpoint: "http://s3.example.org" });
  expect(destination.credentials).toBe("access key AKIA***");
  expect(settings.walSyncInterval).toBe(120_000);
  expect(databases.map(({ name, journal_mode }) => [name, journal_mode])).toEqual([
    ["shop", "wal"],
    ["t/a", "wal"],
    ["t/b", "wal"],
  ]);
  expect(risks.join(" ")).toMatch(/not https.*Nothing is ever deleted.*up to 2 min 00 s of commits/);
  expect(treeOf(dir)).toEqual(before);
});

test("text says the same, in columns", async () => {
  const { stdout } = await succeed(["explain"], { cwd: dir, env });
  expectHidden(stdout, [SECRET]);
  expect(stdout).toMatch(/^configuration {2}walsync\.toml$/m);
  expect(stdout).toMatch(/^capture +at most every 2 min 00 s$/m);
  expect(stdout).toMatch(/^t\/a +wal +[\d.]+ KiB +\/.*tenants\/a\.db$/m);
  expect(stdout).toMatch(/^3 databases that commit every second +\d+ +\d+ +\$\d+\.\d\d$/m);
  expect(stdout).toContain(PRICES.source);
  expect(stdout).toMatch(/^risk: /m);
});

test("flags beat the file, and what watch would refuse is a risk", async () => {
  const { databases, risks, settings } = await explained("old.db", "notes.txt", "gone.db", "--wal-sync-interval", "1");
  expect(settings.walSyncInterval).toBe(1000);
  expect(databases.map(({ journal_mode }) => journal_mode)).toEqual(["not wal", "not SQLite", "missing"]);
  expect(risks.join(" ")).toMatch(/Not in WAL mode.*old\.db.*Not a SQLite database.*notes\.txt.*Missing.*gone\.db/);
});

test("a good configuration has no risks", async () => {
  const { risks } = await explained(
    "app.db",
    "-b",
    join(dir, "backups"),
    "--compact-after-snapshot",
    "--wal-sync-interval",
    "1",
  );
  expect(risks).toEqual([]);
});

describe("encryption and drills", () => {
  const folder = join(dir, "encrypted");
  mkdirSync(folder);
  const explainIn = (...args: string[]) => walsync(["explain", ...args], { cwd: folder });
  const json = async (...args: string[]) =>
    JSON.parse((await succeed(["explain", ...args, "--json"], { cwd: folder })).stdout);
  const app = join(dir, "app.db");

  test("of neither it says so", async () => {
    const { stdout } = await explainIn(app);
    expect(stdout).toMatch(/^encryption +none: files are in the clear$/m);
    expect(stdout).toMatch(/^drills +never$/m);
    expect(await json(app)).toMatchObject({ encryption: null, databases: [{ drill: null }] });
  });

  test("recipients are counted wherever they are given; without an identity nothing merges, and costs less", async () => {
    const [one, two] = [await makeKeys(join(folder, "1.txt")), await makeKeys(join(folder, "2.txt"))];
    writeFileSync(join(folder, "recipients.txt"), `${two.recipient}\n`);
    const keys = ["--recipient", one.recipient, "--recipients-file", "recipients.txt"];
    const sealed = await explainIn(app, ...keys);
    expect(sealed.stdout).toMatch(/^encryption +with age, for 2 recipients; nothing here can read it again$/m);
    expect(sealed.stdout).toMatch(/^merging +none$/m);
    const open = [...keys, "--identity", one.identityFile, "--drill-interval", "7d", "--drill-assert", "SELECT 1"];
    const { stdout } = await explainIn(app, ...open, "--drill-max-rto", "10m");
    expect(stdout).toMatch(/^encryption +with age, for 2 recipients; there is an identity that reads it here$/m);
    expect(stdout).toMatch(/^drills +every 7 d 00 h, 1 query, RTO of at most 10 min 00 s$/m);
    const [before, after] = [await json(app, ...keys), await json(app, ...open)];
    expect(before.encryption).toEqual({ recipients: 2, identity: false });
    expect(after.encryption).toEqual({ recipients: 2, identity: true });
    expect(after.databases[0].drill).toEqual({
      interval_seconds: 604_800,
      assertions: 1,
      max_rto_seconds: null,
      max_rpo_seconds: null,
    });
    expect(before.monthly_costs.busy.writes).toBeLessThan(after.monthly_costs.busy.writes);
  });

  test("an entry of walsync.toml has drills of its own", async () => {
    const entries = ["app.db", "old.db"].map((name) => `[[databases]]\npath = "${join(dir, name)}"\n`);
    writeFileSync(
      join(folder, "walsync.toml"),
      `[drill]\ninterval = "1d"\n${entries.join('drill = { interval = "0" }\n')}`,
    );
    const { stdout } = await explainIn();
    expect(stdout).toMatch(/^drills +never \(1 of 2 databases\); every 1 d 00 h \(1 of 2 databases\)$/m);
    expect((await json()).databases.map(({ drill }: { drill: unknown }) => drill !== null)).toEqual([false, true]);
  });

  test("what a watch refuses is refused: drills that nothing can read, an identity alone, keys that are none", async () => {
    const { recipient, identityFile } = await makeKeys(join(folder, "3.txt"));
    const refusals: [string, string[]][] = [
      ["E_IDENTITY", ["--recipient", recipient, "--drill-interval", "1d"]],
      ["E_USAGE", ["--identity", identityFile]],
      ["E_CONFIG", ["--recipient", recipient, "--layout", "litestream"]],
      ["E_CONFIG", ["--recipients-file", join(folder, "none.txt")]],
    ];
    for (const [code, flags] of refusals) {
      for (const command of ["explain", "watch"]) {
        const found = await walsync([command, app, "-b", join(folder, "bucket"), ...flags], { cwd: dir });
        expect([command, flags, found.stderr]).toEqual([command, flags, expect.stringContaining(`walsync: ${code} `)]);
      }
    }
  });
});

describe("the schema", () => {
  test("has every key of the file, and no other", async () => {
    const { stdout } = await succeed(["explain", "--print-schema"], { cwd: dir });
    const schema = JSON.parse(stdout);
    expect(Object.keys(schema.properties).sort()).toEqual([...Object.keys(CONFIG_SECTIONS), "databases"].sort());
    for (const [section, keys] of Object.entries(CONFIG_SECTIONS)) {
      expect(Object.keys(schema.properties[section].properties)).toEqual(Object.keys(keys));
      expect(schema.properties[section].additionalProperties).toBe(false);
    }
    expect(schema.properties.databases.items.required).toEqual(["path"]);
    expect(schema.properties.metrics.properties.enabled).toMatchObject({ type: "boolean", default: true });
  });
});

test("a file that is wrong is refused as watch refuses it", async () => {
  writeFileSync(join(dir, "wrong.toml"), '[[databases]]\npath = "app.db"\n\n[[databases]]\npath = "none-*.db"\n');
  const glob = await walsync(["explain", "--config", "wrong.toml"], { cwd: dir });
  expectOneError(glob, "E_CONFIG", /wrong\.toml:4: .*none-\*\.db: expected SQLite databases in this glob, found none/);
  writeFileSync(
    join(dir, "twice.toml"),
    '[[databases]]\npath = "app.db"\nname = "a"\n[[databases]]\npath = "old.db"\nname = "a"\n',
  );
  const twice = await walsync(["explain", "--config", "twice.toml"], { cwd: dir });
  expectOneError(twice, "E_CONFIG", /twice\.toml: .*app\.db and .*old\.db: expected two names, found "a" for both/);
});

describe("an estimate", () => {
  const policy = { syncIntervalMs: 1000, snapshotIntervalMs: 3_600_000, mergeWindowsMs: [30_000, 300_000, 3_600_000] };

  test("counts what is shipped, merged and listed in a month", () => {
    const { writes, reads, dollars } = estimateRequests(policy, 1000);
    const [seconds, minutes, hours] = [2_592_000, 43_200, 720];
    const merged = seconds / 30 + seconds / 300 + hours;
    expect(writes).toBe(seconds + hours + minutes + merged + hours);
    expect(reads).toBe(minutes + seconds + seconds / 30 + seconds / 300 + 6 * hours);
    expect(dollars).toBeCloseTo((writes * 0.005 + reads * 0.0004) / 1000, 6);
  });

  test("falls with the interval, and with what is written", () => {
    const slower = estimateRequests({ ...policy, syncIntervalMs: 10_000 }, 1000);
    expect(slower.writes).toBeLessThan(estimateRequests(policy, 1000).writes / 5);
    expect(estimateRequests(policy, 3_600_000).writes).toBeLessThan(3000);
    expect(estimateRequests({ ...policy, mergeWindowsMs: [] }, 1000).reads).toBe(43_200);
  });
});

test("the webhook is named by its host, and what is secret about it by nothing", async () => {
  const env = {
    WALSYNC_WEBHOOK_URL: `https://hooks.example/${SECRET}`,
    WALSYNC_WEBHOOK_AUTHORIZATION: `Bearer ${SECRET}`,
  };
  for (const format of [[], ["--json"]]) {
    const { stdout, stderr } = await walsync(["explain", "app.db", "-b", "bucket", ...format], { cwd: dir, env });
    expect(stdout).toContain("https://hooks.example/***");
    expect(stdout + stderr).not.toContain(SECRET);
  }
  const wrong = await walsync(["explain", "app.db", "-b", "bucket", "--webhook-events", "lag,sneeze"], {
    cwd: dir,
    env,
  });
  expectOneError(wrong, "E_USAGE", /--webhook-events: expected some of .*, found "sneeze"/);
  const url = { WALSYNC_WEBHOOK_URL: `ftp://${SECRET}` };
  const refused = await walsync(["watch", "app.db", "-b", "bucket"], { cwd: dir, env: url });
  expectOneError(refused, "E_USAGE", /--webhook-url: expected a URL like https/);
  expect(refused.stderr).not.toContain(SECRET);
});

describe("costs as measured", () => {
  const HOUR_MS = 3_600_000;
  const report = (startedMs: number, shipped: number): WatchReport => ({
    pid: process.pid,
    version: "0.0.0",
    started_at: new Date(startedMs).toISOString(),
    destination: "s3://backups/prod",
    databases: [
      {
        name: "shop",
        path: join(dir, "app.db"),
        state: "live",
        txid: shipped,
        shipped_txid: shipped,
        lag_seconds: 0,
        lag_transactions: 0,
        size_bytes: 0,
        outbox_bytes: 0,
        wal_bytes: 0,
        shipped_at: null,
        shipped_increments: shipped,
        error: null,
        drill: null,
      },
    ],
  });

  test("count what was shipped over the time of the watch, and nothing of a watch that began a moment ago", () => {
    const nowMs = Date.UTC(2026, 0, 1);
    const path = join(dir, "app.db");
    expect(rhythmsOf([report(nowMs - HOUR_MS, 360)], nowMs)).toEqual([{ path, everyMs: 10_000, seconds: 3600 }]);
    expect(rhythmsOf([report(nowMs - HOUR_MS, 0)], nowMs)).toEqual([
      { path, everyMs: Number.POSITIVE_INFINITY, seconds: 3600 },
    ]);
    expect(rhythmsOf([report(nowMs - 59_000, 500)], nowMs)).toEqual([]);
  });

  test("are those of the watches that run, beside the two rhythms", async () => {
    const runtime = join(dir, "run");
    mkdirSync(join(runtime, "walsync"), { recursive: true, mode: 0o700 });
    const watch = Bun.serve({
      unix: join(runtime, "walsync", `${process.pid}.sock`),
      fetch: () => Response.json(report(Date.now() - HOUR_MS, 360)),
    });
    try {
      const args = ["explain", "app.db", "tenants", "-b", "s3://backups/prod", "--wal-sync-interval", "1"];
      const own = { ...env, XDG_RUNTIME_DIR: runtime };
      const { monthly_costs: costs } = JSON.parse((await succeed([...args, "--json"], { cwd: dir, env: own })).stdout);
      const policy = {
        syncIntervalMs: 1000,
        snapshotIntervalMs: 3_600_000,
        mergeWindowsMs: [30_000, 300_000, 3_600_000],
      };
      const { writes } = estimateRequests(policy, 10_000);
      expect(costs.measured.databases).toBe(1);
      expect(costs.measured.writes / writes).toBeWithin(0.98, 1.02);
      expect(costs.busy).toMatchObject({ databases: 3, writes: 3 * estimateRequests(policy, 1000).writes });
      expect((await succeed(args, { cwd: dir, env: own })).stdout).toMatch(/^1 database as measured for 1 h 00 min /m);
    } finally {
      await watch.stop(true);
    }
  });
});
