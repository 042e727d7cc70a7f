/** Times as the page says them: in the zone of whoever looks, with UTC where a command is made of it. */
import { formatDuration } from "../../quantities.ts";

const full = new Intl.DateTimeFormat("en-GB", {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});

/** "Thu, 26 Nov 2026, 06:39:43 GMT+1". */
export function fullTime(ms: number): string {
  return full.format(ms);
}

/** "2026-11-26 05:39:43 UTC". */
export function utcTime(ms: number): string {
  return new Date(ms)
    .toISOString()
    .replace("T", " ")
    .replace(/\.\d+Z$/, " UTC");
}

/** "just now", "12 s ago", "3 min ago", "2 d ago": the biggest unit. */
export function ago(ms: number, nowMs: number): string {
  const past = nowMs - ms;
  return past < 1500 ? "just now" : `${roughDuration(past)} ago`;
}

/** "12 s", "3 min", "5 h", "2 d". */
export function roughDuration(ms: number): string {
  const unit = UNITS.findLast(([unitMs]) => ms >= unitMs) ?? UNITS[0]!;
  return `${Math.floor(ms / unit[0])} ${unit[1]}`;
}

/** What stands beside a sparkline: "–" for none. */
export function lagText(seconds: number): string {
  return seconds === 0 ? "none" : formatDuration(seconds * 1000);
}

/** The value of an <input type="datetime-local"> with seconds. */
export function localInput(ms: number): string {
  const date = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// --- internal ---

const UNITS: readonly [number, string][] = [
  [1000, "s"],
  [60_000, "min"],
  [3_600_000, "h"],
  [86_400_000, "d"],
];
