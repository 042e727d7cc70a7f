/**
 * Posts JSON to one URL, in order, each body until the receiver accepts it: at least once, within bounds. Nobody waits for it.
 * The URL may hold a secret: only its host is ever told.
 */
import { jitteredMs, sleep } from "../destination/retry.ts";
import { errnoOf, messageOf, WalsyncError } from "../errors.ts";
import { isToldOf, logEvent } from "../log.ts";
import { Counter, defineGauge } from "../metrics.ts";

export const deliveries = new Counter(
  "walsync_webhook_requests_total",
  "Alerts that were posted, by result: delivered, failed (tried again), given-up (refused, or failed too often), dropped (too many waited, or no time was left).",
  ["result"],
);

/** Defines the gauge of what waits. */
export function measureWebhook(waiting: () => number): void {
  defineGauge("walsync_webhook_waiting", "Alerts that wait to be posted.", [], () => [[{}, waiting()]]);
}

export interface WebhookOptions {
  url: URL;
  /** The Authorization header. */
  authorization: string | undefined;
  userAgent: string;
  /** For one answer. */
  timeoutMs?: number;
  /** How often a body is posted in all. */
  attempts?: number;
  /** The first wait is random between 0 and this; every further one up to twice as much, and none longer than the other. */
  baseDelayMs?: number;
  maxDelayMs?: number;
}

/** The URL of a webhook. Throws E_USAGE, without a word of the text: all of it may be secret. */
export function parseWebhookUrl(text: string): URL {
  const wrong = (found: string): WalsyncError =>
    new WalsyncError("E_USAGE", `--webhook-url: expected a URL like https://host/path, found ${found}`, {
      hint: "Check --webhook-url, WALSYNC_WEBHOOK_URL or alerts.webhook_url.",
    });
  const url = URL.parse(text);
  if (url === null) throw wrong("something else");
  if (url.protocol !== "http:" && url.protocol !== "https:") throw wrong("another scheme");
  if (url.username !== "" || url.password !== "") throw wrong("a user or password in it: see --webhook-authorization");
  return url;
}

/** "https://host/***". */
export function hostOf(url: URL): string {
  return `${url.origin}/***`;
}

export class Webhook {
  readonly #options: WebhookOptions;
  readonly #queue: string[] = [];
  #working: Promise<void> | null = null;
  /** Ends the wait before the next attempt: from then on waits are short. */
  readonly #hurry = new AbortController();
  /** Ends everything. */
  readonly #end = new AbortController();

  constructor(options: WebhookOptions) {
    this.#options = options;
  }

  /** Bodies that were not accepted yet. */
  get waiting(): number {
    return this.#queue.length;
  }

  /** Posts `body` as JSON when those before it are done. Of too many that wait the oldest is dropped. */
  send(body: object): void {
    this.#queue.push(JSON.stringify(body));
    // The first one is under way.
    if (this.#queue.length > WAITING_MAX) {
      this.#queue.splice(1, 1);
      deliveries.add({ result: "dropped" });
    }
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
    });
  }

  /** Tries everything that waits, as far as that is possible before `deadline` aborts. */
  async stop(deadline: AbortSignal): Promise<void> {
    const end = (): void => this.#end.abort();
    if (deadline.aborted) end();
    else deadline.addEventListener("abort", end, { once: true });
    this.#hurry.abort();
    await this.#working;
    deadline.removeEventListener("abort", end);
    if (this.#queue.length === 0) return;
    deliveries.add({ result: "dropped" }, this.#queue.length);
    logEvent("warn", "alerts are not delivered", {
      destination: hostOf(this.#options.url),
      reason: `${this.#queue.length} are left`,
    });
    this.#queue.length = 0;
  }

  async #work(): Promise<void> {
    for (let body = this.#queue[0]; body !== undefined; body = this.#queue[0]) {
      await this.#deliver(body);
      if (this.#end.signal.aborted) return;
      this.#queue.shift();
    }
  }

  /** Returns when `body` was accepted or given up. */
  async #deliver(body: string): Promise<void> {
    const { attempts = ATTEMPTS } = this.#options;
    for (let attempt = 1; !this.#end.signal.aborted; attempt++) {
      const outcome = await this.#post(body);
      if (outcome === null) {
        deliveries.add({ result: "delivered" });
        return;
      }
      if (this.#end.signal.aborted) return;
      const isLast = !outcome.mayHeal || attempt >= attempts;
      deliveries.add({ result: isLast ? "given-up" : "failed" });
      if (isLast || isToldOf(attempt)) {
        const event = isLast ? "alert is given up" : "alert is not accepted";
        logEvent("error", event, { destination: hostOf(this.#options.url), error: outcome.found, attempt });
      }
      if (isLast) return;
      await this.#wait(attempt, outcome.retryAfterMs);
    }
  }

  /** Null if it was accepted. */
  async #post(body: string): Promise<{ found: string; mayHeal: boolean; retryAfterMs: number } | null> {
    const { url, authorization, userAgent, timeoutMs = TIMEOUT_MS } = this.#options;
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "user-agent": userAgent,
          ...(authorization === undefined ? {} : { authorization }),
        },
        body,
        // Elsewhere the header would be told to somebody else.
        redirect: "manual",
        signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), this.#end.signal]),
      });
      await response.body?.cancel();
      if (response.ok) return null;
      const { status } = response;
      const retryAfterMs = 1000 * Number(response.headers.get("retry-after") ?? 0) || 0;
      return { found: `status ${status}`, mayHeal: status >= 500 || HEALING_STATUSES.has(status), retryAfterMs };
    } catch (error) {
      // What was sent to nowhere, or accepted without an answer, is sent again.
      const found = errnoOf(error) ?? messageOf(error).replaceAll(url.href, hostOf(url));
      return { found, mayHeal: true, retryAfterMs: 0 };
    }
  }

  async #wait(attempt: number, retryAfterMs: number): Promise<void> {
    const { baseDelayMs = BASE_DELAY_MS, maxDelayMs = MAX_DELAY_MS } = this.#options;
    const isHurried = this.#hurry.signal.aborted;
    const ceilingMs = isHurried ? LAST_DELAY_MS : maxDelayMs;
    const delayMs = jitteredMs(attempt, baseDelayMs, ceilingMs);
    const end = isHurried ? this.#end.signal : this.#hurry.signal;
    await sleep(Math.min(ceilingMs, Math.max(delayMs, retryAfterMs)), end).catch(() => {});
  }
}

// --- internal ---

const WAITING_MAX = 1000;
const TIMEOUT_MS = 10_000;
/** About ten minutes. */
const ATTEMPTS = 20;
const BASE_DELAY_MS = 1000;
const MAX_DELAY_MS = 60_000;
const LAST_DELAY_MS = 500;
/** Timeout, too early, too many requests. */
const HEALING_STATUSES: ReadonlySet<number> = new Set([408, 425, 429]);
