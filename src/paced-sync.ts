/**
 * Takes a large file to the disk while it is being written, off this thread: the fsync at the end has little left to wait for,
 * and nobody else waits for a whole snapshot meanwhile.
 */
import { MiB } from "./bytes.ts";
import { syncFileAside } from "./durable.ts";

export class PacedSync {
  readonly #fd: number;
  readonly #path: string;
  /** Bytes that no fsync has begun for. */
  #unsynced = 0;
  /**
   * The last fsync that was begun. It may outlive the descriptor, if that is closed because of an error: then it fails, or
   * syncs another file of ours once more.
   */
  #syncing: Promise<void> = Promise.resolve();

  /** `path` is what the file is called. */
  constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /** Tells of bytes that were written. */
  wrote(sizeBytes: number): void {
    this.#unsynced += sizeBytes;
  }

  /** Between two parts: begins an fsync if that is worth it, and waits as long as the one before is under way. Rejects with E_DISK. */
  async pace(): Promise<void> {
    if (this.#unsynced < SYNC_EVERY) return;
    await this.#syncing;
    this.#begin();
  }

  /** After the last part: what is left for a `syncFile` is little. Rejects with E_DISK. */
  async finish(): Promise<void> {
    await this.#syncing;
    if (this.#unsynced < ASIDE_FROM) return;
    this.#begin();
    await this.#syncing;
  }

  #begin(): void {
    this.#unsynced = 0;
    this.#syncing = syncFileAside(this.#fd, this.#path);
    // Whoever waits for it is told. Nobody does if the writing ends early.
    this.#syncing.catch(() => {});
  }
}

// --- internal ---

const SYNC_EVERY = 16 * MiB;
/** Less than this is on the disk sooner than another thread has been asked. */
const ASIDE_FROM = MiB;
