// Goal: what lies at the destination are age files that the age tool and the public ltx tool read, that tell nothing of what is
// in them, and that nobody can change unnoticed.
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  CHUNK_BYTES,
  chunkCount,
  HEADER_BYTES,
  MAX_RECIPIENTS,
  PAYLOAD_OFFSET,
  parseHeader,
  plainSize,
  TAG_BYTES,
} from "../../src/destination/age-format.ts";
import { type KeyPlaces, readKeys } from "../../src/destination/age-keys.ts";
import { sealBytes } from "../../src/destination/age-seal.ts";
import { DirectoryDestination } from "../../src/destination/directory.ts";
import { collectText, rejection, text } from "../conformance/helpers.ts";
import { tempDir } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { encryptedWith, makeKeys } from "./make.ts";

const folder = tempDir();
const keys = await makeKeys(join(folder, "key.txt"));
const other = await makeKeys(join(folder, "other.txt"));
const age = requireTool("age");
let count = 0;

function makePlace(identityFile: string | null = keys.identityFile) {
  const root = join(folder, `place${count++}`);
  const inner = new DirectoryDestination(root);
  const options = { recipients: [keys.recipient], ...(identityFile !== null && { identityFile }) };
  return { root, inner, destination: encryptedWith(inner, options) };
}

describe("an object", () => {
  test
    .skipIf(age === null)
    .each([0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 20 * CHUNK_BYTES + 5])(
    "of %d bytes is what the age tool decrypts to the same bytes, and no more than its frame larger",
    async (sizeBytes) => {
      const { root, destination } = makePlace();
      const bytes = randomBytes(sizeBytes);
      const path = join(folder, "source");
      writeFileSync(path, bytes);
      await destination.write("one", { kind: "file", path, sizeBytes }, { metadata: { commits: "3" } });
      const output = join(folder, "decrypted");
      const found = spawnSync(age!, ["-d", "-i", keys.identityFile, "-o", output, join(root, "one")]);
      expect([found.status, found.stderr.toString()]).toEqual([0, ""]);
      expect(readFileSync(output).equals(bytes)).toBe(true);
      const stored = readFileSync(join(root, "one")).length;
      expect(stored).toBe(PAYLOAD_OFFSET + sizeBytes + TAG_BYTES * chunkCount(sizeBytes));
      expect(plainSize(stored)).toBe(sizeBytes);
    },
  );

  test("has a header of one size, whatever is kept with it and however many it is for, and tells that", async () => {
    const pairs = await Promise.all(Array.from({ length: MAX_RECIPIENTS }, (_, i) => makeKeys(join(folder, `m${i}`))));
    for (let recipients = 1; recipients <= MAX_RECIPIENTS; recipients++) {
      for (const metadata of [
        {},
        { timestamp: "2026-01-02T03:04:05.678Z", commits: "4000000000", state: "ab".repeat(16) },
      ]) {
        const sealed = await sealBytes(
          Buffer.from("x"),
          pairs.slice(0, recipients).map((pair) => pair.recipient),
          metadata,
        );
        expect(sealed.length).toBe(PAYLOAD_OFFSET + 1 + TAG_BYTES);
        expect(parseHeader(sealed.subarray(0, HEADER_BYTES))).toEqual({ kind: "ours", metadata });
      }
    }
  });

  test("is of each recipient, and of nobody else", async () => {
    const { inner } = makePlace();
    await encryptedWith(inner, { recipients: [keys.recipient, other.recipient] }).write("both", text("for two"));
    for (const { identityFile } of [keys, other]) {
      expect(await collectText(await encryptedWith(inner, { recipients: [], identityFile }).read("both"))).toBe(
        "for two",
      );
    }
    const stranger = await makeKeys(join(folder, "stranger.txt"));
    const reading = encryptedWith(inner, { recipients: [], identityFile: stranger.identityFile }).read("both");
    expect(await rejection(reading)).toMatchObject({ code: "E_IDENTITY" });
  });

  test("is other bytes each time, and holds neither the file nor its sha256", async () => {
    const { root, destination } = makePlace();
    const plain = "a secret of the application ".repeat(20);
    const sha256 = new Bun.CryptoHasher("sha256").update(plain).digest("hex");
    const [first, second] = [await destination.write("one", text(plain)), await destination.write("two", text(plain))];
    const objects = ["one", "two"].map((key) => readFileSync(join(root, key)));
    expect(objects[0]!.equals(objects[1]!)).toBe(false);
    for (const [i, object] of objects.entries()) {
      expect(object.toString("latin1")).not.toContain("secret of the");
      expect(object.toString("latin1")).not.toContain(sha256);
      const stored = new Bun.CryptoHasher("sha256").update(object).digest("hex");
      expect([first, second][i]).toMatchObject({ kind: "written", storedSha256: stored });
    }
  });
});

describe("whoever may write to the destination", () => {
  const sizeBytes = 2 * CHUNK_BYTES + 100;

  test("cannot change a byte of the payload, move, drop or repeat a chunk unnoticed", async () => {
    const { root, destination } = makePlace();
    await destination.write("whole", { kind: "bytes", bytes: randomBytes(sizeBytes) });
    const whole = readFileSync(join(root, "whole"));
    const sealedChunk = CHUNK_BYTES + TAG_BYTES;
    const chunk = (i: number) =>
      whole.subarray(PAYLOAD_OFFSET + i * sealedChunk, PAYLOAD_OFFSET + (i + 1) * sealedChunk);
    const head = whole.subarray(0, PAYLOAD_OFFSET);
    const flipped = (at: number) => {
      const copy = Buffer.from(whole);
      copy[at]! ^= 1;
      return copy;
    };
    const damaged: [string, Buffer][] = [
      ["swapped", Buffer.concat([head, chunk(1), chunk(0), chunk(2)])],
      ["dropped in the middle", Buffer.concat([head, chunk(0), chunk(2)])],
      ["cut behind a whole chunk", Buffer.concat([head, chunk(0), chunk(1)])],
      ["cut inside a chunk", whole.subarray(0, whole.length - 50)],
      ["a chunk too many", Buffer.concat([whole, chunk(2)])],
      ["the nonce", flipped(HEADER_BYTES + 3)],
      ["the mac of the header", flipped(HEADER_BYTES - 20)],
      ["what is kept with it", Buffer.from(whole.toString("latin1").replace("pad=-", "pad=_"), "latin1")],
      ...Array.from({ length: 25 }, (_, i): [string, Buffer] => {
        const at = PAYLOAD_OFFSET + Math.floor(((whole.length - PAYLOAD_OFFSET - 1) * i) / 24);
        return [`byte ${at}`, flipped(at)];
      }),
    ];
    for (const [what, bytes] of damaged) {
      writeFileSync(join(root, "whole"), bytes);
      const reading = (async () => collectText(await destination.read("whole")))();
      expect([what, await rejection(reading)]).toMatchObject([what, { code: "E_INTEGRITY" }]);
    }
  });

  test("cannot have a part of another object taken for one of this", async () => {
    const { root, destination } = makePlace();
    for (const key of ["a", "b"]) await destination.write(key, { kind: "bytes", bytes: randomBytes(sizeBytes) });
    const [a, b] = ["a", "b"].map((key) => readFileSync(join(root, key)));
    const lastOf = (object: Buffer) => object.subarray(-(100 + TAG_BYTES));
    writeFileSync(join(root, "a"), Buffer.concat([a!.subarray(0, -(100 + TAG_BYTES)), lastOf(b!)]));
    const reading = (async () => collectText(await destination.read("a", { range: { first: -10 } })))();
    expect(await rejection(reading)).toMatchObject({ code: "E_INTEGRITY" });
  });

  test.each([
    ["a file in the clear", () => randomBytes(500)],
    ["nothing", () => Buffer.alloc(0)],
    ["the beginning of one", (whole: Buffer) => whole.subarray(0, 900)],
    ["the header of one", (whole: Buffer) => whole.subarray(0, HEADER_BYTES)],
  ])("cannot have %s taken for an encrypted file", async (_law, damage) => {
    const { root, destination } = makePlace();
    await destination.write("one", text("x"));
    writeFileSync(join(root, "one"), damage(readFileSync(join(root, "one"))));
    expect(await rejection(destination.read("one"))).toMatchObject({ code: "E_INTEGRITY" });
  });

  test("gets an answer for any bytes: an error, or the file", async () => {
    const { root, destination } = makePlace();
    await destination.write("one", text("x".repeat(300)));
    const whole = readFileSync(join(root, "one"));
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.uint8Array({ maxLength: 40 }), async (at, bytes) => {
        writeFileSync(
          join(root, "one"),
          Buffer.concat([whole.subarray(0, at), bytes, whole.subarray(at + bytes.length)]),
        );
        const isSame = readFileSync(join(root, "one")).equals(whole);
        try {
          await collectText(await destination.read("one"));
          expect(isSame).toBe(true);
        } catch (error) {
          expect(["E_INTEGRITY", "E_IDENTITY"]).toContain((error as { code: string }).code);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe("without an identity", () => {
  test("there are names, sizes and what is kept with a file, and no bytes", async () => {
    const { destination } = makePlace(null);
    await destination.write("one", text("hello"), { metadata: { commits: "2" } });
    expect(destination.capabilities).toMatchObject({ encryption: "sealed", metadata: true });
    expect(await destination.head("one")).toMatchObject({ sizeBytes: 5, metadata: { commits: "2" } });
    for (const options of [{}, { range: { first: 0, last: 1 } }, { range: { first: -2 } }]) {
      expect(await rejection(destination.read("one", options))).toMatchObject({ code: "E_IDENTITY" });
    }
    expect(await destination.read("two")).toBeNull();
  });
});

describe("keys", () => {
  const places: KeyPlaces = { recipients: [keys.recipient], recipientsFile: undefined, identityFile: undefined };

  test("may be in files with comments, several in one, and count once", () => {
    const path = join(folder, "recipients.txt");
    writeFileSync(path, `# ours\n${keys.recipient}\n\n  ${other.recipient}\n`);
    expect(readKeys({ ...places, recipientsFile: path }).recipients).toEqual([keys.recipient, other.recipient]);
  });

  test.each<[string, Partial<KeyPlaces>]>([
    [
      "a recipient with a typing error",
      { recipients: [`${keys.recipient.slice(0, -1)}${keys.recipient.endsWith("q") ? "p" : "q"}`] },
    ],
    ["a recipient of another kind", { recipients: ["ssh-ed25519 AAAA"] }],
    ["a secret key as a recipient", { recipients: [keys.identity] }],
    ["a file of recipients that is not there", { recipientsFile: join(folder, "none.txt") }],
    ["an identity file that is one of recipients", { identityFile: join(folder, "swapped.txt") }],
    ["an empty identity file", { identityFile: join(folder, "empty.txt") }],
    ["an identity with a typing error", { identityFile: join(folder, "typo.txt") }],
  ])("%s is E_CONFIG, and no secret is told", async (_law, given) => {
    writeFileSync(join(folder, "swapped.txt"), keys.recipient);
    writeFileSync(join(folder, "empty.txt"), "# nothing\n");
    writeFileSync(
      join(folder, "typo.txt"),
      keys.identity.replace(/.$/, (last) => (last === "Q" ? "P" : "Q")),
    );
    const error = await rejection((async () => readKeys({ ...places, ...given }))());
    expect(error).toMatchObject({ code: "E_CONFIG" });
    expect(Bun.inspect(error, { depth: 20 })).not.toContain(keys.identity.slice(0, 40));
  });

  test("of more recipients than the header has room for are refused", async () => {
    const many = await Promise.all(
      Array.from({ length: MAX_RECIPIENTS + 1 }, (_, i) => makeKeys(join(folder, `n${i}`))),
    );
    const reading = (async () => readKeys({ ...places, recipients: many.map(({ recipient }) => recipient) }))();
    expect(await rejection(reading)).toMatchObject({ code: "E_CONFIG" });
  });
});
