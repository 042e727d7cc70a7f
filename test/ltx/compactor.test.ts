// Goal: applying a merged file does what applying its inputs in order does, byte for byte, and inputs that do not belong
// together, or are damaged anywhere, never make a result.
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { ChainGapError, LtxError } from "../../src/errors.ts";
import { CHECKSUM_FLAG } from "../../src/ltx/checksum.ts";
import { type CompactResult, compactLtx } from "../../src/ltx/compactor.ts";
import { tempDir } from "../support/temp.ts";
import {
  applyFile,
  databaseChecksum,
  decodeFile,
  encodeFile,
  header,
  type ModelDatabase,
  makePage,
  type PageMap,
} from "./make.ts";

const directory = tempDir();

const PAGE_SIZE = 512;
const EMPTY: ModelDatabase = { pageSize: PAGE_SIZE, commit: 0, pages: new Map() };

/** One change set: the new size, and which pages are written besides those that the growth adds. */
interface Step {
  commit: number;
  touched: number[];
}

/** The files of a history that begins with a snapshot, as a capture writes them: a page that growth adds is always there. */
function filesOf(
  steps: readonly Step[],
  checksums: boolean,
  seed: number,
): { files: Uint8Array[]; states: ModelDatabase[] } {
  let state = EMPTY;
  const files: Uint8Array[] = [];
  const states = [state];
  for (const [i, step] of steps.entries()) {
    const pages: PageMap = new Map();
    for (let pgno = 1; pgno <= step.commit; pgno++) {
      if (i === 0 || pgno > state.commit || step.touched.includes(pgno)) {
        pages.set(pgno, makePage(PAGE_SIZE, seed + 1000 * i + pgno));
      }
    }
    const after = new Map([...state.pages, ...pages]);
    for (const pgno of after.keys()) if (pgno > step.commit) after.delete(pgno);
    const next = { pageSize: PAGE_SIZE, commit: step.commit, pages: after };
    const head = header({
      flags: checksums ? 0 : 2,
      commit: step.commit,
      minTxid: BigInt(i + 1),
      maxTxid: BigInt(i + 1),
      timestampMs: 1000 + i,
      preApplyChecksum: checksums && i > 0 ? databaseChecksum(state) : 0n,
      walOffset: 32 + i,
      walSize: 77,
      salt1: 9,
      salt2: 8,
      nodeId: 5n,
    });
    files.push(encodeFile(head, pages, checksums ? databaseChecksum(next) : 0n));
    states.push(next);
    state = next;
  }
  return { files, states };
}

let fileCount = 0;

async function merge(files: readonly Uint8Array[]): Promise<CompactResult & { bytes: Uint8Array }> {
  const paths = files.map((bytes) => {
    const path = join(directory, `${fileCount++}.ltx`);
    writeFileSync(path, bytes);
    return path;
  });
  const pieces: Uint8Array[] = [];
  const result = await compactLtx(paths, (bytes) => void pieces.push(bytes.slice()));
  return { ...result, bytes: Buffer.concat(pieces) };
}

async function faultOf(files: readonly Uint8Array[]): Promise<unknown> {
  try {
    await merge(files);
  } catch (error) {
    return error;
  }
  return null;
}

const step = fc.record({
  commit: fc.integer({ min: 1, max: 8 }),
  touched: fc.uniqueArray(fc.integer({ min: 1, max: 8 })),
});
const history = fc.array(step, { minLength: 1, maxLength: 6 });

test("applying the merged file is applying its inputs in order, for any run of any history", async () => {
  await fc.assert(
    fc.asyncProperty(
      history,
      fc.boolean(),
      fc.nat(),
      fc.nat(),
      fc.nat(1 << 30),
      async (steps, checksums, a, b, seed) => {
        const { files, states } = filesOf(steps, checksums, seed);
        const first = a % files.length;
        const last = first + (b % (files.length - first));
        const inputs = files.slice(first, last + 1);
        const merged = await merge(inputs);
        const found = applyFile(states[first]!, merged.bytes);
        expect(found).toEqual(states[last + 1]!);

        const [head, tail] = [decodeFile(inputs[0]!), decodeFile(inputs.at(-1)!)];
        const file = decodeFile(merged.bytes);
        expect(file.header).toEqual({
          ...tail.header,
          minTxid: head.header.minTxid,
          preApplyChecksum: head.header.preApplyChecksum,
          walOffset: 0,
          walSize: 0,
          salt1: 0,
          salt2: 0,
          nodeId: 0n,
        });
        expect(file.trailer.postApplyChecksum).toBe(tail.trailer.postApplyChecksum);
        expect(merged).toMatchObject({
          header: file.header,
          trailer: file.trailer,
          pageCount: file.pageCount,
          sizeBytes: merged.bytes.length,
        });
      },
    ),
    { numRuns: 150 },
  );
});

test("merging in rounds is merging at once", async () => {
  await fc.assert(
    fc.asyncProperty(history, fc.nat(), fc.nat(1 << 30), async (steps, cut, seed) => {
      const { files } = filesOf(steps, true, seed);
      const at = 1 + (cut % files.length);
      const front = await merge(files.slice(0, at));
      const rounds = await merge([front.bytes, ...files.slice(at)]);
      expect(rounds.bytes).toEqual((await merge(files)).bytes);
    }),
    { numRuns: 60 },
  );
});

describe("a database that shrinks and grows again", () => {
  const { files, states } = filesOf(
    [
      { commit: 6, touched: [] },
      { commit: 6, touched: [4, 5] },
      { commit: 3, touched: [1] },
      { commit: 5, touched: [2] },
    ],
    true,
    42,
  );

  test("does not get its old pages back", async () => {
    const { bytes } = await merge(files.slice(1));
    expect(applyFile(states[1]!, bytes)).toEqual(states[4]!);
  });

  test("is refused if a page of the growth is in no file, in a snapshot and in an increment", async () => {
    const grown = decodeFile(files[3]!);
    grown.pages.delete(4);
    const holed = encodeFile(grown.header, grown.pages, grown.trailer.postApplyChecksum);
    for (const inputs of [
      [...files.slice(0, 3), holed],
      [...files.slice(1, 3), holed],
    ]) {
      const error = await faultOf(inputs);
      expect(error).toBeInstanceOf(LtxError);
      expect((error as LtxError).message).toContain("expected page 4 of 5");
    }
  });
});

describe("refused:", () => {
  const steps = [1, 2, 3, 4].map((touched) => ({ commit: 4, touched: [touched] }));
  const { files } = filesOf(steps, true, 7);
  const plain = filesOf(steps, false, 7).files;

  test("a gap, an overlap, and the wrong order", async () => {
    for (const inputs of [
      [files[0]!, files[2]!],
      [files[0]!, files[0]!],
      [files[2]!, files[1]!],
      [(await merge(files.slice(0, 2))).bytes, files[1]!],
    ]) {
      expect(await faultOf(inputs)).toBeInstanceOf(ChainGapError);
    }
  });

  test("a file that begins at another database", async () => {
    const { header: head, pages, trailer } = decodeFile(files[2]!);
    const other = encodeFile({ ...head, preApplyChecksum: CHECKSUM_FLAG | 1n }, pages, trailer.postApplyChecksum);
    expect(await faultOf([files[1]!, other])).toBeInstanceOf(ChainGapError);
  });

  test("files with and without checksums", async () => {
    expect(await faultOf([plain[1]!, files[2]!])).toBeInstanceOf(LtxError);
    expect(await faultOf([files[1]!, plain[2]!])).toBeInstanceOf(LtxError);
  });

  test("another page size", async () => {
    const head = header({ pageSize: 1024, commit: 4, minTxid: 3n, maxTxid: 3n });
    expect(await faultOf([plain[1]!, encodeFile(head, new Map([[1, makePage(1024, 1)]]), 0n)])).toBeInstanceOf(
      LtxError,
    );
  });

  test("a result that is not the database which the last file promises", async () => {
    const { header: head, pages } = decodeFile(files[1]!);
    expect(await faultOf([files[0]!, encodeFile(head, pages, CHECKSUM_FLAG | 77n)])).toBeInstanceOf(LtxError);
  });

  test("one flipped bit in any input, unless it stands for the same page", async () => {
    const whole = (await merge(files.slice(1))).bytes;
    for (let i = 0; i < 400; i++) {
      const damaged = files[2]!.slice();
      const bit = (i * 7919) % (8 * damaged.length);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      try {
        expect((await merge([files[1]!, damaged, files[3]!])).bytes).toEqual(whole);
      } catch (error) {
        if (!(error instanceof LtxError) && !(error instanceof ChainGapError))
          throw new Error(`bit ${bit}`, { cause: error });
      }
    }
  });

  test("an input cut short, or with bytes after its end", async () => {
    for (const size of [0, 99, 130, 131, files[2]!.length - 1]) {
      expect(await faultOf([files[1]!, files[2]!.subarray(0, size)])).toBeInstanceOf(LtxError);
    }
    expect(await faultOf([files[1]!, Buffer.concat([files[2]!, files[2]!])])).toBeInstanceOf(LtxError);
  });

  test("a file that is not there", async () => {
    await expect(compactLtx([join(directory, "missing.ltx")], () => {})).rejects.toMatchObject({ code: "E_DISK" });
  });
});
