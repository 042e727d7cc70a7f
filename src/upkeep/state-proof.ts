/**
 * The database as a chain makes it, known by one checksum a page: proves for file after file that applying it gives exactly
 * the database checksum that it claims, without ever writing a database. Eight bytes of memory a page.
 */
import { hex64 } from "../bytes.ts";
import { ChecksumAccumulator, type U64Halves } from "../ltx/checksum.ts";
import type { LtxHeader } from "../ltx/format.ts";
import type { Txid } from "../ltx/txid.ts";
import { pageCountWithoutLock } from "../page.ts";

/** What a file is to the state so far. */
export type Role =
  /** It holds every page: the state is what it says. */
  | "begins"
  /** It leads from the state to its own last txid. */
  | "continues"
  /** It ends where the state is already: another way to the same state. */
  | "repeats"
  /** Something between the state and it is missing. */
  | "stands-alone";

export class StateProof {
  /** The txid that is known; null before the first snapshot, and behind damage. */
  txid: Txid | null = null;
  #pageSize = 0;
  #commit = 0;
  #high = new Uint32Array(0);
  #low = new Uint32Array(0);
  readonly #sum = new ChecksumAccumulator();
  #role: Role = "stands-alone";
  /** Between `begin` and `end` of a file that changes the state. */
  #isBetween = false;
  #pages = 0;
  #differing = 0;
  /** Pages of the state that are known. */
  #held = 0;

  /** Database checksum of the state so far. */
  get checksum(): bigint {
    return this.#sum.value();
  }

  roleOf({ minTxid, maxTxid }: Pick<LtxHeader, "minTxid" | "maxTxid">): Role {
    if (this.txid !== null && maxTxid === this.txid) return "repeats";
    if (minTxid === 1n) return "begins";
    return this.txid !== null && minTxid <= this.txid + 1n ? "continues" : "stands-alone";
  }

  /** A file begins. Its pages change the state at once: call `abandon` if the file turns out to be damaged. */
  begin(header: LtxHeader): void {
    this.#role = this.roleOf(header);
    this.#pages = 0;
    this.#differing = 0;
    // After a VACUUM into another page size the increment holds every page.
    const isNew = this.#role === "begins" || (this.#role === "continues" && header.pageSize !== this.#pageSize);
    if (isNew) this.#clear(header.pageSize);
    this.#isBetween = this.#role === "begins" || this.#role === "continues";
    if (this.#isBetween) this.#resize(header.commit);
  }

  /** `checksum`: the page's, as `pageChecksum` gives it. */
  page(pgno: number, { hi, lo }: Readonly<U64Halves>): void {
    if (this.#role === "stands-alone") return;
    this.#pages++;
    const [oldHigh, oldLow] = [this.#high[pgno] ?? 0, this.#low[pgno] ?? 0];
    if (this.#role === "repeats") {
      if (oldHigh !== hi || oldLow !== lo) this.#differing++;
      return;
    }
    if (oldHigh === 0 && oldLow === 0) this.#held++;
    this.#sum.xorPage(oldHigh, oldLow);
    this.#sum.xorPage(hi, lo);
    this.#high[pgno] = hi;
    this.#low[pgno] = lo;
  }

  /** The file is whole. Returns what is wrong with the state that it claims, or null. `claimed`: 0 if it claims none. */
  end(header: LtxHeader, claimed: bigint): string | null {
    this.#isBetween = false;
    if (this.#role === "stands-alone") return null;
    const fault = this.#faultOf(header, claimed);
    if (this.#role === "repeats") return fault;
    this.txid = fault === null ? header.maxTxid : null;
    return fault;
  }

  /** Reading a file failed. If it had begun to change the state, that is not known any more until a file holds every page. */
  abandon(): void {
    if (this.#isBetween) this.txid = null;
    this.#isBetween = false;
  }

  #faultOf(header: LtxHeader, claimed: bigint): string | null {
    if (this.#differing > 0) {
      return `expected the pages that the files before give, found ${this.#differing} others`;
    }
    const { minTxid, commit, pageSize } = header;
    if (this.#role === "repeats" && (commit !== this.#commit || pageSize !== this.#pageSize)) {
      return `expected ${this.#commit} pages of ${this.#pageSize} bytes, found ${commit} of ${pageSize}`;
    }
    const all = pageCountWithoutLock(commit, pageSize);
    if (minTxid === 1n && this.#pages !== all) return `expected all ${all} pages, found ${this.#pages}`;
    if (this.#held !== all) return `expected all ${all} pages by now, found ${this.#held}`;
    const found = this.#sum.value();
    if (claimed === 0n || found === claimed) return null;
    return `expected database checksum ${hex64(claimed)} after it, found ${hex64(found)}`;
  }

  #clear(pageSize: number): void {
    this.#pageSize = pageSize;
    this.#commit = 0;
    this.#high.fill(0);
    this.#low.fill(0);
    this.#sum.reset();
    this.#held = 0;
  }

  /** What lies behind the end is no part of the database any more. */
  #resize(commit: number): void {
    for (let pgno = commit + 1; pgno <= this.#commit; pgno++) {
      if (this.#high[pgno] !== 0 || this.#low[pgno] !== 0) this.#held--;
      this.#sum.xorPage(this.#high[pgno]!, this.#low[pgno]!);
      this.#high[pgno] = 0;
      this.#low[pgno] = 0;
    }
    this.#commit = commit;
    if (commit < this.#high.length) return;
    // By half, so that a database that grows page by page is not copied each time.
    const length = Math.floor((commit + 1) * 1.5);
    this.#high = grown(this.#high, length);
    this.#low = grown(this.#low, length);
  }
}

// --- internal ---

function grown(from: Uint32Array, length: number): Uint32Array<ArrayBuffer> {
  const to = new Uint32Array(length);
  to.set(from);
  return to;
}
