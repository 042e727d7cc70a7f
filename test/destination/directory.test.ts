import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { MiB } from "../../src/bytes.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { destinationConformance } from "../conformance/destination.ts";
import {
  expectFault,
  foldersOf,
  keysOf,
  makeFile,
  ownFilesIn,
  readText,
  sha256Of,
  text,
} from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";

const root = tempDir();
let count = 0;
const newPath = (): string => join(root, `d${count++}`);

destinationConformance("a directory", async () => ({
  fresh: async () => {
    const destination = new DirectoryDestination(newPath());
    await destination.prepare();
    return destination;
  },
  missing: async () => new DirectoryDestination(newPath()),
  leftovers: async () => ownFilesIn(root),
}));

// Goal: the first write makes the directory, reading never does.

test("the first write makes the directory, for its owner only", async () => {
  const path = join(newPath(), "deep/er");
  const destination = new DirectoryDestination(path);
  await expectFault(destination.head("app/1"), false);
  expect(existsSync(path)).toBe(false);
  await destination.write("app/1", text("x"), { condition: "absent" });
  for (const folder of [path, join(path, "app")]) expect(statSync(folder).mode & 0o777).toBe(0o700);
  expect(statSync(join(path, "app/1")).mode & 0o777).toBe(0o600);
});

test("a root that is a file, or below one, is an error that says so, for good", async () => {
  const path = newPath();
  writeFileSync(path, "a file");
  for (const root of [path, join(path, "below")]) {
    const destination = new DirectoryDestination(root);
    for (const attempt of [() => destination.prepare(), () => destination.write("a", text("x"))]) {
      const error = await expectFault(attempt(), false);
      expect(error.message).toContain(root);
      expect(error.hint).toContain("choose another path");
    }
    await expectFault(keysOf(destination, ""), false);
    await expectFault(destination.head("a"), false);
  }
  expect(readFileSync(path, "utf8")).toBe("a file");
});

test("a root that nobody can make is an error, not an endless attempt", async () => {
  await expectFault(new DirectoryDestination("/proc/no-such-folder/backups").prepare(), false);
});

test("a mistyped path is an error that names it, never an empty list, and reading makes no folder", async () => {
  const path = newPath();
  const destination = new DirectoryDestination(path);
  for (const attempt of [
    () => keysOf(destination, ""),
    () => foldersOf(destination, ""),
    () => destination.read("a"),
  ]) {
    const error = await expectFault(attempt(), false);
    expect(error.message).toBe(`${path}: expected a directory, found that it does not exist`);
    expect(error.hint).toContain("Check the path");
  }
  expect(existsSync(path)).toBe(false);
});

// Goal: nothing half-written is ever seen, and nothing of ours is left lying about.

test("temporary files and locks of a crashed process are never listed, and no write leaves one", async () => {
  const path = newPath();
  const destination = new DirectoryDestination(path);
  const first = await destination.write("app/manifest.json", text("1"));
  if (first.kind !== "written") throw new Error("no condition");
  await destination.write("app/manifest.json", text("2"), { condition: { etag: first.etag } });
  await destination.write("app/manifest.json", text("3"), { condition: { etag: first.etag } });
  await destination.write("app/manifest.json", text("4"), { condition: "absent" });
  expect(readdirSync(join(path, "app"))).toEqual(["manifest.json"]);
  writeFileSync(join(path, "app/.tmp-0011"), "half");
  writeFileSync(join(path, "app/.lock-x"), "");
  mkdirSync(join(path, ".tmp-folder"));
  writeFileSync(join(path, ".tmp-folder/x"), "");
  expect(await keysOf(destination, "")).toEqual(["app/manifest.json"]);
  expect(await foldersOf(destination, "")).toEqual(["app"]);
});

test("what a crashed process left is removed by the next writer once it is an hour old, and not before", async () => {
  const path = newPath();
  mkdirSync(join(path, "app"), { recursive: true });
  for (const [name, ageMinutes] of [
    [".tmp-old", 61],
    [".tmp-young", 59],
    ["other", 9999],
  ] as const) {
    writeFileSync(join(path, "app", name), "x");
    const seconds = Date.now() / 1000 - 60 * ageMinutes;
    utimesSync(join(path, "app", name), seconds, seconds);
  }
  await new DirectoryDestination(path).write("app/1", text("x"), { condition: "absent" });
  expect(readdirSync(join(path, "app")).sort()).toEqual([".tmp-young", "1", "other"]);
});

test("a process that is killed in the middle of a write leaves the old file or the new one, and no other", async () => {
  const path = newPath();
  const destination = new DirectoryDestination(path);
  await destination.write("app/large", text("old"));
  const { source, sha256 } = await makeFile(join(root, "large"), 20 * MiB);
  const oldSha256 = await sha256Of(await destination.read("app/large"));
  for (let round = 0; round < 8; round++) {
    const child = spawnWriter(["large", path, source.path, String(source.sizeBytes)]);
    const reader = child.stdout.getReader();
    await reader.read(); // "ready"
    await Bun.sleep(round * 8);
    child.kill("SIGKILL");
    await child.exited;
    expect(await keysOf(destination, "")).toEqual(["app/large"]);
    expect([oldSha256, sha256]).toContain(await sha256Of(await destination.read("app/large")));
  }
}, 20_000);

test("of several processes that claim the same keys exactly one gets each", async () => {
  const path = newPath();
  const children = [1, 2, 3].map(() => spawnWriter(["claim", path]));
  const claims = new Map<string, number>();
  for (const child of children) {
    for (const line of (await new Response(child.stdout).text()).trim().split("\n").slice(1)) {
      expect(claims.has(line)).toBe(false);
      claims.set(line, child.pid);
    }
  }
  expect(claims.size).toBe(100);
  const destination = new DirectoryDestination(path);
  for (const [i, pid] of claims) expect(await readText(destination, `app/${i}`)).toBe(String(pid));
  expect(ownFilesIn(path)).toEqual([]);
});

test("the lock of a process that died does not block for ever", async () => {
  const path = newPath();
  const destination = new DirectoryDestination(path);
  await destination.write("manifest.json", text("1"));
  const lock = join(path, ".lock-manifest.json");
  writeFileSync(lock, "");
  const minuteAgo = Date.now() / 1000 - 60;
  utimesSync(lock, minuteAgo, minuteAgo);
  const results = await Promise.all(
    Array.from({ length: 5 }, (_, i) => destination.write("manifest.json", text(`w${i}`))),
  );
  expect(results.map((result) => result.kind)).toEqual(Array(5).fill("written"));
  expect(readdirSync(path)).toEqual(["manifest.json"]);
});

test("an empty folder is no folder, and goes when its last key does", async () => {
  const path = newPath();
  const destination = new DirectoryDestination(path);
  await destination.write("a/b/c/1", text("x"));
  mkdirSync(join(path, "empty/er"), { recursive: true });
  expect(await foldersOf(destination, "")).toEqual(["a"]);
  await destination.remove(["a/b/c/1"]);
  expect(existsSync(join(path, "a"))).toBe(false);
  expect(existsSync(path)).toBe(true);
});

test("writing and removing in one folder at once never fails", async () => {
  const destination = new DirectoryDestination(newPath());
  await destination.prepare();
  const work = async (i: number): Promise<void> => {
    for (let round = 0; round < 20; round++) {
      await destination.write(`shared/folder/${i}`, text("x"), { condition: "absent" });
      await destination.remove([`shared/folder/${i}`]);
    }
  };
  await Promise.all(Array.from({ length: 8 }, (_, i) => work(i)));
  expect(await keysOf(destination, "")).toEqual([]);
});

// Goal: whoever may write into the directory cannot point walsync at files outside it.

test("links inside are not followed; the root itself may be one", async () => {
  const outside = newPath();
  mkdirSync(outside);
  writeFileSync(join(outside, "secret"), "secret");
  const path = newPath();
  mkdirSync(path);
  symlinkSync(outside, join(path, "folder"));
  symlinkSync(join(outside, "secret"), join(path, "file"));
  const destination = new DirectoryDestination(path);
  await expectFault(destination.read("file"), false);
  await expectFault(destination.head("file"), false);
  await expectFault(destination.read("folder/secret"), false);
  await expectFault(destination.write("folder/new", text("x")), false);
  await expectFault(destination.remove(["folder/secret"]), false);
  await expectFault(keysOf(destination, "folder/"), false);
  expect(await keysOf(destination, "")).toEqual([]);
  expect(await destination.write("file", text("x"), { condition: "absent" })).toEqual({ kind: "refused" });
  await destination.write("file", text("mine"));
  expect(await readText(destination, "file")).toBe("mine");
  expect(readdirSync(outside)).toEqual(["secret"]);
  expect(await Bun.file(join(outside, "secret")).text()).toBe("secret");

  const linkedRoot = newPath();
  symlinkSync(path, linkedRoot);
  expect(await readText(new DirectoryDestination(linkedRoot), "file")).toBe("mine");
});

// --- helpers ---

function spawnWriter(args: readonly string[]) {
  const script = join(import.meta.dir, "writer-child.ts");
  return Bun.spawn([process.execPath, script, ...args], { stdout: "pipe", stderr: "inherit" });
}
