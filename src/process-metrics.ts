/** What is measured of the process itself, under the names that all Prometheus clients give it. */
import { readdirSync } from "node:fs";
import { readDescriptorLimit } from "./descriptor-limit.ts";
import { defineCounter, defineGauge } from "./metrics.ts";

/** Defines them. What this system cannot tell is left out. */
export function measureProcess(about: { version: string; commit: string }): void {
  const define = (name: string, help: string, read: () => number | null) =>
    defineGauge(name, help, [], () => {
      const value = read();
      return value === null ? [] : [[{}, value]];
    });
  defineGauge("walsync_build_info", "1, with what this walsync was built from.", ["version", "commit"], () => [
    [about, 1],
  ]);
  const startedAt = Date.now() / 1000 - process.uptime();
  define("process_start_time_seconds", "Unix time of the start of the process.", () => startedAt);
  define("process_resident_memory_bytes", "Memory of the process.", () => process.memoryUsage.rss());
  defineCounter("process_cpu_seconds_total", "Time of processors that the process used.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  define("process_open_fds", "File descriptors that are open.", countDescriptors);
  define("process_max_fds", "File descriptors that may be open.", () => {
    const limit = readDescriptorLimit();
    return limit === Number.POSITIVE_INFINITY ? null : limit;
  });
}

// --- internal ---

function countDescriptors(): number | null {
  try {
    // The one that reads the folder is among them.
    return readdirSync(process.platform === "linux" ? "/proc/self/fd" : "/dev/fd").length - 1;
  } catch {
    return null;
  }
}
