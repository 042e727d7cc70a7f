// Goal: whenever a process dies, what it left on the disk leads on: nothing that was staged is lost, no txid is used
// twice, and position, page table and outbox agree again. What is damaged is told or given up, never believed.
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { observeDurableSteps } from "../../src/durable.ts";
import { configureLog } from "../../src/log.ts";
import { keptName, stateFolderOf } from "../../src/replication/local-state.ts";
import { tempDir } from "../support/temp.ts";
import { Host } from "./host.ts";

const dir = tempDir();
let hosts: Host[] = [];

afterEach(async () => {
  observeDurableSteps(null);
  const ending = hosts;
  hosts = [];
  for (const host of ending) await host.end();
});
afterAll(() => configureLog({ sink: null }));

async function liveHost(): Promise<Host> {
  const host = new Host(join(dir, crypto.randomUUID()));
  hosts.push(host);
  host.create(512);
  host.insert(20);
  await host.start();
  await host.settle();
  return host;
}

const folderOf = (host: Host) => join(host.stateFolder, readdirSync(host.stateFolder).find((name) => name !== "lock")!);
const pathIn = (host: Host, name: string) => join(folderOf(host), name);
const bucketOf = (host: Host) =>
  new Map(readdirSync(host.bucketFolder).map((name) => [name, Bun.hash(readFileSync(join(host.bucketFolder, name)))]));

/** Everything that survives a crash of the process, as it is now. */
function takeImage(host: Host): string {
  const image = join(dir, crypto.randomUUID());
  cpSync(host.stateFolder, join(image, "state"), { recursive: true });
  cpSync(join(host.bucketFolder, ".."), join(image, "bucket"), { recursive: true });
  return image;
}

function putImage(host: Host, image: string): void {
  for (const [part, target] of [
    ["state", host.stateFolder],
    ["bucket", join(host.bucketFolder, "..")],
  ] as const) {
    rmSync(target, { recursive: true });
    cpSync(join(image, part), target, { recursive: true });
  }
}

/** A few captures, a snapshot, a comparison and a clean stop. */
async function eventfulLife(host: Host): Promise<void> {
  host.insert(5, 800);
  await host.settle();
  host.app.run("delete from item where id > 8");
  host.app.run("vacuum");
  await host.settle();
  await host.replicator.snapshot();
  await host.settle();
  await host.stop();
  host.insert(2);
  host.checkpoint("TRUNCATE");
  host.insert(1);
  await host.start();
  await host.settle();
  await host.stop();
}

describe("a crash", () => {
  test("before any durable step loses nothing, and uses no txid twice", async () => {
    let steps = 0;
    observeDurableSteps(() => void steps++);
    await eventfulLife(await liveHost());
    expect(steps).toBeGreaterThan(30);
    let crashes = 0;
    for (let crashAt = 1; crashAt <= steps; crashAt++) {
      const host = await startedHost(crashAt);
      if (host.image === null) continue;
      crashes++;
      putImage(host.host, host.image);
      const before = bucketOf(host.host);
      await host.host.start();
      await host.host.settle();
      const after = bucketOf(host.host);
      for (const [name, hash] of before) if (name.endsWith(".ltx")) expect(after.get(name)).toBe(hash);
      expect(Buffer.compare(await host.host.restored(), host.host.content())).toBe(0);
      expect(readdirSync(folderOf(host.host)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
      expect(readdirSync(pathIn(host.host, "outbox"))).toEqual([]);
      await host.host.end();
      hosts = [];
    }
    expect(crashes).toBeGreaterThan(30);
  }, 30_000);

  async function startedHost(crashAt: number): Promise<{ host: Host; image: string | null }> {
    observeDurableSteps(null);
    const host = await liveHost();
    let image: string | null = null;
    let step = 0;
    observeDurableSteps(() => {
      if (++step === crashAt) image = takeImage(host);
    });
    await eventfulLife(host);
    observeDurableSteps(null);
    return { host, image };
  }

  test("leaves files half written: they are removed, and counted for nothing", async () => {
    const host = await liveHost();
    await host.stop();
    const outbox = pathIn(host, "outbox");
    writeFileSync(join(outbox, "0000000000000002-0000000000000002.1.ltx.tmp"), "half");
    writeFileSync(pathIn(host, "position.json.tmp"), "{");
    writeFileSync(pathIn(host, "pages.crc.tmp"), "half");
    host.insert();
    await host.start();
    await host.settle();
    expect(host.txid).toBe(2n);
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
    expect(readdirSync(outbox)).toEqual([]);
  });
});

describe("damaged state", () => {
  test.each([
    ["cut off", (path: string) => truncateSync(path, 100)],
    ["empty", (path: string) => truncateSync(path, 0)],
    ["of another kind", (path: string) => writeFileSync(path, '{"version": 1}')],
    [
      "changed in one bit of a checksum",
      (path: string) => edit(path, /(?<="checksum": "0x)./, (digit) => flipped(digit)),
    ],
    ["changed in its place in the WAL", (path: string) => edit(path, /(?<="walOffset": )./, (digit) => flipped(digit))],
  ])("a position that is %s is an error that says what to do", async (_, damage) => {
    const host = await liveHost();
    await host.stop();
    damage(pathIn(host, "position.json"));
    host.log.length = 0;
    await host.start();
    expect(host.replicator.position).toBeNull();
    expect(host.log.join("\n")).toMatch(/E_INTEGRITY.*position\.json.*Delete the folder/s);
    // And doing that helps.
    await host.stop();
    rmSync(folderOf(host), { recursive: true });
    host.insert();
    await host.start();
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test.each([
    ["missing", (path: string) => rmSync(path)],
    ["cut off", (path: string) => truncateSync(path, 40)],
    ["empty", (path: string) => truncateSync(path, 0)],
    ["wrong in one page", (path: string) => flip(path, 60)],
    ["wrong in its size", (path: string) => flip(path, 8)],
    ["of another page size", (path: string) => flip(path, 5)],
    ["noise", (path: string) => writeFileSync(path, crypto.getRandomValues(new Uint8Array(500)))],
  ])("a page table that is %s is given up: the database is compared, or sent whole", async (_, damage) => {
    const host = await liveHost();
    await host.stop();
    damage(pathIn(host, "pages.crc"));
    host.insert();
    await host.start();
    await host.settle();
    host.insert();
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
    for (const txid of [1n, host.txid]) await host.restored({ kind: "txid", txid });
  });

  test("a file of the outbox that is damaged is not shipped", async () => {
    const host = await liveHost();
    await host.stop();
    const away = `${host.bucketFolder}.away`;
    cpSync(host.bucketFolder, away, { recursive: true });
    await host.start();
    rmSync(host.bucketFolder, { recursive: true });
    writeFileSync(host.bucketFolder, "in the way");
    host.insert();
    await host.until("something waits", () => host.replicator.waitingFiles > 0);
    await host.replicator.stop(AbortSignal.abort());
    rmSync(host.bucketFolder);
    cpSync(away, host.bucketFolder, { recursive: true });
    const file = readdirSync(pathIn(host, "outbox")).find((name) => name.startsWith("0000000000000002-"));
    flip(join(pathIn(host, "outbox"), file!), 150);
    // A file that the position does not know of yet is read when the state is opened.
    host.log.length = 0;
    await host.start();
    expect(host.log.join("\n")).toContain("E_LTX");
    expect(readdirSync(host.bucketFolder).filter((name) => name.endsWith(".ltx"))).toHaveLength(1);
  });

  test("the state of another database in its place: found out by its content", async () => {
    const host = await liveHost();
    const other = await liveHost();
    other.insert(30, 400);
    await other.settle();
    await host.stop();
    await other.stop();
    rmSync(host.stateFolder, { recursive: true });
    cpSync(other.stateFolder, host.stateFolder, { recursive: true });
    host.insert();
    await host.start();
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });
});

describe("where the state is", () => {
  test("beside the database, or apart for each path below a state directory", () => {
    expect(stateFolderOf("/data/app.db", undefined)).toBe("/data/.app.db-walsync");
    const [a, b] = ["/a/app.db", "/b/app.db"].map((path) => stateFolderOf(path, "/state"));
    expect(a).toMatch(/^\/state\/app\.db-[0-9a-f]{12}$/);
    expect(a).not.toBe(b);
    expect(stateFolderOf("/a/../a/app.db", "/state")).toBe(a!);
  });

  test("the name a database has at a destination is kept there", async () => {
    const host = await liveHost();
    await host.stop();
    const destination = JSON.parse(readFileSync(pathIn(host, "position.json"), "utf8")).destination;
    expect(keptName(host.stateFolder, destination)).toBe("app");
    expect(keptName(host.stateFolder, "s3://elsewhere")).toBeNull();
    expect(keptName(join(dir, "nowhere"), destination)).toBeNull();
  });

  test("is for its owner alone", async () => {
    const host = await liveHost();
    const others = Bun.spawnSync(["find", host.stateFolder, "-perm", "/077"]).stdout.toString();
    expect(others).toBe("");
    expect(existsSync(host.stateFolder)).toBe(true);
  });
});

function edit(path: string, from: RegExp, to: (found: string) => string): void {
  const text = readFileSync(path, "utf8");
  expect(text).toMatch(from);
  writeFileSync(path, text.replace(from, to));
}

const flipped = (digit: string) => String.fromCharCode(digit.charCodeAt(0) ^ 1);

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 4;
  writeFileSync(path, bytes);
}
