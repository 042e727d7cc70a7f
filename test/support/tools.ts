/** Public tools, and schemas, that some tests compare with or talk to. A machine without them skips those tests, loudly; CI may not. */
import { accessSync, constants } from "node:fs";
import { join, resolve } from "node:path";

export type ToolName =
  | "age"
  | "ltx"
  | "versitygw"
  | "litestream"
  | "litestream-vfs.so"
  | "musl-run"
  | "actionlint"
  | "shellcheck"
  | "hadolint"
  | "compose-spec.json"
  | "kubernetes.json";

const REPOSITORY = resolve(import.meta.dir, "../..");
const reported = new Set<ToolName>();

/** Path of the tool, or null if it is not installed here. Throws in CI (CI=true), where nothing may be skipped. */
export function requireTool(name: ToolName): string | null {
  const folder = process.env.WALSYNC_TOOLS ?? join(REPOSITORY, ".cache/tools/bin");
  const path = join(folder, name);
  try {
    accessSync(path, constants.X_OK);
    return path;
  } catch (error) {
    if (process.env.CI === "true") throw new Error(`${path}: expected this tool, found none`, { cause: error });
    if (!reported.has(name)) console.warn(`SKIPPED: tests with ${name}, because ${path} is not there`);
    reported.add(name);
    return null;
  }
}
