/** From what the user wrote (`s3://bucket/prefix`, `file:///dir`, a path) to a destination. */
import { fileURLToPath } from "node:url";
import { DestinationError, messageOf, WalsyncError } from "../errors.ts";
import type { Destination } from "./destination.ts";
import { DirectoryDestination } from "./directory.ts";
import { keyFault } from "./keys.ts";
import type { RetryOptions } from "./retry.ts";
import type { S3Options } from "./s3-requests.ts";

export type DestinationAddress =
  | {
      kind: "s3";
      bucket: string;
      /** Without "/" at either end. "" for none. */
      prefix: string;
      // Only what the URL's own query says.
      endpoint?: string;
      region?: string;
      forcePathStyle?: boolean;
    }
  | { kind: "directory"; path: string };

export interface DestinationSettings {
  /** What flags and the configuration file say. They beat the environment; the URL's own query beats them. */
  endpoint?: string | undefined;
  region?: string | undefined;
  forcePathStyle?: boolean | undefined;
  storageClass?: string | undefined;
  serverSideEncryption?: string | undefined;
  /** How the parts of an upload are tried again: what `withRetry` gets for everything else. */
  partRetry?: RetryOptions | undefined;
  /** Where credentials and defaults come from. The process environment if absent. */
  env?: Readonly<Record<string, string | undefined>>;
}

/**
 * Accepts `s3://bucket/prefix?endpoint=...&region=...&forcePathStyle=...`, `file:///dir`, and a path, which may be
 * relative and is kept so. Throws `WalsyncError` E_USAGE for anything else.
 */
export function parseDestinationUrl(text: string): DestinationAddress {
  if (text.trim() === "") throw usage(text, "nothing", "Use s3://bucket/prefix, file:///dir or a path.");
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    if (/^(s3|file):/i.test(text)) throw usage(text, `"${redactUrl(text)}"`, 'Write "//" behind the colon.');
    if (text.includes("\0")) throw usage(text, "a path with a NUL in it", "Check the path.");
    return { kind: "directory", path: text };
  }
  if (scheme === "file") return parseFileUrl(text);
  if (scheme !== "s3") {
    const hint =
      scheme === "http" || scheme === "https"
        ? "Use s3://bucket/prefix and give this URL as --endpoint."
        : "Use s3://bucket/prefix, file:///dir or a path.";
    throw usage(text, `the scheme "${scheme}"`, hint);
  }
  return parseS3Url(text);
}

/**
 * Opens a destination; touches neither network nor disk yet (see `prepare`). Throws `WalsyncError` E_USAGE for what
 * cannot be a destination, and a `DestinationError` for missing credentials.
 */
export async function openDestination(
  address: string | DestinationAddress,
  settings: DestinationSettings = {},
): Promise<Destination> {
  const parsed = typeof address === "string" ? parseDestinationUrl(address) : address;
  if (parsed.kind === "directory") return new DirectoryDestination(parsed.path);
  const resolved = resolveS3(parsed, settings);
  // The SDK costs memory and start-up time that nobody pays for a directory.
  const { S3Destination } = await import("./s3.ts");
  return new S3Destination(resolved);
}

/** What an S3 address, settings and environment mean together. Pure. */
export function resolveS3(address: DestinationAddress & { kind: "s3" }, settings: DestinationSettings): S3Options {
  const env = settings.env ?? process.env;
  const given = (name: string): string | undefined => (env[name] === "" ? undefined : env[name]);
  const endpoint = address.endpoint ?? settings.endpoint ?? given("AWS_ENDPOINT_URL_S3");
  const url = `s3://${address.bucket}`;
  const checkedEndpoint = endpoint === undefined ? undefined : checkEndpoint(endpoint);
  const accessKeyId = given("AWS_ACCESS_KEY_ID");
  const secretAccessKey = given("AWS_SECRET_ACCESS_KEY");
  const missing = [
    accessKeyId === undefined ? "AWS_ACCESS_KEY_ID" : "",
    secretAccessKey === undefined ? "AWS_SECRET_ACCESS_KEY" : "",
  ].filter((name) => name !== "");
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new DestinationError(
      `${url}: expected credentials in the environment, found no ${missing.join(" and no ")}`,
      {
        retryable: false,
        hint: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; profiles and instance roles are not read.",
      },
    );
  }
  return {
    bucket: address.bucket,
    prefix: address.prefix,
    endpoint: checkedEndpoint,
    region: address.region ?? settings.region ?? given("AWS_REGION") ?? "us-east-1",
    // Most servers that are not AWS have no DNS name per bucket.
    forcePathStyle: address.forcePathStyle ?? settings.forcePathStyle ?? isForeignEndpoint(checkedEndpoint),
    storageClass: settings.storageClass,
    serverSideEncryption: settings.serverSideEncryption,
    partRetry: settings.partRetry,
    credentials: { accessKeyId, secretAccessKey, sessionToken: given("AWS_SESSION_TOKEN") },
  };
}

// --- internal ---

function parseFileUrl(text: string): DestinationAddress {
  let url: URL;
  try {
    url = new URL(text);
  } catch (error) {
    throw usage(text, messageOf(error), "Write file:///absolute/path.", error);
  }
  if (url.host !== "" && url.host !== "localhost") {
    throw usage(text, `the host "${url.host}"`, "Write three slashes: file:///absolute/path.");
  }
  if (url.search !== "" || url.hash !== "") {
    throw usage(text, '"?" or "#" behind the path', "Write %3F and %23 if they are part of the path.");
  }
  try {
    return { kind: "directory", path: fileURLToPath(`file://${url.pathname}`) };
  } catch (error) {
    throw usage(text, messageOf(error), "Write file:///absolute/path.", error);
  }
}

function parseS3Url(text: string): DestinationAddress {
  // Not with `new URL`: it would resolve ".." and escape spaces, and a key is neither a path nor a URL.
  const rest = text.slice("s3://".length);
  const queryStart = rest.indexOf("?");
  const place = queryStart === -1 ? rest : rest.slice(0, queryStart);
  const slash = place.indexOf("/");
  const bucket = slash === -1 ? place : place.slice(0, slash);
  if (bucket.includes("@") || (bucket.includes(":") && place.includes("@"))) {
    throw usage(
      text,
      "a user or password before the bucket",
      "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead.",
    );
  }
  if (bucket === "") throw usage(text, "no bucket", "Write s3://bucket/prefix.");
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(bucket)) {
    throw usage(text, `the bucket "${bucket}"`, "A bucket's name is letters, digits, dots and hyphens.");
  }
  const prefix = slash === -1 ? "" : place.slice(slash + 1).replace(/\/+$/, "");
  const fault = prefix === "" ? null : keyFault(prefix);
  if (fault !== null) throw usage(text, `a prefix that ${fault}`, "Write s3://bucket/prefix.");
  const query = parseQuery(text, queryStart === -1 ? "" : rest.slice(queryStart + 1));
  return { kind: "s3", bucket, prefix, ...query };
}

function parseQuery(text: string, query: string): { endpoint?: string; region?: string; forcePathStyle?: boolean } {
  const parsed: { endpoint?: string; region?: string; forcePathStyle?: boolean } = {};
  const seen = new Set<string>();
  for (const [name, value] of new URLSearchParams(query)) {
    if (seen.has(name)) throw usage(text, `"${name}" twice in the query`, "Leave one.");
    seen.add(name);
    switch (name) {
      case "endpoint":
        parsed.endpoint = checkEndpoint(value);
        break;
      case "region":
        if (!/^[A-Za-z0-9-]+$/.test(value)) throw usage(text, `the region "${value}"`, "Write it like us-east-1.");
        parsed.region = value;
        break;
      case "forcePathStyle":
      case "force-path-style":
        if (value !== "true" && value !== "false") throw usage(text, `${name}=${value}`, "Write true or false.");
        parsed.forcePathStyle = value === "true";
        break;
      case "skipVerify":
      case "skip-verify":
        // Whoever is on the way could read and change everything. False is what is done anyway.
        if (value !== "false") {
          const hint = "Certificates are always checked: give an authority of your own with NODE_EXTRA_CA_CERTS=FILE.";
          throw usage(text, `${name} in the query`, hint);
        }
        break;
      default:
        // The value may be a secret that somebody put here.
        throw usage(text, `"${name}" in the query`, "Only endpoint, region and forcePathStyle may stand there.");
    }
  }
  return parsed;
}

/** An endpoint as the SDK wants it. A host without a scheme is taken to be https. */
function checkEndpoint(endpoint: string): string {
  const withScheme = /^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(endpoint) ? endpoint : `https://${endpoint}`;
  const fault = (found: string, cause?: unknown): WalsyncError =>
    new WalsyncError("E_USAGE", `endpoint: expected a URL like https://host:port, found ${found}`, {
      hint: "Check --endpoint, AWS_ENDPOINT_URL_S3 or the endpoint in the URL or configuration file.",
      cause,
    });
  let url: URL;
  try {
    url = new URL(withScheme);
  } catch (error) {
    throw fault(`"${redactUrl(endpoint)}"`, error);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") throw fault(`the scheme "${url.protocol}"`);
  if (url.username !== "" || url.password !== "") throw fault("a user or password in it");
  if (url.search !== "" || url.hash !== "") throw fault('"?" or "#" in it');
  return withScheme.replace(/\/+$/, "");
}

function isForeignEndpoint(endpoint: string | undefined): boolean {
  return endpoint !== undefined && !/(^|\.)amazonaws\.com(\.cn)?$/.test(new URL(endpoint).hostname);
}

function usage(text: string, found: string, hint: string, cause?: unknown): WalsyncError {
  return new WalsyncError("E_USAGE", `destination ${redactUrl(text)}: expected an address, found ${found}`, {
    hint,
    cause,
  });
}

/** The text without what may be a secret: everything up to the last "@", and the query. */
function redactUrl(text: string): string {
  return text.replace(/^([a-z0-9+.-]*:(?:\/\/)?)?.*@/is, "$1***@").replace(/\?.*$/s, "?...");
}
