/** The copying of a conversion: reads file after file in order, proves the state after each, and sends what is made of it. */
import { join } from "node:path";
import { type Chain, hashObject, type NamedFile, requireHeaderOfKey } from "../chain/chain.ts";
import { fetchInOrder } from "../chain/fetch.ts";
import { type ChainChecksums, claimedChecksums, type LayoutRules } from "../chain/layout-rules.ts";
import { type ManifestEntry, manifestEntry } from "../chain/manifest.ts";
import type { Destination } from "../destination/destination.ts";
import { WalsyncError } from "../errors.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import { HEADER_FLAG_NO_CHECKSUM, type LtxHeader } from "../ltx/format.ts";
import type { Txid } from "../ltx/txid.ts";
import type { ConversionPlan, ConversionStep, ConversionTarget } from "./convert-plan.ts";
import { ConvertedFile } from "./converted-file.ts";
import { StateProof } from "./state-proof.ts";

export interface CopyOptions {
  /** Of the copy. */
  name: string;
  /** An empty folder for temporary files: as large as the largest file, and some small ones. */
  folder: string;
  signal: AbortSignal;
  /** Bytes of the source. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Bytes of the copy, when it is read again at the end. */
  onProof?: ((done: number, total: number) => void) | undefined;
}

export class ReplicaCopy {
  copied = 0;
  existing = 0;
  bytes = 0;
  pageSize = 0;
  readonly entries: ManifestEntry[] = [];
  readonly #source: Destination;
  readonly #target: Destination;
  readonly #rules: LayoutRules;
  readonly #present: ReadonlySet<string>;
  readonly #options: CopyOptions;
  readonly #state = new StateProof();
  /** Database checksum after each txid that a file ends at. */
  readonly #states = new Map<Txid, bigint>();
  readonly #sending = new Set<Promise<void>>();
  #failure: unknown = null;
  #made = 0;
  #doneBytes = 0;

  constructor(
    source: Destination,
    target: Destination,
    rules: LayoutRules,
    present: ReadonlySet<string>,
    options: CopyOptions,
  ) {
    this.#source = source;
    this.#target = target;
    this.#rules = rules;
    this.#present = present;
    this.#options = options;
  }

  async run(chain: Chain, { steps }: ConversionPlan): Promise<void> {
    const { signal, onProgress } = this.#options;
    const files = steps.map(({ file }) => file);
    const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    let turn = 0;
    try {
      for await (const { chunks, metadata } of fetchInOrder(this.#source, files, signal)) {
        await this.#take(chain, steps[turn++]!, chunks, metadata, (bytes) => {
          this.#doneBytes += bytes;
          onProgress?.(this.#doneBytes, totalBytes);
        });
      }
    } finally {
      await Promise.allSettled(this.#sending);
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** Reads one file, and sends what becomes of it on its way. */
  async #take(
    { name }: Chain,
    { file, targets }: ConversionStep,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    metadata: Record<string, string>,
    onBytes: (bytes: number) => void,
  ): Promise<void> {
    const outputs: ConvertedFile[] = [];
    const hasher = new Bun.CryptoHasher("sha256");
    const decoder = new LtxDecoder({
      name: file.key,
      expectedSizeBytes: file.sizeBytes,
      onHeader: (header) => {
        requireHeaderOfKey(file, header);
        this.#state.begin(header);
        this.pageSize = header.pageSize;
        for (const target of targets) outputs.push(this.#begin(header, target));
      },
      onPage: (pgno, page, checksum) => {
        this.#state.page(pgno, checksum);
        for (const output of outputs) output.page(pgno, page, checksum);
      },
    });
    try {
      for await (const chunk of chunks) {
        hasher.update(chunk);
        decoder.push(chunk);
        onBytes(chunk.byteLength);
      }
      const ends = decoder.finish();
      const fault = this.#state.end(ends.header, claimedChecksums({ ...ends, metadata }).post);
      if (fault !== null) throw damaged(name, file.key, fault);
      const { sha256 } = metadata;
      const found = hasher.digest("hex");
      if ((sha256 ?? found) !== found) throw damaged(name, file.key, `expected sha256 ${sha256}, found ${found}`);
    } catch (error) {
      for (const output of outputs) output.abort();
      throw error;
    }
    const post = this.#state.checksum;
    this.#states.set(file.maxTxid, post);
    for (const [i, output] of outputs.entries()) {
      const target = targets[i]!;
      const finished = output.finish(this.#rules.checksumsInFiles ? post : 0n);
      const checksums = { pre: this.#preOf(target), post };
      await this.#send({ target, file: output, ...finished, commits: Number(metadata.commits ?? 0), checksums });
    }
  }

  #begin(header: LtxHeader, target: ConversionTarget): ConvertedFile {
    const { minTxid, maxTxid } = target;
    const flags = header.flags & ~HEADER_FLAG_NO_CHECKSUM;
    const full: LtxHeader = { ...header, flags, minTxid, maxTxid, preApplyChecksum: this.#preOf(target) };
    const place = header.walOffset === 0 ? this.#rules.placeOfScan(null) : {};
    const path = join(this.#options.folder, `${this.#made++}.ltx`);
    return new ConvertedFile(path, this.#rules.headerInFile({ ...full, ...place }));
  }

  /** 0 before a snapshot, and for the one file that only the end of the chain is told by. */
  #preOf({ minTxid }: ConversionTarget): bigint {
    return minTxid === 1n ? 0n : (this.#states.get(minTxid - 1n) ?? 0n);
  }

  async #send(ready: Ready): Promise<void> {
    while (this.#sending.size >= UPLOADS_AT_ONCE) await Promise.race(this.#sending);
    if (this.#failure !== null) {
      ready.file.remove();
      throw this.#failure;
    }
    const sending = this.#put(ready)
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => {
        ready.file.remove();
        this.#sending.delete(sending);
      });
    this.#sending.add(sending);
    // Whether the name is ours shows at the first file that is there: nothing is sent until that is known.
    if (this.#present.has(ready.target.key) && this.existing === 0) await sending;
  }

  async #put({ target: { key, minTxid, maxTxid }, file, sizeBytes, sha256, commits, checksums }: Ready): Promise<void> {
    const { signal, name } = this.#options;
    const { timestampMs } = file.header;
    const write = async (): Promise<boolean> => {
      const attributes = this.#rules.attributesOf({ sha256, commits, checksums, timestampMs });
      const source = { kind: "file", path: file.path, sizeBytes } as const;
      const result = await this.#target.write(key, source, { condition: "absent", ...attributes, signal });
      return result.kind === "written";
    };
    const isThere = this.#present.has(key) || !(await write());
    if (isThere) await requireSame(this.#target, { key, minTxid, maxTxid }, sha256, signal);
    if (isThere) this.existing++;
    else this.copied++;
    this.bytes += sizeBytes;
    const facts = { sizeBytes, timestampMs, sha256, checksums };
    this.entries.push(manifestEntry(name, key, { minTxid, maxTxid }, facts));
  }
}

// --- internal ---

/** Files on their way at once. */
const UPLOADS_AT_ONCE = 8;

/** A file that is complete on disk. */
interface Ready {
  target: ConversionTarget;
  file: ConvertedFile;
  sizeBytes: number;
  sha256: string;
  commits: number;
  checksums: ChainChecksums;
}

/** The same source gives the same bytes, so what is there is ours if they are. Throws E_OUTPUT_EXISTS. */
async function requireSame(target: Destination, file: NamedFile, sha256: string, signal: AbortSignal): Promise<void> {
  const head = await target.head(file.key, { signal });
  const found = head?.metadata.sha256 ?? (await hashObject(target, file, signal));
  if (found === sha256) return;
  throw new WalsyncError("E_OUTPUT_EXISTS", `${target.url}/${file.key}: expected our copy, found another file`, {
    hint: "Something else has this name. Give the copy another one with --as.",
  });
}

function damaged(name: string, key: string, fault: string): WalsyncError {
  return new WalsyncError("E_INTEGRITY", `${key}: ${fault}`, {
    hint: `Nothing of it is copied. See what is wrong with: walsync verify ${name}`,
  });
}
