// Goal: whenever a process dies, what it left on the disk leads on: nothing that was staged is lost, no txid is used
// twice, and position, page table and outbox agree again. What is damaged is told or given up, never believed.
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { WALSYNC_RULES } from "../../src/chain/layout-rules.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { configureLog } from "../../src/log.ts";
import { keptName, LocalState, stateFolderOf } from "../../src/replication/local-state.ts";
import type { OutboxFile } from "../../src/replication/outbox.ts";
import { writePosition } from "../../src/replication/position.ts";
import { randomFrom } from "../ltx/make.ts";
import { tempDir } from "../support/temp.ts";
import { Host } from "./host.ts";
import {
  checksumOf,
  DurableTable,
  expectAgreement,
  expectTable,
  folderOf,
  Life,
  leftovers,
  NAME,
  outboxOf,
  PAGE_SIZE,
  sha256Of,
  statefulLife,
  tear,
  URL,
  WORK,
} from "./make.ts";

const dir = tempDir();
const seed = Number(process.env.WALSYNC_SEED ?? Math.floor(Math.random() * 2 ** 30));
let hosts: Host[] = [];
let lives: Life[] = [];

afterEach(async () => {
  observeDurableSteps(null);
  const ending = hosts;
  hosts = [];
  for (const host of ending) await host.end();
  for (const life of lives) life.end();
  lives = [];
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

const folderIn = (host: Host) => join(host.stateFolder, readdirSync(host.stateFolder).find((name) => name !== "lock")!);
const pathIn = (host: Host, name: string) => join(folderIn(host), name);
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
  await host.replicator.requests.snapshot();
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
  test(`before any durable step loses nothing, and uses no txid twice, seed ${seed}`, async () => {
    const host = await liveHost();
    const images: string[] = [];
    let steps = seed;
    // Each third, as each costs a restart and a restore; the next test takes them all.
    observeDurableSteps(() => {
      if (steps++ % 3 === 0) images.push(takeImage(host));
    });
    await eventfulLife(host);
    observeDurableSteps(null);
    expect(images.length).toBeGreaterThan(10);
    for (const image of images) {
      putImage(host, image);
      const before = bucketOf(host);
      await host.start();
      await host.settle();
      const after = bucketOf(host);
      for (const [name, hash] of before) if (name.endsWith(".ltx")) expect(after.get(name)).toBe(hash);
      expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
      await host.stop();
      expect(leftovers(host.stateFolder)).toEqual([]);
      expect(readdirSync(pathIn(host, "outbox"))).toEqual([]);
    }
  }, 10_000);

  test.each(["kept what was written", "torn what was not synced"])(
    `before any durable step, and the disk has %s: position, table and outbox agree, seed ${seed}`,
    async (disk) => {
      const life = new Life(join(dir, crypto.randomUUID()));
      const random = randomFrom(seed);
      const tables = new DurableTable(join(life.folder, "pages.crc"));
      const faults: unknown[] = [];
      let steps = 0;
      const crash: Parameters<typeof observeDurableSteps>[0] = (step, path) => {
        observeDurableSteps(null);
        const image = join(dir, crypto.randomUUID());
        try {
          steps++;
          tables.before(step, path);
          cpSync(life.stateFolder, image, { recursive: true });
          if (disk.startsWith("torn")) tear(folderOf(image), tables.synced, random);
          expectAgreement(life, image, !disk.startsWith("torn"));
        } catch (error) {
          faults.push(new Error(`crash ${steps}, before ${step} ${basename(path)}`, { cause: error }));
        }
        rmSync(image, { recursive: true, force: true });
        observeDurableSteps(crash);
      };
      observeDurableSteps(crash);
      await statefulLife(life);
      observeDurableSteps(null);
      life.end();
      if (faults.length > 0) throw faults[0];
      expect(steps).toBeGreaterThan(60);
    },
  );

  test.each(WORK)("and a disk that refuses any one step of $name: tried again it comes to the same", async (work) => {
    let life = new Life(join(dir, crypto.randomUUID()));
    let refusedAt: number | null = 0;
    let steps = 0;
    for (let failAt = 1; refusedAt !== null; failAt++) {
      if (work.name === "begin") {
        life.end();
        life = new Life(join(dir, crypto.randomUUID()));
      } else if (life.state.position === null) await life.begin();
      life.insert(2);
      if (work.name === "ship") await life.capture();
      let step = 0;
      refusedAt = null;
      observeDurableSteps(() => {
        if (++step !== failAt) return;
        refusedAt = step;
        steps++;
        throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
      });
      try {
        await work.run(life);
      } catch (error) {
        expect(error).toMatchObject({ code: "E_DISK" });
        expect(readdirSync(join(life.folder, "outbox")).sort()).toEqual([...outboxOf(life.state).keys()].sort());
        if (work.retry === "reopened") life.reopen();
        await work.run(life);
      }
      observeDurableSteps(null);
      life.insert(1);
      await life.capture();
      expectTable(life.state, life.pages());
      expect(life.state.table).not.toBeNull();
      expect(leftovers(life.stateFolder)).toEqual([]);
    }
    life.ship();
    expect(steps).toBeGreaterThan(2);
    const txids = [...life.acknowledged.keys()].filter((key) => /^(\d+)-\1$/.test(key));
    expect(txids).toEqual(txids.map((_, i) => `${i + 1}-${i + 1}`));
    life.end();
  });

  test("finds every file synced before it got its name, and the table synced before the position promises it", async () => {
    const life = new Life(join(dir, crypto.randomUUID()));
    lives.push(life);
    const steps: string[] = [];
    observeDurableSteps((step, path) => steps.push(`${step} ${path}`));
    await statefulLife(life);
    observeDurableSteps(null);
    const table = join(life.folder, "pages.crc");
    let renames = 0;
    for (const [i, step] of steps.entries()) {
      if (!step.startsWith("rename ")) continue;
      renames++;
      const path = step.slice("rename ".length);
      // A file of the outbox gets the rest of its name when all of it is known.
      expect(steps[i - 1]).toBe(`sync ${path.replace(/\.\d+\.ltx$/, ".ltx")}.tmp`);
      expect(steps[i + 1]).toBe(`sync ${dirname(path)}`);
      if (basename(path) !== "position.json") continue;
      const before = steps.slice(0, i);
      const written = Math.max(before.lastIndexOf(`write ${table}`), before.lastIndexOf(`rename ${table}`));
      if (steps[written]?.startsWith("write")) expect(before.lastIndexOf(`sync ${table}`)).toBeGreaterThan(written);
    }
    expect(renames).toBeGreaterThan(10);
  });

  test("leaves files half written: they are removed, and counted for nothing", async () => {
    const host = await liveHost();
    await host.stop();
    const outbox = pathIn(host, "outbox");
    writeFileSync(join(outbox, "0000000000000002-0000000000000002.ltx.tmp"), "half");
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
    rmSync(folderIn(host), { recursive: true });
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
    const damaged = readFileSync(join(pathIn(host, "outbox"), file!));
    host.log.length = 0;
    await host.start();
    await host.settle();
    expect(host.log.join("\n")).toMatch(/outbox is damaged.*E_LTX/);
    for (const name of readdirSync(host.bucketFolder)) {
      expect(readFileSync(join(host.bucketFolder, name)).equals(damaged)).toBe(false);
    }
    expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
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

describe("any damage", () => {
  /** A state at txid 1 with 2 and 3 in the outbox: the position on the disk is before them. */
  async function waitingLife(): Promise<Life> {
    const life = new Life(join(dir, crypto.randomUUID()));
    lives.push(life);
    await life.begin();
    life.ship();
    for (let i = 0; i < 2; i++) {
      life.insert(1);
      await life.capture();
    }
    return life;
  }

  /** The folder of a copy of the state, to be damaged again and again. */
  function copyOf(life: Life): string {
    const image = join(dir, crypto.randomUUID());
    cpSync(life.stateFolder, image, { recursive: true });
    return image;
  }

  const cuts = (bytes: Buffer) => Array.from({ length: bytes.length }, (_, i) => bytes.subarray(0, i));
  const flips = (bytes: Buffer) =>
    Array.from(bytes, (_, i) => Buffer.from(bytes.map((byte, k) => (k === i ? byte ^ (1 << (i % 8)) : byte))));

  test("of the position, in any byte or by any cut, is E_INTEGRITY and names the file", async () => {
    const life = await waitingLife();
    const bytes = readFileSync(join(life.folder, "position.json"));
    const image = copyOf(life);
    for (const damaged of [...cuts(bytes), ...flips(bytes), Buffer.concat([bytes, bytes])]) {
      writeFileSync(join(folderOf(image), "position.json"), damaged);
      expect(() => new LocalState(image, URL, NAME, WALSYNC_RULES)).toThrow(
        expect.objectContaining({ code: "E_INTEGRITY", message: expect.stringContaining("position.json: ") }),
      );
    }
  });

  test("of the position's version, with a seal that fits, is refused too", async () => {
    const life = await waitingLife();
    const path = join(life.folder, "position.json");
    const [body] = readFileSync(path, "utf8").replace('"version": 1', '"version": 2').split(',\n  "sha256"') as [
      string,
    ];
    writeFileSync(path, `${body},\n  "sha256": "${sha256Of(Buffer.from(`${body}\n}`))}"\n}\n`);
    expect(() => new LocalState(life.stateFolder, URL, NAME, WALSYNC_RULES)).toThrow(
      expect.objectContaining({ code: "E_INTEGRITY", message: expect.stringContaining("version 1, found 2") }),
    );
  });

  test("of a file that waits, in any byte or by any cut, is E_LTX and names it, or leaves every page as it was", async () => {
    const life = await waitingLife();
    const pages = life.pages();
    const { path } = life.state.outbox.files.at(-1)!;
    const bytes = readFileSync(path);
    const image = copyOf(life);
    let unharmed = 0;
    for (const damaged of [...cuts(bytes), ...flips(bytes)]) {
      writeFileSync(join(folderOf(image), "outbox", basename(path)), damaged);
      const state = new LocalState(image, URL, NAME, WALSYNC_RULES);
      try {
        state.recover(life.database);
        // An LZ4 block can say the same page in more than one way.
        expectTable(state, pages);
        unharmed++;
      } catch (error) {
        expect(error).toMatchObject({ code: "E_LTX", message: expect.stringContaining(basename(path)) });
      }
      state.table?.close();
    }
    expect(unharmed).toBeLessThan(bytes.length / 5);
  });

  test("of the page table, in any byte or by any cut, is never believed", async () => {
    const life = await waitingLife();
    const pages = life.pages();
    const bytes = readFileSync(join(life.folder, "pages.crc"));
    const image = copyOf(life);
    for (const damaged of [...cuts(bytes).slice(8), ...flips(bytes)]) {
      writeFileSync(join(folderOf(image), "pages.crc"), damaged);
      const state = new LocalState(image, URL, NAME, WALSYNC_RULES);
      if (damaged.readUInt32LE(0) !== bytes.readUInt32LE(0)) expect(state.table).toBeNull();
      if (damaged.readUInt32LE(4) !== bytes.readUInt32LE(4)) expect(state.table).toBeNull();
      state.recover(life.database);
      expectTable(state, pages);
      state.close();
    }
  });

  test("of the page table's size does not hold anybody up", async () => {
    const life = await waitingLife();
    const bytes = readFileSync(join(life.folder, "pages.crc"));
    bytes.writeUInt32LE(0xffffffff, 8);
    writeFileSync(join(life.folder, "pages.crc"), bytes);
    const script = `
      import { PageTable } from "${join(import.meta.dir, "../../src/replication/page-table.ts")}";
      PageTable.open("${join(life.folder, "pages.crc")}", ${PAGE_SIZE});
    `;
    const child = Bun.spawnSync([process.execPath, "-e", script], { timeout: 1000, killSignal: "SIGKILL" });
    expect(child.exitCode).toBe(0);
  });

  test.each<[string, (ours: string, next: string, theirs: string) => void]>([
    ["puts the next file in place of one", (ours, next) => copyFileSync(next, ours)],
    ["puts the file before in place of one", (ours, next) => copyFileSync(ours, next)],
    ["puts a file of another chain in place of one", (ours, _next, theirs) => copyFileSync(theirs, ours)],
    ["takes one away", (ours) => rmSync(ours)],
  ])("that %s in the outbox is found out", async (_, damage) => {
    const [life, other] = [await waitingLife(), await waitingLife()];
    const [ours, next] = life.state.outbox.files.map(({ path }) => path) as [string, string];
    damage(ours, next, other.state.outbox.files[0]!.path);
    const state = new LocalState(life.stateFolder, URL, NAME, WALSYNC_RULES);
    expect(() => state.recover(life.database)).toThrow(expect.objectContaining({ code: "E_LTX" }));
  });
});

describe("what is known of the chain", () => {
  test("our checksum at the last acknowledged transaction is told from the file behind it", async () => {
    const life = new Life(join(dir, crypto.randomUUID()));
    lives.push(life);
    expect(life.state.checksumAtShipped()).toBeNull();
    await life.begin();
    life.ship();
    for (let i = 0; i < 3; i++) {
      life.insert(2);
      await life.capture();
    }
    for (const shipped of [1n, 2n, 3n, 4n]) {
      expect(life.position.shippedTxid).toBe(shipped);
      expect(life.state.checksumAtShipped()).toBe(checksumOf(life.reported.get(shipped)!.pages));
      life.ship(1);
    }
    life.insert(1);
    await life.capture();
    for (const file of [...life.state.outbox.files]) life.state.outbox.remove(file);
    expect(life.state.checksumAtShipped()).toBeNull();
  });

  test("what a database lost when it shrank is in the table no more", async () => {
    const life = new Life(join(dir, crypto.randomUUID()));
    lives.push(life);
    life.insert(40);
    await life.begin();
    const large = life.pages();
    life.app.run("delete from item");
    life.app.run("vacuum");
    await life.capture();
    const { commit } = life.position.captured;
    expect(commit).toBeLessThan(large.length / 2);
    for (const [i, { hi, lo }] of large.entries()) {
      if (i >= commit) expect(life.state.table?.matches(i + 1, hi >>> 0, lo >>> 0)).toBe(false);
    }
    life.ship();
    expect(statSync(join(life.folder, "pages.crc")).size).toBe(32 + 8 * commit);
  });

  test("a database file that changed since the last stop is not taken for the one that was left", async () => {
    const life = new Life(join(dir, crypto.randomUUID()));
    lives.push(life);
    await life.begin();
    life.ship();
    life.restartWal();
    for (const file of ["1:2:3:4", null]) {
      life.position.file = file;
      life.state.save();
      life.reopen();
      expect(life.position.captured.changeCount).toBeNull();
      expect(life.position.file).toBeNull();
    }
  });

  test("the outbox counts its bytes, and what it holds is what was staged, also when it is opened again", async () => {
    const life = new Life(join(dir, crypto.randomUUID()));
    lives.push(life);
    await life.begin();
    life.insert(1);
    life.insert(1);
    await life.capture();
    await life.snapshot();
    const told = ({ path, commits, sizeBytes }: OutboxFile) => [basename(path), commits, sizeBytes];
    const staged = life.state.outbox.files.map(told);
    expect(staged.map(([name]) => name)).toEqual([
      "0000000000000001-0000000000000001.0.ltx",
      "0000000000000002-0000000000000002.2.ltx",
      "0000000000000001-0000000000000002.0.ltx",
    ]);
    writeFileSync(join(life.folder, "outbox", "notes.txt"), "not ours");
    writeFileSync(join(life.folder, "outbox", "0000000000000003-0000000000000003.ltx.tmp.index"), "half");
    life.reopen();
    expect(life.state.outbox.files.map(told)).toEqual(staged);
    const onDisk = () => life.state.outbox.files.reduce((sum, { path }) => sum + statSync(path).size, 0);
    while (life.state.outbox.files.length > 0) {
      expect(life.state.outbox.sizeBytes).toBe(onDisk());
      life.ship(1);
    }
    expect(life.state.outbox.sizeBytes).toBe(0);
    expect(readdirSync(join(life.folder, "outbox"))).toEqual(["notes.txt"]);
  });

  test("a state in which nothing was ever staged leaves no folder; two names share none", () => {
    const folder = join(dir, crypto.randomUUID());
    const states = [
      new LocalState(folder, URL, "a", WALSYNC_RULES),
      new LocalState(folder, URL, "b", WALSYNC_RULES),
      new LocalState(folder, "/b", "a", WALSYNC_RULES),
    ];
    expect(readdirSync(folder)).toHaveLength(3);
    for (const state of states) state.close();
    expect(readdirSync(folder)).toEqual([]);
  });

  test("the name kept is the newest of those at this destination", async () => {
    const life = new Life(join(dir, crypto.randomUUID()));
    lives.push(life);
    await life.begin();
    for (const [name, destination, modifiedAt] of [
      ["older", URL, 1e9],
      ["newer", URL, 3e9],
      ["middle", URL, 2e9],
      ["elsewhere", "/else", 4e9],
    ] as const) {
      const path = join(life.stateFolder, name, "position.json");
      mkdirSync(join(life.stateFolder, name));
      writePosition(path, { ...life.position, name, destination });
      utimesSync(path, modifiedAt, modifiedAt);
    }
    expect(keptName(life.stateFolder, URL)).toBe("newer");
    expect(keptName(life.stateFolder, "/else")).toBe("elsewhere");
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
