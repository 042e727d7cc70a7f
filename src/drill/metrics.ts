/** What is measured of the restore drills of a watch. */
import { Counter, defineGauge } from "../metrics.ts";
import type { DrillRecord } from "./record.ts";

export const drillFailures = new Counter(
  "walsync_drill_failures_total",
  "Restore drills that failed, by the code of what was worst.",
  ["database", "code"],
);

/** Defines the gauges of the drills there were when somebody reads them. */
export function measureDrills(records: () => Iterable<DrillRecord>): void {
  const define = (name: string, help: string, read: (record: DrillRecord) => number | null) =>
    defineGauge(name, help, ["database"], function* () {
      for (const record of records()) {
        const value = read(record);
        if (value !== null) yield [{ database: record.name }, value] as const;
      }
    });
  define("walsync_drill_ok", "1 if the last restore drill went well, else 0; none before the first.", ({ error }) =>
    error === null ? 1 : 0,
  );
  define(
    "walsync_drill_success_timestamp_seconds",
    "Unix time of the last restore drill that went well.",
    ({ successAtMs }) => (successAtMs === null ? null : successAtMs / 1000),
  );
  define("walsync_drill_rto_seconds", "What the restore of the last drill took.", ({ rtoSeconds }) => rtoSeconds);
  define(
    "walsync_drill_rpo_seconds",
    "Age of the oldest transaction that a loss of the host would have cost at the last restore drill.",
    ({ rpoSeconds }) => rpoSeconds,
  );
}
