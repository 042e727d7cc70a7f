/** What a run of the bench found: as JSON to keep, and as tables to read. */
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { GiB } from "../../src/bytes.ts";
import { table } from "../../src/log.ts";
import { METRICS, type Metric, type Result } from "./measure.ts";
import { RATIO_ROUNDS_MIN, ratioOf, type Spread, spreadOf } from "./statistics.ts";

export interface Machine {
  processor: string;
  cores: number;
  memoryGb: number;
  system: string;
}

export interface Report {
  version: 1;
  /** ISO 8601, UTC. */
  startedAt: string;
  machine: Machine;
  /** Program to version. */
  versions: Record<string, string>;
  rounds: number;
  scale: "quick" | "full";
  results: Result[];
}

export function thisMachine(): Machine {
  return {
    processor: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / GiB),
    system: `${process.platform} ${release().replace(/-.*/, "")} ${process.arch}`,
  };
}

/**
 * Reads reports, and joins them. Throws if they are not of the same machine, scale and versions. Commits of walsync may differ:
 * all of them are named.
 */
export function readReports(paths: readonly string[]): Report {
  const [first, ...rest] = paths.map((path) => JSON.parse(readFileSync(path, "utf8")) as Report);
  if (first === undefined) throw new Error("expected the paths of reports, found none");
  for (const [i, report] of rest.entries()) {
    for (const part of ["version", "machine", "versions", "rounds", "scale"] as const) {
      const [expected, found] = [first, report].map((one) => JSON.stringify(comparable(one)[part]));
      if (expected !== found) throw new Error(`${paths[i + 1]}: expected ${part} ${expected}, found ${found}`);
    }
  }
  const reports = [first, ...rest];
  const walsync = [...new Set(reports.map(({ versions }) => versions.walsync))].join(" and ");
  return {
    ...first,
    versions: { ...first.versions, walsync },
    results: reports.flatMap(({ results }) => results),
  };
}

/** One line for each figure of each situation: what it is, each entrant's median and range, and the ratio. */
export function rowsOf(results: readonly Result[]): string[][] {
  const names = [...new Set(results.flatMap(({ samples }) => Object.keys(samples)))];
  const isCompared = names.includes("walsync") && names.includes("litestream");
  const rows = [["situation", "figure", ...names, ...(isCompared ? ["walsync / litestream"] : [])]];
  for (const result of results) {
    for (const [i, metric] of metricsOf(result).entries()) {
      const cells = names.map((name) => formatSpread(spreadOf(valuesOf(result, name, metric)), metric));
      const ratio = formatRatio(valuesOf(result, "walsync", metric), valuesOf(result, "litestream", metric));
      rows.push([i === 0 ? result.situation : "", METRICS[metric].title, ...cells, ...(isCompared ? [ratio] : [])]);
    }
  }
  return rows;
}

export function formatText(results: readonly Result[]): string {
  const parts = [...groupByBench(results)].map(([bench, group]) => {
    const faults = group.flatMap(({ situation, faults }) => faults.map((fault) => `! ${situation}, ${fault}`));
    return [`${bench}`, table(rowsOf(group)), ...faults].join("\n");
  });
  return parts.join("\n\n");
}

export function groupByBench(results: readonly Result[]): Map<string, Result[]> {
  return Map.groupBy(results, ({ bench }) => bench);
}

/** What an entrant's rounds gave for one figure. */
export function valuesOf({ samples }: Result, name: string, metric: Metric): number[] {
  return (samples[name] ?? []).map((figures) => figures[metric]).filter((value) => value !== undefined);
}

// --- internal ---

function comparable(report: Report): Report {
  const { walsync: _walsync, ...peers } = report.versions;
  return { ...report, versions: peers };
}

function metricsOf({ samples }: Result): Metric[] {
  const found = new Set(Object.values(samples).flatMap((rounds) => rounds.flatMap((figures) => Object.keys(figures))));
  return (Object.keys(METRICS) as Metric[]).filter((metric) => found.has(metric));
}

/** "48.1 MB (47.9 to 48.3)": median and range over the rounds. */
function formatSpread(spread: Spread | null, metric: Metric): string {
  if (spread === null) return "-";
  const { unit } = METRICS[metric];
  const shown = `${formatNumber(spread.median)}${unit === "" ? "" : ` ${unit}`}`;
  return spread.rounds === 1 ? shown : `${shown} (${formatNumber(spread.low)} to ${formatNumber(spread.high)})`;
}

function formatRatio(ours: readonly number[], theirs: readonly number[]): string {
  if (ours.length === 0 || theirs.length === 0) return "-";
  if (Math.min(ours.length, theirs.length) < RATIO_ROUNDS_MIN) return "none from one round";
  const ratio = ratioOf(ours, theirs);
  return ratio === null ? "-" : ratio.toFixed(2);
}

/** Three digits that count. */
function formatNumber(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value === 0 ? "0" : value.toFixed(digits);
}
