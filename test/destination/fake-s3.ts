/**
 * Servers on the loopback interface that do what a real one cannot be made to do: refuse, go silent, lose answers, fail
 * one part of an upload. They know just enough of S3 for that.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export function fakeServer(answer: (request: Request) => Promise<Response>) {
  const bun = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: answer });
  return { endpoint: `http://127.0.0.1:${bun.port}`, [Symbol.asyncDispose]: () => bun.stop(true) };
}

/** Serves `content` for every key, but never more than `limit` bytes of a body before it stops as `how` says. */
export function cuttingServer(content: string, limit: number, how: "close" | "silent") {
  const ranges: string[] = [];
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, bytes) {
        const request = bytes.toString();
        if (!request.startsWith("GET")) return;
        const range = /^range: (.*)$/im.exec(request)?.[1]?.trim() ?? "";
        ranges.push(range);
        const fromEnd = /^bytes=-(\d+)$/.exec(range)?.[1];
        const between = /^bytes=(\d+)-(\d*)$/.exec(range);
        const first = fromEnd === undefined ? Number(between?.[1] ?? 0) : content.length - Number(fromEnd);
        const last = between?.[2] ? Number(between[2]) : content.length - 1;
        const body = content.slice(first, last + 1);
        const status = range === "" ? "200 OK" : "206 Partial Content";
        const contentRange = range === "" ? "" : `Content-Range: bytes ${first}-${last}/${content.length}\r\n`;
        socket.write(
          `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n${contentRange}ETag: "e"\r\n\r\n${body.slice(0, limit)}`,
        );
        if (how === "close") setTimeout(() => socket.end(), 20);
      },
    },
  });
  return {
    endpoint: `http://127.0.0.1:${listener.port}`,
    ranges,
    [Symbol.dispose]: () => listener.stop(true),
  };
}

/** Knows just enough of multipart uploads to fail parts on demand: `failures` is how often each part still fails. */
export function multipartServer() {
  const log: string[] = [];
  const failures = new Map<number, number>();
  let refusing = false;
  let lastError: string | null = null;
  let isOpen = false;
  let inFlight = 0;
  let mostInFlight = 0;
  const server = fakeServer(async (request) => {
    const query = new URL(request.url).searchParams;
    if (request.method === "HEAD") {
      log.push("head");
      return new Response(null, { status: 404 });
    }
    if (request.method === "GET") {
      return new Response("<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>");
    }
    if (request.method === "POST" && query.has("uploads")) {
      log.push("create");
      isOpen = true;
      return new Response("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>");
    }
    if (request.method === "DELETE") {
      if (!isOpen) return new Response("<Error><Code>NoSuchUpload</Code></Error>", { status: 404 });
      isOpen = false;
      log.push("abort");
      return new Response(null, { status: 204 });
    }
    if (request.method === "PUT") {
      const part = Number(query.get("partNumber"));
      mostInFlight = Math.max(mostInFlight, ++inFlight);
      await request.arrayBuffer();
      await Bun.sleep(5);
      inFlight--;
      log.push(`part ${part}`);
      const left = failures.get(part) ?? 0;
      failures.set(part, left - 1);
      if (left > 0) return new Response("<Error><Code>SlowDown</Code></Error>", { status: 503 });
      return new Response(null, { headers: { ETag: `"${part}"` } });
    }
    const condition = request.headers.get("if-none-match");
    const numbers = [...(await request.text()).matchAll(/<PartNumber>(\d+)</g)].map((match) => match[1]);
    log.push(`complete ${numbers.join()}${condition === null ? "" : ` if-none-match ${condition}`}`);
    if (refusing && (condition ?? request.headers.get("if-match")) !== null)
      return new Response("<Error><Code>NotImplemented</Code></Error>", { status: 501 });
    if (lastError !== null) return new Response(`<Error><Code>${lastError}</Code><Message>why</Message></Error>`);
    return new Response('<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>');
  });
  return {
    server,
    log,
    failures,
    mostInFlight: () => mostInFlight,
    /** No condition on the request that completes an upload. */
    refuseConditions: () => {
      refusing = true;
    },
    /** The request that completes an upload answers 200 and then this error, as S3 does after a long time. */
    failLast: (code: string) => {
      lastError = code;
    },
  };
}

/** Stores what is put, with If-None-Match; fails the next requests or loses the next answer on demand. */
export async function storingServer() {
  const log: string[] = [];
  const objects = new Map<string, string>();
  let failure = { status: 0, code: "", left: 0 };
  let losing = false;
  // Of node, since `Bun.serve` cannot perform a request and then drop its connection.
  const http = createServer(async (request, response) => {
    const body = Buffer.concat(await Array.fromAsync<Buffer>(request)).toString();
    const answer = (status: number, code: string): void => {
      log.push(`${request.method} ${status}`);
      response.writeHead(status, { ETag: '"1"' });
      response.end(code === "" ? "" : `<Error><Code>${code}</Code><Message>says the test</Message></Error>`);
    };
    const path = request.url?.replace(/\?.*$/, "") ?? "";
    if (failure.left-- > 0) answer(failure.status, failure.code);
    else if (request.headers["if-none-match"] === "*" && objects.has(path)) answer(412, "PreconditionFailed");
    else {
      objects.set(path, body);
      if (!losing) return answer(200, "");
      losing = false;
      log.push(`${request.method} lost`);
      request.socket.destroy();
    }
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    log,
    objects,
    failNext: (status: number, code: string, left: number) => {
      failure = { status, code, left };
    },
    loseNextAnswer: () => {
      losing = true;
    },
    [Symbol.dispose]: () => {
      http.closeAllConnections();
      http.close();
    },
  };
}
