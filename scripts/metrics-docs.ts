/** Writes the tables of docs/METRICS.md from the metrics that the program defines: `bun run docs`. test/docs.test.ts compares. */
import { join } from "node:path";
import "../src/destination/measure.ts";
import { markdownTable } from "../src/config-reference.ts";
import { measureDrills } from "../src/drill/metrics.ts";
import { describeMetrics, type MetricDescription } from "../src/metrics.ts";
import { measureProcess } from "../src/process-metrics.ts";
import { measure } from "../src/replication/metrics.ts";
import { measureWebhook } from "../src/replication/webhook.ts";
import { measureReplica } from "../src/restore/metrics.ts";
import "../src/upkeep/caretaker.ts";
import { ROOT, withPart } from "./generated.ts";

const PATH = "docs/METRICS.md";

export async function metricsDocument(): Promise<string> {
  return await withPart(PATH, `${tables().join("\n\n")}\n`);
}

function tables(): string[] {
  measureProcess({ version: "", commit: "" });
  measure(() => []);
  measureDrills(() => []);
  measureWebhook(() => 0);
  measureReplica("", () => ({ txid: null, capturedAtMs: null, currentAtMs: null }));
  const isOfReplica = ({ name }: MetricDescription) => name.startsWith("walsync_replica_");
  const sections: [title: string, belongs: (metric: MetricDescription) => boolean][] = [
    ["Databases of a watch", (metric) => metric.labels.includes("database") && !isOfReplica(metric)],
    ["The whole watch", ({ name }) => /^walsync_(sync_latency|webhook)_/.test(name)],
    ["Read copies", isOfReplica],
    ["Every process", ({ name }) => /^(process|walsync_(destination|build))_/.test(name)],
  ];
  return sections.map(([title, belongs]) => {
    const rows = describeMetrics()
      // The tests define some of their own.
      .filter((metric) => belongs(metric) && !metric.name.startsWith("walsync_test_"))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ name, type, labels, help }) => {
        return [`\`${name}\``, type, labels.map((label) => `\`${label}\``).join(", "), help];
      });
    return `## ${title}\n\n${markdownTable([["Metric", "Type", "Labels", "Meaning"], ...rows])}`;
  });
}

if (import.meta.main) await Bun.write(join(ROOT, PATH), await metricsDocument());
