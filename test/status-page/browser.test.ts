// Goal: in a real browser the page says what the watch knows, live, at every width, in light and dark, for keyboard and screen
// reader, whatever a database is called and whatever happens to the watch; and the command that it gives restores.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import type { DatabaseRow } from "../../src/status-page/protocol.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren } from "../support/children.ts";
import { requireChromium, TestBrowser } from "../support/chromium.ts";
import {
  madeUpRow,
  madeUpTrouble,
  type ServedPage,
  serveStatusPage,
  writeMadeUpChain,
} from "../support/status-page.ts";
import { tempDir } from "../support/temp.ts";
import { freePort } from "../support/versitygw.ts";

// A test that is given up on would take the browser with it.
setDefaultTimeout(30_000);

const AXE = readFileSync(join(import.meta.dir, "../../node_modules/axe-core/axe.min.js"), "utf8");
const DESK = { width: 1280, height: 800 };
const PHONE = { width: 360, height: 740 };
const HOSTILE = [
  "<script>alert(1)</script>",
  '"><img src=x onerror=alert(1)>',
  "it's; rm -rf $HOME `id`",
  "ünïcode-数据库",
  "\u202egnitsiver",
  "constructor",
  "__proto__",
];

const dir = tempDir();
const children = ownChildren();
const served: ServedPage[] = [];
const path = requireChromium();
const browser = path === null ? null : new TestBrowser(path);

afterEach(() => {
  for (const server of served.splice(0)) server.stop();
});

async function serve(
  rows: () => DatabaseRow[],
  options: { port?: number; version?: string } = {},
): Promise<ServedPage> {
  const server = await serveStatusPage(dir, rows, options);
  served.push(server);
  return server;
}

/** Rows of every kind, with a chain behind the first. */
function someRows(): DatabaseRow[] {
  const rows = [
    madeUpRow("app", { lag_seconds: 0.4, outbox_bytes: 4000, txid: 48, shipped_txid: 47 }),
    madeUpRow("new", { state: "scanning" }),
    madeUpRow("old", { trouble: madeUpTrouble({ kind: "fenced", code: "E_FENCED", hint: "Stop one of the two." }) }),
  ];
  return rows;
}

function writeChain(): void {
  const startMs = Date.now() - 3 * 86_400_000;
  const points = Array.from({ length: 48 }, (_, i) => ({
    txid: i + 1,
    atMs: startMs + i * 5_400_000,
    snapshot: i % 12 === 0,
  }));
  writeMadeUpChain(dir, "app", points);
}

/** What axe-core finds against WCAG 2.2, A and AA. */
async function violationsOf(page: Page): Promise<string[]> {
  // Evaluated, not added as an element: the page's policy would refuse that.
  await page.evaluate(AXE);
  const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const results = await page.evaluate<AxeResults>(`axe.run(document, { runOnly: ${JSON.stringify(rules)} })`);
  return results.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
}

/** By how many pixels an element is wider than what is seen of it. */
async function overflowOf(page: Page, selector: string): Promise<number> {
  return await page.evaluate<number>(
    `(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.querySelector("${selector}"))`,
  );
}

describe.skipIf(browser === null)("in a browser", () => {
  test.each([
    ["light", DESK],
    ["dark", PHONE],
  ] as const)("%s at %o nothing is out of reach", async (colorScheme, viewport) => {
    writeChain();
    const { url } = await serve(someRows);
    const { page, complaints } = await browser!.open({ colorScheme, viewport, reducedMotion: "reduce" });
    await page.goto(url);
    await page.getByRole("heading", { name: "One of 3 databases needs attention" }).waitFor();
    const names = await page.getByRole("rowheader").getByRole("button").allTextContents();
    expect(names).toEqual(["old", "new", "app"]);
    expect(await violationsOf(page)).toEqual([]);
    expect(await overflowOf(page, "html")).toBe(0);
    await page.getByRole("button", { name: "app" }).click();
    await page.getByText("48 restore points").first().waitFor();
    expect(await violationsOf(page)).toEqual([]);
    expect(await overflowOf(page, "dialog")).toBe(0);
    expect(await page.evaluate("document.getAnimations().length")).toBe(0);
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  test("the keyboard alone searches, opens, chooses a moment, copies and comes back", async () => {
    writeChain();
    const { url } = await serve(someRows);
    const { page } = await browser!.open({ viewport: DESK, permissions: ["clipboard-read", "clipboard-write"] });
    await page.goto(url);
    await page.getByRole("button", { name: "app" }).waitFor();
    const press = async (...keys: string[]): Promise<void> => {
      for (const key of keys) await page.keyboard.press(key);
    };
    const focused = (): Promise<string> => page.evaluate<string>("document.activeElement.textContent");
    await press("Tab");
    expect(await focused()).toBe("Skip to the databases");
    await press("/");
    await page.keyboard.type("APP");
    await page.getByRole("button", { name: "old" }).waitFor({ state: "detached" });
    await press("Tab", "Tab", "Tab");
    expect(await focused()).toBe("app");
    await press("Enter");
    const slider = page.getByRole("slider", { name: "Restore point" });
    await slider.waitFor();
    const range = page.getByRole("dialog").getByRole("radio", { name: "All" });
    await range.focus();
    await press("Space");
    await page.getByText("48 restore points in this time").waitFor();
    await slider.focus();
    await press("Home");
    expect(await slider.getAttribute("aria-valuetext")).toMatch(/transaction 1, a snapshot$/);
    await press("ArrowRight", "PageUp", "ArrowLeft");
    expect(await slider.getAttribute("aria-valuetext")).toMatch(/transaction 11$/);
    expect(await slider.getAttribute("aria-valuenow")).toBe("11");
    const copy = page.getByRole("button", { name: "Copy command" });
    await copy.focus();
    await press("Enter");
    await page.getByRole("button", { name: "Copied" }).waitFor();
    const copied = await page.evaluate<string>("navigator.clipboard.readText()");
    expect(copied).toBe(`walsync restore app -o app-txid11.db -b ${dir} --point-in-time txid:11`);
    await press("Escape");
    await page.waitForURL(`${url}/`);
    expect(await focused()).toBe("app");
    await page.goBack();
    await slider.waitFor();
    await page.context().close();
  });

  test("of 1000 databases fifty are shown, and all are found", async () => {
    const { url } = await serve(() => Array.from({ length: 1000 }, (_, i) => madeUpRow(`tenants/t${i}`)));
    const { page } = await browser!.open({ viewport: DESK });
    await page.goto(url);
    await page.getByRole("heading", { name: "All 1,000 databases are replicated" }).waitFor();
    expect(await page.locator("tbody tr").count()).toBe(50);
    await page.getByRole("button", { name: "Next" }).click();
    await page.getByText("51–100 of 1,000").waitFor();
    await page.getByRole("button", { name: "tenants/t99" }).waitFor();
    await page.getByRole("searchbox").fill("t777");
    await page.getByRole("button", { name: "tenants/t777" }).waitFor();
    expect(await page.locator("tbody tr").count()).toBe(1);
    await page.getByRole("searchbox").fill("nobody");
    await page.getByText("Nothing matches “nobody”").waitFor();
    await page.getByRole("button", { name: "Clear search" }).click();
    await page.getByText("1–50 of 1,000").waitFor();
    await page.getByRole("radio", { name: "Needs attention" }).check();
    await page.getByText("Nothing needs attention").waitFor();
    await page.context().close();
  });

  test("it says when the watch goes away, and goes on when it is back", async () => {
    let rows = [madeUpRow("app")];
    const first = await serve(() => rows);
    const { page } = await browser!.open({ viewport: PHONE });
    await page.goto(first.url);
    await page.getByRole("heading", { name: "The database is replicated" }).waitFor();
    first.stop();
    await page.getByRole("alert").filter({ hasText: "The watch does not answer" }).waitFor();
    expect(await page.getByRole("button", { name: "app" }).isVisible()).toBe(true);
    rows = [madeUpRow("app"), madeUpRow("other", { trouble: madeUpTrouble() })];
    await page.evaluate("globalThis.isOld = true");
    await serve(() => rows, { port: first.port, version: "0.2.0" });
    await page.getByRole("heading", { name: "One of 2 databases needs attention" }).waitFor();
    expect(await page.getByRole("alert").isVisible()).toBe(false);
    // Another version has another page.
    expect(await page.evaluate("globalThis.isOld")).toBeUndefined();
    await page.context().close();
  });

  test("what a destination refuses is said where it was asked", async () => {
    const { url } = await serve(() => [madeUpRow("none")]);
    const { page } = await browser!.open({ viewport: PHONE });
    await page.goto(`${url}/#database=none`);
    await page.getByText("Nothing of this database is at the destination yet.").waitFor();
    await page.getByRole("button", { name: "Try again" }).waitFor();
    await page.context().close();
  });

  test("behind a gap the newest state is the last one before it", async () => {
    const startMs = Date.now() - 60_000;
    const points = Array.from({ length: 9 }, (_, i) => ({ txid: i + 1, atMs: startMs + i, snapshot: i === 0 }));
    writeMadeUpChain(dir, "gap", points);
    rmSync(join(dir, "gap", "00000006-00000006.ltx"));
    const { url } = await serve(() => [madeUpRow("gap")]);
    const { page } = await browser!.open({ viewport: DESK });
    await page.goto(`${url}/#database=gap`);
    await page.getByText("The chain has a gap: 3 states cannot be restored").waitFor();
    const command = page.getByRole("group", { name: "Restore command" });
    expect(await command.textContent()).toBe(`walsync restore gap -o gap-txid5.db -b ${dir} --point-in-time txid:5`);
    await page.getByRole("slider").press("Home");
    expect(await command.textContent()).toEndWith("txid:1");
    await page.getByRole("button", { name: "Newest state" }).click();
    expect(await command.textContent()).toEndWith("txid:5");
    await page.context().close();
  });

  test("names are text, whatever they look like", async () => {
    const { url } = await serve(() => HOSTILE.map((name) => madeUpRow(name, { error: name })));
    const { page, complaints } = await browser!.open({ viewport: DESK });
    const dialogs: string[] = [];
    page.on("dialog", (dialog) => {
      dialogs.push(dialog.message());
      void dialog.dismiss();
    });
    await page.goto(url);
    await page
      .locator("tbody tr")
      .nth(HOSTILE.length - 1)
      .waitFor();
    const names = await page.getByRole("rowheader").getByRole("button").allTextContents();
    const shown = (name: string): string => name.replace("\u202e", "\\u202e");
    expect(names.toSorted()).toEqual(HOSTILE.map(shown).toSorted());
    for (const name of HOSTILE) {
      await page.goto(`${url}/#${new URLSearchParams({ database: name })}`);
      await page
        .getByRole("dialog")
        .getByRole("heading", { level: 2 })
        .filter({ hasText: shown(name) })
        .waitFor();
    }
    expect(await page.locator("img, tbody script").count()).toBe(0);
    expect([complaints, dialogs]).toEqual([[], []]);
    await page.context().close();
  });

  test("the command that it gives restores the database as it was", async () => {
    const folder = join(dir, 'it\'s a "place"');
    mkdirSync(folder);
    const app = new Database(join(folder, "app.db"), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id integer)");
    const port = freePort();
    const name = "-it's $HOME";
    const args = [
      "watch",
      `${name}=${join(folder, "app.db")}`,
      "-b",
      join(folder, "bucket"),
      "--wal-sync-interval",
      "0",
    ];
    const binary = compiledBinary();
    const options = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const;
    children.push(
      Bun.spawn(
        [binary, ...args.slice(0, 1), ...args.slice(2), "--metrics-port", String(port), "--", args[1]!],
        options,
      ),
    );
    const { page } = await browser!.open({ viewport: DESK });
    const url = `http://127.0.0.1:${port}`;
    for (let i = 0; i < 200 && (await fetch(url).catch(() => null)) === null; i++) await Bun.sleep(25);
    await page.goto(url);
    // What is committed before the first snapshot is in that.
    for (const txid of [1, 2, 3]) {
      await page
        .getByRole("row")
        .filter({ has: page.getByRole("cell", { name: String(txid), exact: true }) })
        .waitFor();
      if (txid < 3) app.run("insert into item values (?)", [txid]);
    }
    await page.getByRole("rowheader").getByRole("button").click();
    await page.getByText("3 restore points").first().waitFor();
    await page.getByRole("slider").focus();
    await page.keyboard.press("ArrowLeft");
    const command = await page.locator(".command code").textContent();
    expect(command).toContain("--point-in-time txid:2");
    const shell = `walsync() { ${binary} "$@"; }\n${command}`;
    const run = Bun.spawnSync(["sh", "-c", shell], { cwd: folder, env: { PATH: process.env.PATH ?? "" } });
    expect([run.exitCode, run.stdout.toString()]).toEqual([0, expect.stringContaining("at txid 2")]);
    const restored = new Database(join(folder, `${name}-txid2.db`), { readonly: true });
    expect(restored.query("select id from item").values()).toEqual([[1]]);
    restored.close();
    app.close();
    await page.context().close();
  });
});
