/** A program that replicates until it is stopped, and what it says meanwhile. */
import { type ProcessReading, readProcess } from "./processes.ts";

export class RunningProgram {
  readonly startedMs = performance.now();
  readonly #name: string;
  readonly #child: Bun.Subprocess<"ignore", "ignore", "pipe">;
  readonly #waiters = new Set<{ text: string; resolve: (atMs: number) => void }>();
  readonly #reading: Promise<void>;
  readonly #listeners: ((line: string, atMs: number) => void)[] = [];
  #lastLines = "";
  /** The beginning of a line whose end is yet to come. */
  #lineStart = "";

  constructor(name: string, command: readonly string[], env: Record<string, string>) {
    this.#name = name;
    this.#child = Bun.spawn([...command], { env, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    this.#reading = this.#readLines();
  }

  get pid(): number {
    return this.#child.pid;
  }

  read(): ProcessReading {
    this.requireRunning();
    return readProcess(this.pid);
  }

  /** Throws if it has ended by itself. */
  requireRunning(): void {
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null) return;
    throw new Error(`${this.#name}: expected it to run, found exit ${exitCode ?? signalCode}\n${this.#lastLines}`);
  }

  /** When it next says something that contains `text`, by performance.now(). */
  nextLine(text: string): Promise<number> {
    return new Promise((resolve) => this.#waiters.add({ text, resolve }));
  }

  /** Calls `listener` with every line that it says from now on, and the time by performance.now(). */
  eachLine(listener: (line: string, atMs: number) => void): void {
    this.#listeners.push(listener);
  }

  /** Asks it to stop, and waits. How it ends does not count: what is measured is over by then. */
  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    const killer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_WITHIN_MS);
    await this.#child.exited;
    clearTimeout(killer);
    await this.#reading;
  }

  // --- internal ---

  async #readLines(): Promise<void> {
    for await (const chunk of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      const atMs = performance.now();
      this.#lastLines = (this.#lastLines + chunk).slice(-LINES_KEPT);
      for (const waiter of this.#waiters) {
        if (!chunk.includes(waiter.text)) continue;
        this.#waiters.delete(waiter);
        waiter.resolve(atMs);
      }
      if (this.#listeners.length === 0) continue;
      const lines = (this.#lineStart + chunk).split("\n");
      this.#lineStart = lines.pop()!;
      for (const line of lines) for (const listener of this.#listeners) listener(line, atMs);
    }
  }
}

const STOP_WITHIN_MS = 60_000;
const LINES_KEPT = 2000;
