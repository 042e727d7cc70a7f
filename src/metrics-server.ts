/** Metrics and health over HTTP, for whoever scrapes this host, and the status page of a watch. Nothing is accepted. */
import { errnoOf, messageOf, WalsyncError } from "./errors.ts";
import { renderMetrics } from "./metrics.ts";

export interface MetricsServer {
  readonly port: number;
  stop(): void;
}

/** Answers a request to read any other path; null if there is nothing. */
export type OtherPaths = (request: Request, server: Bun.Server<unknown>) => Promise<Response | null>;

/**
 * Serves `/metrics`, and `/healthz`: 200 while `faultOf` answers null, else 503 with what it says. Throws E_CONFIG if the
 * address cannot be listened on.
 */
export function serveMetrics(
  hostname: string,
  port: number,
  faultOf: () => string | null,
  others: OtherPaths = async () => null,
): MetricsServer {
  try {
    const server = Bun.serve({
      hostname,
      port,
      development: false,
      // Left to its default, Bun shares the port with whoever has it already.
      reusePort: false,
      fetch: (request, server) => answer(request, faultOf) ?? answerOther(request, server, others),
    });
    return { port: server.port ?? port, stop: () => void server.stop(true) };
  } catch (error) {
    const found = errnoOf(error) === "EADDRINUSE" ? "another program there" : messageOf(error);
    throw new WalsyncError("E_CONFIG", `${hostname}:${port}: expected to serve metrics there, found ${found}`, {
      hint: "Choose another --metrics-port, or pass --no-metrics.",
      cause: error,
    });
  }
}

// --- internal ---

function answer(request: Request, faultOf: () => string | null): Response | null {
  if (request.method !== "GET" && request.method !== "HEAD") return new Response("", { status: 405 });
  // Null for a Host header that is none.
  const url = URL.parse(request.url);
  if (url === null) return new Response("", { status: 400 });
  switch (url.pathname) {
    case "/metrics":
      return new Response(streamOf(renderMetrics()), {
        headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
      });
    case "/healthz": {
      const fault = faultOf();
      return new Response(`${fault ?? "ok"}\n`, { status: fault === null ? 200 : 503 });
    }
    default:
      return null;
  }
}

async function answerOther(request: Request, server: Bun.Server<unknown>, others: OtherPaths): Promise<Response> {
  return (await others(request, server)) ?? new Response("walsync: see /metrics and /healthz\n", { status: 404 });
}

function streamOf(pieces: Iterable<string>): ReadableStream<Uint8Array> {
  const iterator = pieces[Symbol.iterator]();
  const encoder = new TextEncoder();
  return new ReadableStream({
    pull(controller) {
      const { done, value } = iterator.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
  });
}
