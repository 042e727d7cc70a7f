/** The status page of a watch: the page itself, its live feed, and the restore points of a database. Reads only. */
import type { Destination } from "../destination/destination.ts";
import { messageOf, WalsyncError } from "../errors.ts";
import { redact } from "../log.ts";
import { buildPage } from "./assets.ts" with { type: "macro" };
import { Feed } from "./feed.ts";
import { PointsReader } from "./points.ts";
import { type DatabaseRow, EVENTS_PATH, POINTS_PATH, type Refusal, type WatchFacts } from "./protocol.ts";
import { parseQuery } from "./view.ts";
import { refusalOf } from "./visitors.ts";

/** What is shown. */
export interface StatusSource {
  facts: WatchFacts;
  destination: Destination;
  /** All databases, as they are now. */
  rows(): DatabaseRow[];
}

export class StatusPage {
  readonly feed: Feed;
  readonly #source: StatusSource;
  readonly #points: PointsReader;

  constructor(source: StatusSource) {
    this.#source = source;
    this.feed = new Feed(source.facts, source.rows);
    this.#points = new PointsReader(source.destination);
  }

  /** Answers a GET for "/" or below "/status/"; null for a path that is none of the page's. */
  async answer(request: Request, server: Bun.Server<unknown>): Promise<Response | null> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname !== "/" && pathname !== EVENTS_PATH && pathname !== POINTS_PATH) return null;
    const refusal = refusalOf(request.headers, pathname === "/");
    if (refusal !== null) return new Response(`walsync: ${refusal}\n`, { status: 403, headers: HEADERS });
    if (pathname === "/") {
      const headers = {
        ...HEADERS,
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": page.policy,
      };
      return new Response(page.html, { headers });
    }
    if (pathname === POINTS_PATH) {
      // As long as a listing of a large chain takes.
      server.timeout(request, 0);
      return await this.#pointsOf(searchParams);
    }
    server.timeout(request, 0);
    const headers = { ...HEADERS, "content-type": "text/event-stream" };
    const body = request.method === "HEAD" ? "" : this.feed.open(parseQuery(searchParams), request.signal);
    return new Response(body ?? "event: crowded\ndata: {}\n\n", { headers });
  }

  stop(): void {
    this.feed.stop();
  }

  async #pointsOf(params: URLSearchParams): Promise<Response> {
    const name = params.get("name") ?? "";
    try {
      // Only of what is watched: a visitor makes this host ask for no other key.
      if (!this.#source.rows().some((row) => row.name === name)) {
        throw new WalsyncError("E_NOT_FOUND", `${name}: not watched by this process`);
      }
      const range = { fromMs: numberOf(params.get("from")), toMs: numberOf(params.get("to")) };
      return json(await this.#points.read(name, range), 200);
    } catch (error) {
      const { code, hint } = error instanceof WalsyncError ? error : { code: "E_UNREACHABLE", hint: undefined };
      const answer: Refusal = { code, message: messageOf(error), hint: hint ?? null };
      return json(answer, code === "E_NOT_FOUND" ? 404 : 502);
    }
  }
}

// --- internal ---

const page = buildPage();

const HEADERS = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
};

/** What is shown to a browser is treated as a log is: no secret passes. */
function json(answer: unknown, status: number): Response {
  const headers = { ...HEADERS, "content-type": "application/json" };
  return new Response(redact(JSON.stringify(answer)), { status, headers });
}

function numberOf(text: string | null): number | null {
  const value = text === null || text === "" ? Number.NaN : Number(text);
  return Number.isFinite(value) ? value : null;
}
