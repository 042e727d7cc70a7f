/** One file of a copy while it is made: encoded into a temporary file, hashed on the way. */
import { closeSync, rmSync } from "node:fs";
import { asDiskError, openTempFile, writeFully } from "../durable.ts";
import type { U64Halves } from "../ltx/checksum.ts";
import { LtxEncoder } from "../ltx/encoder.ts";
import type { LtxHeader } from "../ltx/format.ts";

export class ConvertedFile {
  readonly header: LtxHeader;
  readonly path: string;
  readonly #fd: number;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  readonly #encoder: LtxEncoder;

  /** `path` is a temporary file that is made, `header` the one that is written. Throws E_DISK. */
  constructor(path: string, header: LtxHeader) {
    this.path = path;
    this.header = header;
    try {
      this.#fd = openTempFile(path);
    } catch (error) {
      throw asDiskError(path, error);
    }
    this.#encoder = new LtxEncoder((bytes) => this.#write(bytes), header, { spoolPath: `${path}.index` });
  }

  page(pgno: number, page: Uint8Array, checksum: Readonly<U64Halves>): void {
    this.#encoder.encodePage(pgno, page, checksum);
  }

  /** `postApplyChecksum`: 0 in a layout that keeps none. */
  finish(postApplyChecksum: bigint): { sizeBytes: number; sha256: string } {
    this.#encoder.finish(postApplyChecksum);
    closeSync(this.#fd);
    return { sizeBytes: this.#encoder.sizeBytes, sha256: this.#hasher.digest("hex") };
  }

  abort(): void {
    this.#encoder.abort();
    closeSync(this.#fd);
    this.remove();
  }

  remove(): void {
    rmSync(this.path, { force: true });
  }

  #write(bytes: Uint8Array): void {
    this.#hasher.update(bytes);
    try {
      writeFully(this.#fd, bytes);
    } catch (error) {
      throw asDiskError(this.path, error);
    }
  }
}
