/**
 * How one bucket is asked: the SDK's client with every setting given, time limits, and errors that say what to do.
 * Nothing is tried again here.
 */
import { S3Client } from "@aws-sdk/client-s3";
import { FetchHttpHandler } from "@smithy/fetch-http-handler";
import { WalsyncError } from "../errors.ts";
import { Deadline } from "./deadline.ts";
import type { RetryOptions } from "./retry.ts";
import { classifyFailure, type RequestContext } from "./s3-errors.ts";

export interface S3Options {
  bucket: string;
  /** Put before every key, without "/" at either end. "" for none. */
  prefix: string;
  /** URL of the service. Absent: AWS. */
  endpoint?: string | undefined;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string; sessionToken?: string | undefined };
  /** True: `endpoint/bucket/key`. False: `bucket.endpoint/key`. */
  forcePathStyle: boolean;
  /** Of every object; absent: the bucket's own. */
  storageClass?: string | undefined;
  /** What the service encrypts objects with; absent: the bucket's own. */
  serverSideEncryption?: string | undefined;
  timeouts?: Partial<Timeouts>;
  /** How the parts of a multipart upload are tried again. */
  partRetry?: RetryOptions | undefined;
}

export interface Timeouts {
  /** For an answer to begin, beside the time that sending the body may take. */
  answerMs: number;
  /** Between two chunks of a body. */
  idleMs: number;
  /** To put the parts of an upload together, which a server may do by copying all of them. */
  completeMs: number;
}

export interface Call {
  /** What the request is about; "" if about the bucket. */
  key: string;
  /** "the object to be written": completes "expected" in an error. */
  expected: string;
  signal: AbortSignal | undefined;
  /** Absent: `timeouts.answerMs`. */
  timeoutMs?: number;
}

export class S3Requests {
  readonly url: string;
  readonly bucket: string;
  readonly keyPrefix: string;
  readonly timeouts: Timeouts;
  readonly storageClass: string | undefined;
  readonly serverSideEncryption: string | undefined;
  readonly client: S3Client;
  readonly #options: S3Options;

  constructor(options: S3Options) {
    this.#options = options;
    this.bucket = options.bucket;
    this.keyPrefix = options.prefix === "" ? "" : `${options.prefix}/`;
    this.url = options.prefix === "" ? `s3://${options.bucket}` : `s3://${options.bucket}/${options.prefix}`;
    this.storageClass = options.storageClass;
    this.serverSideEncryption = options.serverSideEncryption;
    this.timeouts = { ...TIMEOUTS, ...options.timeouts };
    this.client = makeClient(options);
  }

  /** The parameters that name an object. */
  at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.bucket, Key: this.keyPrefix + key };
  }

  /** Runs one request that has no streaming answer, under the caller's signal and a time limit. */
  async run<T>(call: Call, send: (abortSignal: AbortSignal) => Promise<T>): Promise<T> {
    const deadline = new Deadline(call.signal);
    try {
      deadline.arm(call.timeoutMs ?? this.timeouts.answerMs);
      return await send(deadline.signal);
    } catch (error) {
      throw this.fault(error, call.key, call.expected, deadline);
    } finally {
      deadline.dispose();
    }
  }

  /** What to throw for `error`: the caller's own reason if it aborted, else an error that knows whether it may heal. */
  fault(error: unknown, key: string, expected: string, deadline: Deadline): unknown {
    const { bucket, region, endpoint, credentials } = this.#options;
    if (deadline.callerReason !== null) return deadline.callerReason.reason;
    if (error instanceof WalsyncError) return error;
    const context: RequestContext = {
      subject: key === "" ? this.url : `${this.url}/${key}`,
      expected,
      bucket,
      region,
      endpointHost: endpoint === undefined ? null : new URL(endpoint).host,
      secrets: [credentials.secretAccessKey, credentials.sessionToken ?? ""],
    };
    return classifyFailure(deadline.timeout ?? error, context);
  }
}

// --- internal ---

const TIMEOUTS: Timeouts = { answerMs: 30_000, idleMs: 30_000, completeMs: 600_000 };

/**
 * Every setting that the SDK would otherwise look for in ~/.aws, the environment or a metadata server is given, so it
 * looks nowhere and behaves the same on every machine.
 */
function makeClient(options: S3Options): S3Client {
  const { accessKeyId, secretAccessKey, sessionToken } = options.credentials;
  const client = new S3Client({
    region: options.region,
    credentials: { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) },
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    ignoreConfiguredEndpointUrls: true,
    forcePathStyle: options.forcePathStyle,
    // A redirect would send signed headers elsewhere; S3 uses it to say "wrong region", which is an error here.
    requestHandler: new FetchHttpHandler({ keepAlive: true, requestInit: () => ({ redirect: "manual" }) }),
    // Several S3 servers refuse the checksum headers that the SDK sends by default. The signature covers the body.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    maxAttempts: 1,
    retryMode: "standard",
    defaultsMode: "standard",
    useDualstackEndpoint: false,
    useFipsEndpoint: false,
    useArnRegion: false,
    disableS3ExpressSessionAuth: true,
    authSchemePreference: ["sigv4"],
    sigv4aSigningRegionSet: [options.region],
    userAgentAppId: async () => undefined,
    disableClockSkewCorrection: false,
    expectContinueHeader: false,
    followRegionRedirects: false,
  });
  for (const middleware of UNUSED_MIDDLEWARE) client.middlewareStack.remove(middleware);
  const userAgent = { "user-agent": "walsync" };
  client.middlewareStack.add((next) => (args) => next(withHeaders(args, userAgent)), { step: "build" });
  return client;
}

/**
 * Parts of each request's way through the SDK that have nothing to do here: no logger is given, redirects are errors, and
 * neither S3 Express nor AWS Lambda is involved. What was left out of a PUT was a fifth of the processor time that it took.
 */
const UNUSED_MIDDLEWARE: readonly string[] = [
  "loggerMiddleware",
  "regionRedirectMiddleware",
  "addExpectContinueMiddleware",
  "s3ExpressMiddleware",
  "recursionDetectionMiddleware",
  // It makes a long line of the versions of everything; ours says who asks.
  "getUserAgentMiddleware",
];

/** `args` of a middleware after the request was made: the SDK does not say of what type that is. */
function withHeaders<T extends { request: unknown }>(args: T, headers: Record<string, string>): T {
  Object.assign((args.request as { headers: Record<string, string> }).headers, headers);
  return args;
}
