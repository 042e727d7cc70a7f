// Goal: whoever may write to a destination can make a restore fail, and nothing else: no file outside the output, no memory or
// disk beyond what was fetched, no name that leads somewhere, nothing that a terminal obeys. docs/SECURITY.md, "T1" and "T2".
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, openSync, readdirSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseManifest } from "../../src/chain/manifest.ts";
import { keyFault } from "../../src/destination/keys.ts";
import { formatKey, parseKey, requireName } from "../../src/destination/layout.ts";
import { openDestination } from "../../src/destination/open.ts";
import { WalsyncError } from "../../src/errors.ts";
import { CHECKSUM_FLAG } from "../../src/ltx/checksum.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";
import { databaseChecksum, encodeFile, header, makePage, snapshotFile } from "../ltx/make.ts";
import { runBinary } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";

const dir = tempDir();
const MiB = 1024 * 1024;
const UP = "../../outside";

function makeBucket(objects: Record<string, Uint8Array | string>): string {
  const bucket = join(dir, crypto.randomUUID());
  mkdirSync(join(bucket, "app"), { recursive: true });
  for (const [name, bytes] of Object.entries(objects)) writeFileSync(join(bucket, "app", name), bytes);
  return bucket;
}

async function restoreFails(bucket: string): Promise<{ code: string; message: string; grewBytes: number; ms: number }> {
  const destination = await openDestination(bucket);
  const output = join(bucket, "out", "app.db");
  const options = { target: { kind: "newest" }, integrity: "quick", force: false } as const;
  Bun.gc(true);
  const before = process.memoryUsage().rss;
  const startedMs = performance.now();
  const error = await restoreDatabase(destination, "app", output, options).then(
    () => null,
    (reason: unknown) => reason,
  );
  const ms = performance.now() - startedMs;
  const grewBytes = process.memoryUsage().rss - before;
  expect(error).toBeInstanceOf(WalsyncError);
  expect(existsSync(output)).toBe(false);
  expect(existsSync(`${output}.tmp-restore`)).toBe(false);
  const { code, message } = error as WalsyncError;
  return { code, message, grewBytes, ms };
}

describe("an LTX file", () => {
  const huge = 0xffff_fff0;

  test("that says it belongs to a database of 256 TiB takes neither memory nor disk", async () => {
    const good = snapshotFile(65536, 2, 7);
    const pages = new Map([[1, makePage(65536, 3)]]);
    const head = { flags: 0, pageSize: 65536, commit: huge, minTxid: 2n, maxTxid: 2n };
    const pre = databaseChecksum({ pageSize: 65536, commit: 2, pages: new Map([[1, makePage(65536, 8)], [2, makePage(65536, 9)]]) }); // biome-ignore format: one line
    const increment = encodeFile(header({ ...head, preApplyChecksum: pre }), pages, CHECKSUM_FLAG | 5n);
    const bucket = makeBucket({ "00000001-00000001.ltx": good, "00000002-00000002.ltx": increment });
    const { code, message, grewBytes, ms } = await restoreFails(bucket);
    expect(code).toBe("E_INTEGRITY");
    expect(message).toContain(String(huge));
    expect(grewBytes).toBeLessThan(64 * MiB);
    expect(ms).toBeLessThan(2000);
  });

  test("of zero pages is the tightest that can be, and is restored", async () => {
    const pages = new Map(Array.from({ length: 64 }, (_, i) => [i + 1, new Uint8Array(65536)]));
    const checksum = databaseChecksum({ pageSize: 65536, commit: 64, pages });
    const bytes = encodeFile(header({ flags: 0, pageSize: 65536, commit: 64 }), pages, checksum);
    expect(bytes.byteLength).toBeLessThan(64 * 400);
    const bucket = makeBucket({ "00000001-00000001.ltx": bytes });
    const output = join(bucket, "out.db");
    const options = { target: { kind: "newest" }, integrity: "none", force: false } as const;
    await restoreDatabase(await openDestination(bucket), "app", output, options);
    expect(statSync(output).size).toBe(64 * 65536);
  });

  test("in a key that names another transaction is not applied", async () => {
    const bucket = makeBucket({ "00000001-00000009.ltx": snapshotFile(512, 2, 1) });
    expect(await restoreFails(bucket)).toMatchObject({ code: "E_LTX" });
  });
});

describe("a manifest", () => {
  const entry = {
    key: "00000001-00000001.ltx",
    kind: "snapshot",
    min_txid: 1,
    max_txid: 1,
    size: 1,
    created_at: "2026-01-01T00:00:00Z",
    sha256: "0".repeat(64),
    pre_checksum: "0".repeat(16),
    post_checksum: "0".repeat(16),
  };
  const manifest = (changes: object, file: object = {}) =>
    JSON.stringify({
      version: 1,
      name: "app",
      lineage: "0".repeat(16),
      page_size: 512,
      updated_at: "2026-01-01T00:00:00Z",
      files: [{ ...entry, ...file }],
      ...changes,
    });

  test.each([
    ["a path out of its folder", manifest({}, { key: `${UP}/00000001-00000001.ltx` })],
    ["an absolute path", manifest({}, { key: "/etc/passwd" })],
    ["lists in lists", "[".repeat(1_000_000)],
    ["a number without end", manifest({ page_size: 1e308 })],
    ["a prototype", `{"__proto__": {"version": 1}, "files": []}`],
    ["no object", "null"],
  ])("with %s is refused as a whole", (_, text) => {
    expect(() => parseManifest(text, "app")).toThrow(expect.objectContaining({ code: "E_INTEGRITY" }));
    expect(({} as { version?: number }).version).toBeUndefined();
  });

  test("(is accepted where nothing is wrong)", () => {
    expect(parseManifest(manifest({}), "app").files).toHaveLength(1);
  });

  test("larger than any real one is not read", async () => {
    const bucket = makeBucket({ "00000001-00000001.ltx": snapshotFile(512, 2, 1), "manifest.json": "" });
    truncateSync(join(bucket, "app", "manifest.json"), 600 * MiB);
    const { code, grewBytes } = await restoreFails(bucket);
    expect(code).toBe("E_INTEGRITY");
    expect(grewBytes).toBeLessThan(64 * MiB);
  });
});

describe("names and keys", () => {
  const bad = [
    "..",
    ".",
    "../app",
    "a/../../b",
    "/etc",
    "a//b",
    "a\\..\\b",
    "a\nb",
    "a\u001b[2J",
    "a\u009b2J",
    "a\u0000",
    "",
    ".tmp-x",
    ".lock-x",
    "x".repeat(300),
    "a/".repeat(600),
    "\ud800",
  ];

  test.each(bad)("%j is neither", (name) => {
    expect(() => requireName(name)).toThrow(expect.objectContaining({ code: "E_USAGE" }));
    expect(keyFault(`${name}/00000001-00000001.ltx`)).not.toBeNull();
    // What somebody else put there under such a key is no database of ours.
    const key = `${name}/00000001-00000001.ltx`;
    const parsed = parseKey(key);
    if (parsed?.is === "ltx") expect(formatKey({ ...parsed, layout: "walsync" })).toBe(key);
    expect(parsed?.is === "ltx" && keyFault(key) === null).toBe(false);
  });

  test.each(["restore", "list"])("%s of a name that leads out of the destination touches nothing", async (command) => {
    const bucket = makeBucket({ "00000001-00000001.ltx": snapshotFile(512, 2, 1) });
    const before = readdirSync(dir).sort();
    const args = command === "restore" ? ["restore", UP, "-o", join(bucket, "o.db"), "-b", bucket] : null;
    const { status, stderr } = await runBinary(args ?? ["list", "-b", `file://${bucket}/${UP}`]);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/^walsync: E_/m);
    expect(readdirSync(dir).sort()).toEqual(before);
  });

  test("watch under such a name ships nothing", async () => {
    const bucket = join(dir, crypto.randomUUID());
    const path = join(dir, "some.db");
    writeFileSync(path, "");
    const { status, stderr } = await runBinary(["watch", `../escape=${path}`, "-b", bucket, "--no-metrics"]);
    expect({ status, stderr }).toMatchObject({ status: 2 });
    expect(existsSync(bucket)).toBe(false);
    expect(existsSync(join(dir, "escape"))).toBe(false);
  });
});

describe("what others named", () => {
  test("reaches a terminal as text: files, folders, and what a server says", async () => {
    const folder = join(dir, "evil\u001b[2J\u009b1m\u202egnp");
    mkdirSync(folder);
    const path = join(folder, "app.db");
    openSync(path, "w");
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () =>
        new Response("<Error><Code>AccessDenied</Code><Message>\u009b31mno \u202e</Message></Error>", { status: 403 }),
    });
    const keys = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test-secret" };
    const outputs = await Promise.all([
      runBinary(["snapshot", path, "-b", join(dir, "bucket")]),
      runBinary(["watch", path, "-b", join(dir, "bucket"), "--no-metrics"]),
      runBinary(["watch", path, "-b", join(dir, "bucket"), "--no-metrics", "--log-format", "json"]),
      runBinary(["list", "-b", "s3://bucket", "--endpoint", `http://127.0.0.1:${server.port}`], keys),
    ]);
    server.stop(true);
    for (const { status, stdout, stderr } of outputs) {
      expect(status).not.toBe(0);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
      expect(stdout + stderr).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e]/);
    }
    expect(outputs[0]!.stderr).toContain("evil\\u001b[2J\\u009b1m\\u202egnp");
    expect(outputs[3]!.stderr).toContain("\\u009b31mno");
  });
});
