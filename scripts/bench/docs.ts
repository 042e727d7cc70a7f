/** docs/BENCHMARKS.md and its plot, from a report: what is written by hand stays, the rest is made anew. */
import { join, resolve } from "node:path";
import { markdownTable } from "../../src/config-reference.ts";
import type { Metric, Result } from "./measure.ts";
import { type Line, renderPlot } from "./plot.ts";
import { groupByBench, type Report, rowsOf, valuesOf } from "./report.ts";
import { spreadOf } from "./statistics.ts";

/** Throws for a report of a quick run or of a single round: no figures to publish. */
export async function writeDocs(report: Report): Promise<void> {
  if (report.scale !== "full") throw new Error("docs: expected the report of a full run, found one with --quick");
  if (report.rounds < 2) throw new Error("docs: expected two rounds or more, found one");
  const text = await Bun.file(DOCUMENT).text();
  const plot = plotOf(report.results);
  await Bun.write(DOCUMENT, `${text.slice(0, text.indexOf(MARK))}${MARK}\n\n${formatResults(report, plot !== null)}`);
  if (plot !== null) await Bun.write(PLOT, plot);
}

/** The results in Markdown: machine, versions and date, and a table for each subcommand. */
export function formatResults(report: Report, hasPlot: boolean): string {
  const { machine, versions, startedAt, rounds, results } = report;
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const lines = [
    "## Results",
    "",
    `${machine.processor}, ${machine.cores} cores, ${machine.memoryGb} GB, ${machine.system}. ${startedAt.slice(0, 10)}.`,
    `${programs.join("; ")}. ${rounds} rounds; each figure is the median, with the range of the rounds behind it.`,
    "",
  ];
  if (hasPlot) lines.push("![RSS and idle CPU against the number of databases](benchmarks.svg)", "");
  for (const [bench, group] of groupByBench(results)) {
    lines.push(`### ${bench}`, "", markdownTable(rowsOf(group)), "");
    const faults = group.flatMap(({ situation, faults }) => faults.map((fault) => `- ${situation}, ${oneLine(fault)}`));
    if (faults.length > 0) lines.push("Not finished:", "", ...faults, "");
  }
  return lines.join("\n");
}

/** RSS and idle CPU over the number of databases; null if the report has neither. */
export function plotOf(results: readonly Result[]): string | null {
  const panels = [
    { bench: "rss", metric: "rssSettled", title: "RSS, settled, MB", yMin: 1 },
    { bench: "idle", metric: "idleCpu", title: "CPU while idle, % of a core", yMin: 0.01 },
  ] as const;
  const drawn = panels
    .map(({ bench, metric, title, yMin }) => ({
      title,
      yMin,
      xTitle: "databases in one process",
      lines: linesOf(
        results.filter((result) => result.bench === bench),
        metric,
      ),
    }))
    .filter(({ lines }) => lines.some(({ points }) => points.length > 0));
  return drawn.length === 0 ? null : renderPlot(drawn);
}

// --- internal ---

/** Everything behind this line is made. */
const MARK = "<!-- From here on: bun run bench docs -->";
const ROOT = resolve(import.meta.dir, "../..");
const DOCUMENT = join(ROOT, "docs/BENCHMARKS.md");
const PLOT = join(ROOT, "docs/benchmarks.svg");
const COLORS: [name: string, color: string][] = [
  ["walsync", "#0969da"],
  ["litestream", "#bc4c00"],
];

function linesOf(results: readonly Result[], metric: Metric): Line[] {
  return COLORS.map(([name, color]) => ({
    name,
    color,
    points: results.flatMap((result) => {
      const spread = spreadOf(valuesOf(result, name, metric));
      if (spread === null || result.databases === null) return [];
      return [{ x: result.databases, y: spread.median, low: spread.low, high: spread.high }];
    }),
  }));
}

function oneLine(text: string): string {
  return text.split("\n", 1)[0]!;
}
