/** A status page without a watch: made-up databases, and chains of empty files that are only listed. */
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatManifest, manifestEntry } from "../../src/chain/manifest.ts";
import { openDestination } from "../../src/destination/open.ts";
import { type MetricsServer, serveMetrics } from "../../src/metrics-server.ts";
import type { DatabaseRow, Trouble } from "../../src/status-page/protocol.ts";
import { StatusPage } from "../../src/status-page/status-page.ts";
import { conditionOf } from "../../src/status-page/view.ts";

/** A live database that has shipped everything, but for what `known` says. */
export function madeUpRow(name: string, known: Partial<DatabaseRow> = {}): DatabaseRow {
  const trouble = known.trouble ?? null;
  const row: DatabaseRow = {
    name,
    path: `/data/${name}.db`,
    state: "live",
    txid: 1,
    shipped_txid: 1,
    lag_seconds: 0,
    lag_transactions: 0,
    size_bytes: 8192,
    outbox_bytes: 0,
    wal_bytes: 4152,
    shipped_at: new Date().toISOString(),
    shipped_increments: 1,
    error: null,
    drill: null,
    condition: "ok",
    ...known,
    trouble,
  };
  return { ...row, condition: conditionOf(row, trouble) };
}

export function madeUpTrouble(known: Partial<Trouble> = {}): Trouble {
  return { kind: "failed", code: "E_DATABASE", message: "expected a database, found none", hint: null, ...known };
}

export interface MadeUpPoint {
  txid: number;
  atMs: number;
  snapshot?: boolean;
}

/** Files that lead to `points`, one transaction after the other but for those before a snapshot, and their manifest. */
export function writeMadeUpChain(bucket: string, name: string, points: readonly MadeUpPoint[]): void {
  const folder = join(bucket, name);
  mkdirSync(folder, { recursive: true });
  const two = (txid: number): string => String(txid).padStart(8, "0");
  let reached = 0;
  const files = points.map(({ txid, atMs, snapshot }) => {
    const minTxid = snapshot || reached === 0 ? 1 : reached + 1;
    reached = txid;
    const key = `${name}/${two(minTxid)}-${two(txid)}.ltx`;
    writeFileSync(join(bucket, key), "");
    truncateSync(join(bucket, key), snapshot ? 4_200_000 : 1000 + 37 * (txid % 500));
    const range = { minTxid: BigInt(minTxid), maxTxid: BigInt(txid) };
    return manifestEntry(name, key, range, {
      sizeBytes: 0,
      timestampMs: atMs,
      sha256: "0".repeat(64),
      checksums: { pre: 0n, post: 0n },
    });
  });
  const manifest = { name, lineage: "0".repeat(16), pageSize: 4096, updatedAtMs: Date.now(), files };
  writeFileSync(join(folder, "manifest.json"), formatManifest(manifest));
}

export interface ServedPage extends MetricsServer {
  url: string;
  page: StatusPage;
}

/** Serves the page of `rows`, which are asked for anew each time. `port` 0: any free one. */
export async function serveStatusPage(
  bucket: string,
  rows: () => DatabaseRow[],
  { port = 0, version = "0.1.0", destination = bucket } = {},
): Promise<ServedPage> {
  const page = new StatusPage({
    facts: {
      version,
      pid: process.pid,
      host: "web-1",
      started_at: new Date(Date.now() - 3 * 86_400_000).toISOString(),
      destination,
      place: ["-b", destination],
    },
    destination: await openDestination(bucket),
    rows,
  });
  const server = serveMetrics(
    "127.0.0.1",
    port,
    () => null,
    (request, bun) => page.answer(request, bun),
  );
  const stop = (): void => {
    page.stop();
    server.stop();
  };
  return { port: server.port, url: `http://127.0.0.1:${server.port}`, page, stop };
}
