/** The tables of docs/METRICS.md. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const DOCUMENT = join(resolve(import.meta.dir, "../.."), "docs/METRICS.md");

export function documentedMetrics(): { name: string; type: string; labels: string[] }[] {
  const rows = readFileSync(DOCUMENT, "utf8").matchAll(/^\| `((?:walsync|process)_\w+)` +\| (\w+) +\| ([^|]*)\|/gm);
  return [...rows].map(([, name, type, labels]) => ({
    name: name!,
    type: type!,
    labels: [...labels!.matchAll(/`(\w+)`/g)].map((match) => match[1]!),
  }));
}
