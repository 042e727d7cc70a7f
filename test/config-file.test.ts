// Goal: walsync.toml says what the flags say, and whatever is wrong in it is told with file, line and key.
import { describe, expect, test } from "bun:test";
import { resolveSettings } from "../src/config.ts";
import { parseConfig } from "../src/config-file.ts";
import { CONFIG_SECTIONS } from "../src/config-keys.ts";
import { DESTINATION_FLAGS } from "../src/engine/destination.ts";
import { WATCH_FLAGS } from "../src/engine/watch-settings.ts";

const ENV = { BUCKET: "s3://from-env/prod", EMPTY: "", HOOK: "SECRET" };
const parse = (text: string, env: Record<string, string> = ENV) =>
  parseConfig(text, "walsync.toml", "/etc/walsync", env);
const settings = (text: string) => resolveSettings(WATCH_FLAGS, [parse(text).layer]).values;

const FULL = `# Everything that there is.
[s3]
bucket = "\${BUCKET}"
endpoint = "https://fly.storage.tigris.dev"
region = "auto"
force_path_style = true
storage_class = "STANDARD_IA"
sse = "AES256"

[encryption]
recipients = ["age1one", "age1two"]
recipients_file = "/etc/walsync/recipients.txt"
identity_file = "/etc/walsync/key.txt"

[sync]
layout = "litestream"
wal_sync_interval = "250ms"
snapshot_interval = 1800
max_changes = 5000
max_interval = "2h"
on_idle = "1m"
on_startup = true
checkpoint_interval = "30s"
min_checkpoint_pages = 500
validation_interval = "12h"
compact_after_snapshot = true
compact_interval = "1d"
merge = ["10s", "1m"]
merge_keep_fine = "2h"
max_outbox = "64MiB"
max_pinned = 32
shutdown_timeout = 9
state_dir = "/var/lib/walsync"
enable_wal = true
restore_if_missing = true
exec = "node 'my server.js'"

[retention]
hourly = 1
daily = 2
weekly = 3
monthly = 4
point_in_time = "7d"

[metrics]
enabled = false
port = 9000
listen = "0.0.0.0"
max_lag = "90s"

[alerts]
webhook_url = "https://hooks.example/\${HOOK}"
webhook_authorization = "Bearer x"
webhook_events = "fenced,lag"

[drill]
interval = "7d"
assert = ["SELECT count(*) > 0 FROM users", "SELECT '\${HOOK}'"]
assert_timeout = "2m"
max_rto = "10m"
max_rpo = 60
temp_dir = "/var/tmp"

[[databases]]
path = "app.db"
name = "shop"

[[databases]]
path = "/data/*/tenant.db"
prefix = "tenants"
wal_sync_interval = "5s"   # they are many
retention = { hourly = 0, daily = 30 }
drill = { assert = ["SELECT 1"] }
`;

describe("a file", () => {
  test("gives every setting, in the units of the flags", () => {
    expect(settings(FULL)).toEqual({
      bucket: "s3://from-env/prod",
      endpoint: "https://fly.storage.tigris.dev",
      region: "auto",
      forcePathStyle: true,
      storageClass: "STANDARD_IA",
      sse: "AES256",
      recipient: ["age1one", "age1two"],
      recipientsFile: "/etc/walsync/recipients.txt",
      identity: "/etc/walsync/key.txt",
      layout: "litestream",
      walSyncInterval: 250,
      snapshotInterval: 1_800_000,
      maxChanges: 5000,
      maxInterval: 7_200_000,
      onIdle: 60_000,
      onStartup: true,
      checkpointInterval: 30_000,
      minCheckpointPages: 500,
      validationInterval: 43_200_000,
      compactAfterSnapshot: true,
      compactInterval: 86_400_000,
      merge: [10_000, 60_000],
      mergeKeepFine: 7_200_000,
      maxOutbox: 64 * 1024 * 1024,
      maxPinned: 32,
      shutdownTimeout: 9000,
      stateDir: "/var/lib/walsync",
      enableWal: true,
      restoreIfMissing: true,
      exec: "node 'my server.js'",
      retainHourly: 1,
      retainDaily: 2,
      retainWeekly: 3,
      retainMonthly: 4,
      retainPointInTime: 7 * 86_400_000,
      noMetrics: true,
      metricsPort: 9000,
      metricsListen: "0.0.0.0",
      maxLag: 90_000,
      webhookUrl: "https://hooks.example/SECRET",
      webhookAuthorization: "Bearer x",
      webhookEvents: "fenced,lag",
      drillInterval: 604_800_000,
      drillAssert: ["SELECT count(*) > 0 FROM users", "SELECT 'SECRET'"],
      drillAssertTimeout: 120_000,
      drillMaxRto: 600_000,
      drillMaxRpo: 60_000,
      drillTempDir: "/var/tmp",
    });
  });

  test("names databases, relative to itself, with settings of their own", () => {
    const { databases, layer } = parse(FULL);
    expect(databases.map(({ path, name, prefix, place }) => ({ path, name, prefix, place }))).toEqual([
      { path: "/etc/walsync/app.db", name: "shop", prefix: undefined, place: "walsync.toml:64" },
      { path: "/data/*/tenant.db", name: undefined, prefix: "tenants", place: "walsync.toml:68" },
    ]);
    const own = resolveSettings(WATCH_FLAGS, [databases[1]!.layer, layer]).values;
    expect([own.walSyncInterval, own.retainHourly, own.retainDaily, own.retainWeekly]).toEqual([5000, 0, 30, 3]);
    expect([own.drillAssert, own.drillInterval]).toEqual([["SELECT 1"], 604_800_000]);
  });

  test("that says nothing leaves the defaults", () => {
    const empty = resolveSettings(WATCH_FLAGS, [parse('[s3]\nbucket = "b"\n').layer]);
    const plain = resolveSettings(WATCH_FLAGS, [parse('[s3]\nbucket = "b"').layer]);
    expect(empty).toEqual(plain);
    expect(empty.origins["snapshot-interval"]).toBe("default");
    expect(parse("").databases).toEqual([]);
  });

  test("of no merging is an empty list", () => {
    expect(settings('[s3]\nbucket = "b"\n[sync]\nmerge = []').merge).toEqual([]);
  });

  test("has a key for every setting of watch", () => {
    const keys = Object.values(CONFIG_SECTIONS).flatMap((section) =>
      Object.values(section).map(({ setting }) => setting),
    );
    expect(keys.toSorted()).toEqual(Object.keys(WATCH_FLAGS).sort());
    for (const name of Object.keys(DESTINATION_FLAGS)) expect(keys).toContain(name);
  });
});

describe("an error", () => {
  const BUCKET = '[s3]\nbucket = "b"\n';

  test.each([
    ["that is no TOML", "[s3]\nbucket = \n", /^walsync\.toml:2: expected TOML, found: /],
    ["of a key twice", '[s3]\nbucket = "a"\nbucket = "b"\n', /^walsync\.toml:3: expected TOML/],
    ["in a section's name", "[sink]\n", /^walsync\.toml:1: sink: no such key$/],
    ["in a key", "[sync]\n\nsnapshot_intervall = 5\n", /^walsync\.toml:3: sync\.snapshot_intervall: no such key$/],
    [
      "in a key of a database",
      '[[databases]]\npath = "a"\n[[databases]]\npath = "b"\nnam = "c"\n',
      /^walsync\.toml:5: databases\[1\]\.nam: no such key$/,
    ],
    [
      "of a setting for the process in a database",
      '[[databases]]\npath = "a"\nstate_dir = "x"\n',
      /^walsync\.toml:3: databases\[0\]\.state_dir: no such key$/,
    ],
    [
      "of a database without a path",
      '[[databases]]\nname = "a"\n',
      /^walsync\.toml:1: databases\[0\]: expected a path, found a table$/,
    ],
    ["of a section that is none", "s3 = 5\n", /^walsync\.toml:1: s3: expected a table, found 5$/],
    [
      "of databases that are no list",
      "[databases]\n",
      /^walsync\.toml:1: databases: expected \[\[databases\]\] entries, found a table$/,
    ],
    [
      "of a name that is no text",
      '[[databases]]\npath = "a"\nname = 5\n',
      /^walsync\.toml:3: databases\[0\]\.name: expected text in quotes, found 5$/,
    ],
    [
      "of a variable that is not set",
      `[s3]\nbucket = "\${NOT_SET}"\n`,
      /^walsync\.toml:2: s3\.bucket: expected NOT_SET in the environment, found nothing$/,
    ],
    ["of a variable that is empty", `[s3]\nbucket = "\${EMPTY}"\n`, /expected EMPTY in the environment/],
    [
      "of a retention of nothing",
      "[retention]\nhourly = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n",
      /^walsync\.toml:1: retention: expected a tier that keeps something/,
    ],
    [
      "of such a one of a database",
      '[[databases]]\npath = "a"\nretention = { hourly = 0, daily = 0, weekly = 0, monthly = 0 }\n',
      /^walsync\.toml:3: databases\[0\]\.retention: expected a tier/,
    ],
  ])("%s", (_, text, message) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(message) }),
    );
  });

  test.each([
    [
      "a number as text",
      'max_changes = "5"',
      /^walsync\.toml:4: sync\.max_changes: expected a whole number, found "5"$/,
    ],
    ["a fraction", "max_changes = 1.5", /expected a whole number, found 1\.5$/],
    [
      "less than there may be",
      "min_checkpoint_pages = 0",
      /^walsync\.toml:4: sync\.min_checkpoint_pages: expected a whole number of at least 1, found "0"$/,
    ],
    [
      "a duration that is none",
      'snapshot_interval = "soon"',
      /^walsync\.toml:4: sync\.snapshot_interval: expected a duration such as .*, found "soon"$/,
    ],
    ["a truth as text", 'on_startup = "yes"', /expected true or false, found "yes"$/],
    ["a size that is none", 'max_outbox = "big"', /expected a size such as .*, found "big"$/],
    [
      "a list that does not ascend",
      'merge = ["5m", "30s"]',
      /sync\.merge: expected durations like .*, found "5m,30s"$/,
    ],
    ["no list", "merge = true", /sync\.merge: expected a list of durations such as .*, found true$/],
    ["a table for a text", "state_dir = {}", /sync\.state_dir: expected text in quotes, found a table$/],
  ])("of a value: %s", (_, line, message) => {
    expect(() => settings(`${BUCKET}[sync]\n${line}\n`)).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(message) }),
    );
  });

  test("suggests the key that was meant", () => {
    expect(() => parse("[sync]\nsnapshot-intervall = 5\n")).toThrow(
      expect.objectContaining({ hint: "Did you mean snapshot_interval?" }),
    );
  });
});
