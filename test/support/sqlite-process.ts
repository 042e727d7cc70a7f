/**
 * A second real process that has a database open, as an application would: runs SQL, checkpoints, and tells what the
 * database holds. Closing any descriptor of a file drops the locks that its process has on it. So a test that holds a
 * pin never opens and closes the database, -wal or -shm itself; it asks this process, or copies with `copyDatabase`.
 */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";

export type CheckpointMode = "PASSIVE" | "FULL" | "RESTART" | "TRUNCATE";
export const CHECKPOINT_MODES: readonly CheckpointMode[] = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"];

export interface OpenRequest {
  path: string;
  pageSize?: number;
  journalMode?: "wal" | "delete";
  /** Default 1000: any write that would fail with SQLITE_BUSY fails the test. */
  busyTimeoutMs?: number;
  /** A small cache makes large transactions spill into the WAL before they commit. */
  cachePages?: number;
  /** Frames; SQLite's default is 1000, 0 is off. */
  autocheckpoint?: number;
}

export interface OtherCheckpoint {
  busy: boolean;
  frameCount: number;
  backfilled: number;
}

/** What is committed, and what the WAL index says of it. */
export interface CommitRecord {
  /** Of all pages, as `serialize()` returns them. */
  sha256: string;
  sizeBytes: number;
  changeCount: number;
  frameCount: number;
  commit: number;
  checksum1: number;
  checksum2: number;
  salt1: number;
  salt2: number;
  backfilled: number;
}

export interface Burst {
  seed: number;
  steps: number;
  checkpointPercent: number;
  pausePercent: number;
}

type Parameter = string | number | null;

export class SqliteProcess {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncGenerator<string>;
  #last: Promise<unknown> = Promise.resolve();

  constructor() {
    this.#child = Bun.spawn([process.execPath, join(import.meta.dir, "sqlite-process-child.ts")], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    this.#lines = linesOf(this.#child.stdout);
  }

  /** Opens a database, creating it if it is missing; closes the one that was open. */
  open(request: OpenRequest): Promise<void> {
    return this.#ask("open", request);
  }

  close(): Promise<void> {
    return this.#ask("close");
  }

  /** The request is on its way when this returns: it may be called, and awaited later, while this process blocks. */
  run(sql: string, ...parameters: Parameter[]): Promise<void> {
    return this.#ask("run", sql, parameters);
  }

  rows(sql: string): Promise<unknown[][]> {
    return this.#ask("rows", sql);
  }

  /** `waitMs` is the busy timeout of this checkpoint. */
  checkpoint(mode: CheckpointMode, waitMs = 0): Promise<OtherCheckpoint> {
    return this.#ask("checkpoint", mode, waitMs);
  }

  state(): Promise<CommitRecord> {
    return this.#ask("state");
  }

  /** Writes what `serialize()` returns to `target`. */
  async dump(target: string): Promise<{ content: Buffer; state: CommitRecord }> {
    const state = await this.#ask<CommitRecord>("dump", target);
    return { content: Buffer.from(await Bun.file(target).arrayBuffer()), state };
  }

  /** Random transactions and checkpoints, as fast as it can; the state after each commit, and the one before all. */
  burst(request: Burst): Promise<CommitRecord[]> {
    return this.#ask("burst", request);
  }

  /** Checkpoints of random modes for a while; how many there were. */
  checkpoints(seed: number, durationMs: number): Promise<number> {
    return this.#ask("checkpoints", seed, durationMs);
  }

  /** Ends the process as a crash would: nothing is closed. */
  async crash(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  /** Closes the database and ends the process. */
  async stop(): Promise<void> {
    this.#child.stdin.end();
    const killer = setTimeout(() => this.#child.kill("SIGKILL"), 2000);
    await this.#child.exited;
    clearTimeout(killer);
  }

  #ask<T>(op: string, ...args: unknown[]): Promise<T> {
    this.#child.stdin.write(`${JSON.stringify({ op, args })}\n`);
    this.#child.stdin.flush();
    const answer = this.#last.then(async () => {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`the other process ended before it answered ${op}`);
      return JSON.parse(value) as { value: T; error?: { message: string; code?: string } };
    });
    this.#last = answer.catch(() => {});
    return answer.then(({ value, error }) => {
      if (error === undefined) return value;
      throw Object.assign(new Error(`the other process: ${error.message}`), { code: error.code });
    });
  }
}

/** Copies a database with its -wal, and on request its -shm, by a process of its own. */
export function copyDatabase(from: string, to: string, suffixes: readonly string[] = ["", "-wal"]): void {
  for (const suffix of ["", "-wal", "-shm"]) rmSync(to + suffix, { force: true });
  for (const suffix of suffixes) if (existsSync(from + suffix)) copyFile(from + suffix, to + suffix);
}

/** The bytes of a file that SQLite has open here, read by way of a copy. */
export async function bytesOf(path: string): Promise<Buffer> {
  const copy = `${path}.copy`;
  copyFile(path, copy);
  const bytes = Buffer.from(await Bun.file(copy).arrayBuffer());
  rmSync(copy);
  return bytes;
}

// --- internal ---

function copyFile(from: string, to: string): void {
  const { success, stderr } = Bun.spawnSync(["cp", from, to]);
  if (!success) throw new Error(`cp ${from} ${to}: ${stderr.toString()}`);
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}
