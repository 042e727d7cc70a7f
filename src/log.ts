/**
 * Everything that walsync says: results on standard output, events and progress on standard error.
 *
 * Promises: no secret passes (`redact` sees every text), output is complete when the process exits (writes are
 * synchronous), and a reader that went away (`| head`) is no reason to fail. One event is one line with field names
 * from one list, so that logs can be searched. Colours and progress bars appear on a terminal only.
 */
import { writeSync } from "node:fs";
import { type ConsolaInstance, createConsola, LogLevels } from "consola/core";
import { errnoOf, messageOf } from "./errors.ts";
import { printable } from "./printable.ts";
import { formatBytes, formatDuration } from "./quantities.ts";

export type LogLevel = "error" | "warn" | "info" | "debug";
export type LogFormat = "text" | "json";

/** The names an event's fields may have. One meaning each, units last; add here, so that a search finds them all. */
export interface LogFields {
  /** The name a database has at the destination. */
  database?: string | undefined;
  /** A local file or directory. */
  path?: string | undefined;
  /** URL of a destination. */
  destination?: string | undefined;
  /** Key of an object at the destination. */
  key?: string | undefined;
  txid?: bigint | undefined;
  minTxid?: bigint | undefined;
  maxTxid?: bigint | undefined;
  walOffset?: number | undefined;
  pageCount?: number | undefined;
  /** SQLite commits. */
  commits?: number | undefined;
  files?: number | undefined;
  databases?: number | undefined;
  sizeBytes?: number | undefined;
  totalBytes?: number | undefined;
  durationMs?: number | undefined;
  delayMs?: number | undefined;
  attempt?: number | undefined;
  status?: number | undefined;
  pid?: number | undefined;
  port?: number | undefined;
  signal?: string | undefined;
  version?: string | undefined;
  layout?: string | undefined;
  /** Why this happened, in words or as a stable name ("wal-restarted"). */
  reason?: string | undefined;
  /** Stable code of an error. */
  code?: string | undefined;
  hint?: string | undefined;
  error?: unknown;
  /** What led to the error, nearest first. */
  causes?: readonly string[] | undefined;
  /** Of a bug. */
  stack?: string | undefined;
}

export interface LogSettings {
  format: LogFormat;
  /** Least important level that is still written. */
  level: LogLevel;
  /** Standard error is a terminal: bars may be drawn. */
  terminal: boolean;
  color: boolean;
  /** Takes the lines of events; null: standard error does. */
  sink: ((line: string) => void) | null;
}

/** One event, for whoever listens. */
export interface LogEntry {
  readonly time: Date;
  readonly level: LogLevel;
  /** What happened, in a few fixed words. */
  readonly event: string;
  /** By the names of `LogFields`. Secrets are blotted out. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Sets up logging for the process. Before the first call nothing is written: a program that uses walsync has its own log. */
export function configureLog(given: Partial<LogSettings>): void {
  settings = { ...settings, ...given };
  logger.level = LogLevels[settings.level];
}

/**
 * Gives `listener` every event of this process from now on that is at least as important as level info, until the result is
 * called. It must not throw.
 */
export function listenToLog(listener: (entry: LogEntry) => void): () => void {
  // An object of its own for each call: the same function may listen twice.
  const own = { listener };
  listeners.add(own);
  return () => void listeners.delete(own);
}

/** What the standard error stream is: for `configureLog`. NO_COLOR (https://no-color.org) and TERM=dumb are obeyed. */
export function detectTerminal(env: Readonly<Record<string, string | undefined>>): {
  terminal: boolean;
  color: boolean;
} {
  const terminal = process.stderr.isTTY === true && env.TERM !== "dumb";
  return { terminal, color: terminal && !env.NO_COLOR };
}

/** Writes one event as one line to standard error. `event` says what happened, in a few fixed words. */
export function logEvent(level: LogLevel, event: string, fields: LogFields = {}): void {
  logger[level](event, fields);
}

/** Whether to log the last of so many failures in a row: 1, 2, 4, 8 and so on. Loud at once, then ever more rarely. */
export function isToldOf(failures: number): boolean {
  return (failures & (failures - 1)) === 0;
}

/** Writes a line of results to standard output. */
export function print(line = ""): void {
  eraseBar();
  writeFully(STDOUT, `${printable(redact(line))}\n`);
}

/** Writes to standard error why a command failed: as these lines, or with --log-format json as one event. */
export function printFailure(lines: readonly string[], fields: LogFields): void {
  if (settings.format === "json") logEvent("error", "failed", fields);
  else for (const line of lines) writeLine(printable(redact(line)));
}

/** A line on standard error that is no event: what a command has to say beside its result. */
export function printNote(line: string): void {
  writeLine(printable(redact(line)));
}

/** Writes a value as one line of JSON to standard output. */
export function printJson(value: unknown): void {
  print(formatJson(value));
}

/** A value as one line of JSON. A u64 becomes a number where none of its digits is lost. */
export function formatJson(value: unknown): string {
  return JSON.stringify(value, jsonReplacer);
}

/** From now on nothing that is written shows `secret`: a URL or a header that somebody else must not know. */
export function keepSecret(secret: string): void {
  if (secret.length >= MIN_SECRET_LENGTH) secrets.add(secret);
}

/**
 * `text` without secrets: what `keepSecret` was given, the values of AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, as they are or percent-encoded,
 * and the user and password of any URL. A password may have a "/" in it, as keys of AWS do.
 */
export function redact(text: string, env: Readonly<Record<string, string | undefined>> = process.env): string {
  let safe = text;
  for (const secret of secrets) safe = safe.replaceAll(secret, "***");
  safe = safe.replaceAll(CREDENTIALS_IN_URL, "$1***@");
  for (const name of ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]) {
    const secret = env[name];
    // Shorter values cannot be real keys, and hiding every "a" would hide the message.
    if (secret === undefined || secret.length < MIN_SECRET_LENGTH) continue;
    safe = safe.replaceAll(secret, "***").replaceAll(encodeURIComponent(secret), "***");
  }
  return safe;
}

export interface Progress {
  /** Tells how many bytes are done by now. Cheap: call it as often as you like. */
  update(doneBytes: number): void;
  /** Ends the display. Call it once, also after a failure (`finally`). */
  end(): void;
}

/**
 * Shows how far a long transfer is. On a terminal a bar in place; else a line at the start, one each ten seconds, and
 * one at the end. These lines are events of level info. `totalBytes` undefined: not known.
 */
export function progress(label: string, totalBytes?: number, now: () => number = Date.now): Progress {
  const startedMs = now();
  const state: BarState = { label, totalBytes, doneBytes: 0, startedMs };
  const drawn = settings.terminal && settings.format === "text" && LogLevels[settings.level] >= LogLevels.info;
  let shownMs = startedMs;
  if (!drawn) logEvent("info", `${label}: started`, { totalBytes });
  return {
    update(doneBytes) {
      state.doneBytes = doneBytes;
      if (now() - shownMs < (drawn ? BAR_INTERVAL_MS : LINE_INTERVAL_MS)) return;
      shownMs = now();
      if (drawn) drawBar(state, shownMs);
      else
        logEvent("info", `${label}: under way`, { sizeBytes: doneBytes, totalBytes, durationMs: shownMs - startedMs });
    },
    end() {
      eraseBar();
      logEvent("info", `${label}: ended`, { sizeBytes: state.doneBytes, durationMs: now() - startedMs });
    },
  };
}

/**
 * Rows as aligned columns, one line each, two spaces apart. Columns in `right` (from 0) are aligned to the right:
 * numbers. No white space at line ends.
 */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, Bun.stringWidth(cell));
  const align = (cell: string, i: number) => {
    const space = " ".repeat(widths[i]! - Bun.stringWidth(cell));
    return right.includes(i) ? space + cell : cell + space;
  };
  return rows.map((row) => row.map(align).join("  ").trimEnd()).join("\n");
}

/** Columns of the terminal that standard output is; infinite if it is none, since a file or a program breaks no lines. */
export function terminalWidth(): number {
  return process.stdout.columns || Number.POSITIVE_INFINITY;
}

/** One event as one line of text: `12:00:00.000Z info  event  name=value …`. Exported for tests. */
export function formatEvent(
  at: Date,
  level: LogLevel,
  event: string,
  fields: LogFields,
  format: LogFormat,
  color = false,
): string {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  if (format === "json") {
    return printable(
      JSON.stringify({ time: at.toISOString(), level, event, ...Object.fromEntries(given) }, jsonReplacer),
    );
  }
  const name = level.padEnd(5);
  const shown = color ? `\u001b[${LEVEL_COLORS[level]}m${name}\u001b[39m` : name;
  const text = [event, ...given.map(([key, value]) => `${key}=${fieldText(value)}`)].join(" ");
  return `${at.toISOString()} ${shown} ${printable(text)}`;
}

// --- internal ---

const STDOUT = 1;
const STDERR = 2;
/** What stands between "scheme:" and the last "@" of the word, if a user or a colon comes before any slash. */
const CREDENTIALS_IN_URL = /(\b[a-z][a-z0-9+.-]*:(?:\/\/)?)(?:[^/?#\s@"']*:[^\s"']*|[^/?#\s@"']+)@/gi;
const MIN_SECRET_LENGTH = 4;
const BAR_INTERVAL_MS = 100;
const LINE_INTERVAL_MS = 10_000;
const BAR_CELLS = 24;
const LEVEL_COLORS: Record<LogLevel, number> = { error: 31, warn: 33, info: 36, debug: 90 };

interface BarState {
  label: string;
  totalBytes: number | undefined;
  doneBytes: number;
  startedMs: number;
}

let settings: LogSettings = { format: "text", level: "info", terminal: false, color: false, sink: () => {} };
const listeners = new Set<{ listener: (entry: LogEntry) => void }>();
let barIsDrawn = false;
const secrets = new Set<string>();

const logger: ConsolaInstance = createConsola({
  level: LogLevels.info,
  // Consola's throttle drops lines that repeat within a second. An event that happened is an event that is logged.
  throttle: 0,
  reporters: [
    {
      log({ date, type, args }) {
        const [event, fields] = args as [event: string, fields: LogFields];
        for (const { listener } of listeners) listener(entryOf(date, type as LogLevel, event, fields));
        const line = redact(formatEvent(date, type as LogLevel, event, fields, settings.format, settings.color));
        if (settings.sink === null) writeLine(line);
        else settings.sink(line);
      },
    },
  ],
});

/** Through its line of JSON, which no secret passes. */
function entryOf(time: Date, level: LogLevel, event: string, fields: LogFields): LogEntry {
  const line = redact(formatEvent(time, level, event, fields, "json"));
  const { time: _time, level: _level, event: _event, ...safe } = JSON.parse(line) as Record<string, unknown>;
  return { time, level, event, fields: safe };
}

function writeLine(line: string): void {
  eraseBar();
  writeFully(STDERR, `${line}\n`);
}

/** Waits for a slow reader, and gives up without a word on one that is gone: EPIPE is how `| head` says thanks. */
function writeFully(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += writeSync(fd, bytes, sent);
    } catch (error) {
      // A pipe shared with a program that made it non-blocking: full for now.
      if (errnoOf(error) === "EAGAIN") Bun.sleepSync(1);
      else return;
    }
  }
}

function drawBar({ label, totalBytes, doneBytes, startedMs }: BarState, nowMs: number): void {
  const perSecond = (doneBytes / Math.max(nowMs - startedMs, 1)) * 1000;
  const speed = `${formatBytes(perSecond)}/s`;
  let line = `${label}  ${formatBytes(doneBytes)}  ${speed}`;
  if (totalBytes !== undefined && totalBytes > 0) {
    const share = Math.min(doneBytes / totalBytes, 1);
    const cells = Math.round(share * BAR_CELLS);
    const left =
      perSecond > 0 ? `  ${formatDuration((Math.max(totalBytes - doneBytes, 0) / perSecond) * 1000)} left` : "";
    const bar = `[${"#".repeat(cells)}${"-".repeat(BAR_CELLS - cells)}]`;
    line = `${label}  ${bar} ${String(Math.floor(share * 100)).padStart(3)} %  ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}  ${speed}${left}`;
  }
  // A line that wraps could not be erased with one carriage return.
  const columns = process.stderr.columns ?? 80;
  writeFully(STDERR, `\r\u001b[2K${printable(redact(line)).slice(0, columns - 1)}`);
  barIsDrawn = true;
}

/** The next update draws the bar again below whatever is written now. */
function eraseBar(): void {
  if (barIsDrawn) writeFully(STDERR, "\r\u001b[2K");
  barIsDrawn = false;
}

function fieldText(value: unknown): string {
  const text = value instanceof Error ? messageOf(value) : String(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}

function jsonReplacer(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString();
  return value instanceof Error ? messageOf(value) : value;
}
