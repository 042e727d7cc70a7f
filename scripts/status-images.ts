/**
 * Makes the pictures of docs/STATUS.md anew: `bun scripts/status-images.ts [FOLDER]`, by default docs/images. Needs Chromium and two
 * minutes, in which lags are measured. The databases are made up.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Page } from "playwright-core";
import type { DatabaseRow } from "../src/status-page/protocol.ts";
import { HISTORY_SAMPLES, TICK_MS } from "../src/status-page/protocol.ts";
import { requireChromium } from "../test/support/chromium.ts";
import {
  type MadeUpPoint,
  madeUpRow,
  madeUpTrouble,
  serveStatusPage,
  writeMadeUpChain,
} from "../test/support/status-page.ts";

const NAMES = ["accounts", "billing", "inventory", "mail/outbound", "metrics", "search/index", "sessions"];
const TENANTS = ["acme", "globex", "initech", "umbrella", "wayne", "wonka", "tyrell", "cyberdyne", "hooli", "stark"];
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

const folder = process.argv[2] ?? join(import.meta.dir, "../docs/images");
mkdirSync(folder, { recursive: true });
const path = requireChromium();
if (path === null) process.exit(1);
const bucket = mkdtempSync(join(tmpdir(), "walsync-images-"));
writeMadeUpChain(bucket, "billing", madeUpPoints(Date.now()));
const startMs = Date.now();
const served = await serveStatusPage(bucket, madeUpRows, { destination: "s3://backups/prod" });
const browser = await chromium.launch({ executablePath: path, args: ["--no-sandbox"] });
try {
  const pages = await Promise.all([
    openPage(1280, 800, "light"),
    openPage(1280, 800, "dark"),
    openPage(390, 844, "light"),
    openPage(390, 844, "dark"),
  ]);
  await Bun.sleep(HISTORY_SAMPLES * TICK_MS);
  const [list, restore, phone, phoneRestore] = pages as [Page, Page, Page, Page];
  await list.screenshot({ path: join(folder, "status-list.png") });
  await phone.screenshot({ path: join(folder, "status-phone.png") });
  await openBilling(restore);
  await restore.screenshot({ path: join(folder, "status-restore.png") });
  await openBilling(phoneRestore);
  await phoneRestore.screenshot({ path: join(folder, "status-phone-restore.png") });
} finally {
  await browser.close();
  served.stop();
  rmSync(bucket, { recursive: true });
}

async function openPage(width: number, height: number, colorScheme: "light" | "dark"): Promise<Page> {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme,
    timezoneId: "UTC",
    locale: "en-GB",
  });
  const page = await context.newPage();
  await page.goto(served.url);
  await page.getByRole("row").nth(1).waitFor();
  return page;
}

/** A restore point in the middle of the last day. */
async function openBilling(page: Page): Promise<void> {
  await page.getByRole("button", { name: "billing", exact: true }).click();
  await page.getByRole("radio", { name: "24 h" }).waitFor();
  await page.getByText("Tall: snapshots").waitFor();
  const box = await page.getByRole("slider").boundingBox();
  await page.mouse.click(box!.x + box!.width * 0.62, box!.y + box!.height / 2);
  await page.mouse.move(0, 0);
  await page.getByText("· transaction").waitFor();
}

/** Dense at the end, as merging and retention leave them. */
function madeUpPoints(nowMs: number): MadeUpPoint[] {
  const points: MadeUpPoint[] = [];
  let snapshotMs = 0;
  let txid = 1;
  for (let atMs = nowMs - 30 * DAY_MS; atMs < nowMs; txid++) {
    const ageMs = nowMs - atMs;
    const snapshot = atMs - snapshotMs >= (ageMs > DAY_MS ? DAY_MS : 2 * HOUR_MS);
    if (snapshot) snapshotMs = atMs;
    points.push({ txid, atMs, snapshot });
    const stepMs = ageMs > DAY_MS ? 2 * HOUR_MS : ageMs > HOUR_MS ? 6 * MINUTE_MS : MINUTE_MS;
    atMs += stepMs * (0.6 + 0.8 * wave(txid));
  }
  return points;
}

function madeUpRows(): DatabaseRow[] {
  const names = [...NAMES, ...TENANTS.map((tenant) => `tenants/${tenant}`)];
  return names.map((name, i) => {
    const seconds = (Date.now() - startMs) / 1000;
    const lag = wave(i + Math.floor(seconds / 6)) ** 4 * (1 + 0.3 * Math.sin(seconds));
    const lagSeconds = i % 3 === 1 || i % 7 === 0 ? Math.round(lag * 1400) / 1000 : 0;
    const txid = 1200 + i * 371 + Math.floor(seconds / 3);
    const known = {
      txid,
      shipped_txid: txid,
      lag_seconds: lagSeconds,
      outbox_bytes: Math.round(lagSeconds * 40_000),
      size_bytes: 4096 * Math.round(40 + 90_000 * wave(i) ** 3),
      shipped_at: new Date(Date.now() - 40_000 * wave(i + 3) ** 2).toISOString(),
    };
    if (name === "search/index") return madeUpRow(name, { ...known, state: "scanning" });
    if (name !== "tenants/initech") return madeUpRow(name, known);
    const lagging = 312 + seconds;
    const message = `not shipped for ${Math.floor(lagging / 60)} min: more than the 5 min 00 s of --max-lag`;
    const trouble = madeUpTrouble({ kind: "lag", code: null, message });
    return madeUpRow(name, { ...known, lag_seconds: lagging, outbox_bytes: 48e6 + 9e4 * seconds, trouble });
  });
}

/** From 0 to 1, as if at random, and each time the same. */
function wave(i: number): number {
  return Math.abs((Math.sin(i * 12.9898) * 43758.5453) % 1);
}
