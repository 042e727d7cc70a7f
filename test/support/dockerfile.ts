/** What the tests ask of a Dockerfile: its instructions in order. */
import { readFileSync } from "node:fs";

export interface Instruction {
  /** In capitals. */
  name: string;
  /** All that stands behind it; several lines are one. */
  text: string;
}

export function readDockerfile(path: string): Instruction[] {
  const lines = readFileSync(path, "utf8").replaceAll(/^\s*#.*\n/gm, "");
  return lines
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const [, name, text] = /^(\w+)\s+(.*)$/.exec(line)!;
      return { name: name!.toUpperCase(), text: text! };
    });
}

/** The words of the last `name` of this file, in the form of a JSON array; of HEALTHCHECK those of its CMD. */
export function execForm(instructions: readonly Instruction[], name: string): string[] {
  const found = instructions.findLast((instruction) => instruction.name === name);
  const words = /\[.*\]$/.exec(found?.text ?? "")?.[0];
  if (words === undefined) throw new Error(`${name}: expected a JSON array of words, found ${found?.text}`);
  return JSON.parse(words) as string[];
}
