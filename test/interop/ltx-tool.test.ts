// Goal: our files are true LTX. The public `ltx` tool verifies and applies what we write, and we read what it writes.
// https://github.com/superfly/ltx
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { ChecksumAccumulator, EMPTY_DATABASE_CHECKSUM, pageChecksum } from "../../src/ltx/checksum.ts";
import { compactLtx } from "../../src/ltx/compactor.ts";
import { LtxDecoder, type LtxSummary } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import type { LtxHeader } from "../../src/ltx/format.ts";
import { lockPgno } from "../../src/page.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const tool = requireTool("ltx");
const directory = tempDir();

function ltx(...args: string[]): { ok: boolean; output: string } {
  const run = Bun.spawnSync([tool!, ...args], { stdout: "pipe", stderr: "pipe" });
  return { ok: run.exitCode === 0, output: `${run.stdout}${run.stderr}` };
}

/** The pages of a closed database file, and its checksum. */
interface Image {
  pageSize: number;
  bytes: Buffer;
  commit: number;
  checksum: bigint;
}

function imageOf(path: string): Image {
  const bytes = readFileSync(path);
  const stored = bytes.readUInt16BE(16);
  const pageSize = stored === 1 ? 65536 : stored;
  const commit = bytes.length / pageSize;
  const sum = new ChecksumAccumulator();
  const halves = { hi: 0, lo: 0 };
  for (let pgno = 1; pgno <= commit; pgno++) {
    pageChecksum(pgno, pageOf({ bytes, pageSize }, pgno), halves);
    sum.xorPage(halves.hi, halves.lo);
  }
  return { pageSize, bytes, commit, checksum: sum.value() };
}

function pageOf({ bytes, pageSize }: Pick<Image, "bytes" | "pageSize">, pgno: number): Uint8Array {
  return bytes.subarray((pgno - 1) * pageSize, pgno * pageSize);
}

/** Writes the step from `before` (null: a snapshot) to `after` as an LTX file. */
function writeStep(path: string, txid: bigint, before: Image | null, after: Image, checksums: boolean): void {
  const head: LtxHeader = {
    flags: checksums ? 0 : 2,
    pageSize: after.pageSize,
    commit: after.commit,
    minTxid: txid,
    maxTxid: txid,
    timestampMs: 1_700_000_000_000 + Number(txid),
    preApplyChecksum: checksums && before !== null ? before.checksum : 0n,
    walOffset: 32,
    walSize: 4152,
    salt1: 1,
    salt2: 2,
    nodeId: 0n,
  };
  const fd = openSync(path, "w");
  const encoder = new LtxEncoder((bytes) => void writeSync(fd, bytes), head, { spoolPath: `${path}.spool` });
  for (let pgno = 1; pgno <= after.commit; pgno++) {
    const page = pageOf(after, pgno);
    const same = before !== null && pgno <= before.commit && Buffer.compare(page, pageOf(before, pgno)) === 0;
    if (!same) encoder.encodePage(pgno, page);
  }
  encoder.finish(checksums ? after.checksum : 0n);
  closeSync(fd);
  expect(statSync(path).size).toBe(encoder.sizeBytes);
}

function decode(path: string, onPage?: (pgno: number, page: Uint8Array) => void): LtxSummary {
  const bytes = readFileSync(path);
  const decoder = new LtxDecoder({ name: path, expectedSizeBytes: bytes.length, onPage });
  for (let at = 0; at < bytes.length; at += 10_000) decoder.push(bytes.subarray(at, at + 10_000));
  return decoder.finish();
}

/** Four states of one real database: filled, changed, shrunk, grown. */
function statesOf(name: string, pageSize: number): Image[] {
  const path = join(directory, `${name}.db`);
  const states: Image[] = [];
  const work = (sql: string[]): void => {
    const database = new Database(path);
    for (const statement of sql) database.run(statement);
    database.close();
    states.push(imageOf(path));
  };
  const fill = (from: number, to: number) =>
    `WITH RECURSIVE n(i) AS (VALUES(${from}) UNION ALL SELECT i + 1 FROM n WHERE i < ${to})
     INSERT INTO t SELECT i, 'row ' || i || hex(randomblob(200)) FROM n`;
  work([`PRAGMA page_size = ${pageSize}`, "CREATE TABLE t(id INTEGER PRIMARY KEY, text)", fill(1, 800)]);
  work(["UPDATE t SET text = 'changed' || text WHERE id % 50 = 0"]);
  work(["DELETE FROM t WHERE id > 200", "VACUUM"]);
  work([fill(1000, 1700)]);
  return states;
}

describe.skipIf(tool === null)("the public ltx tool", () => {
  test.each([512, 1024, 4096, 32768, 65536])("verifies and applies our files, page size %d", async (pageSize) => {
    for (const checksums of [true, false]) {
      const name = `ours-${pageSize}-${checksums}`;
      const states = statesOf(name, pageSize);
      expect(states[2]!.commit).toBeLessThan(states[1]!.commit);
      expect(states[3]!.commit).toBeGreaterThan(states[2]!.commit);
      const paths = states.map((_, i) => join(directory, `${name}-${i + 1}.ltx`));
      for (const [i, state] of states.entries()) {
        writeStep(paths[i]!, BigInt(i + 1), i === 0 ? null : states[i - 1]!, state, checksums);
      }
      expect(ltx("verify", ...paths)).toEqual({ ok: true, output: "ok\n" });

      const wanted = states[3]!.bytes;
      const applied = join(directory, `${name}-applied.db`);
      expect(ltx("apply", "-db", applied, ...paths)).toMatchObject({ ok: true });
      expect(Buffer.compare(readFileSync(applied), wanted)).toBe(0);

      // Merged: all of them, and the increments alone upon the snapshot.
      for (const [kind, from, base] of [
        ["all", 0, []],
        ["tail", 1, [paths[0]!]],
      ] as const) {
        const merged = join(directory, `${name}-${kind}.ltx`);
        const fd = openSync(merged, "w");
        await compactLtx(paths.slice(from), (bytes) => void writeSync(fd, bytes), { spoolPath: `${merged}.spool` });
        closeSync(fd);
        expect(ltx("verify", merged)).toEqual({ ok: true, output: "ok\n" });
        const result = join(directory, `${name}-${kind}.db`);
        expect(ltx("apply", "-db", result, ...base, merged)).toMatchObject({ ok: true });
        expect(Buffer.compare(readFileSync(result), wanted)).toBe(0);
      }
    }
  });

  test("refuses one of our files with a flipped bit in a checksum, as we do", () => {
    const [state] = statesOf("flipped", 4096);
    const path = join(directory, "flipped.ltx");
    writeStep(path, 1n, null, state!, true);
    const bytes = readFileSync(path);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(path, bytes);
    expect(ltx("verify", path).ok).toBe(false);
    expect(() => decode(path)).toThrow();
  });

  test("agrees with us about the checksum of a database", () => {
    const states = statesOf("checksum", 4096);
    const path = join(directory, "checksum.db");
    expect(ltx("checksum", path).output.trim()).toBe(states.at(-1)!.checksum.toString(16));
  });

  test.each([512, 4096, 65536])("writes snapshots that we read, page size %d", (pageSize) => {
    const name = `theirs-${pageSize}`;
    const state = statesOf(name, pageSize).at(-1)!;
    const path = join(directory, `${name}.ltx`);
    expect(ltx("encode-db", "-o", path, join(directory, `${name}.db`))).toMatchObject({ ok: true });
    let pages = 0;
    const { header, trailer, pageCount } = decode(path, (pgno, page) => {
      pages++;
      expect(Buffer.compare(page, pageOf(state, pgno))).toBe(0);
    });
    expect(header).toMatchObject({ pageSize, commit: state.commit, minTxid: 1n, maxTxid: 1n, flags: 0 });
    expect([pages, pageCount]).toEqual([state.commit, state.commit]);
    expect(trailer.postApplyChecksum).toBe(state.checksum);
  });

  test("verifies an increment beyond the lock page, and a database that became empty", () => {
    const pageSize = 65536;
    const lock = lockPgno(pageSize);
    const beyond = join(directory, "beyond.ltx");
    const fd = openSync(beyond, "w");
    const head: LtxHeader = {
      flags: 2,
      pageSize,
      commit: lock + 1,
      minTxid: 2n,
      maxTxid: 2n,
      timestampMs: 0,
      preApplyChecksum: 0n,
      walOffset: 0,
      walSize: 0,
      salt1: 0,
      salt2: 0,
      nodeId: 0n,
    };
    const encoder = new LtxEncoder((bytes) => void writeSync(fd, bytes), head);
    for (const pgno of [lock - 1, lock + 1]) encoder.encodePage(pgno, new Uint8Array(pageSize).fill(pgno));
    encoder.finish(0n);
    closeSync(fd);

    const empty = join(directory, "empty.ltx");
    writeFileSync(empty, "");
    const emptied = { ...head, flags: 0, commit: 0, preApplyChecksum: EMPTY_DATABASE_CHECKSUM | 1n };
    const last = new LtxEncoder((bytes) => writeFileSync(empty, bytes), emptied);
    last.finish(EMPTY_DATABASE_CHECKSUM);
    truncateSync(empty, last.sizeBytes);
    expect(ltx("verify", beyond, empty)).toEqual({ ok: true, output: "ok\n" });
  });
});
