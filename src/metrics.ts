/**
 * What the process counts and measures, in the text format of Prometheus.
 * Spec: https://prometheus.io/docs/instrumenting/exposition_formats/
 *
 * Values are kept by what they are about, so that a thousand databases cost a number each and not a text each, and a database
 * that is not watched any more can be forgotten. Times are in seconds, as Prometheus wants them.
 */
import { assert } from "./assert.ts";

export type Labels<L extends string = string> = Readonly<Record<L, string>>;
export type Sample = readonly [labels: Labels, value: number];
export type MetricType = "counter" | "gauge" | "summary" | "histogram";

/** What a metric is: for the documents. */
export interface MetricDescription {
  name: string;
  type: MetricType;
  help: string;
  labels: readonly string[];
}

/** Something that only grows. Its name ends in _total. */
export class Counter<const L extends string> {
  readonly #values: Values;

  constructor(name: string, help: string, labels: readonly L[]) {
    assert(name.endsWith("_total"), "the name of a counter ends in _total");
    this.#values = new Values(labels);
    register({ name, help, type: "counter", labels, lines: () => linesOf(name, this.#values.samples()) }, [
      this.#values,
    ]);
  }

  add(labels: Labels<L>, by = 1): void {
    this.#values.add(labels, by);
  }

  /** How much was counted under these labels. */
  valueOf(labels: Labels<L>): number {
    return this.#values.get(labels);
  }
}

/** How often something took place, and how long that took in all: NAME_count and NAME_sum. Two numbers for each database. */
export class Duration<const L extends string> {
  readonly #counts: Values;
  readonly #sums: Values;

  constructor(name: string, help: string, labels: readonly L[]) {
    assert(name.endsWith("_seconds"), "the name of a duration ends in _seconds");
    this.#counts = new Values(labels);
    this.#sums = new Values(labels);
    const lines = function* (this: Duration<L>) {
      yield* linesOf(`${name}_sum`, this.#sums.samples());
      yield* linesOf(`${name}_count`, this.#counts.samples());
    };
    register({ name, help, type: "summary", labels, lines: lines.bind(this) }, [this.#counts, this.#sums]);
  }

  observe(labels: Labels<L>, durationMs: number): void {
    this.#counts.add(labels, 1);
    this.#sums.add(labels, durationMs / 1000);
  }
}

/** How durations are spread. Many numbers for each set of labels: not for databases, of which there may be thousands. */
export class Histogram<const L extends string> {
  readonly #byLabels = new Map<string, { labels: Labels; buckets: Float64Array; sum: number }>();

  constructor(name: string, help: string, labels: readonly L[]) {
    assert(name.endsWith("_seconds"), "the name of a histogram ends in _seconds");
    assert(!(labels as readonly string[]).includes(DATABASE), "a histogram is not kept by database");
    register({ name, help, type: "histogram", labels, lines: () => this.#lines(name) }, []);
  }

  observe(labels: Labels<L>, durationMs: number): void {
    const key = formatLabels(labels);
    let entry = this.#byLabels.get(key);
    if (entry === undefined) {
      entry = { labels, buckets: new Float64Array(BUCKETS_SECONDS.length + 1), sum: 0 };
      this.#byLabels.set(key, entry);
    }
    const seconds = durationMs / 1000;
    const at = BUCKETS_SECONDS.findIndex((limit) => seconds <= limit);
    entry.buckets[at === -1 ? BUCKETS_SECONDS.length : at]! += 1;
    entry.sum += seconds;
  }

  *#lines(name: string): Iterable<string> {
    for (const { labels, buckets, sum } of this.#byLabels.values()) {
      let count = 0;
      for (const [i, inBucket] of buckets.entries()) {
        count += inBucket;
        yield lineOf(`${name}_bucket`, { ...labels, le: String(BUCKETS_SECONDS[i] ?? "+Inf") }, count);
      }
      yield lineOf(`${name}_sum`, labels, sum);
      yield lineOf(`${name}_count`, labels, count);
    }
  }
}

/** Something that goes up and down: asked for when somebody reads the metrics. Defined again, the newer one counts. */
export function defineGauge<const L extends string>(
  name: string,
  help: string,
  labels: readonly L[],
  samples: () => Iterable<readonly [labels: Labels<L>, value: number]>,
): void {
  register({ name, help, type: "gauge", labels, lines: () => linesOf(name, samples()) }, []);
}

/** As `defineGauge`, for what somebody else counts. */
export function defineCounter(name: string, help: string, value: () => number | null): void {
  assert(name.endsWith("_total"), "the name of a counter ends in _total");
  const lines = () => {
    const found = value();
    return found === null ? [] : [lineOf(name, {}, found)];
  };
  register({ name, help, type: "counter", labels: [], lines }, []);
}

/** Drops whatever was counted for a database: it is not watched any more. */
export function forgetDatabase(database: string): void {
  for (const values of allValues) values.forget(database);
}

/** Everything, as a scrape reads it: a piece of text for each metric, so that they need not be in memory together. */
export function* renderMetrics(): Iterable<string> {
  for (const { name, help, type, lines } of families.values()) {
    let text = `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n`;
    for (const line of lines()) text += line;
    yield text;
  }
}

/** Every metric that is defined, in the order of `renderMetrics`. */
export function describeMetrics(): MetricDescription[] {
  return [...families.values()].map(({ name, type, help, labels }) => ({ name, type, help, labels }));
}

// --- internal ---

interface Family extends MetricDescription {
  /** With a line break at the end of each. */
  lines: () => Iterable<string>;
}

const DATABASE = "database";
/** From what a request on the same host takes to what a large file over a slow line does. */
const BUCKETS_SECONDS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600];

const families = new Map<string, Family>();
const allValues: Values[] = [];

function register(family: Family, values: readonly Values[]): void {
  assert(/^(walsync|process)_[a-z0-9_]+$/.test(family.name), "a metric is called walsync_ or process_ and words");
  families.set(family.name, family);
  allValues.push(...values);
}

/** Numbers by labels: for each set of labels beside the database, of which there are few, one for each database. */
class Values {
  readonly #others: readonly string[];
  readonly #byOthers = new Map<string, { others: Labels; byDatabase: Map<string, number> }>();

  constructor(labels: readonly string[]) {
    this.#others = labels.filter((label) => label !== DATABASE);
  }

  add(labels: Labels, by: number): void {
    const key = this.#keyOf(labels);
    let entry = this.#byOthers.get(key);
    if (entry === undefined) {
      const { [DATABASE]: _, ...others } = labels;
      entry = { others, byDatabase: new Map() };
      this.#byOthers.set(key, entry);
    }
    const database = labels[DATABASE] ?? "";
    entry.byDatabase.set(database, (entry.byDatabase.get(database) ?? 0) + by);
  }

  get(labels: Labels): number {
    return this.#byOthers.get(this.#keyOf(labels))?.byDatabase.get(labels[DATABASE] ?? "") ?? 0;
  }

  forget(database: string): void {
    for (const { byDatabase } of this.#byOthers.values()) byDatabase.delete(database);
  }

  *samples(): Iterable<Sample> {
    for (const { others, byDatabase } of this.#byOthers.values()) {
      for (const [database, value] of byDatabase) yield [database === "" ? others : { database, ...others }, value];
    }
  }

  #keyOf(labels: Labels): string {
    return this.#others.map((label) => labels[label]).join("\0");
  }
}

function* linesOf(name: string, samples: Iterable<Sample>): Iterable<string> {
  for (const [labels, value] of samples) yield lineOf(name, labels, value);
}

function lineOf(name: string, labels: Labels, value: number): string {
  return `${name}${formatLabels(labels)} ${value}\n`;
}

function formatLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function escapeHelp(help: string): string {
  return help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}
