// Goal: a litestream.yml becomes the walsync.toml that goes on with the same files at the same intervals; what it cannot say is told
// with its line; and no secret leaves the file.
import { describe, expect, test } from "bun:test";
import { resolveSettings } from "../../src/config.ts";
import { parseConfig } from "../../src/config-file.ts";
import { formatKey } from "../../src/destination/layout.ts";
import { parseDestinationUrl } from "../../src/destination/open.ts";
import { WATCH_FLAGS } from "../../src/engine/watch-settings.ts";
import { parseLitestreamConfig } from "../../src/migrate/litestream-config.ts";
import { type MigrationContext, planMigration } from "../../src/migrate/plan.ts";
import { formatToml } from "../../src/migrate/toml.ts";

const HOUR = 3_600_000;
const ENV = { HOME: "/home/u", BUCKET: "backups", INTERVAL: "10s" };

interface Given {
  env?: Record<string, string>;
  /** Databases in every directory. */
  found?: string[];
}

function migrated(yml: string, { env = ENV, found = [] }: Given = {}) {
  const context: MigrationContext = {
    label: "l.yml",
    env,
    notes: [],
    folder: "/work",
    filesBelow: () => found,
  };
  const migration = planMigration(parseLitestreamConfig(yml, "l.yml", env), context);
  const files = migration.files.map((file, index) => {
    const text = formatToml(file, { config: migration.config, label: "l.yml", path: null, index });
    // Our own parser, strict: nothing that it does not know gets through.
    const config = parseConfig(text, "walsync.toml", "/", env);
    const settings = resolveSettings({ ...WATCH_FLAGS }, [config.layer]).values;
    const databases = config.databases.map(({ path, name, prefix, layer }) => {
      const own = resolveSettings(WATCH_FLAGS, [layer, config.layer]).values;
      return { path, name, prefix, own };
    });
    return { text, settings, databases };
  });
  return { files, notes: migration.notes };
}

/** The one file of a configuration with one destination. */
function single(yml: string, given: Given = {}) {
  const { files, notes } = migrated(yml, given);
  expect(files).toHaveLength(1);
  return { ...files[0]!, notes };
}

/** Where the first file of Litestream's level 0 is, as walsync will look for it. */
function firstKey({ settings, databases }: ReturnType<typeof single>): string {
  const address = parseDestinationUrl(settings.bucket);
  const folders = address.kind === "s3" ? "bucket" : "directory";
  const key = formatKey({
    layout: "litestream",
    name: databases[0]!.name!,
    level: 0,
    minTxid: 1n,
    maxTxid: 1n,
    folders,
  });
  if (address.kind === "directory") return `${address.path}/${key}`;
  return `s3://${address.bucket}/${address.prefix === "" ? "" : `${address.prefix}/`}${key}`;
}

const FIRST = "0000000000000001-0000000000000001.ltx";
const replica = (yml: string) => `dbs:\n  - path: /data/app.db\n    replica: ${yml}\n`;

describe("the same files are continued", () => {
  test.each([
    ["{type: s3, bucket: b-1, path: prod/app}", `s3://b-1/prod/app/0000/${FIRST}`],
    ["{type: s3, bucket: b-1, path: app}", `s3://b-1/app/0000/${FIRST}`],
    ["{url: s3://b-1/prod/app.db}", `s3://b-1/prod/app.db/0000/${FIRST}`],
    ["{url: 's3://b-1//prod/./app/?region=auto'}", `s3://b-1/prod/app/0000/${FIRST}`],
    [`{type: s3, bucket: "\${BUCKET}", path: prod/app}`, `s3://backups/prod/app/0000/${FIRST}`],
    ["{url: 's3://$BUCKET/prod/app'}", `s3://backups/prod/app/0000/${FIRST}`],
    ["{url: s3://b-1.localhost:9000/prod/app}", `s3://b-1/prod/app/0000/${FIRST}`],
    ["{url: s3://b-1.nyc3.digitaloceanspaces.com/app}", `s3://b-1/app/0000/${FIRST}`],
    ["{path: /mnt/backups/app}", `/mnt/backups/app/ltx/0/${FIRST}`],
    ["{type: file, path: ~/backups/app}", `/home/u/backups/app/ltx/0/${FIRST}`],
    ["{url: file:///mnt/backups/app}", `/mnt/backups/app/ltx/0/${FIRST}`],
    ["{path: backups/app}", `/work/backups/app/ltx/0/${FIRST}`],
  ])("%s", (yml, expected) => {
    const file = single(replica(yml));
    expect(firstKey(file)).toBe(expected);
    expect(file.settings.layout).toBe("litestream");
    expect(file.databases[0]!.path).toBe("/data/app.db");
    expect(file.notes).toEqual([]);
  });

  test("endpoint, region, style, storage class and encryption", () => {
    const { settings, notes } = single(
      replica(
        "{type: s3, bucket: b-1, path: app, endpoint: 'localhost:9000', region: auto, force-path-style: true, storage-class: STANDARD_IA, sse-kms-key-id: k}",
      ),
    );
    expect(settings).toMatchObject({
      endpoint: "http://localhost:9000",
      region: "auto",
      forcePathStyle: true,
      storageClass: "STANDARD_IA",
      sse: "aws:kms",
    });
    expect(notes).toMatchObject([{ kind: "action", key: "dbs[0].replica.sse-kms-key-id", line: 3 }]);
    const virtual = single(replica("{url: 's3://b-1/app?endpoint=https://s3.example.org&forcePathStyle=false'}"));
    expect(parseDestinationUrl(virtual.settings.bucket)).toMatchObject({ forcePathStyle: false });
    expect(virtual.settings.endpoint).toBe("https://s3.example.org");
  });

  test("a directory: databases that are there by their own names, later ones by the glob", () => {
    const { databases, notes } = single(
      "dbs:\n  - dir: /data\n    pattern: '*.db'\n    recursive: true\n    watch: true\n    replica:\n      url: s3://b-1/tenants\n  - path: /x/y.db\n    replica: {url: s3://b-1/y}\n",
      { found: ["a.db", "t/b.db"] },
    );
    expect(databases.map(({ path, name, prefix }) => [path, name, prefix])).toEqual([
      ["/data/a.db", "tenants/a.db", undefined],
      ["/data/t/b.db", "tenants/t/b.db", undefined],
      ["/data/**/*.db", undefined, "tenants"],
      ["/x/y.db", "y", undefined],
    ]);
    expect(notes).toMatchObject([{ line: 2, key: "dbs[0].dir", kind: "different" }]);
  });
});

describe("one process has one destination", () => {
  const two = (a: string, b: string) =>
    migrated(`dbs:\n  - path: /a.db\n    replica: ${a}\n  - path: /b.db\n    replica: ${b}\n`);

  test.each([
    ["one bucket", "{url: s3://b-1/x/a}", "{url: s3://b-1/y/b}", ["s3://b-1"]],
    ["one prefix", "{url: s3://b-1/x/a}", "{url: s3://b-1/x/b}", ["s3://b-1/x"]],
    ["two buckets", "{url: s3://b-1/a}", "{url: s3://b-2/b}", ["s3://b-1", "s3://b-2"]],
    ["two endpoints", "{url: s3://b-1/a}", "{url: 's3://b-1/b?endpoint=https://e.org'}", ["s3://b-1", "s3://b-1"]],
    ["two access keys", "{url: s3://b-1/a, access-key-id: A}", "{url: s3://b-1/b}", ["s3://b-1", "s3://b-1"]],
    ["one folder", "{path: /mnt/backups/a}", "{path: /mnt/backups/t/b}", ["/mnt/backups"]],
    ["folders that share nothing of their own", "{path: /mnt/x/a}", "{path: /mnt/y/b}", ["/mnt/x", "/mnt/y"]],
    ["a bucket and a folder", "{path: /mnt/x/a}", "{url: s3://b-1/b}", ["/mnt/x", "s3://b-1"]],
  ])("%s", (_law, a, b, buckets) => {
    expect(two(a, b).files.map(({ settings }) => settings.bucket)).toEqual(buckets);
  });

  test("their metrics have ports of their own", () => {
    const yml =
      "addr: ':9090'\ndbs:\n  - {path: /a, replica: {path: /m/x/a}}\n  - {path: /b, replica: {path: /m/y/b}}\n";
    const { files } = migrated(yml);
    expect(files.map(({ settings }) => [settings.metricsPort, settings.metricsListen])).toEqual([
      [9090, "0.0.0.0"],
      [9091, "0.0.0.0"],
    ]);
  });

  test("two databases with one replica are refused", () => {
    expect(() => two("{path: /mnt/x/a}", "{path: /mnt/x/a}")).toThrow(/^l\.yml:5: expected one database at a, found/);
  });
});

describe("intervals and retention", () => {
  test("what Litestream does when nothing is said", () => {
    const { settings } = single(replica("{path: /mnt/backups/app}"));
    expect(settings).toMatchObject({
      walSyncInterval: 1000,
      snapshotInterval: 24 * HOUR,
      checkpointInterval: 60_000,
      minCheckpointPages: 1000,
      merge: [30_000, 300_000, HOUR],
      retainPointInTime: 24 * HOUR,
      retainDaily: 1,
      retainHourly: 0,
      compactAfterSnapshot: true,
      shutdownTimeout: 30_000,
      noMetrics: true,
      restoreIfMissing: false,
    });
  });

  test("what is said is taken over, and what one database says is its own", () => {
    const { settings, databases, notes } = single(`
snapshot: {interval: 1h30m, retention: 72h}
levels: [{interval: 10s}, {interval: 2m}]
l0-retention: 3h
validation: {interval: 6h}
shutdown-sync-timeout: 1m
retention: {enabled: false}
sync-interval: $INTERVAL
dbs:
  - path: /a.db
    checkpoint-interval: 500ms
    min-checkpoint-page-count: 77
    restore-if-db-not-exists: true
    replica: {path: /mnt/backups/a}
  - path: /b.db
    restore-if-db-not-exists: true
    replicas: [{path: /mnt/backups/b, sync-interval: 1s, retention: 240h, snapshot-interval: 4h}]
`);
    expect(settings).toMatchObject({
      walSyncInterval: 10_000,
      snapshotInterval: 1.5 * HOUR,
      checkpointInterval: 500,
      minCheckpointPages: 77,
      merge: [10_000, 120_000],
      mergeKeepFine: 3 * HOUR,
      validationInterval: 6 * HOUR,
      retainDaily: 3,
      retainPointInTime: 72 * HOUR,
      compactAfterSnapshot: false,
      shutdownTimeout: 60_000,
      restoreIfMissing: true,
    });
    expect(databases[1]!.own).toMatchObject({
      walSyncInterval: 1000,
      snapshotInterval: 4 * HOUR,
      checkpointInterval: 60_000,
      minCheckpointPages: 1000,
      retainDaily: 10,
      retainPointInTime: 240 * HOUR,
    });
    expect(notes).toMatchObject([{ line: 17, key: "dbs[1].replicas[0]", kind: "different" }]);
  });
});

describe("what has no counterpart is told with its line", () => {
  test("every key that Litestream 0.5 knows is read or noted", () => {
    // Of cmd/litestream/main.go, 0.5.17.
    const yml = `
socket: {enabled: true}
l0-retention-check-interval: 1s
verify-compaction: true
heartbeat-url: https://x
heartbeat-interval: 1m
shutdown-sync-interval: 1s
mcp-addr: :3001
exec: app
logging: {level: info, type: text, stderr: true, source: false}
dbs:
  - path: /a
    meta-path: /m
    monitor-interval: 1s
    busy-timeout: 1s
    truncate-page-n: 1
    max-sync-wal-bytes: 1
    replica:
      path: /mnt/backups/a
      max-sync-ltx-files: 1
      auto-recover: true
      sign-payload: true
      require-content-md5: true
      part-size: 5MB
      concurrency: 2
      skip-verify: true
      host: h
      user: u
      nkey: n
`;
    const { notes } = single(yml);
    const told = notes.map(({ line, key }) => [line, key.split(".").at(-1)]);
    const said = yml.split("\n").flatMap((text, i) => {
      const key = /^\s*(?:- )?([a-z0-9-]+):/.exec(text)?.[1];
      const isRead = ["dbs", "path", "replica", "logging", "exec", undefined].includes(key);
      return isRead ? [] : [[i + 1, key]];
    });
    expect(told).toEqual(said);
    expect(notes.filter(({ message }) => /no key/.test(message))).toEqual([]);
  });

  test("exec is what Litestream runs; secrets stay in the environment", () => {
    const exec = (command: string) =>
      single(`exec: ${command}\n${replica("{path: /mnt/backups/a}")}`, { env: { ...ENV, TOKEN: "s3cr3t" } });
    const { settings, notes, text } = exec(`/app 'a b' --token=$TOKEN "\${HOME}/x"`);
    expect([settings.exec, notes]).toEqual([`/app 'a b' --token=s3cr3t "/home/u/x"`, []]);
    expect(text).not.toContain("s3cr3t");
    // Litestream leaves out what stands behind an operator, and says nothing.
    for (const [command, found] of [
      ["a && b", "&"],
      ["a | b", "|"],
      ["a $(b)", "$"],
    ] as const) {
      const told = exec(command);
      expect([command, told.settings.exec]).toEqual([command, undefined]);
      expect(told.notes).toMatchObject([
        { line: 1, key: "exec", kind: "action", message: expect.stringContaining(`has ${found} in it`) },
      ]);
    }
    const two = `exec: app\n${replica("{path: /mnt/a/x}")}  - path: /b.db\n    replica: {url: s3://other/b}\n`;
    const { files, notes: toldOfTwo } = migrated(two);
    expect(files.map(({ settings: own }) => own.exec)).toEqual([undefined, undefined]);
    expect(toldOfTwo).toMatchObject([{ line: 1, key: "exec", kind: "action" }]);
  });

  test.each([
    ["{type: gs, bucket: b, path: p}", 3, /gs is no kind of storage/],
    ["{url: abs://x/y}", 3, /abs is no kind of storage/],
    ["{url: sftp://u:p@h/x}", 3, /sftp/],
    ["{type: nats, path: x}", 3, /nats/],
    ["{url: webdav://h/x}", 3, /webdav/],
    ["{type: s3, bucket: b-1}", 3, /root of the bucket/],
    ["{type: s3, bucket: b-1, path: /app}", 3, /empty part/],
    ["{type: s3, bucket: b-1, path: app/}", 3, /empty part/],
    ["{type: s3, bucket: b-1, path: app, sse-customer-key: s3cr3t}", 3, /SSE-C/],
    ["{type: s3, bucket: b-1, path: app, age: {recipients: [x]}}", 3, /age/],
    ["{url: 's3://arn:aws:s3:us-east-1:1:accesspoint/ap/app'}", 3, /access points/],
  ])("a database at %s is left out", (yml, line, message) => {
    const both = `${replica(yml)}  - path: /b.db\n    replica: {path: /mnt/backups/b}\n`;
    const { notes, databases, text } = single(both);
    expect(databases.map(({ path }) => path)).toEqual(["/b.db"]);
    expect(notes).toMatchObject([{ line, kind: "unsupported", message: expect.stringMatching(message) }]);
    expect(text).toMatch(message);
    // Alone there is nothing to write.
    expect(() => migrated(replica(yml))).toThrow(/^l\.yml:3: expected a database that walsync can replicate/);
  });

  test("a mistyped key is told, with the one that was meant", () => {
    const { notes } = single(`dsb: []\n${replica("{path: /mnt/backups/a, sync-intervall: 1s}")}`);
    expect(notes.map(({ line, message }) => [line, message])).toEqual([
      [1, expect.stringMatching(/no key .*dbs is one/)],
      [4, expect.stringMatching(/no key .*sync-interval is one/)],
    ]);
  });
});

describe("secrets", () => {
  test("are in no output; the variables to set are", () => {
    const secrets = ["AKIASECRETID", "s3cr3t/key", "p4ssw0rd", "c00kie"];
    const { text, notes } = single(
      `access-key-id: AKIASECRETID\nsecret-access-key: s3cr3t/key\n${replica("{url: 's3://b-1/app', password: p4ssw0rd, token: c00kie}")}`,
    );
    for (const secret of secrets) expect([text, JSON.stringify(notes)].join().includes(secret)).toBe(false);
    expect(notes.filter(({ kind }) => kind === "action").map(({ line, message }) => [line, message])).toEqual([
      [1, expect.stringMatching(/AWS_ACCESS_KEY_ID/)],
      [2, expect.stringMatching(/AWS_SECRET_ACCESS_KEY/)],
    ]);
  });

  test("a reference tells which variable is the other one; the right one needs no word", () => {
    const yml = (id: string) => replica(`{url: s3://b-1/app, access-key-id: ${id}, secret-access-key: "$LS_KEY"}`);
    expect(single(yml("$AWS_ACCESS_KEY_ID"), { env: { LS_KEY: "never-shown" } }).notes).toMatchObject([
      { message: expect.stringMatching(/export AWS_SECRET_ACCESS_KEY="\$LS_KEY"/) },
    ]);
  });

  test("a user and password in a URL are left behind", () => {
    const { text, settings } = single(replica("{url: 's3://me:hidden@b-1/app'}"));
    expect(text).not.toContain("hidden");
    expect(settings.bucket).toBe("s3://b-1");
  });
});

describe("what is wrong is told with file and line", () => {
  test.each([
    ["dbs:\n  - path: [", /^l\.yml:\d: expected YAML, found /],
    ["dbs:\n  - path: /a\n   replica: {}\n", /^l\.yml:\d: expected YAML/],
    ["- a\n", /^l\.yml:1: expected keys like dbs, found a list/],
    ["addr: :1\n", /^l\.yml:1: expected databases as dbs, found none/],
    ["dbs: {}\n", /^l\.yml:1: expected a list as dbs/],
    ["dbs:\n  - replica: {path: /m/a}\n", /^l\.yml:2: expected path or dir in dbs\[0\], found neither/],
    ["dbs:\n  - path: /a\n    dir: /b\n    pattern: x\n", /^l\.yml:2: expected path or dir in dbs\[0\], found both/],
    ["dbs:\n  - dir: /b\n    replica: {path: /m/a}\n", /^l\.yml:2: expected a pattern with dir, found none/],
    [
      replica("{path: /m/x/a, sync-interval: 10}"),
      /^l\.yml:3: expected a duration .* dbs\[0\]\.replica\.sync-interval, found "10"/,
    ],
    [replica("{path: /m/x/a, sync-interval: $NOWHERE}"), /^l\.yml:3: expected NOWHERE in the environment/],
    [replica("{url: $NOWHERE}"), /^l\.yml:3: expected NOWHERE in the environment/],
    [replica("{type: s3, bucket: b, path: p, force-path-style: maybe}"), /^l\.yml:3: expected true or false/],
    [
      "levels: [{interval: 5m}, {interval: 1m}]\ndbs: [{path: /a, replica: {path: /m/x/a}}]\n",
      /^l\.yml:1: expected levels/,
    ],
    [
      "dbs:\n  - path: /a\n    replica: {path: /m/a}\n    replicas: [{path: /m/b}]\n",
      /^l\.yml:3: expected replica or replicas/,
    ],
  ])("%j", (yml, message) => {
    expect(() => migrated(yml)).toThrow(message);
  });

  test("names with line breaks end no comment and no text", () => {
    const { databases, text } = single(
      '"evil\\n[s3]": 1\ndbs:\n  - path: "/data/a\\n\\"b.db"\n    replica: {path: /mnt/backups/a}\n',
    );
    expect(databases[0]!.path).toBe('/data/a\n"b.db');
    expect(text.split("\n").filter((line) => line === "[s3]")).toHaveLength(1);
  });

  test("a small file that unfolds to a huge one is refused", () => {
    const lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"];
    for (let i = 1; i < 8; i++)
      lines.push(
        `a${i}: &a${i} [${Array(10)
          .fill(`*a${i - 1}`)
          .join(",")}]`,
      );
    expect(() => migrated(`${lines.join("\n")}\ndbs: []\n`)).toThrow(/expected at most 100000 values|Excessive/);
  });
});
