/**
 * A local file on its way to a destination. Whatever is wrong with it is a fault of the local disk (E_DISK), never one
 * of the destination, and is not tried again.
 */
import { constants, readFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { messageOf, WalsyncError } from "../errors.ts";
import type { SourceStream, WriteSource } from "./destination.ts";

/** Opens a source whose bytes are not in memory. Throws as `SourceFile.open` does. */
export function openSource(source: Exclude<WriteSource, { kind: "bytes" }>): Promise<SourceStream> {
  return source.kind === "file" ? SourceFile.open(source.path, source.sizeBytes) : source.open();
}

export class SourceFile implements SourceStream {
  readonly path: string;
  readonly sizeBytes: number;
  readonly #file: FileHandle;
  #position = 0;

  private constructor(path: string, sizeBytes: number, file: FileHandle) {
    this.path = path;
    this.sizeBytes = sizeBytes;
    this.#file = file;
  }

  /** Throws unless the file is there and has exactly `sizeBytes`: half a file must not be taken for a whole one. */
  static async open(path: string, sizeBytes: number): Promise<SourceFile> {
    const file = await reading(path, () => open(path, constants.O_RDONLY));
    try {
      const { size } = await reading(path, () => file.stat());
      if (size !== sizeBytes) throw wrongSize(path, sizeBytes, size);
      return new SourceFile(path, sizeBytes, file);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async read(buffer: Buffer): Promise<void> {
    for (let filled = 0; filled < buffer.length; ) {
      const { bytesRead } = await reading(this.path, () =>
        this.#file.read(buffer, filled, buffer.length - filled, this.#position),
      );
      if (bytesRead === 0) throw wrongSize(this.path, this.sizeBytes, this.#position);
      filled += bytesRead;
      this.#position += bytesRead;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** All bytes of a file of `sizeBytes`, read in one go. Throws as `SourceFile.open` does. */
export function readSmallFile(path: string, sizeBytes: number): Buffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  if (bytes.length !== sizeBytes) throw wrongSize(path, sizeBytes, bytes.length);
  return bytes;
}

// --- internal ---

async function reading<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, cause: unknown): WalsyncError {
  return new WalsyncError("E_DISK", `${path}: expected a file that can be read, found ${messageOf(cause)}`, { cause });
}

function wrongSize(path: string, expectedBytes: number, foundBytes: number): WalsyncError {
  return new WalsyncError("E_DISK", `${path}: expected ${expectedBytes} bytes, found ${foundBytes}`);
}
