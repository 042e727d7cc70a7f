/** What Linux says of a process: memory and processor time. Reads /proc. */
import { readFileSync } from "node:fs";
import { MiB } from "../../src/bytes.ts";

export interface ProcessReading {
  /** Memory in RAM, shared pages of the executable included. MiB. */
  rssMb: number;
  /** The most it ever was. MiB. */
  peakMb: number;
  /** Memory of its own that no file stands behind: heap, stacks, compiled code. MiB. */
  anonymousMb: number;
  /** Processor time since the start, all threads, user and system. Ms, in steps of 10. */
  cpuMs: number;
  /** Bytes that it asked the kernel to read, from whatever. MiB. */
  readMb: number;
}

/** Throws ENOENT or ESRCH if there is no such process (any more). */
export function readProcess(pid: number): ProcessReading {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return {
    rssMb: field(status, "VmRSS") * KB,
    peakMb: field(status, "VmHWM") * KB,
    anonymousMb: field(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"), "Anonymous") * KB,
    cpuMs: cpuMs(pid),
    readMb: field(readFileSync(`/proc/${pid}/io`, "utf8"), "rchar") / MiB,
  };
}

export interface Run {
  seconds: number;
  cpuSeconds: number;
  peakMb: number;
  stdout: string;
}

/**
 * Runs a program to its end. Throws if it fails. Its peak is asked for while it runs: the one that the kernel reports at the
 * end is never below that of the process that started it.
 */
export async function runToEnd(command: readonly string[], env: Record<string, string>): Promise<Run> {
  const startMs = performance.now();
  const child = Bun.spawn([...command], { env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const output = Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  let endMs = 0;
  void child.exited.then(() => (endMs = performance.now()));
  let peakMb = 0;
  while (endMs === 0) {
    peakMb = Math.max(peakMb, peakOf(child.pid));
    await Bun.sleep(PEAK_EVERY_MS);
  }
  const [stdout, stderr] = await output;
  if (child.exitCode !== 0) {
    throw new Error(`${command.join(" ")}: expected exit status 0, found ${child.exitCode}\n${stderr.slice(-2000)}`);
  }
  const cpuSeconds = Number(child.resourceUsage()!.cpuTime.total) / 1e6;
  return { seconds: (endMs - startMs) / 1000, cpuSeconds, peakMb, stdout };
}

// --- internal ---

const KB = 1024 / MiB;
/** A peak may be missed that comes in the last moment before the end. */
const PEAK_EVERY_MS = 10;
/** What sysconf(_SC_CLK_TCK) says on every Linux that Bun runs on. */
const MS_PER_TICK = 10;

function field(text: string, name: string): number {
  const match = new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text);
  if (match === null) throw new Error(`/proc: expected ${name}, found none`);
  return Number(match[1]);
}

function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The program's name may have spaces and parentheses in it; what follows the last one starts with field 3.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [userTicks, systemTicks] = [Number(fields[14 - 3]), Number(fields[15 - 3])];
  return (userTicks + systemTicks) * MS_PER_TICK;
}

/** 0 if the process has just ended. */
function peakOf(pid: number): number {
  try {
    return field(readFileSync(`/proc/${pid}/status`, "utf8"), "VmHWM") * KB;
  } catch {
    return 0;
  }
}
