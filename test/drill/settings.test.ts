// Goal: a drill by name takes the settings of the [[databases]] entry that the name is of, and of no other.
import { expect, test } from "bun:test";
import { parseConfig } from "../../src/config-file.ts";
import { DRILL_FLAGS, drillLayer } from "../../src/engine/drill-settings.ts";

const config = parseConfig(
  `[drill]
max_rto = "1s"
[[databases]]
path = "nameless.db"
drill.max_rto = "2s"
[[databases]]
path = "named.db"
name = "named"
drill.max_rto = "3s"
[[databases]]
path = "tenants/*.db"
prefix = "tenants"
drill.max_rto = "4s"
`,
  "walsync.toml",
  "/",
  {},
);

test.each([
  ["named", "3s"],
  ["tenants/a", "4s"],
  ["tenants/a/b", "4s"],
  ["tenants", "1s"],
  ["tenantsx/a", "1s"],
  // What an entry without a prefix would put before a name, were that not asked.
  ["undefined/x", "1s"],
  ["undefined", "1s"],
  [undefined, "1s"],
])("%s", (name, maxRto) => {
  expect(drillLayer(config, name).text("max-rto", DRILL_FLAGS["max-rto"])).toBe(maxRto);
});
