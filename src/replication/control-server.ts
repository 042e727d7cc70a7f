/** The control socket of a watch: what it is doing, and requests to sync or snapshot now. */
import { chmodSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type DrillSummary, requireOwnFolder, type WatchReport } from "../control.ts";
import { asDiskError, makePrivateFolder } from "../durable.ts";
import { messageOf, WalsyncError } from "../errors.ts";
import type { Replicator } from "./replicator.ts";
import { reportOf } from "./report.ts";

export interface ControlServer {
  stop(): void;
}

/** Listens in `folder`. Throws E_DISK if that is not a folder of this user's own. */
export function serveControl(
  folder: string,
  replicators: () => readonly Replicator[],
  about: Pick<WatchReport, "version" | "destination">,
  drillOf: (replicator: Replicator) => DrillSummary | null,
): ControlServer {
  const socket = join(folder, `${process.pid}.sock`);
  const startedAt = new Date().toISOString();
  const report = (): WatchReport => ({
    pid: process.pid,
    version: about.version,
    started_at: startedAt,
    destination: about.destination,
    databases: replicators().map((replicator) => reportOf(replicator, drillOf(replicator))),
  });
  try {
    makePrivateFolder(folder);
    requireOwnFolder(folder);
    rmSync(socket, { force: true });
    const listener = Bun.serve({
      unix: socket,
      development: false,
      ...PATIENT,
      fetch: (request) => answer(request, replicators(), report),
    });
    chmodSync(socket, 0o600);
    return {
      stop: () => {
        void listener.stop(true);
        rmSync(socket, { force: true });
      },
    };
  } catch (error) {
    throw asDiskError(socket, error);
  }
}

// --- internal ---

const STATUS_OF_FAULT = 409;
/**
 * A snapshot of a large database takes as long as it takes. Bun's types have no such option for a socket with a path, its server
 * has: without it a silent connection is closed after some ten seconds, whatever `server.timeout` was told.
 */
const PATIENT: object = { idleTimeout: 0 };

async function answer(
  request: Request,
  replicators: readonly Replicator[],
  report: () => WatchReport,
): Promise<Response> {
  const { pathname, searchParams } = new URL(request.url);
  if (request.method === "GET" && pathname === "/status") return Response.json(report());
  const action = pathname.slice(1);
  if (request.method !== "POST" || (action !== "sync" && action !== "snapshot")) {
    return Response.json({ code: "E_USAGE", message: `${pathname}: no such request` }, { status: 404 });
  }
  const name = searchParams.get("name") ?? "";
  const replicator = replicators.find((one) => one.name === name);
  if (replicator === undefined) {
    return Response.json({ code: "E_NOT_FOUND", message: `${name}: not watched by this process` }, { status: 404 });
  }
  try {
    const wait = searchParams.get("wait") === "true";
    const options = { waitsForRoom: wait };
    const txid = await (action === "sync"
      ? replicator.requests.captureNow(options)
      : replicator.requests.snapshot(options));
    if (wait) await replicator.requests.shipped(txid);
    return Response.json({ txid: Number(txid) });
  } catch (error) {
    const { code, hint } = error instanceof WalsyncError ? error : { code: "E_UNREACHABLE", hint: undefined };
    return Response.json({ code, message: messageOf(error), hint }, { status: STATUS_OF_FAULT });
  }
}
