/** The alerts of a watch: from its settings to somebody who posts what is wrong. */
import { hostname } from "node:os";
import { VERSION } from "../cli/version.ts";
import type { WatchSettings } from "../engine/watch-settings.ts";
import { WalsyncError } from "../errors.ts";
import { keepSecret } from "../log.ts";
import { ALERT_EVENTS, type Alert, type AlertEvent } from "../replication/alerts.ts";
import { measureWebhook, parseWebhookUrl, Webhook } from "../replication/webhook.ts";

export interface Alerts {
  /** Posts it, if somebody is to be told of such an event. Does not wait. */
  send(alert: Alert, destination: string): void;
  /** Delivers what waits, for at most `timeoutMs`. Never throws. */
  stop(timeoutMs: number): Promise<void>;
}

/** What is posted. Its fields are described in docs/METRICS.md, and only ever become more. */
export interface AlertBody {
  /** The same at every try to deliver this alert, and of no other. */
  id: string;
  event: AlertEvent;
  database: string;
  destination: string;
  code: string | null;
  message: string;
  hint: string | null;
  /** ISO 8601. */
  at: string;
  host: string;
  /** Of walsync. */
  version: string;
}

/** Null if nobody is to be told. Throws E_USAGE for a URL or an event that is none. */
export function openAlerts(settings: WatchSettings): Alerts | null {
  const policy = alertPolicyOf(settings);
  if (policy === null) return null;
  const { url, authorization, events } = policy;
  const webhook = new Webhook({ url, authorization, userAgent: `walsync/${VERSION}` });
  measureWebhook(() => webhook.waiting);
  return {
    send: (alert, destination) => {
      if (events.has(alert.event)) webhook.send(bodyOf(alert, destination));
    },
    stop: (timeoutMs) => webhook.stop(AbortSignal.timeout(timeoutMs)),
  };
}

export interface AlertPolicy {
  url: URL;
  authorization: string | undefined;
  events: ReadonlySet<AlertEvent>;
}

/** Null without a URL. From now on neither it nor the header is ever printed. Throws E_USAGE. */
export function alertPolicyOf({ webhookUrl, webhookAuthorization, webhookEvents }: WatchSettings): AlertPolicy | null {
  for (const secret of [webhookUrl, webhookAuthorization]) if (secret !== undefined) keepSecret(secret);
  const events = parseEvents(webhookEvents);
  if (webhookUrl === undefined) return null;
  return { url: parseWebhookUrl(webhookUrl), authorization: webhookAuthorization, events };
}

// --- internal ---

function parseEvents(text: string): ReadonlySet<AlertEvent> {
  const events = text.split(",").map((event) => event.trim());
  const wrong = events.find((event) => !(ALERT_EVENTS as readonly string[]).includes(event));
  if (wrong === undefined) return new Set(events as AlertEvent[]);
  throw new WalsyncError("E_USAGE", `--webhook-events: expected some of ${ALERT_EVENTS.join(", ")}, found "${wrong}"`, {
    hint: "Write them with commas between, like fenced,integrity.",
  });
}

function bodyOf({ event, database, code, message, hint, atMs }: Alert, destination: string): AlertBody {
  return {
    id: crypto.randomUUID(),
    event,
    database,
    destination,
    code,
    message,
    hint: hint ?? null,
    at: new Date(atMs).toISOString(),
    host: hostname(),
    version: VERSION,
  };
}
