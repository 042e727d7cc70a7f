/** Which state of a database is asked for, as people write it. */
import { WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";

export type RestoreTarget = { kind: "newest" } | { kind: "txid"; txid: Txid } | { kind: "time"; atMs: number };

/**
 * "txid:41", or a time: "2026-05-01", "2026-05-01T12:00Z", "2026-05-01 12:00:00.5+02:00". `label` is what the text was given as.
 * Throws E_USAGE for anything else.
 */
export function parsePointInTime(text: string | undefined, label: string): RestoreTarget {
  if (text === undefined) return { kind: "newest" };
  const txid = /^txid:([1-9]\d{0,19})$/.exec(text)?.[1];
  if (txid !== undefined) return { kind: "txid", txid: BigInt(txid) };
  const match = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(Z|[+-]\d\d:?\d\d)?)?$/i.exec(text.trim());
  const atMs = match === null ? Number.NaN : Date.parse(`${match[1]}T${match[2] ?? "00:00"}${match[3] ?? "Z"}`);
  // 30 February would be read as a day in March.
  const isDay = match !== null && new Date(`${match[1]}T00:00Z`).toJSON()?.startsWith(match[1]!) === true;
  if (isDay && Number.isFinite(atMs)) return { kind: "time", atMs };
  throw new WalsyncError(
    "E_USAGE",
    `${label}: expected a time like 2026-05-01T12:00:00Z or txid:N, found ${JSON.stringify(text)}`,
  );
}
