/** How many files one process may have open. */
import { readFileSync } from "node:fs";

/** How many file descriptors this process may have open, which may be infinitely many. Null if this system does not tell. */
export function readDescriptorLimit(): number | null {
  let limits: string;
  try {
    limits = readFileSync("/proc/self/limits", "utf8");
  } catch {
    return null; // No such file on this system.
  }
  const soft = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1];
  if (soft === undefined) return null;
  return soft === "unlimited" ? Number.POSITIVE_INFINITY : Number(soft);
}
