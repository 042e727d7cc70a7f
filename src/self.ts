/** How this program starts itself again: as a child with other arguments. */
import { join } from "node:path";

/** The words of a command that runs this very program, compiled or from source, with `args`. */
export function selfCommand(...args: readonly string[]): string[] {
  const isCompiled = import.meta.dir.startsWith(COMPILED_FOLDER);
  // By the name that the kernel has for it: an upgrade may have replaced the file, and the two must agree.
  const program = isCompiled && process.platform === "linux" ? "/proc/self/exe" : process.execPath;
  return isCompiled ? [program, ...args] : [program, join(import.meta.dir, "main.ts"), ...args];
}

// --- internal ---

/** Where the modules of a compiled program seem to be. */
const COMPILED_FOLDER = "/$bunfs/";
