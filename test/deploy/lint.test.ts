// Goal: what users copy is right: scripts, workflows and the files in examples/deploy/ pass the linters and schemas of those who read
// them. Each of these is first seen to refuse something.
import { describe, expect, test } from "bun:test";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import Ajv from "ajv/dist/2020.js";
import { compiledBinary } from "../support/binary.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool, type ToolName } from "../support/tools.ts";

const ROOT = resolve(import.meta.dir, "../..");
const dir = tempDir();
const filesAt = (pattern: string) => [...new Bun.Glob(pattern).scanSync({ cwd: ROOT, dot: true })].sort();
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");

describe("a linter", () => {
  test.each<[tool: ToolName, flags: string[], files: string[], from: string, to: string]>([
    ["hadolint", ["--failure-threshold=info"], filesAt("examples/deploy/**/Dockerfile"), "WORKDIR /", "WORKDIR "],
    ["shellcheck", ["-x", "--severity=warning"], shellScripts(), "set -", 'if [ $1 == "" ]; then cd x; fi; set -'],
    ["actionlint", ["-shellcheck", "shellcheck"], filesAt(".github/workflows/*.yml"), "runs-on:", "run-on:"],
  ])("%s finds nothing, and something in a file with a mistake", (name, flags, files, from, to) => {
    const tool = requireTool(name);
    if (tool === null) return;
    expect(files.length).toBeGreaterThan(1);
    for (const file of files) expect([file, run([tool, ...flags, file])]).toEqual([file, { status: 0, output: "" }]);
    expect(run([tool, ...flags, spoiled(files[0]!, from, to)]).status).not.toBe(0);
  });

  test("systemd finds nothing in the unit, and little that it leaves exposed", () => {
    if (Bun.which("systemd-analyze") === null) {
      if (process.env.CI === "true") throw new Error("systemd-analyze: expected this program, found none");
      console.warn("SKIPPED: the check of examples/deploy/systemd, because systemd-analyze is not installed");
      return;
    }
    const unit = "examples/deploy/systemd/walsync.service";
    const program = "/usr/local/bin/walsync";
    const verified = (from: string, to: string) => run(["systemd-analyze", "verify", spoiled(unit, from, to)]).output;
    expect(verified(program, compiledBinary())).toBe("");
    expect(verified(`${program} watch`, `${compiledBinary()} watch\nProtectHom=yes\n#`)).toContain("ProtectHom");
    const security = ["systemd-analyze", "security", "--offline=true", "--threshold=15"];
    expect(run([...security, join(ROOT, unit)]).status).toBe(0);
    expect(run([...security, spoiled(unit, "SystemCallFilter=@system-service", "")]).status).not.toBe(0);
  });
});

describe("a schema", () => {
  const ajv = new Ajv({ strict: false, validateFormats: false });
  const schemaOf = (name: ToolName) => {
    const path = requireTool(name);
    return path === null ? null : (JSON.parse(readFileSync(path, "utf8")) as { $defs: Record<string, Definition> });
  };

  test("of Compose describes examples/deploy/docker/compose.yaml", () => {
    const schema = schemaOf("compose-spec.json");
    if (schema === null) return;
    const validate = ajv.compile(schema);
    const text = read("examples/deploy/docker/compose.yaml");
    validate(Bun.YAML.parse(text));
    expect(validate.errors).toBeNull();
    expect(validate(Bun.YAML.parse(text.replace("depends_on:", "dependson:")))).toBe(false);
  });

  test("of Kubernetes describes every object of examples/deploy/kubernetes", () => {
    const schema = schemaOf("kubernetes.json");
    if (schema === null) return;
    ajv.addSchema(schema, "kubernetes");
    const kinds: string[] = [];
    for (const file of filesAt("examples/deploy/kubernetes/*.yaml")) {
      for (const object of [Bun.YAML.parse(read(file))].flat() as Manifest[]) {
        const validate = ajv.getSchema(`kubernetes#/$defs/${definitionOf(schema.$defs, object)}`)!;
        validate(object);
        expect([file, object.kind, validate.errors]).toEqual([file, object.kind, null]);
        kinds.push(object.kind);
        if (object.kind === "Secret" || object.kind === "Service") continue;
        const spoiledText = JSON.stringify(object).replace('"containerPort"', '"containerport"');
        expect(validate(JSON.parse(spoiledText))).toBe(false);
      }
    }
    expect(kinds.sort()).toEqual(["Deployment", "Secret", "Service", "StatefulSet"]);
  });
});

// --- internal ---

interface Definition {
  "x-kubernetes-group-version-kind"?: { group: string; version: string; kind: string }[];
}

interface Manifest {
  apiVersion: string;
  kind: string;
}

function definitionOf(definitions: Record<string, Definition>, { apiVersion, kind }: Manifest): string {
  const [version, group = ""] = apiVersion.split("/").reverse();
  const found = Object.keys(definitions).find((name) =>
    definitions[name]!["x-kubernetes-group-version-kind"]?.some(
      (one) => one.group === group && one.version === version && one.kind === kind,
    ),
  );
  if (found === undefined) throw new Error(`${apiVersion} ${kind}: expected a schema, found none`);
  return found;
}

/** Every shell script of the repository. */
function shellScripts(): string[] {
  return filesAt("scripts/*").filter((path) => /^#!.*sh\n|shellcheck shell=/m.test(read(path).slice(0, 400)));
}

/** A copy of the file in which one thing is another. */
function spoiled(path: string, from: string, to: string): string {
  const text = read(path);
  expect(text).toContain(from);
  const copy = join(dir, basename(path));
  writeFileSync(
    copy,
    text.replace(from, () => to),
  );
  chmodSync(copy, 0o644);
  return copy;
}

function run(command: string[]): { status: number; output: string } {
  const tools = process.env.WALSYNC_TOOLS ?? join(ROOT, ".cache/tools/bin");
  const env = { ...process.env, PATH: `${tools}:${process.env.PATH}` };
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd: ROOT, env, stdin: "ignore" });
  return { status: exitCode, output: `${stdout}${stderr}` };
}
