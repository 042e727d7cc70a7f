/** A small LTX file made of a real database in memory, and the proof that bytes that came back are that database. */
import { Database } from "bun:sqlite";
import { ChecksumAccumulator, pageChecksum } from "../ltx/checksum.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import { LtxEncoder } from "../ltx/encoder.ts";

export interface LtxSample {
  /** The database, every page of it. */
  database: Uint8Array;
  /** A snapshot of it as an LTX file. */
  file: Uint8Array;
}

export function makeSample(): LtxSample {
  const database = sampleDatabase();
  const commit = database.length / PAGE_SIZE;
  const pieces: Uint8Array[] = [];
  const encoder = new LtxEncoder((bytes) => pieces.push(bytes.slice()), {
    flags: 0,
    pageSize: PAGE_SIZE,
    commit,
    minTxid: 1n,
    maxTxid: 1n,
    timestampMs: Date.now(),
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    salt1: 0,
    salt2: 0,
    nodeId: 0n,
  });
  const checksum = new ChecksumAccumulator();
  const crc = { hi: 0, lo: 0 };
  for (let pgno = 1; pgno <= commit; pgno++) {
    const page = database.subarray((pgno - 1) * PAGE_SIZE, pgno * PAGE_SIZE);
    encoder.encodePage(pgno, page);
    pageChecksum(pgno, page, crc);
    checksum.xorPage(crc.hi, crc.lo);
  }
  encoder.finish(checksum.value());
  return { database, file: Buffer.concat(pieces) };
}

/** The database in an LTX file that is a snapshot. Throws LtxError if a rule of the format does not hold. */
export function decodeSample(file: Uint8Array): Uint8Array {
  const pages: Uint8Array[] = [];
  const decoder = new LtxDecoder({ onPage: (_pgno, page) => pages.push(page.slice()) });
  decoder.push(file);
  decoder.finish();
  return Buffer.concat(pages);
}

// --- internal ---

const PAGE_SIZE = 4096;

function sampleDatabase(): Uint8Array {
  const database = new Database(":memory:");
  try {
    database.run(`PRAGMA page_size = ${PAGE_SIZE}`);
    database.run("CREATE TABLE sample (id INTEGER PRIMARY KEY, body BLOB)");
    database.run("INSERT INTO sample (body) VALUES (randomblob(5000)), (zeroblob(5000)), ('walsync doctor')");
    return database.serialize();
  } finally {
    database.close();
  }
}
