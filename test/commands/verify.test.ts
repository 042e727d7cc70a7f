// Goal: verify says ok where all is well, and ends with status 5 and one line for each thing that is wrong; --fix clears
// entries of missing files and nothing else. The compiled program, against an S3 server and a directory.
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import type { Finding } from "../../src/upkeep/findings.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { expectOneError, s3Access, succeed, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
afterAll(() => server?.stop());

interface Report {
  name: string;
  layout: string;
  ok: boolean;
  files: number;
  bytes: number;
  points: number;
  proven: number;
  findings: Finding[];
}

describe.each(["directory", "bucket"])("at a %s", (kind) => {
  const isBucket = kind === "bucket";
  const access = server !== null && isBucket ? s3Access(server) : { flags: [], env: {} };
  const url = isBucket ? "s3://verify/prod" : join(dir, "backups");
  const options = { cwd: dir, env: access.env };
  const at = ["-b", url, ...access.flags];
  let destination: Destination;
  const skipped = isBucket && server === null;

  async function reportsOf(...args: string[]): Promise<{ status: number; databases: Report[] }> {
    const { status, stdout, stderr } = await walsync(["verify", ...args, ...at, "--json"], options);
    expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    if (status !== 0) expect(stderr).toMatch(/^walsync: E_INTEGRITY /m);
    return { status, databases: (JSON.parse(stdout) as { databases: Report[] }).databases };
  }

  async function overwrite(key: string, change: (bytes: Buffer) => Buffer): Promise<() => Promise<void>> {
    const body = (await destination.read(key))!;
    const bytes = Buffer.concat(await Array.fromAsync(body.chunks, (chunk) => Buffer.from(chunk)));
    const put = async (content: Buffer) => {
      await destination.write(key, { kind: "bytes", bytes: content }, { metadata: body.metadata });
    };
    await put(change(Buffer.from(bytes)));
    return () => put(bytes);
  }

  beforeAll(async () => {
    if (skipped) return;
    if (isBucket) await server?.createBucket("verify");
    for (const name of ["app", "tenants/7"]) {
      const path = join(dir, `${kind}-${name.replace("/", "-")}.db`);
      const app = new Database(path, { create: true });
      app.run("pragma journal_mode = wal");
      app.run("create table item (id integer primary key, body)");
      for (let i = 0; i < 3; i++) {
        app.run("insert into item (body) values (randomblob(9000))");
        await succeed(["snapshot", `${name}=${path}`, ...at], options);
      }
      app.close();
    }
    const { endpoint, region } = server ?? {};
    destination = await openDestination(url, { endpoint, region, env: access.env });
  }, 30_000);
  afterAll(() => destination?.close());

  test.skipIf(skipped)("what is in order is ok, in text and as JSON, whole and quick", async () => {
    expect((await succeed(["verify", "app", ...at, "-q"], options)).stdout).toMatch(
      /^app: ok, 5 files, [\d.]+ KiB, 3 of 3 restore points proven\n$/,
    );
    expect((await succeed(["verify", "app", "--quick", ...at], options)).stdout).toContain("contents not read");
    const { status, databases } = await reportsOf("--all");
    expect(status).toBe(0);
    expect(databases.map(({ name }) => name)).toEqual(["app", "tenants/7"]);
    for (const database of databases) {
      expect(database).toMatchObject({ layout: "walsync", ok: true, files: 5, points: 3, proven: 3, findings: [] });
    }
  });

  test.skipIf(skipped)(
    "a flipped bit, a lost file and a swapped one each end in status 5, with their keys",
    async () => {
      const key = "app/00000002-00000002.ltx";
      const restoreBytes = await overwrite(key, (bytes) => {
        bytes[bytes.length >> 1]! ^= 4;
        return bytes;
      });
      const flipped = await walsync(["verify", "app", ...at, "-q"], options);
      expect(flipped.status).toBe(5);
      expect(flipped.stdout).toMatch(new RegExp(`^error ${key} file-damaged: .+$`, "m"));
      expect(flipped.stdout).toMatch(/^app: NOT ok, /m);
      await restoreBytes();

      const undo = await overwrite(key, () => Buffer.alloc(0));
      await destination.remove([key]);
      const lost = await reportsOf("app");
      expect(lost.status).toBe(5);
      expect(lost.databases[0]!.findings.map((finding) => [finding.key, finding.code])).toContainEqual([
        key,
        "manifest-orphan",
      ]);
      await undo();
      expect((await reportsOf("app")).status).toBe(0);
    },
  );

  test.skipIf(skipped)(
    "a missing manifest is a finding; entries of missing files go with --fix, and only they",
    async () => {
      const manifest = "tenants/7/manifest.json";
      const orphan = "tenants/7/00000001-00000002.ltx";
      const withManifest = await overwrite(manifest, (bytes) => bytes);
      await destination.remove([manifest]);
      expect((await reportsOf("tenants/7", "--fix")).databases[0]!.findings.map(({ code }) => code)).toContain(
        "manifest-missing",
      );
      expect(await destination.head(manifest)).toBeNull();
      await withManifest();

      await destination.remove([orphan]);
      const { status, stderr } = await walsync(["verify", "tenants/7", ...at, "-q"], options);
      expect(status).toBe(5);
      expect(stderr).toContain("hint: Only the index is wrong. Clear it with: walsync verify --fix");
      const fixed = await succeed(["verify", "tenants/7", "--fix", ...at, "-q"], options);
      expect(fixed.stdout).toMatch(new RegExp(`^note ${orphan} manifest-orphan: .*removed$`, "m"));
      const { status: after, databases } = await reportsOf("tenants/7");
      expect([after, databases[0]!.findings]).toEqual([0, []]);
    },
  );

  test.skipIf(skipped)("an unknown name, a name beside --all, and neither", async () => {
    expectOneError(await walsync(["verify", "nobody", ...at], options), "E_NOT_FOUND", /nobody/);
    expectOneError(await walsync(["verify", "app", "--all", ...at], options), "E_USAGE", /a name or --all/);
    expectOneError(await walsync(["verify", ...at], options), "E_USAGE", /a name or --all/);
  });
});
