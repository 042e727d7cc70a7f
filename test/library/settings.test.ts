// Goal: what the library can be told is what the command can be told, with the same defaults, and nothing is forgotten when a flag
// is added.
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { resolveSettings, type SettingDef } from "../../src/config.ts";
import { WATCH_FLAGS } from "../../src/engine/watch-settings.ts";
import { COMMAND_SETTINGS, optionName, settingsOf } from "../../src/library/settings.ts";

const read = (path: string) => readFileSync(resolve(import.meta.dir, "../..", path), "utf8");
const settings = Object.entries(WATCH_FLAGS as Record<string, SettingDef>);
const optional = settings.filter(([name]) => !COMMAND_SETTINGS.has(name));

describe("every setting of watch", () => {
  test("is an option of the library, or known to be the command's own", () => {
    const interfaces = read("src/library/options.ts");
    const missing = optional
      .map(([name, def]) => optionName(name, def).replace(/^retention\./, ""))
      .filter((option) => !new RegExp(`^ {2}${option}\\?:`, "m").test(interfaces));
    expect(missing).toEqual([]);
    const names = settings.map(([name]) => name);
    expect([...COMMAND_SETTINGS].filter((name) => !names.includes(name))).toEqual([]);
  });

  test("has the default that it has on the command line", () => {
    const { values } = resolveSettings({ ...WATCH_FLAGS, bucket: { type: "string", description: "" } }, []);
    const found = settingsOf("bucket", [], {});
    expect(found).toEqual({ ...values, bucket: "bucket", maxPinned: Number.MAX_SAFE_INTEGER });
  });

  test("takes a value, and units are those of its name", () => {
    const values: Partial<Record<SettingDef["type"], unknown>> = {
      string: "x",
      boolean: true,
      integer: 3,
      duration: 1500,
      durations: [1000, 2500],
      size: 4096,
      texts: ["a,b", "c"],
    };
    for (const [name, def] of optional) {
      const value = def.type === "choice" ? def.choices.at(-1) : values[def.type];
      const option = optionName(name, def);
      const [group, key] = option.split(".");
      const found = settingsOf(
        "bucket",
        [key === undefined ? { [option]: value } : { [group!]: { [key]: value } }],
        {},
      );
      const setting = name.replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase());
      expect([name, (found as Record<string, unknown>)[setting]]).toEqual([name, value]);
    }
  });
});

test("later objects win, and undefined is not given", () => {
  const found = settingsOf(
    "b",
    [
      { region: "a", onIdleMs: 1 },
      { region: "b", onIdleMs: undefined },
    ],
    {},
  );
  expect(found).toMatchObject({ region: "b", onIdle: 1 });
});

test("the environment gives what no option does, as on the command line", () => {
  const env = { AWS_ENDPOINT_URL_S3: "http://127.0.0.1:1", AWS_REGION: "eu-1" };
  expect(settingsOf("b", [{ region: "mine" }], env)).toMatchObject({
    endpoint: env.AWS_ENDPOINT_URL_S3,
    region: "mine",
  });
});
