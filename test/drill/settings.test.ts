// Goal: a drill by name takes the settings of the [[databases]] entry that the name is of, and of no other: the names are those
// that a watch of the same file gives.
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseConfig } from "../../src/config-file.ts";
import { entryLayers } from "../../src/engine/drill-entries.ts";
import { DRILL_FLAGS, drillLayer } from "../../src/engine/drill-settings.ts";
import { tempDir } from "../support/temp.ts";

const folder = tempDir();
mkdirSync(join(folder, "fleet", "eu"), { recursive: true });
const shop = new Database(join(folder, "fleet", "eu", "shop.db"), { create: true });
shop.run("create table item (id)");
shop.close();

const config = parseConfig(
  `[drill]
max_rto = "1s"
[[databases]]
path = "alone.db"
drill.max_rto = "2s"
[[databases]]
path = "named.db"
name = "named"
drill.max_rto = "3s"
[[databases]]
path = "tenants/*.db"
prefix = "tenants"
drill.max_rto = "4s"
[[databases]]
path = "fleet/*/*.db"
drill.max_rto = "5s"
[[databases]]
path = "a/twin.db"
drill.max_rto = "6s"
[[databases]]
path = "b/twin.db"
drill.max_rto = "7s"
[[databases]]
path = "moved.db"
drill.max_rto = "8s"
[[databases]]
path = "alone.db"
drill.max_rto = "9s"
`,
  "walsync.toml",
  folder,
  {},
);
const keptName = (path: string) => (path.endsWith("/moved.db") ? "before" : null);
const entryOf = entryLayers(config, keptName);

test.each([
  ["alone", "2s"], // From its path, and of two entries for one file the first.
  ["named", "3s"],
  ["tenants/a", "4s"], // On another host.
  ["tenants/a/b", "4s"],
  ["eu/shop", "5s"],
  ["a/twin", "6s"],
  ["b/twin", "7s"],
  ["twin", "1s"],
  ["before", "8s"],
  ["moved", "1s"],
  ["tenants", "1s"],
  ["tenantsx/a", "1s"],
  // What an entry without a prefix would put before a name, were that not asked.
  ["undefined/x", "1s"],
  ["undefined", "1s"],
])("%s", (name, maxRto) => {
  expect(drillLayer(config, entryOf(name)).text("max-rto", DRILL_FLAGS["max-rto"])).toBe(maxRto);
});
