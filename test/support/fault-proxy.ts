/**
 * A proxy on loopback between walsync and a server, that fails as networks and services do. It knows just enough HTTP to
 * answer 503 by itself; everything else it forwards, or not, byte by byte.
 */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export type ProxyMode =
  /** Forwards. */
  | "pass"
  /** Forwards after up to a second. */
  | "delay"
  /** Closes connections before a byte is forwarded. */
  | "reset"
  /** Forwards the request, and closes before the answer: it may have been done. */
  | "lose-answer"
  /** Forwards half of what the client sends, and closes. */
  | "cut"
  /** Accepts, and never answers. */
  | "hang"
  /** Answers 503 SlowDown without asking anybody. */
  | "slow-down"
  /** Answers 403 ExpiredToken without asking anybody. */
  | "expired";

export interface FaultProxy {
  endpoint: string;
  /** What happens to whatever is sent from now on, also over connections that are open already. */
  mode: ProxyMode;
  /** Times that a client sent something. */
  requests: number;
  stop(): void;
}

export async function startFaultProxy(target: string, random: () => number): Promise<FaultProxy> {
  const { hostname, port } = new URL(target);
  const proxy: FaultProxy = { endpoint: "", mode: "pass", requests: 0, stop: () => {} };
  const sockets = new Set<Socket>();
  const track = (socket: Socket): Socket => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    return socket;
  };
  const server = createServer((client) => {
    track(client);
    const upstream = track(connect(Number(port), hostname));
    upstream.on("data", (chunk) => {
      if (proxy.mode === "lose-answer") client.destroy();
      else if (proxy.mode !== "hang") client.write(chunk);
    });
    upstream.on("close", () => client.destroy());
    client.on("close", () => upstream.destroy());
    client.on("data", (chunk: Buffer) => {
      proxy.requests++;
      switch (proxy.mode) {
        case "reset":
          client.destroy();
          break;
        case "hang":
          break;
        case "slow-down":
          client.end(answer("503 Slow Down", "SlowDown"));
          break;
        case "expired":
          client.end(answer("403 Forbidden", "ExpiredToken"));
          break;
        case "cut":
          upstream.write(chunk.subarray(0, chunk.length >> 1));
          setTimeout(() => client.destroy(), 20);
          break;
        case "delay":
          setTimeout(() => upstream.write(chunk), random() % 1000);
          break;
        default:
          upstream.write(chunk);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  proxy.stop = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return proxy;
}

// --- internal ---

function answer(status: string, code: string): string {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>Says the proxy.</Message></Error>`;
  const head = [`HTTP/1.1 ${status}`, "content-type: application/xml", "connection: close"];
  return [...head, `content-length: ${body.length}`, "", body].join("\r\n");
}
