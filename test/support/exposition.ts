/**
 * A strict reader of Prometheus' text format: whatever a scraper may refuse is an error.
 * Spec: https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export interface Family {
  type: string;
  help: string;
  samples: { name: string; labels: Record<string, string>; value: number }[];
}
export type Families = Map<string, Family>;

/** Throws with the line that is wrong. */
export function parseExposition(text: string): Families {
  if (!text.endsWith("\n")) throw new Error("expected a line break at the end");
  const families: Families = new Map();
  const seen = new Set<string>();
  let current: [name: string, family: Family] | null = null;
  for (const line of text.slice(0, -1).split("\n")) {
    const wrong = (why: string) => new Error(`${line}: ${why}`);
    const help = /^# HELP ([a-z_][a-z0-9_]*) (.+)$/.exec(line);
    const type = /^# TYPE ([a-z_][a-z0-9_]*) (counter|gauge|summary|histogram)$/.exec(line);
    if (help !== null) {
      if (families.has(help[1]!)) throw wrong("a second HELP");
      if (/\\(?![\\n])/.test(help[2]!)) throw wrong("a backslash that is not escaped");
      current = [help[1]!, { type: "", help: help[2]!, samples: [] }];
      families.set(...current);
      continue;
    }
    if (current === null) throw wrong("no HELP before it");
    const [name, family] = current;
    if (type !== null) {
      if (type[1] !== name || family.type !== "") throw wrong("a TYPE that does not follow its HELP");
      family.type = type[2]!;
      continue;
    }
    if (family.type === "") throw wrong("no TYPE before it");
    const sample = parseSample(line);
    if (sample === null) throw wrong("not a sample");
    if (!suffixesOf(family.type).some((suffix) => sample.name === name + suffix)) throw wrong(`not of ${name}`);
    if (family.type === "counter" && !name.endsWith("_total")) throw wrong("a counter without _total");
    if (family.type !== "gauge" && !(sample.value >= 0)) throw wrong("a count below zero");
    const series = JSON.stringify([sample.name, Object.entries(sample.labels).sort()]);
    if (seen.has(series)) throw wrong("a second sample of one series");
    seen.add(series);
    family.samples.push(sample);
  }
  for (const [name, family] of families) {
    if (family.type === "") throw new Error(`${name}: no TYPE`);
    if (family.type === "histogram") checkBuckets(name, family);
  }
  return families;
}

/** The value of one series; undefined if there is none. */
export function valueIn(families: Families, name: string, labels: Record<string, string>): number | undefined {
  const wanted = JSON.stringify(Object.entries(labels).sort());
  for (const { samples } of families.values()) {
    const found = samples.find(
      (sample) => sample.name === name && JSON.stringify(Object.entries(sample.labels).sort()) === wanted,
    );
    if (found !== undefined) return found.value;
  }
  return undefined;
}

// --- internal ---

function suffixesOf(type: string): string[] {
  if (type === "summary") return ["_sum", "_count"];
  return type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
}

function parseSample(line: string): Family["samples"][number] | null {
  const match = /^([a-z_][a-z0-9_]*)(?:\{(.*)\})? (\+Inf|-?[0-9.]+(?:e[+-]?\d+)?)$/.exec(line);
  if (match === null || Number.isNaN(Number(match[3]!.replace("+Inf", "Infinity")))) return null;
  const labels: Record<string, string> = {};
  let rest = match[2] ?? "";
  while (rest !== "") {
    const pair = /^([a-z_][a-z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest);
    if (pair === null || pair[1]! in labels) return null;
    labels[pair[1]!] = pair[2]!.replaceAll(/\\(.)/g, (_, sign: string) => (sign === "n" ? "\n" : sign));
    rest = rest.slice(pair[0].length);
  }
  return { name: match[1]!, labels, value: Number(match[3]!.replace("+Inf", "Infinity")) };
}

/** Buckets grow, and the last one is +Inf and holds as many as there are in all. */
function checkBuckets(name: string, { samples }: Family): void {
  const bySeries = Map.groupBy(samples, ({ labels: { le: _, ...others } }) => JSON.stringify(others));
  for (const group of bySeries.values()) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const counts = buckets.map(({ value }) => value);
    const count = group.find((sample) => sample.name === `${name}_count`)?.value;
    const isSorted = counts.every((value, i) => value >= (counts[i - 1] ?? 0));
    if (!isSorted || buckets.at(-1)?.labels.le !== "+Inf" || counts.at(-1) !== count) {
      throw new Error(`${name}: buckets that do not add up`);
    }
  }
}
