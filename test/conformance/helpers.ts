/** What tests of destinations share: sources, lists and bodies as plain values, errors to look at. */
import { expect } from "bun:test";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename } from "node:path";
import { MiB } from "../../src/bytes.ts";
import type { Destination, ObjectBody, ReadOptions, WriteSource } from "../../src/destination/destination.ts";
import { isOwnFileName } from "../../src/destination/keys.ts";
import { DestinationError, type WalsyncError } from "../../src/errors.ts";

export function text(content: string): WriteSource {
  return { kind: "bytes", bytes: Buffer.from(content) };
}

export async function collectText(body: { chunks: AsyncIterable<Uint8Array> } | null): Promise<string> {
  if (body === null) throw new Error("expected a body, found null");
  const copies: Buffer[] = [];
  for await (const chunk of body.chunks) copies.push(Buffer.from(chunk)); // Chunks are borrowed.
  return Buffer.concat(copies).toString();
}

export async function readText(destination: Destination, key: string, options?: ReadOptions): Promise<string> {
  return await collectText(await destination.read(key, options));
}

export async function listOf(destination: Destination, prefix: string, options?: Parameters<Destination["list"]>[1]) {
  return await Array.fromAsync(destination.list(prefix, options));
}

export async function keysOf(destination: Destination, prefix: string, startAfter?: string): Promise<string[]> {
  const infos = await listOf(destination, prefix, startAfter === undefined ? {} : { startAfter });
  return infos.map((info) => info.key);
}

export async function foldersOf(destination: Destination, prefix: string): Promise<string[]> {
  return await Array.fromAsync(destination.listFolders(prefix));
}

/** What a promise was rejected with; an error if it was not. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  const settled = await promise.then(
    (value) => ({ failed: false, value }),
    (error: unknown) => ({ failed: true, value: error }),
  );
  if (!settled.failed) throw new Error(`expected a rejection, found ${Bun.inspect(settled.value)}`);
  return settled.value;
}

export async function expectFault(promise: Promise<unknown>, retryable: boolean): Promise<DestinationError> {
  const error = await rejection(promise);
  if (!(error instanceof DestinationError)) throw error;
  const { message } = error; // Only tells which error it was if this fails.
  expect({ message, retryable: error.retryable, code: error.code }).toEqual({
    message,
    retryable,
    code: retryable ? "E_UNREACHABLE" : "E_REFUSED",
  });
  return error;
}

/** Looks wherever an error may end up: message, hint, stack, causes, and what a logger would print of it. */
export function expectNoSecret(error: WalsyncError, secret: string): void {
  expect(Bun.inspect(error, { depth: 20 })).not.toContain(secret);
  expect(JSON.stringify([error.message, error.hint, error.stack, String(error.cause)])).not.toContain(secret);
}

/** Temporary files and locks of directory destinations at any depth below `root`. */
export function ownFilesIn(root: string): string[] {
  const names = readdirSync(root, { recursive: true, encoding: "utf8" });
  return names.filter((name) => isOwnFileName(basename(name)));
}

/** A file with bytes that do not repeat, others for each `seed`, made in bounded pieces. */
export async function makeFile(path: string, sizeBytes: number, seed = 0) {
  const hash = createHash("sha256");
  const file = await open(path, "w");
  try {
    for (let position = 0; position < sizeBytes; ) {
      const piece = Buffer.alloc(Math.min(MiB, sizeBytes - position));
      for (let at = 0; at + 4 <= piece.length; at += 4)
        piece.writeUInt32LE(((position + at + seed) * 2654435761) >>> 0, at);
      hash.update(piece);
      await file.write(piece);
      position += piece.length;
    }
  } finally {
    await file.close();
  }
  return { source: { kind: "file", path, sizeBytes } as const, sha256: hash.digest("hex") };
}

/** SHA-256 of a body, read chunk by chunk. */
export async function sha256Of(body: ObjectBody | null): Promise<string> {
  if (body === null) throw new Error("expected a body, found null");
  const hash = createHash("sha256");
  for await (const chunk of body.chunks) hash.update(chunk);
  return hash.digest("hex");
}

export async function inBatches<T>(
  items: readonly T[],
  size: number,
  action: (item: T) => Promise<unknown>,
): Promise<void> {
  for (let from = 0; from < items.length; from += size) await Promise.all(items.slice(from, from + size).map(action));
}
