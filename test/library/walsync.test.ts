// Goal: what the library does at a destination is what the command does; every refusal is a WalsyncError with a stable code, and
// every call ends with the reason of its signal.
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { WalSync, WalsyncError } from "../../src/library/index.ts";
import { makeKeys } from "../encryption/make.ts";
import { contentOf } from "../support/databases.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { addRow, codeOf, makeDatabase, rowsOf } from "./make.ts";

const dir = tempDir();
const bucket = join(dir, "bucket");
const walsync = new WalSync(`file://${bucket}`);

describe("a destination", () => {
  const path = join(dir, "app.db");
  const app = makeDatabase(dir, "app.db", 50);
  afterAll(() => app.close());
  const states = new Map<bigint, Uint8Array>();

  test("gets snapshots, lists them, and gives every one of them back", async () => {
    const stages = new Set<string>();
    for (let i = 0; i < 3; i++) {
      const { name, txid } = await walsync.snapshot(path, { onProgress: ({ stage }) => stages.add(stage) });
      expect(name).toBe("app");
      states.set(txid, contentOf(path));
      addRow(app);
    }
    expect([...stages]).toContain("read");
    const [listed] = await walsync.list();
    expect(listed).toMatchObject({ name: "app", layout: "walsync", txid: [...states.keys()].at(-1)! });
    expect(listed!.newest!.getTime()).toBeGreaterThanOrEqual(listed!.oldest!.getTime());
    for (const [txid, content] of states) {
      const progress: number[] = [];
      const restored = await walsync.restore("app", join(dir, `restored-${txid}.db`), {
        txid,
        onProgress: ({ done, total }) => progress.push(done / total),
      });
      expect(restored).toMatchObject({ name: "app", txid, path: join(dir, `restored-${txid}.db`) });
      expect(progress.at(-1)).toBe(1);
      expect(contentOf(restored.path)).toEqual(content);
    }
  });

  test("is restored to a moment, given as a Date or as a text", async () => {
    const [first] = states.keys();
    const [listed] = await walsync.list();
    const after = new Date(listed!.oldest!.getTime());
    for (const [i, pointInTime] of [after, after.toISOString(), `txid:${first}`].entries()) {
      const { txid } = await walsync.restore("app", join(dir, `moment-${i}.db`), { pointInTime });
      expect(txid).toBe(first!);
    }
  });

  test("is proven, and damage is a finding and no error", async () => {
    expect(await walsync.verify("app")).toMatchObject({ ok: true, name: "app" });
    expect(await walsync.verify("app", { quick: true })).toMatchObject({ ok: true, proven: 0 });
    const damaged = new WalSync(join(dir, "damaged"));
    await damaged.snapshot(path);
    const [file] = readdirSync(join(dir, "damaged/app")).filter((name) => name.endsWith(".ltx"));
    truncateSync(join(dir, "damaged/app", file!), 200);
    const { ok, findings } = await damaged.verify("app");
    expect(ok).toBe(false);
    expect(findings).toContainEqual(expect.objectContaining({ code: "file-damaged", severity: "error" }));
    expect(await codeOf(() => damaged.restore("app", join(dir, "no.db")))).toBe("E_LTX");
    expect(existsSync(join(dir, "no.db"))).toBe(false);
    // Of which a list reads the header.
    truncateSync(join(dir, "damaged/app", file!), 60);
    await damaged.snapshot(path, { name: "other" });
    const [app, other] = await damaged.list();
    expect(app).toMatchObject({ name: "app", oldest: null, newest: null, error: { code: "E_LTX" } });
    expect(app!.error).toBeInstanceOf(WalsyncError);
    expect(other).toMatchObject({ name: "other", newest: expect.any(Date), error: null });
  });

  test("is compacted only with force, and what is kept can be restored", async () => {
    const retention = { hourly: 1, daily: 0, weekly: 0, monthly: 0, pointInTimeMs: 0 };
    const before = await walsync.list();
    const plan = await walsync.compact("app", { retention });
    expect(plan).toMatchObject({ name: "app", deleted: false });
    expect(plan.deletedFiles).toBeGreaterThan(0);
    expect(await walsync.list()).toEqual(before);
    const done = await walsync.compact("app", { retention, force: true });
    expect(done).toEqual({ ...plan, deleted: true });
    const [listed] = await walsync.list();
    expect(listed!.snapshots).toBe(plan.snapshots.filter(({ reason }) => reason !== null).length);
    expect(await walsync.verify("app")).toMatchObject({ ok: true });
  });

  test("is encrypted for recipients, and read with an identity", async () => {
    const { recipient, identityFile } = await makeKeys(join(dir, "key.txt"));
    const encrypted = join(dir, "encrypted");
    const writer = new WalSync(encrypted, { recipients: [recipient] });
    await writer.snapshot(path, { name: "app" });
    expect(await codeOf(() => writer.restore("app", join(dir, "decrypted.db")))).toBe("E_IDENTITY");
    const reader = new WalSync(encrypted, { identity: identityFile });
    const restored = await reader.restore("app", join(dir, "decrypted.db"));
    expect(contentOf(restored.path)).toEqual(contentOf(path));
    expect(await reader.verify("app")).toMatchObject({ ok: true, findings: [] });
    expect(await codeOf(() => reader.snapshot(path))).toBe("E_USAGE");
    expect(await codeOf(() => reader.watch(path))).toBe("E_USAGE");
    expect(await codeOf(async () => new WalSync(encrypted, { recipients: [] }))).toBe("E_USAGE");
  });

  test("knows a database by the name that it is given, and by that one afterwards", async () => {
    const other = new WalSync(join(dir, "named"), { stateDir: join(dir, "named-state") });
    expect(await other.snapshot(path, { name: "shop/main" })).toMatchObject({ name: "shop/main" });
    expect(await other.snapshot(path)).toMatchObject({ name: "shop/main" });
  });
});

describe("what is refused has its code", () => {
  const missing = join(dir, "missing.db");
  const text = join(dir, "text.db");
  writeFileSync(text, "no database, but long enough to be looked at by those who look at files".repeat(4));
  const options = (given: object) => new WalSync(bucket, given as never);

  test.each<[string, string, () => unknown]>([
    ["no address", "E_USAGE", () => new WalSync(undefined as never)],
    ["an address that is no text", "E_USAGE", () => new WalSync(7 as never)],
    ["half of the credentials", "E_USAGE", () => options({ credentials: { accessKeyId: "a" } })],
    ["a name that is no text", "E_USAGE", () => walsync.restore(7 as never, missing)],
    ["a name that is none, to verify", "E_USAGE", () => walsync.verify(undefined as never)],
    ["an output that is no text", "E_USAGE", () => walsync.restore("app", undefined as never)],
    ["a path that is no text", "E_USAGE", () => walsync.snapshot(undefined as never)],
    ["a path that is no text, to watch", "E_USAGE", () => walsync.watch([undefined as never])],
    ["an address that is none", "E_USAGE", () => new WalSync("https://example.com/bucket")],
    ["an option that is none", "E_USAGE", () => options({ enpoint: "http://127.0.0.1:1" })],
    ["a setting that is the command's own", "E_USAGE", () => options({ maxPinned: 1 })],
    ["an option of another type", "E_USAGE", () => options({ endpoint: 7 })],
    ["a choice that is none", "E_USAGE", () => options({ layout: "other" })],
    ["an unknown option of watch", "E_USAGE", () => walsync.watch(text, { snapshotInterval: 1 } as never)],
    ["a time below zero", "E_USAGE", () => walsync.watch(text, { snapshotIntervalMs: -1 })],
    ["a time that is no number", "E_USAGE", () => walsync.watch(text, { mergeMs: [Number.NaN] })],
    ["a retention that keeps nothing", "E_USAGE", () => walsync.compact("app", { retention: NOTHING })],
    ["an unknown tier", "E_USAGE", () => walsync.compact("app", { retention: { yearly: 1 } as never })],
    ["two moments at once", "E_USAGE", () => walsync.restore("app", missing, { txid: 1, pointInTime: "2026-01-01" })],
    ["a mistyped moment", "E_USAGE", () => walsync.restore("app", missing, { pointintime: "2026-01-01" } as never)],
    ["a moment that is none", "E_USAGE", () => walsync.restore("app", missing, { pointInTime: "yesterday" })],
    ["a Date that is none", "E_USAGE", () => walsync.restore("app", missing, { pointInTime: new Date("no") })],
    ["a txid that is none", "E_USAGE", () => walsync.restore("app", missing, { txid: 1.5 })],
    ["an output that is there", "E_OUTPUT_EXISTS", () => walsync.restore("app", text)],
    ["a name that nobody has", "E_NOT_FOUND", () => walsync.restore("nobody", missing)],
    ["a name that nobody has, to verify", "E_NOT_FOUND", () => walsync.verify("nobody")],
    ["a name that nobody has, to compact", "E_NOT_FOUND", () => walsync.compact("nobody")],
    ["a moment before the first", "E_NOT_FOUND", () => walsync.restore("app", missing, { pointInTime: "2001-01-01" })],
    ["a database that is not there", "E_DATABASE", () => walsync.snapshot(missing)],
    ["a file that is no database", "E_DATABASE", () => walsync.snapshot(text)],
    ["a file that is no database, to watch", "E_DATABASE", () => walsync.watch(text)],
  ])("%s: %s", async (_what, code, action) => {
    expect(await codeOf(async () => await action())).toBe(code);
    expect(existsSync(missing)).toBe(false);
  });

  test("and a message of its own; a mistyped option is told what it may have been", () => {
    const attempt = () => options({ forcepathstyle: true });
    expect(attempt).toThrow(WalsyncError);
    expect(attempt).toThrow("forcepathstyle: no such option");
    try {
      attempt();
    } catch (error) {
      expect((error as WalsyncError).hint).toBe("Did you mean forcePathStyle?");
    }
  });

  test("a bucket without credentials is refused at once", () => {
    const saved = process.env.AWS_ACCESS_KEY_ID;
    delete process.env.AWS_ACCESS_KEY_ID;
    try {
      expect(() => new WalSync("s3://bucket")).toThrow(expect.objectContaining({ code: "E_REFUSED" }));
    } finally {
      if (saved !== undefined) process.env.AWS_ACCESS_KEY_ID = saved;
    }
  });
});

describe("a signal", () => {
  const reason = new Error("enough");

  test.each<[string, (signal: AbortSignal) => Promise<unknown>]>([
    ["list", (signal) => walsync.list({ signal })],
    ["snapshot", (signal) => walsync.snapshot(join(dir, "app.db"), { signal })],
    ["restore", (signal) => walsync.restore("app", join(dir, "aborted.db"), { signal })],
    ["verify", (signal) => walsync.verify("app", { signal })],
    ["compact", (signal) => walsync.compact("app", { signal })],
    ["watch", (signal) => walsync.watch(join(dir, "app.db"), { signal })],
  ])("that aborted before %s is its end", async (_what, action) => {
    await expect(action(AbortSignal.abort(reason))).rejects.toBe(reason);
  });

  test("in the middle ends a snapshot, a restore and a proof with its reason, and nothing is left behind", async () => {
    using _large = makeDatabase(dir, "large.db", 2000);
    const path = join(dir, "large.db");
    const abortAtOnce = () => {
      const controller = new AbortController();
      return { signal: controller.signal, onProgress: () => controller.abort(reason) };
    };
    await expect(walsync.snapshot(path, abortAtOnce())).rejects.toBe(reason);
    // Nothing is locked: the next one goes on.
    const { txid } = await walsync.snapshot(path);
    await expect(walsync.restore("large", join(dir, "aborted.db"), abortAtOnce())).rejects.toBe(reason);
    await expect(walsync.verify("app", abortAtOnce())).rejects.toBe(reason);
    expect(readdirSync(dir).filter((name) => name.startsWith("aborted"))).toEqual([]);
    expect(await walsync.restore("large", join(dir, "whole.db"))).toMatchObject({ txid });
    expect(rowsOf(join(dir, "whole.db"))).toBe(2000);
  });
});

test("a bucket is reached with an endpoint and credentials of the program's own, which show nowhere", async () => {
  const server = await startVersitygw();
  if (server === null) return;
  try {
    await server.createBucket("backups");
    const { endpoint, accessKeyId, secretAccessKey } = server;
    const at = (url: string, secret = secretAccessKey) =>
      new WalSync(url, { endpoint, credentials: { accessKeyId, secretAccessKey: secret } });
    const bucketed = at("s3://backups/prod");
    await bucketed.snapshot(join(dir, "app.db"));
    expect((await bucketed.list()).map(({ name }) => name)).toEqual(["app"]);
    await bucketed.restore("app", join(dir, "from-bucket.db"));
    expect(contentOf(join(dir, "from-bucket.db"))).toEqual(contentOf(join(dir, "app.db")));
    expect(await codeOf(() => at("s3://backups", "wrong-secret").list())).toBe("E_REFUSED");
    expect(await codeOf(() => at("s3://elsewhere").list())).toBe("E_REFUSED");
    const error = await at("s3://backups", "wrong-secret").list().catch(String);
    expect(error).not.toContain("wrong-secret");
    rmSync(join(dir, "from-bucket.db"));
  } finally {
    await server.stop();
  }
}, 20_000);

const NOTHING = { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
