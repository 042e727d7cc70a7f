/**
 * Bodies of many files, one after the other, the next few small ones already under way: a chain is mostly files of a few
 * kilobytes, and one request at a time would wait for the network most of the time.
 */
import { MiB } from "../bytes.ts";
import type { Destination } from "../destination/destination.ts";
import { DestinationError } from "../errors.ts";
import { vanished } from "./chain.ts";
import type { ChainFile } from "./plan.ts";

export interface Fetched {
  file: ChainFile;
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  metadata: Record<string, string>;
}

/**
 * The bodies of `files` in their order. Memory is bounded by FETCH_AHEAD * SMALL_FILE. Throws what `read` throws, and a
 * `DestinationError` for a file that is gone, when its turn comes.
 */
export async function* fetchInOrder(
  destination: Destination,
  files: readonly ChainFile[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Fetched> {
  const ahead: Promise<Fetched>[] = [];
  const start = (file: ChainFile): Promise<Fetched> => {
    const fetched =
      file.sizeBytes <= SMALL_FILE ? fetchWhole(destination, file, signal) : open(destination, file, signal);
    fetched.catch(() => {}); // Looked at when its turn comes; until then a failure must not count as unhandled.
    return fetched;
  };
  for (let next = 0, turn = 0; turn < files.length; turn++) {
    // A large file is opened only when its turn comes: a body that waits is a connection that times out.
    while (next < files.length && next < turn + FETCH_AHEAD) {
      if (files[next]!.sizeBytes > SMALL_FILE && next !== turn) break;
      ahead.push(start(files[next++]!));
    }
    yield await ahead.shift()!;
  }
}

// --- internal ---

/** Files up to this size are fetched ahead, whole; larger ones are streamed when it is their turn. */
const SMALL_FILE = 1 * MiB;
/** Requests under way for files ahead: at most this many megabytes in memory. */
const FETCH_AHEAD = 8;

async function open(destination: Destination, file: ChainFile, signal: AbortSignal | undefined): Promise<Fetched> {
  const body = await destination.read(file.key, { signal });
  if (body === null) throw vanished(destination, file);
  return { file, chunks: body.chunks, metadata: body.metadata };
}

async function fetchWhole(
  destination: Destination,
  file: ChainFile,
  signal: AbortSignal | undefined,
): Promise<Fetched> {
  const fetched = await open(destination, file, signal);
  const bytes = new Uint8Array(file.sizeBytes);
  let filled = 0;
  for await (const chunk of fetched.chunks) {
    if (filled + chunk.byteLength > bytes.byteLength) throw changedSize(destination, file);
    bytes.set(chunk, filled);
    filled += chunk.byteLength;
  }
  if (filled !== bytes.byteLength) throw changedSize(destination, file);
  return { ...fetched, chunks: [bytes] };
}

function changedSize(destination: Destination, file: ChainFile): DestinationError {
  return new DestinationError(
    `${destination.url}: expected ${file.sizeBytes} bytes in ${file.key}, found another size`,
    {
      retryable: true,
      hint: "The object was replaced while it was read. Run the command again.",
    },
  );
}
