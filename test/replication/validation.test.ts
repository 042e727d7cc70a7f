// Goal: what goes wrong behind everybody's back is found out and mended: pages that changed behind the WAL, objects that
// vanished from the destination, files that were damaged in the outbox. It is told, each time.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { observeDurableSteps } from "../../src/durable.ts";
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

async function liveHost(validationIntervalMs = 0): Promise<Host> {
  const host = new Host(join(dir, crypto.randomUUID()));
  hosts.push(host);
  host.create();
  host.insert(40, 3000);
  await host.start({ validationIntervalMs });
  await host.settle();
  return host;
}

const objectsOf = (host: Host) =>
  readdirSync(host.bucketFolder)
    .filter((name) => name.endsWith(".ltx"))
    .sort();
const errorsOf = (host: Host) => host.log.filter((line) => line.includes(" error "));
const outboxOf = (host: Host) => {
  const [folder] = readdirSync(host.stateFolder).filter((name) => name !== "lock");
  return join(host.stateFolder, folder!, "outbox");
};

/** Changes bytes of a database file as a failing disk does, from a process of its own: ours must not close the file. */
function damagePage(path: string, offset: number): void {
  const script = `
    import { openSync, writeSync } from "node:fs";
    writeSync(openSync(process.argv[1], "r+"), Buffer.from("rotten"), 0, 6, ${offset});
  `;
  expect(Bun.spawnSync([process.execPath, "-e", script, path]).exitCode).toBe(0);
}

describe("validation", () => {
  test("finds a page that changed behind the WAL, tells it, and ships it", async () => {
    const host = await liveHost(100);
    host.insert();
    await host.settle();
    // Everything is copied back: the file alone is the database.
    await Bun.sleep(520);
    await host.settle();
    const { txid } = host;
    damagePage(host.path, 20 * 4096 + 2000);
    await host.until("the difference is shipped", () => host.txid > txid && host.replicator.waitingFiles === 0);
    expect(errorsOf(host).join("\n")).toMatch(/changed behind the WAL.*E_INTEGRITY/);
    expect(host.logged("reason=checksum-differs")).toBe(true);
    const fresh = new Database(host.path, { readonly: true });
    const content = fresh.serialize();
    fresh.close();
    expect(Buffer.compare(await host.restored({ kind: "newest" }), content)).toBe(0);
    // Told once, and then it is as it is.
    const { length } = errorsOf(host);
    await Bun.sleep(150);
    await host.settle();
    expect(errorsOf(host)).toHaveLength(length);
  });

  test.each(["the newest", "one in the middle", "all"])("finds that %s of the objects is missing", async (which) => {
    const host = await liveHost(100);
    for (let i = 0; i < 3; i++) {
      host.insert();
      await host.settle();
    }
    const names = objectsOf(host);
    const lost = which === "all" ? names : [which === "the newest" ? names.at(-1)! : names.at(-2)!];
    for (const name of lost) rmSync(join(host.bucketFolder, name));
    await host.until("a snapshot is there", () => objectsOf(host).some((name) => /^0*1-0*4\.ltx$/.test(name)));
    expect(errorsOf(host).join("\n")).toMatch(
      /files are missing at the destination.*found some missing: (files-missing|chain-gap)/,
    );
    host.insert();
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });

  test("of what is in order says so, and ships nothing", async () => {
    const host = await liveHost(60);
    const objects = objectsOf(host);
    await host.until("it was validated", () => host.log.filter((line) => line.includes("validated")).length > 1);
    expect(objectsOf(host)).toEqual(objects);
    expect(errorsOf(host)).toEqual([]);
  });
});

describe("an outbox", () => {
  /** A host that stopped with increments that nobody acknowledged, known to its position or not. */
  async function stoppedHost(isKnown: boolean): Promise<Host> {
    const host = await liveHost();
    const away = `${host.bucketFolder}.away`;
    cpSync(host.bucketFolder, away, { recursive: true });
    rmSync(host.bucketFolder, { recursive: true });
    writeFileSync(host.bucketFolder, "in the way");
    for (let i = 0; i < 3; i++) {
      host.insert();
      host.look();
    }
    await host.until("files wait", () => host.replicator.waitingFiles >= 3);
    if (isKnown) await host.replicator.requests.snapshot();
    await host.replicator.stop(AbortSignal.abort());
    rmSync(host.bucketFolder);
    cpSync(away, host.bucketFolder, { recursive: true });
    return host;
  }

  test.each<[string, boolean, (path: string) => void]>([
    ["a bit flipped", false, flip],
    ["a bit flipped, in a file that the position knows", true, flip],
    ["cut off", true, (path) => truncateSync(path, 200)],
    ["empty", false, (path) => truncateSync(path, 0)],
    ["gone", true, (path) => rmSync(path)],
  ])("with a file that is %s: told, never shipped, and the chain goes on", async (_, isKnown, damage) => {
    const host = await stoppedHost(isKnown);
    const name = readdirSync(outboxOf(host)).find((one) => one.startsWith("0000000000000003-"))!;
    damage(join(outboxOf(host), name));
    host.insert();
    host.log.length = 0;
    await host.start();
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
    for (const object of objectsOf(host)) {
      const txid = BigInt(object.split("-")[1]!.replace(".ltx", ""));
      await host.restored({ kind: "txid", txid });
    }
    if (errorsOf(host).length > 0) expect(errorsOf(host).join("\n")).toMatch(/outbox is damaged|files are missing/);
    host.insert();
    await host.settle();
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
  });
});

test("a crash between a change of the page size and its snapshot: the snapshot is still owed", async () => {
  const host = await liveHost();
  await host.stop();
  host.app.run("pragma journal_mode = delete");
  host.app.run("pragma page_size = 512");
  host.app.run("vacuum");
  host.app.run("pragma journal_mode = wal");
  // The process dies when the increment is staged, and its snapshot is only begun.
  const image = `${host.stateFolder}.image`;
  observeDurableSteps((_, path) => {
    if (existsSync(image) || !path.includes("0000000000000001-0000000000000002")) return;
    cpSync(host.stateFolder, image, { recursive: true });
  });
  await host.start();
  await host.settle();
  await host.stop();
  observeDurableSteps(null);
  rmSync(host.stateFolder, { recursive: true });
  cpSync(image, host.stateFolder, { recursive: true });
  rmSync(join(host.bucketFolder, "00000001-00000002.ltx"));
  await host.start();
  await host.until("the snapshot is there", () => objectsOf(host).length === 3);
  await host.settle();
  expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
});

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[150]! ^= 4;
  writeFileSync(path, bytes);
}
