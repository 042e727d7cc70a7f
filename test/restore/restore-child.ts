/**
 * Restores from the folder in the first argument to the second. It prints a line when it has begun to write, and then
 * waits to be killed; with a third argument it goes on, and prints its peak memory in bytes at the end.
 */
import { readFileSync } from "node:fs";
import { openDestination } from "../../src/destination/open.ts";
import { restoreDatabase } from "../../src/restore/restore.ts";

const [bucket, output, toTheEnd] = process.argv.slice(2);
const destination = await openDestination(bucket!);
await restoreDatabase(destination, "app", output!, {
  target: { kind: "newest" },
  integrity: "quick",
  force: false,
  onProgress: () => {
    if (toTheEnd !== undefined) return;
    process.stdout.write("begun\n");
    for (;;) Bun.sleepSync(1000);
  },
});
const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
console.log(Number(peak ?? 0) * 1024);
