/**
 * How a command reaches a watch that runs on this host: a socket for each process, in a folder that only its user can enter.
 * HTTP with JSON, so that it can be asked with curl, too: GET /status, POST /sync?name=N, POST /snapshot?name=N.
 */
import { lstatSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageOf, WalsyncError } from "./errors.ts";

/** What a running watch says of one database. */
export interface DatabaseReport {
  name: string;
  path: string;
  /** "failed", "fenced": see `error`. "waiting": for the destination, or for the file. "scanning": is read whole. "vanished": the file is gone, and the rest is shipped. */
  state: "live" | "scanning" | "waiting" | "failed" | "vanished" | "fenced" | "closed";
  /** Newest transaction that is captured, and newest that the destination acknowledged; 0 before the first. */
  txid: number;
  shipped_txid: number;
  /** Age of the oldest file that is captured and not acknowledged, and how many transactions wait. */
  lag_seconds: number;
  lag_transactions: number;
  /** The database, as it was captured last; 0 before the first. */
  size_bytes: number;
  outbox_bytes: number;
  wal_bytes: number;
  /** When the destination last acknowledged a file, ISO 8601; null if not since the start. */
  shipped_at: string | null;
  /** Increments that the destination acknowledged since the start of the process. */
  shipped_increments: number;
  /** What keeps it from being replicated, or null. */
  error: string | null;
  /** The last restore drill of this watch, or null. */
  drill: DrillSummary | null;
}

export interface DrillSummary {
  /** When it ended, ISO 8601. */
  at: string;
  /** Why it failed, or null. */
  error: string | null;
  rto_seconds: number | null;
  rpo_seconds: number | null;
}

export interface WatchReport {
  pid: number;
  version: string;
  started_at: string;
  destination: string;
  databases: DatabaseReport[];
}

/** A watch that answered. */
export interface RunningWatch extends WatchReport {
  socket: string;
}

/** Where the sockets of this user's processes are. */
export function controlFolder(env: Readonly<Record<string, string | undefined>>): string {
  const runtime = env.XDG_RUNTIME_DIR;
  return runtime ? join(runtime, "walsync") : join(tmpdir(), `walsync-${process.getuid?.() ?? "user"}`);
}

/**
 * Throws E_DISK if the folder, which must exist, is somebody else's: they could answer in place of a watch, or see what is
 * asked.
 */
export function requireOwnFolder(folder: string): void {
  const { uid } = lstatSync(folder);
  if (process.getuid === undefined || uid === process.getuid()) return;
  throw new WalsyncError("E_DISK", `${folder}: expected a folder of this user's own, found one of user ${uid}`, {
    hint: "Remove it, or set XDG_RUNTIME_DIR to a folder that only this user can enter.",
  });
}

/** Every watch of this user that runs. Sockets that dead processes left are removed. */
export async function runningWatches(env: Readonly<Record<string, string | undefined>>): Promise<RunningWatch[]> {
  const folder = controlFolder(env);
  const names = socketsIn(folder);
  if (names.length > 0) requireOwnFolder(folder);
  const found = await Promise.all(names.map((name) => askStatus(join(folder, name))));
  return found.filter((watch) => watch !== null).sort((a, b) => a.pid - b.pid);
}

/**
 * Asks a watch to do something for a database and waits for it, however long. Throws what it answers, with its code, and
 * E_UNREACHABLE if it ends meanwhile.
 */
export async function requestOf(
  { socket, pid }: RunningWatch,
  action: "sync" | "snapshot",
  name: string,
  options: { wait: boolean; signal: AbortSignal },
): Promise<{ txid: number }> {
  const query = new URLSearchParams({ name, wait: String(options.wait) });
  const url = `http://localhost/${action}?${query}`;
  let response: Response;
  let answer: { txid: number; code?: WalsyncError["code"]; message?: string; hint?: string };
  try {
    response = await fetch(url, { method: "POST", unix: socket, signal: options.signal });
    answer = (await response.json()) as typeof answer;
  } catch (error) {
    options.signal.throwIfAborted();
    const message = `${name}: expected an answer of the watch, process ${pid}, found that it has ended`;
    throw new WalsyncError("E_UNREACHABLE", message, {
      hint: "What it had captured is on the disk, and the next start ships it.",
      cause: error,
    });
  }
  if (response.ok) return answer;
  throw new WalsyncError(answer.code ?? "E_UNREACHABLE", answer.message ?? `status ${response.status}`, {
    hint: answer.hint,
  });
}

// --- internal ---

const ANSWER_WITHIN_MS = 5000;
const SOCKET_NAME = /^\d+\.sock$/;

function socketsIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => SOCKET_NAME.test(name));
  } catch {
    return []; // No folder: no watch ever ran.
  }
}

async function askStatus(socket: string): Promise<RunningWatch | null> {
  try {
    const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
    const response = await fetch("http://localhost/status", { unix: socket, signal });
    return { ...((await response.json()) as WatchReport), socket };
  } catch (error) {
    if (isAlive(socket)) {
      throw new WalsyncError("E_UNREACHABLE", `${socket}: expected the watch to answer, found: ${messageOf(error)}`, {
        hint: "It may be busy; try again. If it hangs, report it.",
        cause: error,
      });
    }
    rmSync(socket, { force: true });
    return null;
  }
}

/** The process that the socket is named after still runs. */
function isAlive(socket: string): boolean {
  const pid = Number(/(\d+)\.sock$/.exec(socket)?.[1]);
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
