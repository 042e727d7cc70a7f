// Goal: compact shows what it would delete and deletes nothing, unless it is told to; then it deletes just that, at a bucket as
// in a directory, and what is left verifies and restores. The compiled program.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Destination } from "../../src/destination/destination.ts";
import { openDestination } from "../../src/destination/open.ts";
import { ChainFolder, stateChecksum } from "../chain/make.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { expectOneError, s3Access, succeed, treeOf, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const HOUR = 3_600_000;
const TWO_HOURS = ["--hourly", "2", "--daily", "0", "--weekly", "0", "--monthly", "0"];
const now = Date.now();
/** A day and a half: an increment every half an hour, a snapshot every six. */
const made = new ChainFolder(join(dir, "made"));
for (let txid = 1n; txid <= 72n; txid++) {
  const timestampMs = now - Number(73n - txid) * (HOUR / 2);
  if (txid > 1n) made.add("app", txid, txid, { timestampMs, preApplyChecksum: stateChecksum(Number(txid - 1n)) });
  if (txid % 12n === 1n) made.add("app", 1n, txid, { timestampMs });
}
const files = readdirSync(join(made.root, "app"));
afterAll(() => server?.stop());

interface Compacted {
  deleted: boolean;
  databases: {
    name: string;
    snapshots: { txid: number; time: string; bytes: number; keep: boolean; reason: string | null }[];
    increments: { kept: number; deleted: number };
    deleted: { files: number; bytes: number };
  }[];
}

describe.each(["directory", "bucket"])("at a %s", (kind) => {
  const isBucket = kind === "bucket";
  const skipped = isBucket && server === null;
  const access = server !== null && isBucket ? s3Access(server) : { flags: [], env: {} };
  const url = isBucket ? "s3://compact/prod" : join(dir, "backups");
  const at = ["-b", url, ...access.flags];
  const options = { cwd: dir, env: access.env };
  let destination: Destination;

  const keys = async () => (await Array.fromAsync(destination.list("app/"), ({ key }) => key)).sort();

  beforeAll(async () => {
    if (skipped) return;
    if (isBucket) await server?.createBucket("compact");
    else cpSync(made.root, url, { recursive: true });
    destination = await openDestination(url, { endpoint: server?.endpoint, region: server?.region, env: access.env });
    if (!isBucket) return;
    for (const name of files) {
      const bytes = readFileSync(join(made.root, "app", name));
      const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
      await destination.write(`app/${name}`, { kind: "bytes", bytes }, { metadata: { sha256 } });
    }
  }, 30_000);
  afterAll(() => destination?.close());

  test.skipIf(skipped)("without --force it says what it would do, and does nothing", async () => {
    const before = await keys();
    const tree = isBucket ? null : treeOf(url);
    const { stdout } = await succeed(["compact", "app", ...at, ...TWO_HOURS, "--point-in-time", "7h"], options);
    expect(stdout).toMatch(/^RESTORE POINT +TIME +AGE +SIZE +ACTION +REASON$/m);
    expect(stdout).toMatch(/^txid:61 .* keep +newest$/m);
    expect(stdout).toMatch(/^txid:25 .* delete$/m);
    expect(stdout).toMatch(/^increments: 23 kept, 48 to delete$/m);
    expect(stdout).toMatch(/^app: would delete \d+ files, [\d.]+ KiB; do it with --force$/m);
    expect(await keys()).toEqual(before);
    if (tree !== null) expect(treeOf(url)).toEqual(tree);
  });

  test.skipIf(skipped)("with the defaults a day of restore points stays", async () => {
    const { stdout } = await succeed(["compact", "app", ...at, "--json"], options);
    const { deleted, databases } = JSON.parse(stdout) as Compacted;
    expect(deleted).toBe(false);
    expect(databases[0]!.increments).toEqual({ kept: 47, deleted: 24 });
    expect(databases[0]!.snapshots.find(({ txid }) => txid === 25)).toMatchObject({ keep: true });
  });

  test.skipIf(skipped)("with --force just that goes, and the rest restores", async () => {
    const args = ["compact", "app", ...at, ...TWO_HOURS];
    const { stdout } = await succeed([...args, "--point-in-time", "1h", "--force", "--json"], options);
    const { deleted, databases } = JSON.parse(stdout) as Compacted;
    expect(deleted).toBe(true);
    const kept = databases[0]!.snapshots.filter(({ keep }) => keep).map(({ txid }) => txid);
    expect(kept).toEqual([61, 49]);
    const expected = [1n, 2n].length; // Two snapshots, and what follows on from the newer one.
    expect(await keys()).toHaveLength(expected + 11);
    await succeed(["restore", "app", "-o", `${kind}.db`, ...at, "--integrity", "none"], options);
    const again = await succeed([...args, "--point-in-time", "1h", "--force"], options);
    expect(again.stdout).toMatch(/^app: nothing to delete$/m);
    const { status, stdout: report } = await walsync(["verify", "app", ...at, "--json"], options);
    // These files were never in a manifest.
    const findings = JSON.parse(report).databases[0].findings as { code: string }[];
    expect([status, findings.map(({ code }) => code).filter((code) => !code.startsWith("sha256"))]).toEqual([
      5,
      ["manifest-missing"],
    ]);
  });

  test.skipIf(skipped)("a policy of nothing, an unknown name, a name beside --all", async () => {
    const nothing = ["--hourly", "0", "--daily", "0", "--weekly", "0", "--monthly", "0"];
    expectOneError(await walsync(["compact", "app", ...at, ...nothing], options), "E_USAGE", /0 in every tier/);
    expectOneError(await walsync(["compact", "nobody", ...at, "--force"], options), "E_NOT_FOUND", /nobody/);
    expectOneError(await walsync(["compact", "app", "--all", ...at], options), "E_USAGE", /a name or --all/);
  });
});
