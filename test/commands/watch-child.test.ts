// Goal: `watch --exec` and its application are one: it starts on restored databases, gets the signals, loses nothing of what it
// wrote last, and its exit status is that of the watch; a failure of replication is never hidden behind it. The compiled
// program and real children, which write with the sqlite3 of Bun.
import { Database } from "bun:sqlite";
import { afterAll, afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decideExit } from "../../src/commands/watch-child.ts";
import { compiledBinary } from "../support/binary.ts";
import { onText, ownChildren } from "../support/children.ts";
import { tempDir } from "../support/temp.ts";
import { startVersitygw } from "../support/versitygw.ts";
import { expectOneError, s3Access, succeed, walsync } from "./run.ts";

const dir = tempDir();
const server = await startVersitygw();
const PATIENCE_MS = 20_000;
/** Some start and end the program more than once. */
setDefaultTimeout(3 * PATIENCE_MS);
const running = ownChildren();
/** Watches that are no children of this process. */
let strays: number[] = [];

afterAll(async () => {
  await server?.stop();
});

afterEach(async () => {
  for (const pid of strays) if (isAlive(pid)) process.kill(pid, "SIGKILL");
  strays = [];
});

/** An application: writes rows into app.db, tells every signal on standard output, and ends as it is told. */
const APPLICATION = `
import { Database } from "bun:sqlite";
const [path, onTerm, rows] = process.argv.slice(2);
const names = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGWINCH"];
const found = await Bun.file(path).exists();
const db = new Database(path, { create: true });
db.run("pragma journal_mode = wal");
db.run("create table if not exists item (body)");
const count = () => db.query("select count(*) as n from item").get().n;
const insert = (body) => { for (let i = 0; i < Number(rows); i++) db.run("insert into item values (?)", [body]); };
const before = found ? count() : "none";
insert("first");
for (const name of names) {
  process.on(name, () => {
    console.log(name);
    if (name !== "SIGTERM" && name !== "SIGINT") return;
    if (onTerm === "ignore") return;
    insert("last");
    process.exit(Number(onTerm));
  });
}
console.log("up " + before + " " + process.pid + " " + process.ppid);
// Whatever a test that fails leaves behind ends with it.
const parent = process.ppid;
setInterval(() => process.ppid === parent || process.exit(1), 200);
`;

class Place {
  readonly folder = join(dir, crypto.randomUUID());
  bucket = join(this.folder, "bucket");
  env: Record<string, string> = { XDG_RUNTIME_DIR: this.folder };
  /** What starts the program; by default nothing does. */
  prefix: readonly string[] = [];
  log = "";
  output = "";
  child!: Bun.Subprocess<"ignore", "pipe", "pipe">;

  constructor() {
    mkdirSync(this.folder);
    writeFileSync(this.path("application.js"), APPLICATION);
  }

  path(file: string): string {
    return join(this.folder, file);
  }

  /** The command of the application. */
  application(onTerm: number | "ignore" = 0, rows = 10, file = "app.db"): string {
    return `'${process.execPath}' application.js ${file} ${onTerm} ${rows}`;
  }

  start(exec: string, ...args: string[]): void {
    const [what, rest] = args[0]?.startsWith("-") === false ? [args[0], args.slice(1)] : ["app.db", args];
    const all = ["watch", what, "-b", this.bucket, "--no-metrics", "--wal-sync-interval", "0", "--exec", exec, ...rest];
    this.child = Bun.spawn([...this.prefix, compiledBinary(), ...all], {
      cwd: this.folder,
      env: { PATH: process.env.PATH ?? "", ...this.env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    running.push(this.child);
    const { stdout, stderr } = this.child;
    onText(stderr, (text) => {
      this.log += text;
    });
    onText(stdout, (text) => {
      this.output += text;
    });
  }

  async started(exec: string, ...args: string[]): Promise<void> {
    this.start(exec, ...args);
    await this.until(() => this.output.includes("up "));
  }

  async until(condition: () => boolean): Promise<void> {
    const endMs = performance.now() + PATIENCE_MS;
    while (!condition()) {
      if (performance.now() > endMs) {
        throw new Error(`waited in vain for ${condition}; output:\n${this.output}\nlog:\n${this.log}`);
      }
      await Bun.sleep(20);
    }
  }

  /** The exit status, once it has ended by itself. */
  async status(): Promise<number> {
    const status = await Promise.race([this.child.exited, Bun.sleep(PATIENCE_MS).then(() => "runs" as const)]);
    if (status === "runs") throw new Error(`waited in vain for the end; output:\n${this.output}\nlog:\n${this.log}`);
    return status;
  }

  get applicationPid(): number {
    return Number(/^up \S+ (\d+)/m.exec(this.output)![1]);
  }

  signalsSeen(): string[] {
    return this.output.match(/^SIG\w+$/gm) ?? [];
  }

  /** Bodies of the rows that can be restored, with their counts. */
  async restored(name = "app"): Promise<Record<string, number>> {
    const output = this.path(`restored-${crypto.randomUUID()}`);
    await succeed(["restore", name, "-o", output, "-b", this.bucket], { env: this.env });
    const db = new Database(output);
    const rows = db.query<{ body: string; n: number }, []>("select body, count(*) as n from item group by body").all();
    db.close();
    return Object.fromEntries(rows.map(({ body, n }) => [body, n]));
  }
}

function isAlive(pid: number): boolean {
  // A zombie is nobody who writes.
  return existsSync(`/proc/${pid}`) && !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
}

describe("an application that ends by itself", () => {
  test.each([
    ["true", 0],
    ["sh -c 'exit 7'", 7],
    ["sh -c 'kill -KILL $$'", 137],
    ["sh -c 'kill -TERM $$'", 143],
  ])("%s makes the exit status %d", async (exec, status) => {
    const place = new Place();
    place.start(exec);
    expect([await place.status(), place.log.includes("walsync: the application: ")]).toEqual([status, status !== 0]);
    expect(place.log).not.toMatch(/ error |\bbug\b/);
  });

  test.each([
    ["the file that is named", ["new.db"], "new.db", "new"],
    ["a file below a directory that was empty", ["data"], "data/new.db", "new"],
    ["a file below a glob that found nothing", ["data/*/app.db"], "data/t/app.db", "t/app"],
  ])("leaves behind what it wrote a moment before: %s", async (_where, args, file, name) => {
    const place = new Place();
    mkdirSync(place.path("data/t"), { recursive: true });
    const script = `
      const { Database } = require("bun:sqlite");
      const db = new Database("${file}", { create: true });
      db.run("pragma journal_mode = wal");
      db.run("create table item (body)");
      db.run("insert into item values ('only')");
      process.exit(4);`;
    place.start(`'${process.execPath}' -e '${script.replaceAll("'", "'\\''")}'`, ...args);
    expect([await place.status(), await place.restored(name)]).toEqual([4, { only: 1 }]);
  });

  test("in a database that cannot be replicated, it ends in 7 if it says 0 itself; else it says so beside", async () => {
    for (const [own, status] of [
      [0, 7],
      [9, 9],
    ]) {
      const place = new Place();
      const script = `require("bun:sqlite").Database.open("app.db").run("create table item (body)"); process.exit(${own})`;
      place.start(`'${process.execPath}' -e '${script.replaceAll("'", "'\\''")}'`);
      expect(await place.status()).toBe(status!);
      expect(place.log).toMatch(/walsync: E_DATABASE .*WAL/);
    }
  });

  test("has the environment and the streams of the watch", async () => {
    const place = new Place();
    place.env.GREETING = "hello there";
    place.start("sh -c 'echo \"$GREETING\"; echo aside >&2; ls -l /proc/self/fd | wc -l'");
    expect(await place.status()).toBe(0);
    expect(place.output).toStartWith("hello there\n");
    expect(place.log).toContain("\naside\n");
    // Nothing that the watch holds open, locks above all: standard streams, and what ls needs itself.
    expect(Number(place.output.split("\n")[1])).toBeLessThanOrEqual(6);
  });
});

describe("an application that is asked to end", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("by %s has its last rows at the destination", async (signal) => {
    const place = new Place();
    await place.started(place.application(3, 50));
    place.child.kill(signal);
    expect([await place.status(), place.signalsSeen()]).toEqual([3, [signal]]);
    expect(await place.restored()).toEqual({ first: 50, last: 50 });
  });

  test("and says 0 makes a clean end", async () => {
    const place = new Place();
    await place.started(place.application());
    place.child.kill("SIGTERM");
    expect(await place.status()).toBe(0);
    expect(place.log).toMatch(/stopped databases=1/);
  });

  test("gets every other signal as it comes; SIGHUP is the watch's own", async () => {
    const place = new Place();
    await place.started(place.application());
    for (const signal of ["SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGWINCH"] as const) {
      place.child.kill(signal);
      await place.until(() => place.signalsSeen().includes(signal));
    }
    place.child.kill("SIGHUP");
    await place.until(() => place.log.includes("configuration reloaded"));
    place.child.kill("SIGTERM");
    expect(await place.status()).toBe(0);
    expect(place.signalsSeen()).toEqual(["SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGWINCH", "SIGTERM"]);
  });

  test("and does not is killed by the second signal; what it wrote is shipped all the same", async () => {
    const place = new Place();
    await place.started(place.application("ignore", 20));
    place.child.kill("SIGTERM");
    await place.until(() => place.signalsSeen().includes("SIGTERM"));
    const { applicationPid } = place;
    expect(isAlive(applicationPid)).toBe(true);
    place.child.kill("SIGTERM");
    expect([await place.status(), isAlive(applicationPid)]).toEqual([137, false]);
    expect(await place.restored()).toEqual({ first: 20 });
  });

  test("and does at its own pace is waited for longer than --shutdown-timeout", async () => {
    const place = new Place();
    await place.started(
      "sh -c 'trap \"sleep 2; exit 5\" TERM; echo up 0 $$; while :; do sleep 0.1; done'",
      "--shutdown-timeout",
      "0.2",
    );
    place.child.kill("SIGTERM");
    expect(await place.status()).toBe(5);
  });
});

describe("the start", () => {
  test("comes after every database is restored", async () => {
    const place = new Place();
    await place.started(place.application(0, 30));
    place.child.kill("SIGTERM");
    expect(await place.status()).toBe(0);
    for (const suffix of ["", "-wal", "-shm"]) rmSync(place.path(`app.db${suffix}`), { force: true });
    rmSync(place.path(".app.db-walsync"), { recursive: true });
    place.output = "";
    await place.started(place.application(0, 5), "--restore-if-missing");
    expect(place.output).toStartWith("up 60 ");
    place.child.kill("SIGTERM");
    expect([await place.status(), await place.restored()]).toEqual([0, { first: 35, last: 35 }]);
  });

  test("with nothing anywhere is that of a new application, without an error in the log", async () => {
    const place = new Place();
    await place.started(place.application(0, 5), "--restore-if-missing");
    expect(place.output).toStartWith("up none ");
    place.child.kill("SIGTERM");
    expect([await place.status(), await place.restored()]).toEqual([0, { first: 5, last: 5 }]);
    expect(place.log).toMatch(/nothing to restore/);
    expect(place.log).toMatch(/waiting for the database/);
  });

  test("with a database that the application has yet to make is no failure: status says that it is waited for", async () => {
    const place = new Place();
    await place.started("sh -c 'echo up 0 $$; exec sleep 60'", "--restore-if-missing");
    const { stdout } = await succeed(["status", "--json"], { env: place.env });
    const databases = JSON.parse(stdout).watches.flatMap((watch: { databases: object[] }) => watch.databases);
    expect(databases).toMatchObject([{ name: "app", state: "waiting", error: null }]);
  });

  test("can be said in walsync.toml", async () => {
    const place = new Place();
    writeFileSync(place.path("walsync.toml"), `[sync]\nexec = "sh -c 'exit \${STATUS}'"\n`);
    const options = { cwd: place.folder, env: { ...place.env, STATUS: "6" } };
    const { status } = await walsync(["watch", "app.db", "-b", place.bucket, "--no-metrics"], options);
    expect(status).toBe(6);
    writeFileSync(place.path("walsync.toml"), "[sync]\nexec = 'a | b'\n");
    expectOneError(
      await walsync(["watch", "app.db", "-b", place.bucket], options),
      "E_CONFIG",
      /sync\.exec: .*found \|/,
    );
  });

  test.each([
    ["no-such-program --flag", /--exec: expected a program to start at no-such-program/],
    ["./folder", /--exec: expected a program to start at \.\/folder/],
    ["./plain.txt", /--exec: expected a program to start at \.\/plain\.txt/],
    ["app && other", /--exec: expected a program and its arguments, found &\nhint: .*sh -c/],
    ["'app", /found a ' without its end/],
  ])("of %j is refused before anything happens", async (exec, says) => {
    const place = new Place();
    mkdirSync(place.path("folder"));
    writeFileSync(place.path("plain.txt"), "nothing to run");
    const outcome = await walsync(["watch", "app.db", "-b", place.bucket, "--exec", exec], { cwd: place.folder });
    expectOneError(outcome, "E_USAGE", says);
    expect(existsSync(place.bucket)).toBe(false);
  });

  test("of a file that only looks like a program is refused, too", async () => {
    const place = new Place();
    writeFileSync(place.path("broken"), "\u0000\u0001", { mode: 0o755 });
    place.start("./broken");
    expect(await place.status()).toBe(2);
    expect(place.log).toMatch(/walsync: E_USAGE --exec: expected a program to start at \.\/broken/);
  });
});

describe.skipIf(server === null)("when replication is over", () => {
  test("a destination that refuses keeps the application from starting, with status 3", async () => {
    const place = new Place();
    place.bucket = "s3://no-such-bucket";
    Object.assign(place.env, s3Access(server!).env, {
      AWS_ENDPOINT_URL_S3: server!.endpoint,
      AWS_REGION: server!.region,
    });
    place.start(place.application());
    expect([await place.status(), place.output]).toEqual([3, ""]);
    expect(place.log).toMatch(/walsync: E_REFUSED /);
  });
});

test("a destination that answers late, and refuses, ends an application that runs, with status 3", async () => {
  const codes = [503];
  const late = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("", { status: codes[0]! }) });
  const place = new Place();
  place.bucket = "s3://late";
  const access = { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b", AWS_ENDPOINT_URL_S3: late.url.origin };
  Object.assign(place.env, access);
  await place.started(place.application(0));
  codes[0] = 403;
  expect([await place.status(), place.signalsSeen()]).toEqual([3, ["SIGTERM"]]);
  expect(place.log).toMatch(/walsync: E_REFUSED /);
  await late.stop(true);
});

describe("at a terminal", () => {
  /** Runs the watch with an application that ignores signals, and both with a terminal; `before` is what starts them. */
  async function atTerminal(place: Place, before: readonly string[]) {
    const child = Bun.spawn(
      [
        ...before,
        compiledBinary(),
        ...["watch", "app.db", "-b", place.bucket, "--no-metrics", "--exec", place.application("ignore", 1)],
      ],
      {
        cwd: place.folder,
        env: { PATH: process.env.PATH ?? "", ...place.env },
        terminal: {
          data: (_terminal, data) => {
            place.output += new TextDecoder().decode(data).replaceAll("\r", "");
          },
        },
      },
    );
    running.push(child);
    await place.until(() => /^up \S+ \d+ \d+$/m.test(place.output));
    const watchPid = Number(/^up \S+ \d+ (\d+)$/m.exec(place.output)![1]);
    strays.push(watchPid);
    return { child, watchPid };
  }

  test("Ctrl-C reaches the application once, and not a second time through the watch", async () => {
    const place = new Place();
    const { child } = await atTerminal(place, []);
    child.terminal!.write("\u0003");
    await place.until(() => place.output.includes("SIGINT"));
    // What the watch passes on comes in order: a second SIGINT would be there by now.
    child.kill("SIGUSR1");
    await place.until(() => place.output.includes("SIGUSR1"));
    expect(place.output.match(/SIG(INT|USR1)$/gm)).toEqual(["SIGINT", "SIGUSR1"]);
    child.terminal!.write("\u0003");
    expect(await child.exited).toBe(137);
  });

  test.skipIf(Bun.which("setsid") === null)("that is not its own, SIGINT is passed on", async () => {
    const place = new Place();
    const { child, watchPid } = await atTerminal(place, ["setsid", "--wait"]);
    process.kill(watchPid, "SIGINT");
    await place.until(() => /^SIGINT$/m.test(place.output));
    process.kill(watchPid, "SIGINT");
    expect(await child.exited).toBe(137);
  });
});

test("a destination that is silent does not keep the application waiting; the failed last sync decides if it says 0", async () => {
  const away = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("", { status: 503 }) });
  const access = { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b", AWS_ENDPOINT_URL_S3: away.url.origin };
  for (const [own, status] of [
    [0, 3],
    [8, 8],
  ] as const) {
    const place = new Place();
    place.bucket = "s3://away";
    Object.assign(place.env, access);
    await place.started(place.application(own), "--shutdown-timeout", "0.5");
    place.child.kill("SIGTERM");
    expect(await place.status()).toBe(status);
    expect(place.log).toMatch(/walsync: E_UNREACHABLE /);
  }
  await away.stop(true);
});

test("another writer who takes over ends the application, even one that ignores it, with status 6", async () => {
  const place = new Place();
  await place.started(place.application("ignore", 1));
  await place.until(() => place.log.includes("snapshot shipped"));
  // Somebody else ships what would be the next increment.
  writeFileSync(join(place.bucket, "app", "00000002-00000002.ltx"), "another writer's");
  const { applicationPid } = place;
  const db = new Database(place.path("app.db"));
  db.run("insert into item values ('mine')");
  db.close();
  expect([await place.status(), isAlive(applicationPid)]).toEqual([6, false]);
  expect(place.signalsSeen()).toEqual(["SIGTERM"]);
  expect(place.log).toMatch(/walsync: E_FENCED /);
});

const newNamespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
const canBeInit = Bun.which("unshare") !== null && Bun.spawnSync([...newNamespace, "true"]).success;
if (!canBeInit)
  console.warn("SKIPPED: the watch as the first process of a container, because unshare is not allowed here");
test.skipIf(!canBeInit)(
  "as the first process of a container it leaves no zombies, and no exit status is lost",
  async () => {
    const place = new Place();
    const zombies = "grep -c '^State:.Z' /proc/[0-9]*/status | grep -c ':1'";
    const script = `for i in 1 2 3; do (true &); done; sleep 0.3; ${zombies}; sleep 2.2; ${zombies}; exit 5`;
    place.prefix = newNamespace;
    place.start(`sh -c "${script}"`);
    expect([await place.status(), place.output]).toEqual([5, "3\n0\n"]);
  },
);

describe("decisions", () => {
  const end = { status: 0, killedBy: null, wasDismissed: false };
  const failure = new Error("a failure");
  test.each([
    ["all is well", end, null, "clean"],
    ["the last sync failed", end, failure, "failure"],
    ["the application failed", { ...end, status: 7 }, null, "application"],
    ["both failed", { ...end, status: 7 }, failure, "application"],
    ["it was ended because of the failure", { ...end, status: 143, wasDismissed: true }, failure, "failure"],
  ] as const)("who decides on the exit status if %s", (_case, given, fault, decided) => {
    expect(decideExit(given, fault)).toBe(decided);
  });
});
