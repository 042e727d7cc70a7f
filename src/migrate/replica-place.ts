/** Where a replica of Litestream has its files: type, URL, bucket, path and endpoint together. Pure. */
import { join, resolve } from "node:path";
import type { LitestreamDatabase, LitestreamReplica } from "./litestream-config.ts";
import { expand, hasReference, type Sourced, type YmlContext } from "./yml-section.ts";

/** Texts may have references to the environment in them. */
export type ReplicaPlace =
  | {
      kind: "s3";
      bucket: string;
      endpoint: string | undefined;
      region: string | undefined;
      /** Undefined: as the endpoint asks for. */
      forcePathStyle: boolean | undefined;
      /** Parts of the key before the level. Of a directory of databases, before each database's own path. */
      parts: string[];
    }
  | {
      kind: "directory";
      parts: string[] /** "/", or "" if a reference to the environment comes first. */;
      root: string;
    }
  | { kind: "none"; reason: string; at: { line: number; key: string } };

/** Relative paths are relative to `folder`. Throws E_CONFIG for a URL that only the environment knows, if it does not. */
export function placeOf(
  database: LitestreamDatabase,
  replica: LitestreamReplica,
  context: YmlContext,
  folder: string,
): ReplicaPlace {
  const { closed, path } = replica;
  if (closed !== undefined) return none(`walsync cannot read ${closed.value}`, closed);
  const url = replica.url === undefined ? null : splitUrl(replica.url, context);
  const type = url?.scheme ?? replica.type?.value ?? "file";
  const at = replica.url ?? replica.type ?? replica;
  if (type === "file") {
    const text = url === null ? path?.value : url.rest;
    if (text === undefined) return none("has no path", at);
    return { kind: "directory", ...splitPath(absolute(text, folder, context)) };
  }
  if (type !== "s3") return none(`${type} is no kind of storage that walsync knows: use S3 or a directory`, at);

  const host = url === null ? hostOf(replica.bucket?.value ?? "") : hostOf(url.rest.replace(/\/.*$/s, ""));
  if (host.bucket === "") return none("has no bucket", at);
  if (host.bucket.startsWith("arn:")) return none("access points (arn:) are not understood: name the bucket", at);
  const endpoint = replica.endpoint?.value ?? url?.query.get("endpoint") ?? host.endpoint;
  const askedStyle = url?.query.get("forcePathStyle") ?? url?.query.get("force-path-style");
  const key = url === null ? (path?.value ?? "") : cleaned(url.rest.replace(/^[^/]*\/?/, ""));
  const parts = database.dir === undefined ? key.split("/") : key.replace(/\/+$/, "").split("/");
  const isBelowRoot = key === "" && database.dir !== undefined;
  if (key === "" && !isBelowRoot)
    return none("lies in the root of the bucket: move its files below a name", path ?? at);
  if (!isBelowRoot && parts.some((part) => part === "" || part === "." || part === "..")) {
    return none('its keys have an empty part, ".", or "..": move its files below a plain prefix', path ?? at);
  }
  return {
    kind: "s3",
    bucket: host.bucket,
    endpoint: endpoint === undefined ? undefined : withScheme(endpoint),
    region: replica.region?.value ?? url?.query.get("region") ?? host.region,
    forcePathStyle: replica.forcePathStyle?.value ?? (askedStyle == null ? undefined : askedStyle === "true"),
    parts: isBelowRoot ? [] : parts,
  };
}

/** A path as Litestream reads it: with the home folder for "~", without sqlite://, absolute. */
export function absolute(text: string, folder: string, { env }: Pick<YmlContext, "env">): string {
  const plain = text.replace(/^sqlite3?:\/\//, "");
  if (/^\$\{\w+\}/.test(plain)) return plain;
  if (plain === "~" || plain.startsWith("~/")) return join(env.HOME ?? "/root", plain.slice(1));
  return resolve(folder, plain);
}

// --- internal ---

interface SplitUrl {
  scheme: string;
  /** Host and path, without user, password and query. */
  rest: string;
  query: URLSearchParams;
}

interface Host {
  bucket: string;
  endpoint?: string;
  region?: string;
}

function none(reason: string, { line, key }: { line: number; key: string }): ReplicaPlace {
  return { kind: "none", reason, at: { line, key } };
}

function splitUrl(url: Sourced<string>, context: YmlContext): SplitUrl {
  // Where even the scheme is the environment's, only the environment can tell what it means.
  const text = /^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(url.value) ? url.value : expand(url, context);
  const [, scheme = "", rest = ""] = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/(.*)$/s.exec(text) ?? [];
  const [place = "", query = ""] = rest.split(/\?(.*)/s);
  const isFile = scheme.toLowerCase() === "file";
  const path = isFile ? decodeURIComponent(place) : place.replace(/^[^/]*@/, "");
  return { scheme: scheme.toLowerCase(), rest: path, query: new URLSearchParams(query) };
}

/** Providers that Litestream knows by the host of a URL. */
const HOSTS: readonly [RegExp, (part: string) => Omit<Host, "bucket">][] = [
  [/^(.+)\.s3(?:\.([^.]+))?\.amazonaws\.com$/, (region) => (region === "" ? {} : { region })],
  [
    /^(.+)\.([^.]+)\.digitaloceanspaces\.com$/,
    (region) => ({ region, endpoint: `https://${region}.digitaloceanspaces.com` }),
  ],
  [/^(.+)\.s3\.([^.]+)\.backblazeb2\.com$/, (region) => ({ region, endpoint: `https://s3.${region}.backblazeb2.com` })],
  [/^(.+)\.s3\.([^.]+)\.scw\.cloud$/, (region) => ({ region, endpoint: `https://s3.${region}.scw.cloud` })],
  [/^(.+)\.(s3)\.filebase\.com$/, () => ({ endpoint: "https://s3.filebase.com" })],
];

function hostOf(host: string): Host {
  for (const [pattern, rest] of HOSTS) {
    const match = pattern.exec(host);
    if (match !== null) return { bucket: match[1]!, ...rest(match[2] ?? "") };
  }
  // bucket.host:port, as for a MinIO of one's own.
  const local = /^([^.:]+)\.([^:]+:\d+)$/.exec(host);
  return local === null ? { bucket: host } : { bucket: local[1]!, endpoint: `http://${local[2]}` };
}

function withScheme(endpoint: string): string {
  if (/^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(endpoint) || hasReference(endpoint)) return endpoint;
  const host = endpoint.replace(/:\d+$/, "");
  const isLocal = /^(localhost|127\.0\.0\.1|192\.168\..*|10\..*|172\.(1[6-9]|2\d|3[01])\..*|.*\.local(host)?)$/.test(
    host,
  );
  return `${isLocal ? "http" : "https"}://${endpoint}`;
}

/** A path without empty parts and "..". */
function cleaned(path: string): string {
  return join("/", path).replace(/^\/+|\/+$/g, "");
}

function splitPath(path: string): { parts: string[]; root: string } {
  return { parts: path.split("/").filter((part) => part !== ""), root: path.startsWith("/") ? "/" : "" };
}
