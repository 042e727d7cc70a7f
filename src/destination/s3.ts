/**
 * A bucket of any S3-compatible service as a destination.
 *
 * Only about S3: nothing is tried again here but the parts of a multipart upload (see `retry.ts`). Import this module
 * dynamically: the SDK costs about 20 MB, and many commands and tests need none of it.
 */
import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandInput,
  type ListObjectsV2CommandOutput,
} from "@aws-sdk/client-s3";
import { DestinationError } from "../errors.ts";
import { readOnce, resolveRange } from "./chunks.ts";
import { Deadline } from "./deadline.ts";
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
import { inParallel } from "./limit.ts";
import { failureParts, isMissingKey, isNotImplemented } from "./s3-errors.ts";
import { type S3Options, S3Requests } from "./s3-requests.ts";
import { S3Uploader } from "./s3-upload.ts";

export class S3Destination implements Destination {
  readonly url: string;
  readonly capabilities: Capabilities = { metadata: true, levelFolders: "bucket" };
  readonly #requests: S3Requests;
  readonly #uploader: S3Uploader;
  /** Some answers of 404 do not say what is missing, the bucket or the key; this remembers that the bucket was seen. */
  #bucketSeen = false;
  #batchDeleteRefused = false;

  constructor(options: S3Options) {
    this.#requests = new S3Requests(options);
    this.url = this.#requests.url;
    const exists = async (key: string, signal: AbortSignal | undefined) => (await this.head(key, { signal })) !== null;
    this.#uploader = new S3Uploader(this.#requests, exists, options.partRetry);
  }

  async prepare(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    // A list, not HeadBucket: only an answer with a body names its error, and walsync cannot do without listing.
    await this.#listPage({ MaxKeys: 1 }, options.signal);
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    requirePrefix(this.url, prefix);
    const { keyPrefix } = this.#requests;
    const start = options.startAfter === undefined ? {} : { StartAfter: keyPrefix + options.startAfter };
    for await (const page of this.#pages({ ...start, Prefix: keyPrefix + prefix }, options.signal)) {
      for (const entry of page.Contents ?? []) {
        const key = (entry.Key ?? "").slice(keyPrefix.length);
        // Some tools mark folders with an empty object whose key ends with "/". No key of ours does.
        if (key === "" || key.endsWith("/")) continue;
        const storedAt = entry.LastModified ?? new Date(0);
        yield { key, sizeBytes: entry.Size ?? 0, modifiedAt: storedAt, storedAt, etag: entry.ETag ?? "" };
      }
    }
  }

  async *listFolders(prefix: string, options: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<string> {
    requirePrefix(this.url, prefix);
    const fullPrefix = this.#requests.keyPrefix + prefix;
    for await (const page of this.#pages({ Prefix: fullPrefix, Delimiter: "/" }, options.signal)) {
      for (const folder of page.CommonPrefixes ?? []) {
        const name = (folder.Prefix ?? "").slice(fullPrefix.length, -1);
        if (name !== "") yield name;
      }
    }
  }

  async head(key: string, options: { signal?: AbortSignal | undefined } = {}): Promise<ObjectHead | null> {
    requireKey(this.url, key);
    const call = { key, expected: "the object's properties", signal: options.signal };
    try {
      const output = await this.#requests.run(call, (abortSignal) =>
        this.#requests.client.send(new HeadObjectCommand(this.#requests.at(key)), { abortSignal }),
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
      deadline.arm(this.#requests.timeouts.answerMs);
      const command = new GetObjectCommand({ ...this.#requests.at(key), Range: formatRange(range) });
      output = await this.#requests.client.send(command, { abortSignal: deadline.signal });
    } catch (error) {
      deadline.dispose();
      const { code, status } = failureParts(error);
      if (status === 416 || code === "InvalidRange") return await this.#emptyBody(key, signal);
      if (!isMissingKey(error)) throw this.#requests.fault(error, key, "the object's bytes", deadline);
      if (code === "" && !this.#bucketSeen) await this.prepare({ signal });
      return null;
    }
    this.#bucketSeen = true;
    return this.#bodyOf(key, range, output, deadline);
  }

  async write(key: string, source: WriteSource, options: WriteOptions = {}): Promise<WriteResult> {
    requireKey(this.url, key);
    return await this.#uploader.write(key, source, options);
  }

  async remove(keys: readonly string[], options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    for (const key of keys) requireKey(this.url, key);
    for (let from = 0; from < keys.length; from += DELETE_BATCH) {
      const batch = keys.slice(from, from + DELETE_BATCH);
      if (batch.length > 1 && !this.#batchDeleteRefused && (await this.#removeBatch(batch, options.signal))) continue;
      await inParallel(SINGLE_DELETES_IN_FLIGHT, batch.length, options.signal, (i, signal) =>
        this.#removeOne(batch[i]!, signal),
      );
    }
  }

  close(): void {
    this.#requests.client.destroy();
  }

  // --- internal ---

  async #listPage(
    parameters: Omit<ListObjectsV2CommandInput, "Bucket">,
    signal: AbortSignal | undefined,
  ): Promise<ListObjectsV2CommandOutput> {
    const command = new ListObjectsV2Command({ Bucket: this.#requests.bucket, ...parameters });
    const page = await this.#requests.run({ key: "", expected: "a list of keys", signal }, (abortSignal) =>
      this.#requests.client.send(command, { abortSignal }),
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
      const page = await this.#listPage({ ...parameters, ContinuationToken: token, MaxKeys: LIST_PAGE }, signal);
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
    const wrongLength = (): DestinationError =>
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
          deadline.arm(this.#requests.timeouts.idleMs);
          reader ??= body === undefined ? null : body.transformToWebStream().getReader();
          const step = reader === null ? { done: true } : await reader.read();
          deadline.disarm();
          if (step.done || step.value === undefined) throw wrongLength();
          receivedBytes += step.value.length;
          if (receivedBytes > expectedBytes) throw wrongLength();
          return step.value;
        } catch (error) {
          const expected = `${expectedBytes} bytes, of which ${receivedBytes} came`;
          throw this.#requests.fault(error, key, expected, deadline);
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
    return head === null ? null : { ...head, chunks: readOnce(async () => null) };
  }

  /** False: the server refuses this kind of request, so ask for each key on its own. */
  async #removeBatch(keys: readonly string[], signal: AbortSignal | undefined): Promise<boolean> {
    const Objects = keys.map((key) => ({ Key: this.#requests.keyPrefix + key }));
    const command = new DeleteObjectsCommand({ Bucket: this.#requests.bucket, Delete: { Objects, Quiet: true } });
    const call = { key: "", expected: `${keys.length} objects to be removed`, signal };
    const output = await this.#requests.run(call, async (abortSignal) => {
      try {
        return await this.#requests.client.send(command, { abortSignal });
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
    if (first === undefined) return true;
    const key = (first.Key ?? "").slice(this.#requests.keyPrefix.length);
    const others = failed.length === 1 ? "" : `, and ${failed.length - 1} more`;
    const found = `${first.Code ?? "an error"} ${first.Message ?? ""}`.trim();
    throw new DestinationError(`${this.url}/${key}: expected it to be removed, found ${found}${others}`, {
      retryable: failed.every((one) => HEALING_DELETE_CODES.has(one.Code ?? "")),
      hint: first.Code === "AccessDenied" ? "Allow this access key to delete objects." : undefined,
    });
  }

  async #removeOne(key: string, signal: AbortSignal | undefined): Promise<void> {
    await this.#requests.run({ key, expected: "it to be removed", signal }, async (abortSignal) => {
      try {
        await this.#requests.client.send(new DeleteObjectCommand(this.#requests.at(key)), { abortSignal });
      } catch (error) {
        if (!isMissingKey(error)) throw error;
      }
    });
  }
}

const LIST_PAGE = 1000;
const DELETE_BATCH = 1000;
const SINGLE_DELETES_IN_FLIGHT = 4;

const BATCH_REFUSALS = new Set([
  "MissingContentMD5",
  "InvalidDigest",
  "MalformedXML",
  "MethodNotAllowed",
  "InvalidRequest",
]);
const HEALING_DELETE_CODES = new Set(["InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"]);

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
  const storedAt = output.LastModified ?? new Date(0);
  return { key, sizeBytes, modifiedAt: storedAt, storedAt, etag: output.ETag ?? "", metadata };
}
