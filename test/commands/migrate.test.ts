// Goal: migrate writes what watch and explain accept, overwrites nothing, says where each database goes and what to run, and shows
// no secret. The copying of replicas is judged in test/interop/convert.test.ts.
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MIGRATE_RESULT } from "../../src/commands/results.ts";
import { makeKeys } from "../encryption/make.ts";
import { schemaFaults } from "../support/json-schema.ts";
import { tempDir } from "../support/temp.ts";
import { expectHidden, expectOneError, succeed, treeOf, walsync } from "./run.ts";

const dir = tempDir();
const SECRET = "a-secret-of-the-test";
mkdirSync(join(dir, "data/tenants"), { recursive: true });
for (const name of ["app", "tenants/a"]) {
  writeDatabase(join(dir, "data", `${name}.db`));
}
const REPLICA = `type: s3, bucket: backups, endpoint: "https://s3.example.org", access-key-id: AKIAEXAMPLE, secret-access-key: ${SECRET}`;
writeFileSync(
  join(dir, "one.yml"),
  `dbs:
  - path: ${dir}/data/app.db
    monitor-interval: 2s
    replica: {${REPLICA}, path: prod/app}
  - dir: ${dir}/data/tenants
    pattern: "*.db"
    replica: {${REPLICA}, path: prod/tenants}
`,
);
writeFileSync(
  join(dir, "two.yml"),
  `logging: {level: debug, type: json}
dbs:
  - path: ${dir}/data/app.db
    replica: {${REPLICA}, path: app}
  - path: ${dir}/data/tenants/a.db
    replica: {path: ${dir}/backups/a}
`,
);
const env = { AWS_ACCESS_KEY_ID: "AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY: SECRET };

interface Explained {
  destination: { url: string; endpoint: string | null };
  databases: { name: string; path: string }[];
}

function writeDatabase(path: string): void {
  const app = new Database(path, { create: true });
  app.run("pragma journal_mode = wal");
  app.run("create table item (body)");
  app.close();
}

async function explained(file: string): Promise<Explained> {
  return JSON.parse((await succeed(["explain", "--config", file, "--json"], { cwd: dir, env })).stdout) as Explained;
}

describe("litestream.yml with one destination", () => {
  test("goes to standard output, and the notes to standard error", async () => {
    const before = treeOf(dir);
    const { stdout, stderr } = await succeed(["migrate", "one.yml"], { cwd: dir });
    expect(treeOf(dir)).toEqual(before);
    expectHidden(stdout + stderr, [SECRET]);
    expect(stderr).toMatch(/^different one\.yml:3 dbs\[0\]\.monitor-interval: /m);
    expect(stderr).toMatch(/^action one\.yml:4 dbs\[0\]\.replica\.secret-access-key: set AWS_SECRET_ACCESS_KEY /m);
    expect(stdout).toMatch(/^# {3}walsync watch --config walsync\.toml$/m);
    writeFileSync(join(dir, "piped.toml"), stdout);
    const { destination, databases } = await explained("piped.toml");
    expect(destination).toMatchObject({ url: "s3://backups/prod", endpoint: "https://s3.example.org" });
    expect(databases.map(({ name }) => name)).toEqual(["app", "tenants/a.db"]);
  });

  test("goes to a file, which nothing but --force replaces", async () => {
    const { stdout } = await succeed(["migrate", "one.yml", "-o", "walsync-one.toml"], { cwd: dir });
    expect(stdout).toBe("walsync watch --config walsync-one.toml   # s3://backups/prod\n");
    expect((await explained("walsync-one.toml")).databases).toHaveLength(2);
    const file = join(dir, "walsync-one.toml");
    const written = readFileSync(file, "utf8");
    writeFileSync(file, "# mine\n");
    const refused = await walsync(["migrate", "one.yml", "-o", "walsync-one.toml", "--quiet"], { cwd: dir });
    expectOneError(refused, "E_OUTPUT_EXISTS", /expected no such file.*\n.*--force/);
    expect(readFileSync(file, "utf8")).toBe("# mine\n");
    await succeed(["migrate", "one.yml", "-o", "walsync-one.toml", "--force"], { cwd: dir });
    expect(readFileSync(file, "utf8")).toBe(written);
  });

  test("goes to JSON, with the same text and the same notes", async () => {
    const { stdout, stderr } = await succeed(["migrate", "one.yml", "--json"], { cwd: dir });
    expect(stderr).toBe("");
    expectHidden(stdout, [SECRET]);
    expect(schemaFaults(MIGRATE_RESULT, JSON.parse(stdout))).toEqual([]);
    const { files, notes } = JSON.parse(stdout);
    expect(files).toEqual([
      {
        path: null,
        toml: (await succeed(["migrate", "one.yml"], { cwd: dir })).stdout,
        command: "walsync watch --config walsync.toml",
        destination: "s3://backups/prod",
        databases: 3,
      },
    ]);
    expect(notes[0]).toMatchObject({ line: 3, key: "dbs[0].monitor-interval", kind: "different" });
  });
});

describe("litestream.yml with several destinations", () => {
  test("needs a folder, and says which databases go where", async () => {
    for (const output of [[], ["-o", "walsync.toml"]]) {
      const refused = await walsync(["migrate", "two.yml", ...output], { cwd: dir });
      expectOneError(refused, "E_USAGE", /-o FOLDER for 2 destinations.*s3:\/\/backups \(1\), .*\/backups \(1\)/);
    }
    expect(existsSync(join(dir, "walsync.toml"))).toBe(false);
  });

  test("gets a file, and so a process, for each", async () => {
    const { stdout } = await succeed(["migrate", "two.yml", "-o", "conf"], { cwd: dir });
    const names = readdirSync(join(dir, "conf")).sort();
    expect(names).toHaveLength(2);
    expect(stdout.trimEnd().split("\n")).toEqual(
      expect.arrayContaining(
        names.map((name) =>
          expect.stringContaining(`walsync watch --config conf/${name} --verbose --log-format json   # `),
        ),
      ),
    );
    const found = await Promise.all(names.map((name) => explained(join("conf", name))));
    expect(found.flatMap(({ databases }) => databases.map(({ name }) => name)).sort()).toEqual(["a", "app"]);
  });
});

test.each([
  [[], "E_USAGE", /expected a litestream\.yml or --convert, found neither/],
  [["one.yml", "--convert", "app"], "E_USAGE", /found both/],
  [["--convert", "app"], "E_USAGE", /expected --bucket and --to with --convert/],
  [["--convert", "app", "-b", "x"], "E_USAGE", /expected --bucket and --to with --convert/],
  [["--convert", "a//b", "-b", "x", "--to", "y"], "E_USAGE", /name "a\/\/b"/],
  [
    ["--convert", "app", "-b", "s3://b-1?skip-verify=true", "--to", "y"],
    "E_USAGE",
    /skip-verify.*\n.*NODE_EXTRA_CA_CERTS/,
  ],
  [["nowhere.yml"], "E_CONFIG", /nowhere\.yml: expected a configuration of Litestream/],
  [["."], "E_CONFIG", /expected a configuration of Litestream/],
] as const)("%j is refused", async (args, code, says) => {
  expectOneError(await walsync(["migrate", ...args], { cwd: dir, env }), code, says);
});

describe("with keys, --convert", () => {
  const convert = ["migrate", "--convert", "app", "-b", "source", "--to", "copy"];

  test.each([
    ["recipients", `recipients = ["age1x"]`, {}, /found walsync\.toml:2: encryption\.recipients\n/],
    ["a file of them", `recipients_file = "none"`, {}, /found walsync\.toml:2: encryption\.recipients_file\n/],
    ["an identity", `identity_file = "none"`, {}, /found walsync\.toml:2: encryption\.identity_file\n/],
    ["the environment", "", { WALSYNC_IDENTITY_FILE: "none" }, /found WALSYNC_IDENTITY_FILE\n/],
  ])("is refused before it writes in the clear: %s", async (_, line, more, says) => {
    const cwd = tempDir();
    writeFileSync(join(cwd, "walsync.toml"), `[encryption]\n${line}\n`);
    writeDatabase(join(cwd, "app.db"));
    await succeed(["snapshot", "app.db", "-b", "source", "--config", "/dev/null"], { cwd });
    const result = await walsync(convert, { cwd, env: more });
    expectOneError(result, "E_CONFIG", says);
    expect(result.stderr).toMatch(/hint: .*in the clear.*WALSYNC_IDENTITY_FILE.*\[encryption\]/s);
    expect(existsSync(join(cwd, "copy"))).toBe(false);
  });

  test("of encrypted files is told that it cannot, and of no flag that it does not have", async () => {
    const cwd = tempDir();
    const { recipient } = await makeKeys(join(cwd, "key.txt"));
    writeDatabase(join(cwd, "app.db"));
    await succeed(["snapshot", "app.db", "-b", "source", "--recipient", recipient], { cwd });
    const result = await walsync(convert, { cwd });
    expectOneError(result, "E_IDENTITY", /found an encrypted file/);
    expect(result.stderr).toMatch(/hint: migrate --convert does not read encrypted files/);
    expect(result.stderr).not.toMatch(/--identity|--recipient/);
  });
});
