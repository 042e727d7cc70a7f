/**
 * A bucket of any S3-compatible service as a destination.
 *
 * Only about S3: nothing is tried again here but the parts of a multipart upload (see `retry.ts`). Import this module
 * dynamically: the SDK costs about 20 MB, and many commands and tests need none of it.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
  S3Client,
  type ServerSideEncryption,
  type StorageClass,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { FetchHttpHandler } from "@smithy/fetch-http-handler";
import { assert } from "../assert.ts";
import { KiB, MiB } from "../bytes.ts";
import { DestinationError, messageOf, WalsyncError } from "../errors.ts";
import { readOnce, resolveRange } from "./chunks.ts";
import type {
  Capabilities,
  Destination,
  ListOptions,
  ObjectBody,
  ObjectHead,
  ObjectInfo,
  ReadOptions,
  WriteOptions,
  WriteResult,
  WriteSource,
} from "./destination.ts";
import { requireKey, requirePrefix } from "./keys.ts";
import { type RetryOptions, retrying } from "./retry.ts";
import { classifyFailure, failureParts, isNotImplemented, type RequestContext } from "./s3-errors.ts";

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
  /** "STANDARD_IA" and so on, for every object written. */
  storageClass?: string | undefined;
  /** Server-side encryption: "AES256" or "aws:kms". */
  sse?: string | undefined;
  timeouts?: Partial<Timeouts>;
  /** How parts of a multipart upload are tried again. */
  partRetry?: RetryOptions;
}

export interface Timeouts {
  /** For an answer to begin, beside the time that sending the body may take. */
  answerMs: number;
  /** Between two chunks of a body. */
  idleMs: number;
  /** To put the parts of an upload together, which a server may do by copying all of them. */
  completeMs: number;
}

const TIMEOUTS: Timeouts = { answerMs: 30_000, idleMs: 30_000, completeMs: 600_000 };
/** Slower than this, in bytes per second, an upload counts as stuck. */
const UPLOAD_RATE_MIN = 32 * KiB;

/** Above this size a source is sent in parts, each at least as large (S3 allows no less than 5 MiB). */
const PART_SIZE_MIN = 8 * MiB;
const PARTS_MAX = 10_000;
const PARTS_IN_FLIGHT = 3;
const PART_ATTEMPTS = 4;

const LIST_PAGE = 1000;
const DELETE_BATCH = 1000;
const SINGLE_DELETES_IN_FLIGHT = 4;

export class S3Destination implements Destination {
  readonly url: string;
  readonly capabilities: Capabilities = { metadata: true };
  readonly #options: S3Options;
  readonly #timeouts: Timeouts;
  readonly #keyPrefix: string;
  readonly #client: S3Client;
  readonly #buffers = new BufferPool(PARTS_IN_FLIGHT);
  /** HEAD answers 404 for a missing bucket as for a missing key; this remembers that the bucket was seen. */
  #bucketSeen = false;
  #batchDeleteRefused = false;

  constructor(options: S3Options) {
    this.#options = options;
    this.#timeouts = { ...TIMEOUTS, ...options.timeouts };
    this.#keyPrefix = options.prefix === "" ? "" : `${options.prefix}/`;
    this.url = options.prefix === "" ? `s3://${options.bucket}` : `s3://${options.bucket}/${options.prefix}`;
    this.#client = makeClient(options);
  }

  async prepare(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    // A list, not HeadBucket: only an answer with a body names its error, and walsync cannot do without listing.
    await this.#listPage({ MaxKeys: 1 }, options.signal);
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    requirePrefix(this.url, prefix);
    const start = options.startAfter === undefined ? {} : { StartAfter: this.#keyPrefix + options.startAfter };
    for await (const page of this.#pages({ ...start, Prefix: this.#keyPrefix + prefix }, options.signal)) {
      for (const entry of page.Contents ?? []) {
        const key = (entry.Key ?? "").slice(this.#keyPrefix.length);
        // Some tools mark folders with an empty object whose key ends with "/". No key of ours does.
        if (key === "" || key.endsWith("/")) continue;
        yield {
          key,
          sizeBytes: entry.Size ?? 0,
          modifiedAt: entry.LastModified ?? new Date(0),
          etag: entry.ETag ?? "",
        };
      }
    }
  }

  async *listFolders(prefix: string, options: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<string> {
    requirePrefix(this.url, prefix);
    const fullPrefix = this.#keyPrefix + prefix;
    for await (const page of this.#pages({ Prefix: fullPrefix, Delimiter: "/" }, options.signal)) {
      for (const folder of page.CommonPrefixes ?? []) {
        const name = (folder.Prefix ?? "").slice(fullPrefix.length, -1);
        if (name !== "") yield name;
      }
    }
  }

  async head(key: string, options: { signal?: AbortSignal | undefined } = {}): Promise<ObjectHead | null> {
    requireKey(this.url, key);
    try {
      const output = await this.#request(key, "the object's properties", options.signal, {}, (abortSignal) =>
        this.#client.send(new HeadObjectCommand(this.#at(key)), { abortSignal }),
      );
      this.#bucketSeen = true;
      return headOf(key, output, output.ContentLength ?? 0);
    } catch (error) {
      if (!(error instanceof DestinationError)) throw error;
      const isMissing = error.status === 404;
      if (isMissing && this.#bucketSeen) return null;
      // An answer to HEAD has no body, so it cannot say why. A list of one key can, and throws the better error.
      if (error.status !== undefined && error.status < 500) await this.prepare(options);
      if (isMissing) return null;
      throw error;
    }
  }

  async read(key: string, options: ReadOptions = {}): Promise<ObjectBody | null> {
    requireKey(this.url, key);
    const { range, signal } = options;
    const deadline = new Deadline(signal);
    let output: GetObjectCommandOutput;
    try {
      deadline.arm(this.#timeouts.answerMs);
      const command = new GetObjectCommand({ ...this.#at(key), Range: formatRange(range) });
      output = await this.#client.send(command, { abortSignal: deadline.signal });
      this.#bucketSeen = true;
    } catch (error) {
      deadline.dispose();
      const { code, status } = failureParts(error);
      if (status === 404 && code !== "NoSuchBucket") return null;
      if (status === 416 || code === "InvalidRange") return await this.#emptyBody(key, signal);
      throw this.#fault(error, key, "the object's bytes", deadline);
    }
    return this.#bodyOf(key, range, output, deadline);
  }

  async write(key: string, source: WriteSource, options: WriteOptions = {}): Promise<WriteResult> {
    requireKey(this.url, key);
    options.signal?.throwIfAborted();
    for (const [name, value] of Object.entries(options.metadata ?? {})) {
      assert(/^[a-z0-9-]+$/.test(name) && /^[\x20-\x7e]*$/.test(value), "metadata is plain ASCII, names in lower case");
    }
    if (source.kind === "bytes") {
      return await this.#put(key, source.bytes, options);
    }
    const file = await openSource(source.path);
    try {
      if (source.sizeBytes > PART_SIZE_MIN) return await this.#putInParts(key, { ...source, file }, options);
      return await this.#buffers.use(source.sizeBytes, options.signal, async (buffer) => {
        await readSource(file, source.path, buffer, 0);
        return await this.#put(key, buffer, options);
      });
    } finally {
      await file.close();
    }
  }

  async remove(keys: readonly string[], options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    for (const key of keys) requireKey(this.url, key);
    for (let from = 0; from < keys.length; from += DELETE_BATCH) {
      const batch = keys.slice(from, from + DELETE_BATCH);
      if (batch.length === 1 || this.#batchDeleteRefused || !(await this.#removeBatch(batch, options.signal))) {
        await inParallel(SINGLE_DELETES_IN_FLIGHT, batch.length, (i) => this.#removeOne(batch[i]!, options.signal));
      }
    }
  }

  close(): void {
    this.#client.destroy();
  }

  // --- internal ---

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#options.bucket, Key: this.#keyPrefix + key };
  }

  #fault(error: unknown, key: string, expected: string, deadline: Deadline): unknown {
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

  /** Runs one request that has no streaming answer, under the caller's signal and a time limit. */
  async #request<T>(
    key: string,
    expected: string,
    signal: AbortSignal | undefined,
    limits: { timeoutMs?: number },
    run: (abortSignal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const deadline = new Deadline(signal);
    try {
      deadline.arm(limits.timeoutMs ?? this.#timeouts.answerMs);
      return await run(deadline.signal);
    } catch (error) {
      throw this.#fault(error, key, expected, deadline);
    } finally {
      deadline.dispose();
    }
  }

  async #listPage(
    parameters: {
      Prefix?: string;
      Delimiter?: string;
      StartAfter?: string;
      ContinuationToken?: string;
      MaxKeys: number;
    },
    signal: AbortSignal | undefined,
  ): Promise<ListObjectsV2CommandOutput> {
    const page = await this.#request("", "a list of keys", signal, {}, (abortSignal) =>
      this.#client.send(new ListObjectsV2Command({ Bucket: this.#options.bucket, ...parameters }), { abortSignal }),
    );
    // A web page or a proxy that answers 200 parses as an empty list. It must not read as "no snapshots".
    if (page.IsTruncated === undefined && page.Name === undefined) {
      throw new DestinationError(`${this.url}: expected a list of keys, found an answer that is not one of S3`, {
        retryable: false,
        hint: "Check the endpoint.",
      });
    }
    this.#bucketSeen = true;
    return page;
  }

  async *#pages(
    parameters: { Prefix: string; Delimiter?: string; StartAfter?: string },
    signal: AbortSignal | undefined,
  ): AsyncGenerator<ListObjectsV2CommandOutput> {
    let token: string | undefined;
    do {
      const continuation = token === undefined ? {} : { ContinuationToken: token };
      const page = await this.#listPage({ ...parameters, ...continuation, MaxKeys: LIST_PAGE }, signal);
      yield page;
      const next = page.IsTruncated ? page.NextContinuationToken : undefined;
      if (page.IsTruncated && (next === undefined || next === token)) {
        throw new DestinationError(`${this.url}: expected the rest of a list, found no way to ask for it`, {
          retryable: false,
          hint: "The server breaks off its lists; report this to whoever runs it.",
        });
      }
      token = next;
    } while (token !== undefined);
  }

  #bodyOf(key: string, range: ReadOptions["range"], output: GetObjectCommandOutput, deadline: Deadline): ObjectBody {
    const body = output.Body;
    const sizeBytes = totalSize(output);
    const bounds = resolveRange(range, sizeBytes);
    const expectedBytes = bounds.end - bounds.first;
    if (range !== undefined && output.ContentRange === undefined && expectedBytes !== sizeBytes) {
      deadline.abort();
      deadline.dispose();
      throw new DestinationError(`${this.url}/${key}: expected a part of the object, found all of it`, {
        retryable: false,
        hint: "The server ignores ranges, which walsync needs.",
      });
    }
    let receivedBytes = 0;
    let reader: { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> } | null = null;
    const cutShort = (): DestinationError =>
      new DestinationError(`${this.url}/${key}: expected ${expectedBytes} bytes, found ${receivedBytes}`, {
        retryable: true,
        status: output.$metadata.httpStatusCode,
      });
    // No time limit runs before the first chunk is asked for: a caller may hold several bodies and read one by one.
    deadline.disarm();
    const chunks = readOnce(
      async () => {
        if (receivedBytes === expectedBytes) return null;
        try {
          deadline.arm(this.#timeouts.idleMs);
          reader ??= body === undefined ? null : body.transformToWebStream().getReader();
          const step = reader === null ? { done: true } : await reader.read();
          deadline.disarm();
          if (step.done || step.value === undefined) throw cutShort();
          receivedBytes += step.value.length;
          if (receivedBytes > expectedBytes) throw cutShort();
          return step.value;
        } catch (error) {
          throw this.#fault(error, key, `${expectedBytes} bytes, of which ${receivedBytes} came`, deadline);
        }
      },
      () => {
        // Also stops the transfer of what nobody wants any more.
        if (receivedBytes !== expectedBytes) deadline.abort();
        deadline.dispose();
      },
    );
    return { ...headOf(key, output, sizeBytes), chunks };
  }

  /** S3 refuses a range behind the end, and with it every range of an empty object; here it is a body of no bytes. */
  async #emptyBody(key: string, signal: AbortSignal | undefined): Promise<ObjectBody | null> {
    const head = await this.head(key, { signal });
    if (head === null) return null;
    return {
      ...head,
      chunks: readOnce(
        async () => null,
        () => {},
      ),
    };
  }

  async #put(key: string, bytes: Uint8Array, options: WriteOptions): Promise<WriteResult> {
    const command = new PutObjectCommand({
      ...this.#at(key),
      ...this.#objectParameters(options),
      ...conditionParameters(options.condition),
      Body: bytes,
      ContentLength: bytes.length,
    });
    const result = await this.#conditional(key, options, uploadTimeoutMs(this.#timeouts, bytes.length), (abortSignal) =>
      this.#client.send(command, { abortSignal }),
    );
    if (result.kind === "written") options.onProgress?.(bytes.length);
    return result;
  }

  /** Runs the request that makes an object appear: here "the condition did not hold" becomes an answer. */
  async #conditional(
    key: string,
    options: WriteOptions,
    timeoutMs: number,
    run: (abortSignal: AbortSignal) => Promise<{ ETag?: string | undefined }>,
  ): Promise<WriteResult> {
    try {
      const expected = "the object to be written";
      const output = await this.#request(key, expected, options.signal, { timeoutMs }, async (abortSignal) => {
        try {
          return await run(abortSignal);
        } catch (error) {
          const { code, status } = failureParts(error);
          const isRefused = status === 412 || code === "PreconditionFailed";
          // If-Match on a key that is gone answers 404.
          const isGone =
            typeof options.condition === "object" && (code === "NoSuchKey" || (status === 404 && code === ""));
          if (options.condition !== undefined && (isRefused || isGone)) return null;
          throw error;
        }
      });
      this.#bucketSeen = true;
      return output === null ? { kind: "refused" } : { kind: "written", etag: output.ETag ?? "" };
    } catch (error) {
      if (options.condition !== undefined && error instanceof DestinationError && error.status === 501) {
        throw new DestinationError(error.message, {
          retryable: false,
          status: 501,
          cause: error,
          hint: "The service does not offer conditional writes, which keep two writers from mixing their files.",
        });
      }
      throw error;
    }
  }

  #objectParameters(options: WriteOptions): {
    ContentType: string;
    Metadata?: Record<string, string>;
    StorageClass?: StorageClass;
    ServerSideEncryption?: ServerSideEncryption;
  } {
    const { storageClass, sse } = this.#options;
    return {
      ContentType: "application/octet-stream",
      ...(options.metadata === undefined ? {} : { Metadata: options.metadata }),
      ...(storageClass === undefined ? {} : { StorageClass: storageClass as StorageClass }),
      ...(sse === undefined ? {} : { ServerSideEncryption: sse as ServerSideEncryption }),
    };
  }

  async #putInParts(key: string, source: OpenSource, options: WriteOptions): Promise<WriteResult> {
    const { condition, signal } = options;
    // Looking first spares the upload; the condition on the last request decides.
    if (condition === "absent" && (await this.head(key, { signal })) !== null) return { kind: "refused" };
    const created = await this.#request(key, "an upload in parts to begin", signal, {}, (abortSignal) =>
      this.#client.send(new CreateMultipartUploadCommand({ ...this.#at(key), ...this.#objectParameters(options) }), {
        abortSignal,
      }),
    );
    const upload = { ...this.#at(key), UploadId: created.UploadId };
    try {
      const parts = await this.#uploadParts(key, upload, source, options);
      const complete = (conditions: object) =>
        this.#conditional(key, options, this.#timeouts.completeMs, (abortSignal) =>
          this.#client.send(
            new CompleteMultipartUploadCommand({ ...upload, ...conditions, MultipartUpload: { Parts: parts } }),
            { abortSignal },
          ),
        );
      let result: WriteResult;
      try {
        result = await complete(conditionParameters(condition));
      } catch (error) {
        if (condition !== "absent" || !(error instanceof DestinationError) || error.status !== 501) throw error;
        // Several services know the condition for PutObject but not here. Looking and then writing is not one step:
        // two writers could both find the key absent. Within a database only files above 8 MiB run that risk.
        result = (await this.head(key, { signal })) === null ? await complete({}) : { kind: "refused" };
      }
      if (result.kind === "refused") await this.#abortUpload(key, upload);
      return result;
    } catch (error) {
      await this.#abortUpload(key, upload);
      throw error;
    }
  }

  async #uploadParts(
    key: string,
    upload: { Bucket: string; Key: string; UploadId: string | undefined },
    source: OpenSource,
    options: WriteOptions,
  ): Promise<{ PartNumber: number; ETag: string | undefined }[]> {
    const partSize = partSizeOf(source.sizeBytes);
    const partCount = Math.ceil(source.sizeBytes / partSize);
    const etags: (string | undefined)[] = new Array(partCount);
    // One part that fails for good ends the others at once.
    const failure = new AbortController();
    const stop = options.signal === undefined ? failure.signal : AbortSignal.any([options.signal, failure.signal]);
    let sentBytes = 0;

    const uploadPart = async (index: number): Promise<void> => {
      const offset = index * partSize;
      const size = Math.min(partSize, source.sizeBytes - offset);
      await this.#buffers.use(size, stop, async (buffer) => {
        await readSource(source.file, source.path, buffer, offset);
        const expected = `part ${index + 1} of ${partCount} to be written`;
        const timeoutMs = uploadTimeoutMs(this.#timeouts, size);
        const send = () =>
          this.#request(key, expected, stop, { timeoutMs }, (abortSignal) => {
            const part = { ...upload, PartNumber: index + 1, Body: buffer, ContentLength: size };
            return this.#client.send(new UploadPartCommand(part), { abortSignal });
          });
        const retry = { attempts: PART_ATTEMPTS, ...this.#options.partRetry };
        const output = await retrying(`write ${key} part ${index + 1}`, send, retry, stop);
        etags[index] = output.ETag;
      });
      sentBytes += size;
      options.onProgress?.(sentBytes);
    };

    let firstError: unknown;
    await inParallel(PARTS_IN_FLIGHT, partCount, async (index) => {
      try {
        await uploadPart(index);
      } catch (error) {
        if (!failure.signal.aborted) {
          firstError = error;
          failure.abort(error);
        }
        throw error;
      }
    }).catch((error: unknown) => {
      throw firstError ?? error;
    });
    return etags.map((etag, index) => ({ PartNumber: index + 1, ETag: etag }));
  }

  /** Frees the parts that the server keeps. Runs under its own time limit: the caller's signal may be the reason. */
  async #abortUpload(
    key: string,
    upload: { Bucket: string; Key: string; UploadId: string | undefined },
  ): Promise<void> {
    try {
      await this.#request(key, "the upload to be given up", undefined, {}, (abortSignal) =>
        this.#client.send(new AbortMultipartUploadCommand(upload), { abortSignal }),
      );
    } catch (error) {
      // The error that led here is the one to report. Leftover parts are what bucket lifecycle rules are for.
      if (!(error instanceof DestinationError)) throw error;
    }
  }

  /** False: the server refuses this kind of request, so ask for each key on its own. */
  async #removeBatch(keys: readonly string[], signal: AbortSignal | undefined): Promise<boolean> {
    const Objects = keys.map((key) => ({ Key: this.#keyPrefix + key }));
    const expected = `${keys.length} objects to be removed`;
    const output = await this.#request("", expected, signal, {}, async (abortSignal) => {
      try {
        const command = new DeleteObjectsCommand({ Bucket: this.#options.bucket, Delete: { Objects, Quiet: true } });
        return await this.#client.send(command, { abortSignal });
      } catch (error) {
        const { code, status } = failureParts(error);
        // Some servers lack it, or want a Content-MD5 header, which the SDK no longer sends.
        if (isNotImplemented(error) || status === 405 || status === 411 || BATCH_REFUSALS.has(code)) return null;
        throw error;
      }
    });
    if (output === null) {
      this.#batchDeleteRefused = true;
      return false;
    }
    const failed = (output.Errors ?? []).filter((one) => one.Code !== "NoSuchKey");
    const first = failed[0];
    if (first !== undefined) {
      const key = (first.Key ?? "").slice(this.#keyPrefix.length);
      const others = failed.length === 1 ? "" : `, and ${failed.length - 1} more`;
      const found = `${first.Code ?? "an error"} ${first.Message ?? ""}`.trim();
      throw new DestinationError(`${this.url}/${key}: expected it to be removed, found ${found}${others}`, {
        retryable: failed.every((one) => HEALING_DELETE_CODES.has(one.Code ?? "")),
        hint: first.Code === "AccessDenied" ? "Allow this access key to delete objects." : undefined,
      });
    }
    return true;
  }

  async #removeOne(key: string, signal: AbortSignal | undefined): Promise<void> {
    await this.#request(key, "it to be removed", signal, {}, async (abortSignal) => {
      try {
        await this.#client.send(new DeleteObjectCommand(this.#at(key)), { abortSignal });
      } catch (error) {
        const { code, status } = failureParts(error);
        if (status !== 404 || code === "NoSuchBucket") throw error;
      }
    });
  }
}

const BATCH_REFUSALS = new Set([
  "MissingContentMD5",
  "InvalidDigest",
  "MalformedXML",
  "MethodNotAllowed",
  "InvalidRequest",
]);
const HEALING_DELETE_CODES = new Set(["InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"]);

interface OpenSource {
  file: FileHandle;
  path: string;
  sizeBytes: number;
}

/**
 * Every setting that the SDK would otherwise look for in ~/.aws, the environment or a metadata server is given, so it
 * looks nowhere and behaves the same on every machine.
 */
function makeClient(options: S3Options): S3Client {
  const { accessKeyId, secretAccessKey, sessionToken } = options.credentials;
  return new S3Client({
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
    expectContinueHeader: false,
    followRegionRedirects: false,
    customUserAgent: "walsync",
  });
}

/**
 * The caller's signal and a time limit as one signal. The limit can be armed again and again, for each chunk of a
 * body; `fetch` keeps the signal for as long as the body lasts.
 */
class Deadline {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Set once the limit has passed. */
  timeout: Error | null = null;

  constructor(caller: AbortSignal | undefined) {
    caller?.throwIfAborted();
    this.#caller = caller;
    caller?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The reason the caller aborted with, if it did. */
  get callerReason(): { reason: unknown } | null {
    return this.#caller?.aborted ? { reason: this.#caller.reason } : null;
  }

  arm(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.timeout = new Error(`no answer within ${ms / 1000} s`);
      this.#controller.abort(this.timeout);
    }, ms);
  }

  disarm(): void {
    clearTimeout(this.#timer);
  }

  abort(): void {
    this.#controller.abort();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener("abort", this.#onAbort);
  }

  readonly #onAbort = (): void => this.#controller.abort(this.#caller?.reason);
}

/**
 * A few large buffers, shared by all uploads of one destination: they bound its memory, however many databases ship at
 * once. They are made when needed and dropped when no upload is left.
 */
class BufferPool {
  readonly #limit: number;
  readonly #idle: Buffer[] = [];
  readonly #waiting: (() => void)[] = [];
  #inUse = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Small sources need no place here: what they take is bounded by the requests in flight. */
  async use<T>(size: number, signal: AbortSignal | undefined, action: (buffer: Buffer) => Promise<T>): Promise<T> {
    if (size <= 256 * KiB) return await action(Buffer.allocUnsafeSlow(size));
    while (this.#inUse >= this.#limit) {
      signal?.throwIfAborted();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    signal?.throwIfAborted();
    this.#inUse++;
    let buffer = this.#idle.pop();
    try {
      if (buffer === undefined || buffer.length < size) buffer = Buffer.allocUnsafeSlow(size);
      return await action(buffer.subarray(0, size));
    } finally {
      this.#inUse--;
      if (this.#inUse === 0 && this.#waiting.length === 0) this.#idle.length = 0;
      else if (buffer !== undefined) this.#idle.push(buffer);
      this.#waiting.shift()?.();
    }
  }
}

/** Runs `action` for 0..count-1, at most `limit` at once. After an error nothing new begins; it is thrown at the end. */
async function inParallel(limit: number, count: number, action: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  let failed = false;
  const work = async (): Promise<void> => {
    while (next < count && !failed) {
      try {
        await action(next++);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: Math.min(limit, count) }, work));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

/** At least 8 MiB, whole MiB, and no more than 10,000 parts. */
export function partSizeOf(sizeBytes: number): number {
  return Math.max(PART_SIZE_MIN, Math.ceil(sizeBytes / PARTS_MAX / MiB) * MiB);
}

function uploadTimeoutMs(timeouts: Timeouts, sizeBytes: number): number {
  return timeouts.answerMs + (sizeBytes / UPLOAD_RATE_MIN) * 1000;
}

function conditionParameters(condition: WriteOptions["condition"]): { IfNoneMatch?: string; IfMatch?: string } {
  if (condition === undefined) return {};
  return condition === "absent" ? { IfNoneMatch: "*" } : { IfMatch: condition.etag };
}

function formatRange(range: ReadOptions["range"]): string | undefined {
  if (range === undefined) return undefined;
  if (range.first < 0) return `bytes=${range.first}`;
  return `bytes=${range.first}-${range.last ?? ""}`;
}

function totalSize(output: GetObjectCommandOutput): number {
  const total = /\/(\d+)$/.exec(output.ContentRange ?? "")?.[1];
  return total === undefined ? (output.ContentLength ?? 0) : Number(total);
}

function headOf(
  key: string,
  output: { LastModified?: Date | undefined; ETag?: string | undefined; Metadata?: Record<string, string> | undefined },
  sizeBytes: number,
): ObjectHead {
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(output.Metadata ?? {})) metadata[name.toLowerCase()] = value;
  return { key, sizeBytes, modifiedAt: output.LastModified ?? new Date(0), etag: output.ETag ?? "", metadata };
}

// A source that cannot be read is a fault of the local disk, not of the destination.

async function openSource(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY);
  } catch (error) {
    throw new WalsyncError("E_DISK", `${path}: expected a file that can be read, found ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Fills `buffer` with the bytes from `offset` on. */
async function readSource(file: FileHandle, path: string, buffer: Buffer, offset: number): Promise<void> {
  for (let filled = 0; filled < buffer.length; ) {
    let bytesRead: number;
    try {
      ({ bytesRead } = await file.read(buffer, filled, buffer.length - filled, offset + filled));
    } catch (error) {
      throw new WalsyncError("E_DISK", `${path}: expected a file that can be read, found ${messageOf(error)}`, {
        cause: error,
      });
    }
    if (bytesRead === 0) {
      throw new WalsyncError("E_DISK", `${path}: expected ${offset + buffer.length} bytes, found ${offset + filled}`);
    }
    filled += bytesRead;
  }
}
