/**
 * Uploads to a bucket: one request up to 8 MiB, above that a multipart upload of bounded parts.
 *
 * An object appears with the last request, whole and only if the condition holds, or not at all; an upload in parts
 * that fails is given up, so that the server keeps no parts of it. Parts are tried again here, since starting over
 * would send all of them once more; everything else is left to `retry.ts`.
 */
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  type PutObjectCommandInput,
  type ServerSideEncryption,
  type StorageClass,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { assert } from "../assert.ts";
import { KiB, MiB } from "../bytes.ts";
import { DestinationError } from "../errors.ts";
import { BufferPool } from "./buffer-pool.ts";
import type { SourceStream, WriteOptions, WriteResult, WriteSource } from "./destination.ts";
import { Gate, inParallel } from "./limit.ts";
import { type RetryOptions, retrying, sleep } from "./retry.ts";
import { failureParts } from "./s3-errors.ts";
import type { S3Requests } from "./s3-requests.ts";
import { openSource, readSmallFile } from "./source.ts";

/** Whether there is an object of this name. */
export type ExistsCheck = (key: string, signal: AbortSignal | undefined) => Promise<boolean>;

export class S3Uploader {
  readonly #requests: S3Requests;
  readonly #exists: ExistsCheck;
  readonly #partRetry: RetryOptions;
  readonly #buffers = new BufferPool(PARTS_IN_FLIGHT);

  constructor(requests: S3Requests, exists: ExistsCheck, partRetry: RetryOptions = {}) {
    this.#requests = requests;
    this.#exists = exists;
    this.#partRetry = { attempts: PART_ATTEMPTS, ...partRetry };
  }

  async write(key: string, source: WriteSource, options: WriteOptions): Promise<WriteResult> {
    options.signal?.throwIfAborted();
    for (const [name, value] of Object.entries(options.metadata ?? {})) {
      assert(/^[a-z0-9-]+$/.test(name) && /^[\x20-\x7e]*$/.test(value), "metadata is plain ASCII, names in lower case");
    }
    if (source.kind === "bytes") return await this.#put(key, source.bytes, options);
    const { kind, sizeBytes } = source;
    if (kind === "file" && sizeBytes <= READ_AT_ONCE_MAX) {
      return await this.#put(key, readSmallFile(source.path, sizeBytes), options);
    }
    const stream = await openSource(source);
    try {
      if (sizeBytes > PARTS_ABOVE) return await this.#putInParts(key, stream, options);
      return await this.#buffers.use(sizeBytes, options.signal, async (buffer) => {
        await stream.read(buffer);
        return await this.#put(key, buffer, options);
      });
    } finally {
      await stream.close();
    }
  }

  // --- internal ---

  async #put(key: string, bytes: Uint8Array, options: WriteOptions): Promise<WriteResult> {
    const command = new PutObjectCommand({
      ...this.#requests.at(key),
      ...objectParameters(this.#requests, options),
      ...conditionParameters(options.condition),
      Body: bytes,
      ContentLength: bytes.length,
    });
    const result = await this.#conditional(key, options, this.#sendTimeoutMs(bytes.length), (abortSignal) =>
      this.#requests.client.send(command, { abortSignal }),
    );
    if (result.kind === "written") options.onProgress?.(bytes.length);
    return result;
  }

  async #putInParts(key: string, stream: SourceStream, options: WriteOptions): Promise<WriteResult> {
    const { condition, signal } = options;
    // Looking first spares the upload; the condition on the last request decides.
    if (condition === "absent" && (await this.#exists(key, signal))) return { kind: "refused" };
    const upload = await this.#begin(key, options);
    let isComplete = false;
    try {
      const parts = await this.#sendParts(upload, stream, options);
      const result = await this.#complete(upload, parts, options);
      isComplete = result.kind === "written";
      return result;
    } finally {
      if (!isComplete) await this.#giveUp(upload);
    }
  }

  async #begin(key: string, options: WriteOptions): Promise<Upload> {
    const command = new CreateMultipartUploadCommand({
      ...this.#requests.at(key),
      ...objectParameters(this.#requests, options),
    });
    const call = { key, expected: "an upload in parts to begin", signal: options.signal };
    const output = await this.#requests.run(call, (abortSignal) =>
      this.#requests.client.send(command, { abortSignal }),
    );
    if (output.UploadId === undefined) throw this.#notS3(key, "the id of an upload");
    return { key, parameters: { ...this.#requests.at(key), UploadId: output.UploadId } };
  }

  async #sendParts(upload: Upload, stream: SourceStream, options: WriteOptions): Promise<Part[]> {
    const { sizeBytes } = stream;
    const partSize = partSizeOf(sizeBytes);
    const parts: Part[] = new Array(Math.ceil(sizeBytes / partSize));
    const turns = new Gate(1);
    let next = 0;
    let sentBytes = 0;
    await inParallel(PARTS_IN_FLIGHT, parts.length, options.signal, async (_, signal) => {
      await this.#buffers.use(partSize, signal, async (buffer) => {
        // Numbered as they are read: whoever has a buffer first reads what comes next.
        const { index, bytes } = await turns.run(async () => {
          const index = next++;
          const bytes = buffer.subarray(0, Math.min(partSize, sizeBytes - index * partSize));
          await stream.read(bytes);
          return { index, bytes };
        }, signal);
        parts[index] = await this.#sendPart(upload, index + 1, parts.length, bytes, signal);
        sentBytes += bytes.length;
      });
      options.onProgress?.(sentBytes);
    });
    return parts;
  }

  async #sendPart(
    { key, parameters }: Upload,
    PartNumber: number,
    partCount: number,
    bytes: Buffer,
    signal: AbortSignal,
  ): Promise<Part> {
    const expected = `part ${PartNumber} of ${partCount} to be written`;
    const call = { key, expected, signal, timeoutMs: this.#sendTimeoutMs(bytes.length) };
    const send = () =>
      this.#requests.run(call, (abortSignal) => {
        const part = { ...parameters, PartNumber, Body: bytes, ContentLength: bytes.length };
        return this.#requests.client.send(new UploadPartCommand(part), { abortSignal });
      });
    const { ETag } = await retrying(`write ${key} part ${PartNumber}`, send, this.#partRetry, signal);
    if (ETag === undefined) throw this.#notS3(key, `an etag for part ${PartNumber}`);
    return { PartNumber, ETag };
  }

  async #complete({ key, parameters }: Upload, parts: Part[], options: WriteOptions): Promise<WriteResult> {
    const complete = (conditions: object) =>
      this.#conditional(key, options, this.#requests.timeouts.completeMs, (abortSignal) =>
        this.#requests.client.send(
          new CompleteMultipartUploadCommand({ ...parameters, ...conditions, MultipartUpload: { Parts: parts } }),
          { abortSignal },
        ),
      );
    try {
      return await complete(conditionParameters(options.condition));
    } catch (error) {
      const isUnknown = error instanceof DestinationError && error.status === 501;
      if (!isUnknown || options.condition !== "absent") throw error;
      // Several services know the condition for PutObject but not here. Looking and then writing is not one step:
      // two writers could both find the key absent. Within a database only files above 8 MiB run that risk.
      return (await this.#exists(key, options.signal)) ? { kind: "refused" } : await complete({});
    }
  }

  /**
   * Frees the parts that the server keeps. Runs under its own time limit: the caller's signal may be the reason.
   *
   * A part that was under way may arrive after the upload is gone, and bring it back; so the server is asked until it
   * does not know the upload any more.
   */
  async #giveUp({ key, parameters }: Upload): Promise<void> {
    const call = { key, expected: "the upload to be given up", signal: undefined };
    for (let attempt = 1; attempt <= GIVE_UP_ATTEMPTS; attempt++) {
      if (attempt > 1) await sleep(GIVE_UP_PAUSE_MS);
      try {
        await this.#requests.run(call, (abortSignal) =>
          this.#requests.client.send(new AbortMultipartUploadCommand(parameters), { abortSignal }),
        );
      } catch (error) {
        if (!(error instanceof DestinationError)) throw error;
        // What led here is what to report. Leftover parts are what bucket lifecycle rules are for.
        if (error.status === undefined || error.status < 500) return;
      }
    }
  }

  /** Runs the request that makes an object appear: here "the condition did not hold" becomes an answer. */
  async #conditional(
    key: string,
    { condition, signal }: WriteOptions,
    timeoutMs: number,
    send: (abortSignal: AbortSignal) => Promise<{ ETag?: string | undefined }>,
  ): Promise<WriteResult> {
    const call = { key, expected: "the object to be written", signal, timeoutMs };
    try {
      return await this.#requests.run(call, async (abortSignal) => {
        try {
          const { ETag } = await send(abortSignal);
          // A proxy's page that answers 200 must not count as a copy of anything.
          if (ETag === undefined) throw this.#notS3(key, "an etag for the object written");
          return { kind: "written", etag: ETag };
        } catch (error) {
          if (condition !== undefined && meansRefused(error, condition)) return { kind: "refused" };
          throw error;
        }
      });
    } catch (error) {
      if (condition === undefined || !(error instanceof DestinationError) || error.status !== 501) throw error;
      throw new DestinationError(error.message, {
        retryable: false,
        status: 501,
        cause: error,
        hint: "The service does not offer conditional writes, which keep two writers from mixing their files.",
      });
    }
  }

  #sendTimeoutMs(sizeBytes: number): number {
    return this.#requests.timeouts.answerMs + (sizeBytes / UPLOAD_RATE_MIN) * 1000;
  }

  #notS3(key: string, expected: string): DestinationError {
    return new DestinationError(
      `${this.#requests.url}/${key}: expected ${expected}, found an answer that is not one of S3`,
      { retryable: false, hint: "Check the endpoint." },
    );
  }
}

/** At least 5 MiB, whole MiB, and no more than 10,000 parts. */
export function partSizeOf(sizeBytes: number): number {
  return Math.max(PART_SIZE_MIN, Math.ceil(sizeBytes / PARTS_MAX / MiB) * MiB);
}

/** Above this size a source is sent in parts. */
const PARTS_ABOVE = 8 * MiB;
/** S3 allows no less. Larger parts were no faster, and each in flight is in memory twice. */
const PART_SIZE_MIN = 5 * MiB;
/** Read at once: a way through the thread pool takes longer. */
const READ_AT_ONCE_MAX = 64 * KiB;
const PARTS_MAX = 10_000;
const PARTS_IN_FLIGHT = 2;
const PART_ATTEMPTS = 4;
const GIVE_UP_ATTEMPTS = 5;
const GIVE_UP_PAUSE_MS = 100;
/** Slower than this, in bytes per second, an upload counts as stuck. */
const UPLOAD_RATE_MIN = 32 * KiB;

interface Upload {
  key: string;
  parameters: { Bucket: string; Key: string; UploadId: string };
}

interface Part {
  PartNumber: number;
  ETag: string;
}

function objectParameters(
  { storageClass, serverSideEncryption }: S3Requests,
  options: WriteOptions,
): Pick<PutObjectCommandInput, "ContentType" | "Metadata" | "StorageClass" | "ServerSideEncryption"> {
  return {
    ContentType: "application/octet-stream",
    ...(options.metadata === undefined ? {} : { Metadata: options.metadata }),
    ...(storageClass === undefined ? {} : { StorageClass: storageClass as StorageClass }),
    ...(serverSideEncryption === undefined
      ? {}
      : { ServerSideEncryption: serverSideEncryption as ServerSideEncryption }),
  };
}

function conditionParameters(condition: WriteOptions["condition"]): { IfNoneMatch?: string; IfMatch?: string } {
  if (condition === undefined) return {};
  return condition === "absent" ? { IfNoneMatch: "*" } : { IfMatch: condition.etag };
}

function meansRefused(error: unknown, condition: NonNullable<WriteOptions["condition"]>): boolean {
  const { code, status } = failureParts(error);
  if (status === 412 || code === "PreconditionFailed") return true;
  // If-Match on a key that is gone answers 404.
  return condition !== "absent" && (code === "NoSuchKey" || (status === 404 && code === ""));
}
