// Goal: an alert arrives at least once, in order, whatever the receiver does, within bounds; and its URL is told to nobody.
import { afterEach, describe, expect, test } from "bun:test";
import { createServer, type Server, type Socket } from "node:net";
import { configureLog } from "../../src/log.ts";
import { deliveries, parseWebhookUrl, Webhook, type WebhookOptions } from "../../src/replication/webhook.ts";

type Answer = "ok" | "refuse" | "error" | "slow-down" | "redirect" | "hang" | "reset" | "lose-answer";

/** A receiver that answers each request as the next of `answers` says, the last one for ever. */
async function startReceiver(answers: Answer[]) {
  const bodies: Record<string, unknown>[] = [];
  const heads: string[] = [];
  const sockets = new Set<Socket>();
  let requests = 0;
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
      const end = text.indexOf("\r\n\r\n");
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
      if (end < 0 || text.length < end + 4 + length) return;
      const answer = answers[Math.min(requests++, answers.length - 1)]!;
      const respond = (status: string) =>
        socket.end(
          `HTTP/1.1 ${status}\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\r\n`,
        );
      if (answer === "ok" || answer === "lose-answer") {
        heads.push(text.slice(0, end));
        bodies.push(JSON.parse(text.slice(end + 4)) as Record<string, unknown>);
      }
      text = "";
      if (answer === "ok") respond("204 No Content");
      else if (answer === "refuse") respond("404 Not Found");
      else if (answer === "error") respond("500 Internal Server Error");
      else if (answer === "slow-down") respond("429 Too Many Requests");
      else if (answer === "redirect") respond("302 Found");
      else if (answer === "reset") socket.resetAndDestroy();
      else if (answer === "lose-answer") socket.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  closers.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    url: `http://127.0.0.1:${port}/hook/SECRET-PATH?token=SECRET-TOKEN`,
    bodies,
    heads,
    requests: () => requests,
  };
}

let closers: (() => void)[] = [];
let log = "";
configureLog({ sink: (line) => void (log += `${line}\n`) });

afterEach(() => {
  for (const close of closers) close();
  closers = [];
  // The law of every test here.
  expect(log).not.toContain("SECRET");
  log = "";
});

function webhook(url: string, options: Partial<WebhookOptions> = {}): Webhook {
  const quick = { timeoutMs: 300, baseDelayMs: 5, maxDelayMs: 20 };
  return new Webhook({ url: new URL(url), authorization: undefined, userAgent: "walsync/test", ...quick, ...options });
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await Bun.sleep(20);
  expect(condition()).toBe(true);
}

describe("delivery", () => {
  test.each([
    [["ok"], 1],
    [["error", "slow-down", "error", "ok"], 4],
    [["reset", "reset", "ok"], 3],
    [["hang", "ok"], 2],
  ] as [Answer[], number][])("through %p takes %d requests, and keeps the order", async (answers, requests) => {
    const receiver = await startReceiver(answers);
    const hook = webhook(receiver.url, { authorization: "Bearer SECRET" });
    hook.send({ n: 1 });
    hook.send({ n: 2 });
    await until(() => hook.waiting === 0);
    expect(receiver.bodies).toEqual([{ n: 1 }, { n: 2 }]);
    expect(receiver.requests()).toBe(requests + 1);
    expect(receiver.heads[0]).toMatch(/^POST \/hook\/SECRET-PATH\?token=SECRET-TOKEN /);
    expect(receiver.heads[0]!.toLowerCase()).toContain("authorization: bearer secret");
  });

  test("whose answer is lost comes twice rather than never", async () => {
    const receiver = await startReceiver(["lose-answer", "ok"]);
    const hook = webhook(receiver.url);
    hook.send({ id: "x" });
    await until(() => hook.waiting === 0);
    expect(receiver.bodies).toEqual([{ id: "x" }, { id: "x" }]);
  });

  test.each([["refuse"], ["redirect"]] as [Answer][])("that meets %s is given up at once", async (answer) => {
    const receiver = await startReceiver([answer, "ok"]);
    const hook = webhook(receiver.url);
    hook.send({ n: 1 });
    hook.send({ n: 2 });
    await until(() => hook.waiting === 0);
    expect(receiver.bodies).toEqual([{ n: 2 }]);
    expect(log).toContain("alert is given up");
    expect(log).toContain(`http://127.0.0.1:${new URL(receiver.url).port}/***`);
  });

  test("is tried so often and no more", async () => {
    const receiver = await startReceiver(["error"]);
    const hook = webhook(receiver.url, { attempts: 4 });
    hook.send({ n: 1 });
    await until(() => hook.waiting === 0);
    expect(receiver.requests()).toBe(4);
  });

  test("never holds more than a thousand, and keeps the newest", async () => {
    const receiver = await startReceiver(["hang", "ok"]);
    const hook = webhook(receiver.url, { timeoutMs: 1000 });
    const dropped = deliveries.valueOf({ result: "dropped" });
    for (let n = 0; n < 1500; n++) hook.send({ n });
    expect(hook.waiting).toBe(1000);
    expect(deliveries.valueOf({ result: "dropped" }) - dropped).toBe(500);
    await until(() => receiver.bodies.at(-1)?.n === 1499);
  });
});

describe("the end", () => {
  test("cuts a long wait short and delivers what is left", async () => {
    const receiver = await startReceiver(["error", "ok"]);
    const hook = webhook(receiver.url, { baseDelayMs: 3_600_000, maxDelayMs: 3_600_000 });
    hook.send({ n: 1 });
    hook.send({ n: 2 });
    await until(() => receiver.requests() === 1);
    await hook.stop(AbortSignal.timeout(10_000));
    expect(receiver.bodies).toEqual([{ n: 1 }, { n: 2 }]);
  });

  test.each([["hang"], ["reset"], ["error"]] as [Answer][])(
    "comes in time although the receiver answers with %s",
    async (answer) => {
      const receiver = await startReceiver([answer]);
      const hook = webhook(receiver.url, { timeoutMs: 60_000 });
      hook.send({ n: 1 });
      await until(() => receiver.requests() > 0);
      const startedMs = performance.now();
      await hook.stop(AbortSignal.timeout(300));
      expect(performance.now() - startedMs).toBeLessThan(5000);
      expect(log).toContain("alerts are not delivered");
      expect(hook.waiting).toBe(0);
    },
  );
});

test.each([["ftp://host/SECRET"], ["SECRET"], ["https://user:SECRET@host/"]])(
  "%s is refused without a word of it",
  (text) => {
    let message = "";
    try {
      parseWebhookUrl(text);
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message).toContain("--webhook-url: expected a URL");
    expect(message).not.toContain("SECRET");
  },
);
