/**
 * WAL files byte by byte, for tests: a reader straight from the format's definition, and a way to make WALs that no
 * SQLite of this machine writes. Spec: https://www.sqlite.org/fileformat2.html#walformat
 */
const HEADER_SIZE = 32;
const FRAME_HEADER_SIZE = 24;

export interface CraftedFrame {
  pgno: number;
  /** Pages after commit; 0 if the transaction goes on. */
  commit: number;
  page: Uint8Array;
}

/** Checksum over 32-bit words, in arithmetic that cannot overflow unnoticed. */
export function slowChecksum(
  bytes: Uint8Array,
  bigEndian: boolean,
  seed: [bigint, bigint] = [0n, 0n],
): [bigint, bigint] {
  let [s0, s1] = seed;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.byteLength; at += 8) {
    s0 = (s0 + BigInt(view.getUint32(at, !bigEndian)) + s1) % 2n ** 32n;
    s1 = (s1 + BigInt(view.getUint32(at + 4, !bigEndian)) + s0) % 2n ** 32n;
  }
  return [s0, s1];
}

/** A WAL of these frames. */
export function craftWal(
  pageSize: number,
  frames: readonly CraftedFrame[],
  { bigEndian = false, salt1 = 7, salt2 = 0xfedcba98 } = {},
): Buffer {
  const wal = Buffer.alloc(HEADER_SIZE + frames.length * (FRAME_HEADER_SIZE + pageSize));
  wal.writeUInt32BE(3007000, 4);
  wal.writeUInt32BE(pageSize, 8);
  wal.writeUInt32BE(salt1, 16);
  wal.writeUInt32BE(salt2, 20);
  frames.forEach(({ pgno, commit, page }, i) => {
    const at = HEADER_SIZE + i * (FRAME_HEADER_SIZE + pageSize);
    wal.writeUInt32BE(pgno, at);
    wal.writeUInt32BE(commit, at + 4);
    wal.writeUInt32BE(salt1, at + 8);
    wal.writeUInt32BE(salt2, at + 12);
    wal.set(page, at + FRAME_HEADER_SIZE);
  });
  return resealed(wal, pageSize, bigEndian);
}

/** A copy of `wal` with every checksum made anew, in the given byte order. */
export function resealed(wal: Uint8Array, pageSize: number, bigEndian: boolean): Buffer {
  const copy = Buffer.from(wal);
  copy.writeUInt32BE(bigEndian ? 0x377f0683 : 0x377f0682, 0);
  let sum = slowChecksum(copy.subarray(0, 24), bigEndian);
  const put = (at: number) => sum.forEach((half, i) => void copy.writeUInt32BE(Number(half), at + 4 * i));
  put(24);
  const frameSize = FRAME_HEADER_SIZE + pageSize;
  for (let at = HEADER_SIZE; at + frameSize <= copy.length; at += frameSize) {
    sum = slowChecksum(copy.subarray(at, at + 8), bigEndian, sum);
    sum = slowChecksum(copy.subarray(at + FRAME_HEADER_SIZE, at + frameSize), bigEndian, sum);
    put(at + 16);
  }
  return copy;
}

/** Page number and commit size of each frame of an undamaged WAL, and where the frame starts. */
export function framesOf(wal: Buffer, pageSize: number): { pgno: number; commit: number; offset: number }[] {
  const frames = [];
  for (
    let offset = HEADER_SIZE;
    offset + FRAME_HEADER_SIZE + pageSize <= wal.length;
    offset += FRAME_HEADER_SIZE + pageSize
  ) {
    frames.push({ pgno: wal.readUInt32BE(offset), commit: wal.readUInt32BE(offset + 4), offset });
  }
  return frames;
}
