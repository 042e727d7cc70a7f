// Goal: the page is one file that may do nothing but what is in it, no other site can read or use it, no secret is on it, and
// nobody who looks costs nothing.
import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { hostname } from "node:os";
import { join } from "node:path";
import { serveMetrics } from "../../src/metrics-server.ts";
import { STREAMS_MAX } from "../../src/status-page/feed.ts";
import type { DatabaseRow, Update } from "../../src/status-page/protocol.ts";
import { PAGE_ROWS } from "../../src/status-page/view.ts";
import { compiledBinary } from "../support/binary.ts";
import { ownChildren } from "../support/children.ts";
import { madeUpRow, madeUpTrouble, type ServedPage, serveStatusPage } from "../support/status-page.ts";
import { tempDir } from "../support/temp.ts";
import { freePort } from "../support/versitygw.ts";

const dir = tempDir();
const children = ownChildren();
const served: ServedPage[] = [];

afterEach(() => {
  for (const server of served.splice(0)) server.stop();
});

async function serve(rows: () => DatabaseRow[]): Promise<ServedPage> {
  const server = await serveStatusPage(dir, rows);
  served.push(server);
  return server;
}

async function until(condition: () => boolean): Promise<void> {
  const endMs = Date.now() + 5000;
  while (!condition() && Date.now() < endMs) await Bun.sleep(10);
  expect(condition()).toBe(true);
}

/** Updates of a stream as they come. */
async function* updatesOf(url: string, signal: AbortSignal): AsyncGenerator<Update> {
  const response = await fetch(url, { signal });
  let text = "";
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    text += part;
    for (let end = text.indexOf("\n\n"); end !== -1; end = text.indexOf("\n\n")) {
      yield JSON.parse(text.slice("data: ".length, end)) as Update;
      text = text.slice(end + 2);
    }
  }
}

describe("the page", () => {
  test("has everything in it, and its policy allows exactly that", async () => {
    const { url } = await serve(() => []);
    const response = await fetch(url);
    const html = await response.text();
    const policy = response.headers.get("content-security-policy")!;
    expect(policy).toStartWith("default-src 'none'; ");
    for (const [tag, directive] of [
      ["script", "script-src"],
      ["style", "style-src"],
    ] as const) {
      const bodies = [...html.matchAll(new RegExp(`<${tag}[^>]*>(.*?)</${tag}>`, "gs"))].map((match) => match[1]!);
      expect(bodies).toHaveLength(1);
      const hash = new Bun.CryptoHasher("sha256").update(bodies[0]!).digest("base64");
      expect(policy).toContain(`${directive} 'sha256-${hash}';`);
    }
    expect(policy).not.toContain("unsafe");
    const markup = html.replaceAll(/<(script|style)[^>]*>.*?<\/\1>/gs, "");
    expect(markup).not.toMatch(/\son\w+=|\sstyle=|(src|href)="(?!data:|#)/);
    expect([...response.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    expect(html.length).toBeLessThan(80_000);
  });

  test("is served by the program, for a real database, beside the metrics", async () => {
    const app = new Database(join(dir, "app.db"), { create: true });
    app.run("pragma journal_mode = wal");
    app.run("create table item (id)");
    const port = freePort();
    const args = ["watch", join(dir, "app.db"), "-b", join(dir, "bucket"), "--metrics-port", String(port)];
    children.push(Bun.spawn([compiledBinary(), ...args], { stdin: "ignore", stdout: "ignore", stderr: "ignore" }));
    const url = `http://127.0.0.1:${port}`;
    for (let i = 0; i < 200 && (await fetch(url).catch(() => null)) === null; i++) await Bun.sleep(25);
    expect(await (await fetch(url)).text()).toContain("<title>walsync</title>");
    expect((await fetch(`${url}/metrics`)).status).toBe(200);
    expect((await fetch(`${url}/status/other`)).status).toBe(404);
    expect((await fetch(url, { method: "POST" })).status).toBe(405);
    const closing = new AbortController();
    let last: Update | undefined;
    for await (const update of updatesOf(`${url}/status/events`, closing.signal)) {
      last = { ...last, ...update };
      if (last.rows?.[0]?.row.shipped_txid === 1) break;
    }
    closing.abort();
    expect(last!.watch!.place).toEqual(["-b", join(dir, "bucket")]);
    expect(last!.rows![0]!.row).toMatchObject({ name: "app", condition: "ok", size_bytes: 8192, shipped_txid: 1 });
    const points = await (await fetch(`${url}/status/points?name=app`)).json();
    expect(points).toMatchObject({ count: 1, snapshots: 1, lost: 0, newest: { txid: 1, snapshot: true } });
    expect((await fetch(`${url}/status/points?name=other`)).status).toBe(404);
    app.close();
  });

  test("is none where none is served", async () => {
    const server = serveMetrics("127.0.0.1", 0, () => null);
    expect((await fetch(`http://127.0.0.1:${server.port}/`)).status).toBe(404);
    server.stop();
  });
});

describe("other sites", () => {
  test.each([
    ["evil.example", 403],
    ["127.0.0.1.evil.example", 403],
    ["localhost.evil.example", 403],
    ["evil.example:16767", 403],
    ["localhost:16767", 200],
    ["walsync.localhost", 200],
    ["192.0.2.7:80", 200],
    ["[::1]:16767", 200],
    [hostname(), 200],
  ])("under the name %s it answers %d", async (host, status) => {
    const { url } = await serve(() => []);
    for (const path of ["/", "/status/points?name=x", "/status/events"]) {
      const closing = new AbortController();
      const response = await fetch(`${url}${path}`, { headers: { host }, signal: closing.signal });
      expect([path, response.status === 403]).toEqual([path, status === 403]);
      closing.abort();
    }
  });

  test("under what is no name gets nothing", async () => {
    const { url } = await serve(() => []);
    const response = await fetch(url, { headers: { host: "127.0.0.1@evil.example" } });
    expect([response.status, await response.text()]).toEqual([400, ""]);
  });

  test.each([
    ["/status/points?name=app", { "sec-fetch-site": "cross-site" }, 403],
    ["/status/points?name=app", { "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors" }, 403],
    ["/status/events", { "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors" }, 403],
    [
      "/status/points",
      { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" },
      403,
    ],
    ["/", { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe" }, 403],
    ["/", { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" }, 200],
    ["/", { "sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" }, 200],
    ["/status/points?name=app", { "sec-fetch-site": "same-origin" }, 404],
  ])("a request for %s with %o is answered with %d", async (path, headers, status) => {
    const { url } = await serve(() => []);
    const response = await fetch(`${url}${path}`, { headers: headers as unknown as Record<string, string> });
    expect(response.status).toBe(status);
    await response.body?.cancel();
  });
});

describe("the feed", () => {
  test("says everything once, and then what changed", async () => {
    let rows = Array.from({ length: 1000 }, (_, i) => madeUpRow(`db${i}`));
    const shippedAt = rows[0]!.shipped_at;
    const { url } = await serve(() => rows);
    const closing = new AbortController();
    const updates = updatesOf(`${url}/status/events?order=name`, closing.signal);
    const first = (await updates.next()).value as Update;
    expect(first.rows).toHaveLength(PAGE_ROWS);
    expect(first.rows![0]!.history).toEqual([0]);
    expect([first.totals!.databases, first.shown!.pages]).toEqual([1000, 20]);
    expect(Object.keys((await updates.next()).value as Update)).toEqual(["at"]);
    // One that is shown, and one that is not.
    const changed = (name: string) => madeUpRow(name, { txid: 9, shipped_at: shippedAt });
    rows = rows.map((row, i) => (i === 3 || i === 700 ? changed(row.name) : row));
    const third = (await updates.next()).value as Update;
    expect(third.rows!.map(({ row, history }) => [row.name, row.txid, history])).toEqual([["db3", 9, undefined]]);
    expect([third.shown, third.totals, third.watch]).toEqual([undefined, undefined, undefined]);
    closing.abort();
  });

  test("is for so many pages at once, and a place is free again when one goes", async () => {
    const { url, page } = await serve(() => []);
    const closings = Array.from({ length: STREAMS_MAX }, () => new AbortController());
    await Promise.all(closings.map(({ signal }) => fetch(`${url}/status/events`, { signal })));
    expect(page.feed.streams).toBe(STREAMS_MAX);
    expect(await (await fetch(`${url}/status/events`)).text()).toBe("event: crowded\ndata: {}\n\n");
    closings[0]!.abort();
    await until(() => page.feed.streams === STREAMS_MAX - 1);
    const again = new AbortController();
    expect((await fetch(`${url}/status/events`, { signal: again.signal })).ok).toBe(true);
    for (const closing of [...closings, again]) closing.abort();
    await until(() => page.feed.streams === 0);
  });

  test("looks at no database while nobody looks at the page", async () => {
    let looks = 0;
    const { url, page } = await serve(() => {
      looks++;
      return [];
    });
    const closing = new AbortController();
    await fetch(`${url}/status/events`, { signal: closing.signal });
    expect(looks).toBeGreaterThan(0);
    closing.abort();
    await until(() => page.feed.streams === 0);
    const before = looks;
    await Bun.sleep(1200);
    expect(looks).toBe(before);
  });

  test("shows no secret that is in a message", async () => {
    const trouble = madeUpTrouble({ message: "https://user:hunter2@host/x: refused" });
    const { url } = await serve(() => [madeUpRow("app", { trouble })]);
    const closing = new AbortController();
    const { value } = await updatesOf(`${url}/status/events`, closing.signal).next();
    closing.abort();
    expect(JSON.stringify(value)).toContain("refused");
    expect(JSON.stringify(value)).not.toContain("hunter2");
  });
});
