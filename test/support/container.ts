/**
 * What a container runtime does, with the namespaces of Linux: processes that see one folder as their whole file system and
 * themselves as the only processes, as a user without privileges. The network is that of this machine.
 */
import { copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** False, with a warning, where this user may not do that. */
export function canRunContainers(): boolean {
  const tools = ["unshare", "nsenter"].every((name) => Bun.which(name) !== null);
  if (tools && Bun.spawnSync(["unshare", ...NAMESPACES, "--root=/", "-S", "1", "-G", "1", "true"]).success) return true;
  console.warn("SKIPPED: tests in containers, because unshare and nsenter are not there or not allowed");
  return false;
}

export interface ContainerOptions {
  /** What it sees as "/". */
  root: string;
  /** Absolute in there. */
  workdir: string;
  /** Number of user and group. */
  user: number;
  command: readonly string[];
  /** All there is in the environment, beside PATH. */
  env: Record<string, string>;
}

export class Container {
  readonly #options: ContainerOptions;
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #pid: number;
  /** What it says on standard output and error. */
  readonly output: Promise<string>;

  private constructor(options: ContainerOptions, child: Bun.Subprocess<"ignore", "pipe", "pipe">, pid: number) {
    this.#options = options;
    this.#child = child;
    this.#pid = pid;
    this.output = Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]).then((texts) =>
      texts.join(""),
    );
  }

  static async start(options: ContainerOptions): Promise<Container> {
    const { root, workdir, user, command, env } = options;
    const as = [`--root=${root}`, `--wd=${workdir}`, `--setuid=${user}`, `--setgid=${user}`];
    const child = Bun.spawn(["unshare", ...NAMESPACES, ...as, ...command], {
      env: { PATH: CONTAINER_PATH, ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    for (;;) {
      const [pid] = childrenOf(child.pid);
      if (pid !== undefined) return new Container(options, child, pid);
      if (child.exitCode !== null)
        throw new Error(`unshare: expected a container, found ${await new Response(child.stderr).text()}`);
      await Bun.sleep(5);
    }
  }

  /** Exit status of a command that runs beside the first one, as a health check does. */
  async exec(command: readonly string[]): Promise<number> {
    const { user, env } = this.#options;
    const as = ["--root", "--wd", `--setuid=${user}`, `--setgid=${user}`];
    const into = ["--target", String(this.#pid), "--pid", "--mount", ...as];
    const child = Bun.spawn(["nsenter", ...into, ...command], {
      env: { PATH: CONTAINER_PATH, ...env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
    return await child.exited;
  }

  /** Sends SIGTERM, and SIGKILL after `graceMs`. Returns the exit status. */
  async stop(graceMs: number): Promise<number> {
    try {
      process.kill(this.#pid, "SIGTERM");
    } catch {
      // It has ended by itself.
    }
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), graceMs);
    const status = await this.#child.exited;
    clearTimeout(timer);
    return status;
  }
}

/** Puts a program into `root` with the shared libraries that it asks for, and nothing else. */
export function installProgram(root: string, program: string, path: string): void {
  const listed = Bun.spawnSync(["ldd", program]).stdout.toString();
  const libraries = listed.match(/\/\S+(?= \(0x)/g) ?? [];
  for (const [from, to] of [[program, path] as const, ...libraries.map((library) => [library, library] as const)]) {
    mkdirSync(dirname(join(root, to)), { recursive: true });
    copyFileSync(from, join(root, to));
  }
}

// --- internal ---

const NAMESPACES = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const CONTAINER_PATH = "/usr/local/bin:/usr/bin:/bin";

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
  } catch {
    return []; // It has ended.
  }
}
