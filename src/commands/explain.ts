/** `walsync explain`: what watch would do with this configuration, what that costs, and what is risky about it. */
import { statSync } from "node:fs";
import { defineWalsyncCommand } from "../cli/command.ts";
import { camelCase, type SettingLayer } from "../config.ts";
import { configSchema } from "../config-reference.ts";
import { keysOf } from "../engine/encryption.ts";
import type { DrillPlan } from "../engine/watch-drills.ts";
import type { DatabasePlan, PlannedDatabase } from "../engine/watch-plan.ts";
import { WATCH_FLAGS, type WatchSettings } from "../engine/watch-settings.ts";
import { print, printJson, redact, table } from "../log.ts";
import { formatBytes, formatDuration } from "../quantities.ts";
import { hostOf } from "../replication/webhook.ts";
import { readFileHeader } from "../sqlite/file-header.ts";
import { type CostEstimates, estimateCosts, type MonthlyCost } from "./explain-cost.ts";
import { explainResult } from "./results.ts";
import { alertPolicyOf } from "./watch-alerts.ts";
import { parseCommand } from "./watch-child.ts";

const { bucket, ...SHOWN_SETTINGS } = WATCH_FLAGS;

export default defineWalsyncCommand({
  meta: {
    name: "explain",
    description: "Say what watch would do with these settings, what it costs, and what is risky",
  },
  positionals: {
    databases: { variadic: true, isPath: true, description: "as for watch; default: those of walsync.toml" },
  },
  flags: {
    bucket: { type: "string", short: "b", placeholder: "URL", description: bucket.description },
    ...SHOWN_SETTINGS,
    "print-schema": { type: "boolean", description: "print a JSON Schema of walsync.toml and nothing else" },
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync explain --config walsync.toml", "What this file means"],
    ["walsync explain app.db -b s3://backups/prod --wal-sync-interval 10s", "What flags mean"],
    ["walsync explain --print-schema > walsync.schema.json", "For editors that check TOML"],
  ],
  result: explainResult(SHOWN_SETTINGS),
  async run({ flags, origins, positionals, config, flagsWith, env }) {
    if (flags.printSchema) {
      print(JSON.stringify(configSchema(WATCH_FLAGS), null, 2));
      return;
    }
    const { WatchPlan } = await import("../engine/watch-plan.ts");
    const { keptName, stateFolderOf } = await import("../replication/local-state.ts");
    const settings: WatchSettings = { ...flags, bucket: flags.bucket ?? "" };
    const ownSettings = (layer: SettingLayer): WatchSettings => ({ ...flagsWith(layer), bucket: settings.bucket });
    const plan = new WatchPlan(positionals.databases, {
      flags: settings,
      config,
      flagsWith: ownSettings,
      mayNameNone: true,
    });
    alertPolicyOf(settings);
    if (flags.exec !== undefined) parseCommand(flags.exec, origins.exec);
    const destination = await describeDestination(settings, env);
    const kept = (path: string) => keptName(stateFolderOf(path, flags.stateDir), destination.url);
    const databases = plan.require(kept).map(describeDatabase);
    const { defaults } = plan;
    const keys = await keysOf(settings);
    const explained: Explained = {
      config: config?.path ?? null,
      destination,
      settings,
      encryption: keys === null ? null : { recipients: keys.recipients.length, identity: keys.decrypter !== null },
      defaults,
      databases,
      costs: await estimateCosts(databases, defaults, env),
      risks: risksOf(settings, defaults, databases, destination),
    };
    if (flags.json) printJson(toJson(explained));
    else await printAll(explained);
  },
});

const EVERY_MINUTE_MS = 60_000;

interface Explained {
  config: string | null;
  destination: ExplainedDestination;
  settings: WatchSettings;
  encryption: ExplainedEncryption | null;
  defaults: DatabasePlan;
  databases: ExplainedDatabase[];
  costs: CostEstimates;
  risks: string[];
}

interface ExplainedDestination {
  url: string;
  endpoint: string | null;
  region: string | null;
  /** How requests are signed; never the secret. */
  credentials: string | null;
}

interface ExplainedEncryption {
  recipients: number;
  /** What is shipped can be read here. */
  identity: boolean;
}

interface ExplainedDatabase {
  name: string;
  path: string;
  journalMode: string;
  bytes: number;
  plan: DatabasePlan;
}

async function describeDestination(
  settings: WatchSettings,
  env: Readonly<Record<string, string | undefined>>,
): Promise<ExplainedDestination> {
  const nothing = { endpoint: null, region: null, credentials: null };
  if (settings.bucket === "") return { url: "none: give it with --bucket or as s3.bucket", ...nothing };
  const { parseDestinationUrl } = await import("../destination/open.ts");
  const address = parseDestinationUrl(settings.bucket);
  if (address.kind === "directory") return { url: address.path, ...nothing };
  const keyId = env.AWS_ACCESS_KEY_ID ?? "";
  const isComplete = keyId !== "" && (env.AWS_SECRET_ACCESS_KEY ?? "") !== "";
  return {
    url: `s3://${address.bucket}${address.prefix === "" ? "" : `/${address.prefix}`}`,
    endpoint: redact(address.endpoint ?? settings.endpoint ?? "AWS"),
    region: address.region ?? settings.region,
    credentials: isComplete ? `access key ${keyId.slice(0, 4)}***` : null,
  };
}

function describeDatabase({ name, path, settings }: PlannedDatabase): ExplainedDatabase {
  return {
    name,
    path,
    journalMode: journalModeOf(path),
    bytes: statSync(path, { throwIfNoEntry: false })?.size ?? 0,
    plan: settings,
  };
}

/** From the header, without SQLite: nothing is locked or changed. */
function journalModeOf(path: string): string {
  try {
    const header = readFileHeader(path);
    if (header === null) return "not SQLite";
    return header.isWal ? "wal" : "not wal";
  } catch {
    return "missing";
  }
}

function risksOf(
  settings: WatchSettings,
  { care }: DatabasePlan,
  databases: readonly ExplainedDatabase[],
  destination: ExplainedDestination,
): string[] {
  const risks: string[] = [];
  const list = (which: readonly ExplainedDatabase[]) => which.map(({ path }) => path).join(", ");
  const other = databases.filter(({ journalMode }) => journalMode === "not wal");
  const foreign = databases.filter(({ journalMode }) => journalMode === "not SQLite");
  const missing = databases.filter(({ journalMode }) => journalMode === "missing");
  if (databases.length === 0) risks.push("No databases: nothing is replicated.");
  if (other.length > 0 && !settings.enableWal) risks.push(`Not in WAL mode, and will be refused: ${list(other)}`);
  if (foreign.length > 0) risks.push(`Not a SQLite database, and will be refused: ${list(foreign)}`);
  if (missing.length > 0 && !settings.restoreIfMissing && settings.exec === undefined)
    risks.push(`Missing, and will be refused: ${list(missing)}`);
  if (destination.endpoint !== null && destination.credentials === null) {
    risks.push("No credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.");
  }
  if (destination.endpoint?.startsWith("http://") && !/\/\/(127\.|localhost|\[::1\])/.test(destination.endpoint)) {
    risks.push("The endpoint is not https: whoever is on the way can read the data.");
  }
  if (!settings.compactAfterSnapshot && settings.compactInterval === 0) {
    risks.push("Nothing is ever deleted: set compact_after_snapshot, or run walsync compact.");
  }
  if (
    settings.snapshotInterval === 0 &&
    settings.maxInterval === 0 &&
    settings.maxChanges === 0 &&
    settings.onIdle === 0
  ) {
    risks.push("No snapshots but the first: restores take ever longer, and one damaged increment ends the chain.");
  }
  if (settings.walSyncInterval > EVERY_MINUTE_MS) {
    risks.push(
      `If the machine is lost, up to ${formatDuration(settings.walSyncInterval)} of commits are lost with it.`,
    );
  }
  if (settings.validationInterval === 0)
    risks.push("No validation: a change behind SQLite's back is found at a snapshot at the earliest.");
  if (care.merge === null && settings.walSyncInterval < EVERY_MINUTE_MS) {
    risks.push("Increments are not merged: a restore reads every one since the last snapshot.");
  }
  if (webhookOf(settings)?.startsWith("http://")) {
    risks.push("The webhook is not https: whoever is on the way can read the alerts.");
  }
  if (!/^(127\.|localhost$|::1$)/.test(settings.metricsListen) && !settings.noMetrics) {
    risks.push(`Metrics are open to the network at ${settings.metricsListen}, without a password.`);
  }
  return risks;
}

/** Where alerts go, without what may be secret; null for nowhere. */
function webhookOf(settings: WatchSettings): string | null {
  const policy = alertPolicyOf(settings);
  return policy === null ? null : hostOf(policy.url);
}

function alertsText(settings: WatchSettings): string {
  const webhook = webhookOf(settings);
  if (webhook === null) return "none are posted";
  const lag = settings.maxLag === 0 ? "" : `; a lag is one from ${formatDuration(settings.maxLag)} on`;
  return `${settings.webhookEvents} to ${webhook}${lag}`;
}

function encryptionText(encryption: ExplainedEncryption | null): string {
  if (encryption === null) return "none: files are in the clear";
  const { recipients, identity } = encryption;
  const readers = recipients === 1 ? "1 recipient" : `${recipients} recipients`;
  return `with age, for ${readers}; ${identity ? "there is an identity that reads it here" : "nothing here can read it again"}`;
}

function drillText({ intervalMs, policy }: DrillPlan): string {
  if (intervalMs === 0) return "never";
  const { assertions, maxRtoMs, maxRpoMs } = policy;
  const queries = assertions.length === 1 ? "1 query" : `${assertions.length} queries`;
  return [
    `every ${formatDuration(intervalMs)}`,
    ...(assertions.length === 0 ? [] : [queries]),
    ...(maxRtoMs === 0 ? [] : [`RTO of at most ${formatDuration(maxRtoMs)}`]),
    ...(maxRpoMs === 0 ? [] : [`RPO of at most ${formatDuration(maxRpoMs)}`]),
  ].join(", ");
}

/** Entries of walsync.toml may have drills of their own. */
function drillsText(defaults: DatabasePlan, databases: readonly ExplainedDatabase[]): string {
  const counts = new Map<string, number>();
  for (const { plan } of databases) counts.set(drillText(plan.drill), (counts.get(drillText(plan.drill)) ?? 0) + 1);
  if (counts.size === 0) return drillText(defaults.drill);
  if (counts.size === 1) return [...counts.keys()].join();
  return [...counts].map(([text, count]) => `${text} (${count} of ${databases.length} databases)`).join("; ");
}

async function printAll(explained: Explained): Promise<void> {
  const { PRICES } = await import("../upkeep/cost.ts");
  const { config, destination, settings, encryption, defaults, databases, risks } = explained;
  const { merge } = defaults.care;
  const time = (ms: number) => formatDuration(ms);
  const or = (ms: number, never: string) => (ms === 0 ? never : `every ${time(ms)}`);
  const triggers = [
    settings.snapshotInterval > 0 ? `every ${time(settings.snapshotInterval)}` : "",
    settings.maxInterval > 0 ? `at the latest after ${time(settings.maxInterval)}` : "",
    settings.maxChanges > 0 ? `after ${settings.maxChanges} pages` : "",
    settings.onIdle > 0 ? `after ${time(settings.onIdle)} without a change` : "",
    settings.onStartup ? "at the start" : "",
  ].filter((text) => text !== "");
  const pruned = [
    settings.compactAfterSnapshot ? "after each snapshot" : "",
    settings.compactInterval > 0 ? `every ${time(settings.compactInterval)}` : "",
  ].filter((text) => text !== "");
  const { retainHourly, retainDaily, retainWeekly, retainMonthly } = settings;
  const where = [destination.url, destination.endpoint, destination.region, destination.credentials ?? ""];
  print(
    table([
      ["configuration", config ?? "none: flags, environment and defaults"],
      ["destination", where.filter((part) => part !== null && part !== "").join(", ")],
      [
        "capture",
        settings.walSyncInterval === 0 ? "every change at once" : `at most every ${time(settings.walSyncInterval)}`,
      ],
      ["snapshots", triggers.length === 0 ? "only the first" : `${triggers.join(", ")}, if anything changed`],
      ["checkpoints", `at ${settings.minCheckpointPages} pages, or after ${time(settings.checkpointInterval)}`],
      ["validation", or(settings.validationInterval, "never")],
      [
        "merging",
        merge === null
          ? "none"
          : `${merge.windowsMs.map(time).join(", ")}; each increment stays for ${time(merge.keepFineMs)}`,
      ],
      [
        "retention",
        `${retainHourly} hours, ${retainDaily} days, ${retainWeekly} weeks, ${retainMonthly} months; every point of ${time(settings.retainPointInTime)}`,
      ],
      ["compaction", pruned.length === 0 ? "never" : pruned.join(", ")],
      ["encryption", encryptionText(encryption)],
      ["drills", drillsText(defaults, databases)],
      ["alerts", alertsText(settings)],
      ["metrics", settings.noMetrics ? "none" : `http://${settings.metricsListen}:${settings.metricsPort}/metrics`],
    ]),
  );
  if (databases.length > 0) {
    print();
    const rows = databases.map(({ name, path, journalMode, bytes }) => [name, journalMode, formatBytes(bytes), path]);
    print(table([["NAME", "JOURNAL MODE", "SIZE", "PATH"], ...rows], [2]));
  }
  const { busy, minute, measured } = explained.costs;
  const rows: [label: string, cost: MonthlyCost][] = [
    [`${countOf(busy)} that commit every second`, busy],
    [`${countOf(minute)} that commit every minute`, minute],
  ];
  if (measured !== null) {
    rows.push([`${countOf(measured)} as measured for ${formatDuration(measured.seconds * 1000)}`, measured]);
  }
  print();
  print(
    table(
      [
        ["REQUESTS A MONTH", "PUT, LIST", "GET", "COST"],
        ...rows.map(([label, { writes, reads, dollars }]) => [
          label,
          String(writes),
          String(reads),
          `$${dollars.toFixed(2)}`,
        ]),
      ],
      [1, 2, 3],
    ),
  );
  print(`without storage; prices of ${PRICES.asOf}, ${PRICES.source}; an idle database costs nothing`);
  print();
  if (risks.length === 0) print("No risks found.");
  for (const risk of risks) print(`risk: ${risk}`);
}

function countOf({ databases }: MonthlyCost): string {
  return databases === 1 ? "1 database" : `${databases} databases`;
}

function toJson({ config, destination, settings, encryption, databases, costs, risks }: Explained) {
  const values: Readonly<Record<string, unknown>> = { ...settings };
  const shown = Object.keys(SHOWN_SETTINGS).map((name) => camelCase(name));
  return {
    config,
    destination,
    settings: {
      ...Object.fromEntries(shown.map((name) => [name, values[name]])),
      webhookUrl: webhookOf(settings) ?? undefined,
      webhookAuthorization: settings.webhookAuthorization === undefined ? undefined : "***",
    },
    encryption,
    databases: databases.map(({ name, path, journalMode, bytes, plan }) => ({
      name,
      path,
      journal_mode: journalMode,
      bytes,
      drill: drillToJson(plan.drill),
    })),
    monthly_costs: costs,
    risks,
  };
}

function drillToJson({ intervalMs, policy }: DrillPlan) {
  if (intervalMs === 0) return null;
  const { assertions, maxRtoMs, maxRpoMs } = policy;
  return {
    interval_seconds: intervalMs / 1000,
    assertions: assertions.length,
    max_rto_seconds: maxRtoMs === 0 ? null : maxRtoMs / 1000,
    max_rpo_seconds: maxRpoMs === 0 ? null : maxRpoMs / 1000,
  };
}
