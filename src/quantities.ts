/** Sizes and times as people read them. The same words on the terminal and on the status page. */
import { KiB } from "./bytes.ts";

/** "0 B", "512 B", "1.5 KiB", "64 MiB": at most one decimal. */
export function formatBytes(sizeBytes: number): string {
  let value = sizeBytes;
  let unit = 0;
  // 1023.95 would round to "1024.0 KiB".
  while (value >= KiB - 0.05 && unit < BYTE_UNITS.length - 1) {
    value /= KiB;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : Number(value.toFixed(1))} ${BYTE_UNITS[unit]}`;
}

/** "35 ms", "1.5 s", "2 min 05 s", "3 h 07 min", "2 d 04 h": the two biggest units. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 999.5) return `${Math.round(durationMs)} ms`;
  if (durationMs < 59_950) return `${Number((durationMs / 1000).toFixed(1))} s`;
  const two = (value: number) => String(value).padStart(2, "0");
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

// --- internal ---

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
