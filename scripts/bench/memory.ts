/** What a program holds while something goes on: at any one moment it may be much more, or much less. */
import type { RunningProgram } from "./running-program.ts";

export interface AverageMemory {
  rssMb: number;
  anonymousMb: number;
}

/** The averages of readings each second, from the first second of `work` to its end. Throws if the program has ended by then. */
export async function averageMemoryDuring(program: RunningProgram, work: Promise<void>): Promise<AverageMemory> {
  const readings: AverageMemory[] = [];
  let isOver = false;
  const end = work.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    await Promise.race([end, Bun.sleep(READ_EVERY_MS)]);
    readings.push(program.read());
  }
  const averageOf = (figure: keyof AverageMemory) =>
    readings.reduce((sum, reading) => sum + reading[figure], 0) / readings.length;
  return { rssMb: averageOf("rssMb"), anonymousMb: averageOf("anonymousMb") };
}

// --- internal ---

const READ_EVERY_MS = 1000;
