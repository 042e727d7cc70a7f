// Goal: the documents say what is there: every file has its line, every invariant names tests that exist, every link leads
// somewhere, and the README's tables are those of the program.
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { documents as generatedDocuments } from "../scripts/docs.ts";
import { metricsDocument } from "../scripts/metrics-docs.ts";
import { resolveSettings } from "../src/config.ts";
import { parseConfig } from "../src/config-file.ts";
import { WATCH_FLAGS } from "../src/engine/watch-settings.ts";
import { type ErrorCode, exitStatus, WalsyncError } from "../src/errors.ts";
import { documentedMetrics } from "./support/metrics-doc.ts";

const root = resolve(import.meta.dir, "..");
const read = (path: string) => readFileSync(join(root, path), "utf8");
const architecture = read("docs/ARCHITECTURE.md");
const readme = read("README.md");
const sources = [...new Bun.Glob("src/**/*.ts").scanSync({ cwd: root })].sort();
const documents = ["README.md", "CHANGELOG.md", ...new Bun.Glob("docs/*.md").scanSync({ cwd: root })];

describe("docs/ARCHITECTURE.md", () => {
  test("has one line for every source file, and for no other", () => {
    const listed = [...architecture.matchAll(/^\| `(src\/[^`]+)` +\|/gm)].map((match) => match[1]!);
    expect(listed.toSorted()).toEqual(sources);
  });

  const invariants = [...architecture.matchAll(/^\| (I\d+) +\| (.+) \| (.+) \|$/gm)];

  test("numbers its invariants from I1 on", () => {
    expect(invariants.length).toBeGreaterThan(9);
    expect(invariants.map((match) => match[1])).toEqual(invariants.map((_, i) => `I${i + 1}`));
  });

  test.each(invariants.map((match) => [match[1]!, match[3]!]))("%s names the tests that hold it", (_, tests) => {
    const paths = [...tests.matchAll(/`(test\/[\w./-]+\.test\.ts)`/g)].map((match) => match[1]!);
    expect(paths.length).toBeGreaterThan(0);
    expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });
});

describe("README.md", () => {
  test("lists every error code with its exit status", () => {
    const codes = [...read("src/errors.ts").matchAll(/^ {2}\| "(E_\w+)"/gm)].map((match) => match[1] as ErrorCode);
    expect(codes.length).toBeGreaterThan(10);
    for (const code of codes) {
      const status = exitStatus(new WalsyncError(code, ""));
      const row = readme.split("\n").find((line) => line.includes(`\`${code}\``) && line.startsWith("| "));
      expect([code, row?.split("|")[1]?.trim()]).toEqual([code, String(status)]);
    }
  });

  test("lists every command", () => {
    const commands = [...new Bun.Glob("*.ts").scanSync({ cwd: join(root, "src/commands") })]
      .map((name) => name.replace(/\.ts$/, ""))
      .filter((name) => read("src/main.ts").includes(`./commands/${name}.ts`));
    expect(commands.length).toBeGreaterThan(3);
    for (const command of commands) expect(readme).toMatch(new RegExp(`^\\| \`${command}[ \`]`, "m"));
  });
});

test.each(documents)("%s names only files of the repository that exist", (document) => {
  const named = [...read(document).matchAll(/`((?:src|test|scripts)\/[\w./-]+\.ts)`/g)].map((match) => match[1]!);
  expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([]);
});

test("documents that are made of the program's tables are current: bun run docs", async () => {
  const written = await generatedDocuments();
  expect(Object.keys(written)).toEqual(["docs/CONFIG.md", "docs/COMMANDS.md", "docs/JSON.md"]);
  for (const [path, text] of Object.entries(written)) expect([path, read(path)]).toEqual([path, text]);
});

test("docs/JSON.md names every field that an event may have", () => {
  const fields = /export interface LogFields \{([^}]*)\}/.exec(read("src/log.ts"))![1]!;
  const names = [...fields.matchAll(/^ {2}(\w+)\?:/gm)].map((match) => match[1]!);
  expect(names.length).toBeGreaterThan(20);
  const document = read("docs/JSON.md");
  expect(names.filter((name) => !document.includes(`\`${name}\``))).toEqual([]);
});

test("docs/METRICS.md is what the program measures: bun run docs", async () => {
  expect(read("docs/METRICS.md")).toBe(await metricsDocument());
});

describe("alerting rules and dashboard", () => {
  const series = new Set(
    documentedMetrics().flatMap(({ name, type }) => {
      if (type === "summary") return [`${name}_sum`, `${name}_count`];
      return type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name];
    }),
  );
  const unknownIn = (text: string) =>
    [...text.matchAll(/\b(?:walsync|process)_[a-z0-9_]+/g)].map(([name]) => name).filter((name) => !series.has(name));

  interface Rule {
    alert: string;
    expr: string;
    labels: { severity: string };
    annotations: { summary: string };
  }
  const rules = (
    Bun.YAML.parse(read("docs/alerts/walsync.rules.yml")) as { groups: { rules: Rule[] }[] }
  ).groups.flatMap((group) => group.rules);

  test("ask only for what is measured, in the queries of docs/METRICS.md, too", () => {
    expect(series.size).toBeGreaterThan(40);
    expect(unknownIn("rate(walsync_no_such_total[5m])")).toEqual(["walsync_no_such_total"]);
    const queries = /```promql\n([^`]*)```/.exec(read("docs/METRICS.md"))![1]!;
    for (const text of [...rules.map(({ expr }) => expr), queries]) expect(unknownIn(text)).toEqual([]);
  });

  test("are complete", () => {
    expect(rules.length).toBeGreaterThan(9);
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    for (const { alert, expr, labels, annotations } of rules) {
      expect(alert).toMatch(/^Walsync[A-Za-z]+$/);
      expect(["warning", "critical"]).toContain(labels.severity);
      expect(annotations.summary).not.toBe("");
      expect([...expr].filter((sign) => sign === "(")).toHaveLength([...expr].filter((sign) => sign === ")").length);
    }
  });

  test("the dashboard asks only for what is measured, a panel each", () => {
    const dashboard = JSON.parse(read("docs/grafana/walsync.json")) as {
      panels: { id: number; title: string; targets: { expr: string }[] }[];
    };
    const { panels } = dashboard;
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    for (const { title, targets } of panels) {
      expect(targets.length).toBeGreaterThan(0);
      for (const { expr } of targets) {
        expect([title, ...unknownIn(expr)]).toEqual([title]);
        expect(expr).toMatch(/walsync_|process_/);
      }
    }
  });
});

test("the example of docs/CONFIG.md is one that is read", () => {
  const example = /```toml\n([^`]*)```/.exec(read("docs/CONFIG.md"))![1]!;
  const { layer, databases } = parseConfig(example, "walsync.toml", "/", {});
  const settings = resolveSettings(WATCH_FLAGS, [databases[1]!.layer, layer]).values;
  expect([settings.bucket, settings.walSyncInterval, settings.retainDaily]).toEqual(["s3://backups/prod", 10_000, 2]);
});

test.each(documents)("%s links to files that exist", (document) => {
  const links = [...read(document).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!);
  const local = links.filter((link) => !/^[a-z]+:/.test(link));
  expect(local.filter((link) => !existsSync(resolve(root, dirname(document), link)))).toEqual([]);
});
