/**
 * What the process counts and measures, in the text format of Prometheus.
 * Spec: https://prometheus.io/docs/instrumenting/exposition_formats/
 */
import { assert } from "./assert.ts";

export type Labels = Readonly<Record<string, string>>;
export type Sample = readonly [labels: Labels, value: number];

/** Something that only grows, by labels. Its name ends in _total. */
export class Counter {
  readonly #values = new Map<string, { labels: Labels; value: number }>();

  constructor(name: string, help: string) {
    assert(name.endsWith("_total"), "the name of a counter ends in _total");
    const samples = () => [...this.#values.values()].map(({ labels, value }): Sample => [labels, value]);
    const forget = (label: string, value: string) => {
      for (const [key, { labels }] of this.#values) if (labels[label] === value) this.#values.delete(key);
    };
    register({ name, help, type: "counter", samples, forget });
  }

  add(labels: Labels, by = 1): void {
    const key = formatLabels(labels);
    const known = this.#values.get(key);
    if (known === undefined) this.#values.set(key, { labels, value: by });
    else known.value += by;
  }

  /** How much was counted under these labels. */
  valueOf(labels: Labels): number {
    return this.#values.get(formatLabels(labels))?.value ?? 0;
  }
}

/** Something that goes up and down: asked for when somebody reads the metrics. */
export function defineGauge(name: string, help: string, samples: () => Iterable<Sample>): void {
  register({ name, help, type: "gauge", samples, forget: () => {} });
}

/** Forgets what was counted with this value of a label: it is about something that is gone. */
export function forgetSeries(label: string, value: string): void {
  for (const { forget } of families.values()) forget(label, value);
}

/** Everything, as a scrape reads it. */
export function renderMetrics(): string {
  const lines: string[] = [];
  for (const { name, help, type, samples } of families.values()) {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const [labels, value] of samples()) lines.push(`${name}${formatLabels(labels)} ${value}`);
  }
  return `${lines.join("\n")}\n`;
}

// --- internal ---

interface Family {
  name: string;
  help: string;
  type: "counter" | "gauge";
  samples: () => Iterable<Sample>;
  forget: (label: string, value: string) => void;
}

const families = new Map<string, Family>();

function register(family: Family): void {
  assert(/^walsync_[a-z_]+$/.test(family.name), "a metric is called walsync_ and words");
  families.set(family.name, family);
}

function formatLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
