/** Runs every check there is for what it is given: the host always, databases and a destination if there are any. */
import type { AgeKeys, KeyPlaces } from "../destination/age-keys.ts";
import { type DestinationSettings, openDestination, parseDestinationUrl, resolveS3 } from "../destination/open.ts";
import type { S3Options } from "../destination/s3-requests.ts";
import { DestinationError, type ErrorCode } from "../errors.ts";
import { logEvent } from "../log.ts";
import { type CheckResult, runChecks } from "./check.ts";
import { DATABASE_CHECKS, type DatabaseToCheck } from "./database-checks.ts";
import { DESTINATION_CHECKS, DestinationToCheck } from "./destination-checks.ts";
import { missingFolders, removeEmptyFolders } from "./folders.ts";
import { HOST_CHECKS } from "./host-checks.ts";
import { KEY_CHECKS, KeysToCheck } from "./key-checks.ts";

export interface Patient {
  databases: readonly DatabaseToCheck[];
  /** As the user wrote it; null if there is no destination to check. */
  bucket: string | null;
  settings: DestinationSettings;
  /** What files are encrypted with; null if they are not. */
  keys: KeyPlaces | null;
}

export interface Diagnosis {
  results: CheckResult[];
  /** What the worst failure means; null if nothing failed. A local one is worse: without it there is nothing to ship. */
  code: ErrorCode | null;
}

/** Leaves everything as it was. Throws E_USAGE for an address that is none, and the signal's reason. */
export async function examine({ databases, bucket, settings, keys }: Patient, signal: AbortSignal): Promise<Diagnosis> {
  const place = bucket === null ? null : placeOf(bucket, settings);
  const host = { databases, server: place?.kind === "bucket" ? serverOf(place.s3) : null, signal };
  const results = await runChecks({ subject: "host", checks: HOST_CHECKS, context: host });
  let code: ErrorCode | null = hasFailure(results) ? "E_DISK" : null;
  for (const database of databases) {
    signal.throwIfAborted();
    const found = await runChecks({ subject: database.path, checks: DATABASE_CHECKS, context: database });
    if (hasFailure(found)) code ??= "E_DATABASE";
    results.push(...found);
  }
  const encryption = keys === null ? null : new KeysToCheck(keys);
  if (encryption !== null) {
    const found = await runChecks({ subject: "encryption", checks: KEY_CHECKS, context: encryption });
    if (hasFailure(found)) code ??= "E_CONFIG";
    results.push(...found);
  }
  if (place !== null) {
    const found = await examinePlace(place, encryption === null ? "none" : (encryption.keys ?? "faulty"), signal);
    if (hasFailure(found)) code ??= "E_REFUSED";
    results.push(...found);
  }
  return { results, code };
}

// --- internal ---

/** A destination as far as it is known without asking it. */
type Place =
  | { kind: "directory"; path: string }
  | { kind: "bucket"; s3: S3Options }
  | { kind: "closed"; url: string; fault: DestinationError };

function placeOf(bucket: string, settings: DestinationSettings): Place {
  const address = parseDestinationUrl(bucket);
  if (address.kind === "directory") return address;
  try {
    return { kind: "bucket", s3: resolveS3(address, settings) };
  } catch (error) {
    if (!(error instanceof DestinationError)) throw error;
    return { kind: "closed", url: `s3://${address.bucket}`, fault: error };
  }
}

function serverOf({ endpoint, region }: S3Options): string {
  return endpoint ?? `https://s3.${region}.amazonaws.com`;
}

async function examinePlace(
  place: Place,
  keys: AgeKeys | "none" | "faulty",
  signal: AbortSignal,
): Promise<CheckResult[]> {
  if (place.kind === "closed") {
    const refuse = () => {
      throw place.fault;
    };
    return await runChecks({ subject: place.url, checks: [{ check: "credentials", run: refuse }], context: null });
  }
  const probe = await probeOf(place, keys, signal);
  const made = place.kind === "directory" ? missingFolders(place.path) : [];
  try {
    return await runChecks({ subject: probe.destination.url, checks: DESTINATION_CHECKS, context: probe });
  } finally {
    await probe.clean().catch((error) => {
      logEvent("warn", "objects of the check are left", { destination: probe.destination.url, key: probe.key, error });
    });
    probe.destination.close();
    removeEmptyFolders(made);
  }
}

/** Without retries: what fails once is what the user wants to hear of. */
async function probeOf(
  place: Exclude<Place, { kind: "closed" }>,
  keys: AgeKeys | "none" | "faulty",
  signal: AbortSignal,
): Promise<DestinationToCheck> {
  if (place.kind === "directory") return new DestinationToCheck(await openDestination(place), null, signal, keys);
  const { S3Destination } = await import("../destination/s3.ts");
  const { probeMultipart } = await import("../destination/s3-multipart-probe.ts");
  const begin = (key: string) => probeMultipart(place.s3, key, signal);
  return new DestinationToCheck(new S3Destination(place.s3), begin, signal, keys);
}

function hasFailure(results: readonly CheckResult[]): boolean {
  return results.some(({ result }) => result === "failed");
}
